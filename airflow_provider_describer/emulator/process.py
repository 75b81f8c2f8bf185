"""The emulator as a child process of a test: started on a free port, gone when the test is over."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LISTENING = "emulator listening on "
KEY = " key: "
STOP_SECONDS = 5.0
ANSWER_SECONDS = 60.0


class EmulatorError(RuntimeError):
    """The emulator did not start, or refused what it was told."""


class EmulatorProcess:
    """Both vendors on a free local port, for as long as the `with` block lasts.

    `url` is the base URL for either vendor, `keys` the accepted key by vendor name. Nothing but the standard
    library is needed on this side.
    """

    def __init__(
        self,
        *,
        image_describer_key: str | None = None,
        segmind_key: str | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        self.url = ""
        self.keys: dict[str, str] = {}
        self._arguments = [
            *(("--image-describer-key", image_describer_key) if image_describer_key else ()),
            *(("--segmind-key", segmind_key) if segmind_key else ()),
        ]
        self._start_timeout = start_timeout
        self._lines: deque[str] = deque(maxlen=200)
        self._settled = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        # A proxy from the environment would never reach this machine's loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the child and return when it answers; raise EmulatorError with its output otherwise."""
        if self._child is not None:
            raise EmulatorError("the emulator is already running")
        self.url, self.keys = "", {}
        self._lines.clear()
        self._settled.clear()
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-m", "airflow_provider_describer.emulator"),
                *("--port", "0", "--stop-with-parent", *self._arguments),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=child_environment(),
        )
        self._reader = threading.Thread(target=self._read_output, args=(self._child,), daemon=True)
        self._reader.start()
        in_time = self._settled.wait(self._start_timeout)
        if not self.url:
            output = self.output
            self.stop()
            problem = "ended" if in_time else f"said nothing for {self._start_timeout:g} s"
            raise EmulatorError(f"the emulator {problem} instead of listening:\n{output or self.output}")

    def stop(self) -> None:
        """Stop the child, by force if need be; harmless where it has stopped already."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin:
            child.stdin.close()
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if self._reader:
            self._reader.join(STOP_SECONDS)
        if child.stdout:
            child.stdout.close()

    @property
    def output(self) -> str:
        """The last lines the child has printed."""
        return "\n".join(self._lines)

    def ledger(self, entries: bool = True) -> dict[str, Any]:
        """Return what was asked and billed since the ledger was last cleared."""
        return self._ask("GET", f"/_emulator/ledger?entries={int(entries)}")

    def clear_ledger(self) -> None:
        """Forget all requests and sums; balances stay."""
        self._ask("DELETE", "/_emulator/ledger")

    def faults(self, settings: Mapping[str, Any]) -> None:
        """Put these faults in force in place of all others; raise EmulatorError where one is unknown."""
        self._ask("POST", "/_emulator/faults", dict(settings))

    def reset(self) -> None:
        """Go back to no faults, full balances and an empty ledger."""
        self._ask("DELETE", "/_emulator/faults")
        self.clear_ledger()

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  the URL is our own child's
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
            method=method,
        )
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            with error:
                raise EmulatorError(f"{method} {path}: {error.read().decode(errors='replace')}") from None

    def _read_output(self, child: subprocess.Popen[str]) -> None:
        # Read to the end, because a child whose pipe is full would stand still.
        for line in child.stdout or ():
            text = line.rstrip("\n")
            self._lines.append(text)
            if text.startswith(LISTENING):
                self.url = text.removeprefix(LISTENING)
                self._settled.set()
            elif KEY in text and not self.url:
                vendor, _, key = text.partition(KEY)
                self.keys[vendor] = key
        self._settled.set()


def child_environment() -> dict[str, str]:
    """Return our environment, with this package importable in it also where it is not installed."""
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([root, inherited] if inherited else [root])
    return environment
