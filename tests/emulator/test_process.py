from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.emulator import EmulatorProcess
from airflow_provider_describer.emulator import __main__ as command_line
from airflow_provider_describer.emulator.process import EmulatorError, child_environment

if TYPE_CHECKING:
    from tests.emulator.conftest import Caller

COMMAND = [sys.executable, "-m", "airflow_provider_describer.emulator"]


def started(*arguments: str) -> tuple[subprocess.Popen[str], list[str]]:
    child = subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    lines = []
    assert child.stdout is not None
    for line in child.stdout:
        lines.append(line.strip())
        if line.startswith("emulator listening on "):
            break
    return child, lines


def ended(child: subprocess.Popen[str]) -> int:
    try:
        return child.wait(60)
    finally:
        child.kill()
        child.communicate()


def test_what_it_prints_can_be_read_by_a_program() -> None:
    child, lines = started("--image-describer-key", "one", "--segmind-key", "two", "--stop-with-parent")
    assert "image_describer key: one" in lines
    assert "segmind key: two" in lines
    assert sum(line.startswith("emulator listening on http://127.0.0.1:") for line in lines) == 1
    child.terminate()
    assert ended(child) == 0


def test_keys_are_new_at_each_start() -> None:
    with EmulatorProcess() as one, EmulatorProcess() as other:
        assert set(one.keys) == {"image_describer", "segmind", "openai_compatible"}
        assert one.url != other.url
        assert not set(one.keys.values()) & set(other.keys.values())


def test_it_ends_when_its_stdin_is_closed() -> None:
    child, _ = started("--stop-with-parent")
    assert child.stdin is not None
    child.stdin.close()
    child.stdin = None
    assert ended(child) == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_requests_in_flight(
    call: Caller, eventually: Callable[[Callable[[], bool]], None], how: signal.Signals
) -> None:
    with EmulatorProcess(image_describer_key=call.emulator.keys["image_describer"]) as other:
        other.faults({"image_describer": {"latency_s": 3600}})
        call.http.base_url = other.url
        connection = call.send_only()
        eventually(lambda: other.ledger(entries=False)["in_flight"] == 1)
        child = other._child
        assert child is not None
        child.send_signal(how)
        assert child.wait(60) == 0
        assert connection.recv(100) == b""
        connection.close()
        assert "Traceback" not in other.output


def test_the_child_is_gone_after_a_failed_test() -> None:
    def failing_test() -> None:
        with emulator:
            children.append(emulator._child)
            raise ZeroDivisionError

    emulator = EmulatorProcess()
    children: list[subprocess.Popen[str] | None] = []
    with pytest.raises(ZeroDivisionError):
        failing_test()
    (child,) = children
    assert child is not None
    assert child.poll() is not None
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(emulator.url + "/_emulator/ledger")


def test_a_start_that_fails_shows_what_the_child_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "starlette"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a broken installation')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    emulator = EmulatorProcess()
    with pytest.raises(EmulatorError, match="a broken installation"):
        emulator.start()
    assert emulator._child is None


def test_it_starts_once_and_stops_twice() -> None:
    emulator = EmulatorProcess()
    emulator.start()
    with pytest.raises(EmulatorError, match="already running"):
        emulator.start()
    emulator.stop()
    emulator.stop()


def test_it_takes_no_proxy_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with EmulatorProcess() as emulator:
        assert emulator.ledger()["requests"] == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_hosts_that_others_can_reach_are_refused(host: str) -> None:
    with pytest.raises(SystemExit, match="--allow-remote"):
        command_line.main(["--host", host])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_hosts_are_taken(host: str) -> None:
    assert command_line.is_loopback(host)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "find_spec", lambda name: None if name == "PIL" else object())
    with pytest.raises(SystemExit, match=r"pillow: pip install 'airflow-provider-describer\[emulator\]'"):
        command_line.main([])


@pytest.mark.parametrize("port", ["x", "-1", "65536", "1.5"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["--port", port])
    assert "is not a port" in capsys.readouterr().err or port == "-1"


def test_a_port_in_use_is_a_readable_error(emulator: EmulatorProcess) -> None:
    port = emulator.url.rpartition(":")[2]
    ended_at_once = subprocess.run(
        [*COMMAND, "--port", port],
        capture_output=True,
        text=True,
        timeout=60,
        env=child_environment(),
        check=False,
    )
    assert ended_at_once.returncode == 1
    assert "cannot listen on 127.0.0.1" in ended_at_once.stderr
    assert "Traceback" not in ended_at_once.stderr


def test_it_imports_neither_airflow_nor_the_rest_of_the_package() -> None:
    script = (
        "import sys, airflow_provider_describer\n"
        "before = set(sys.modules)\n"
        "import airflow_provider_describer.emulator.server\n"
        "new = set(sys.modules) - before\n"
        "own = {m for m in new if m.startswith('airflow')}\n"
        "print(sorted(m for m in own if not m.startswith('airflow_provider_describer.emulator')))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env=child_environment(),
        check=True,
    )
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["--port", "0"]])
def test_a_reader_that_has_seen_enough_ends_it_without_a_word(arguments: list[str]) -> None:
    child = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=child_environment()
    )
    assert child.stdout and child.stderr
    child.stdout.close()
    assert (child.stderr.read(), child.wait(60)) == (b"", 0)
    child.stderr.close()
