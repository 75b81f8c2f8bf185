"""The emulator as a child process, for tests. This module needs nothing but the standard library."""

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
from typing import Any, Self

LISTENING = "emulator listening on "
KEY = " key: "
STOP_SECONDS = 5.0
ANSWER_SECONDS = 60.0


class EmulatorError(RuntimeError):
    """The emulator did not start, or refused a request."""


class EmulatorProcess:
    """The vendors on a free local port, for as long as the `with` block lasts.

    `url` is the base URL of the vendors, `keys` the accepted key of each. The OpenAI-compatible server is at
    `url` + ``/v1``.
    """

    def __init__(
        self,
        *,
        image_describer_key: str | None = None,
        segmind_key: str | None = None,
        openai_compatible_key: str | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        self.url = ""
        self.keys: dict[str, str] = {}
        self._arguments = [
            *(("--image-describer-key", image_describer_key) if image_describer_key else ()),
            *(("--segmind-key", segmind_key) if segmind_key else ()),
            *(("--openai-compatible-key", openai_compatible_key) if openai_compatible_key else ()),
        ]
        self._start_timeout = start_timeout
        self._lines: deque[str] = deque(maxlen=200)
        self._child: subprocess.Popen[str] | None = None
        # A proxy from the environment could not reach this machine's loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the child and return when it answers; raise EmulatorError with its output if it does not."""
        if self._child is not None:
            raise EmulatorError("the emulator is already running")
        self.url, self.keys = "", {}
        self._lines.clear()
        command = [sys.executable, "-m", "airflow_provider_describer.emulator", "--port", "0", "--stop-with-parent"]
        self._child = subprocess.Popen(
            [*command, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=child_environment(),
        )
        started = threading.Event()
        self._reader = threading.Thread(target=self._read_output, args=(self._child, started), daemon=True)
        self._reader.start()
        in_time = started.wait(self._start_timeout)
        if not self.url:
            self.stop()
            problem = "ended before it listened" if in_time else f"did not listen within {self._start_timeout:g} s"
            raise EmulatorError(f"the emulator {problem}. Its output:\n{self.output}")

    def stop(self) -> None:
        """Stop the child, by force if necessary; do nothing if it is not running."""
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
        self._reader.join(STOP_SECONDS)
        if child.stdout:
            child.stdout.close()

    @property
    def output(self) -> str:
        """The last lines that the child has printed."""
        return "\n".join(self._lines)

    def ledger(self, entries: bool = True) -> dict[str, Any]:
        """Return what was requested and billed since the ledger was last cleared."""
        return self._request("GET", f"/_emulator/ledger?entries={int(entries)}")

    def clear_ledger(self) -> None:
        """Forget all requests and sums; balances stay."""
        self._request("DELETE", "/_emulator/ledger")

    def faults(self, settings: Mapping[str, Any]) -> None:
        """Replace all faults by these; raise EmulatorError if one is unknown."""
        self._request("POST", "/_emulator/faults", dict(settings))

    def reset(self) -> None:
        """Remove all faults, restore the balances and clear the ledger."""
        self._request("DELETE", "/_emulator/faults")
        self.clear_ledger()

    def _request(self, method: str, path: str, body: object = None) -> dict[str, Any]:
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

    def _read_output(self, child: subprocess.Popen[str], started: threading.Event) -> None:
        # Read to the end: a child whose pipe is full would block.
        for line in child.stdout or ():
            text = line.rstrip("\n")
            self._lines.append(text)
            if text.startswith(LISTENING):
                self.url = text.removeprefix(LISTENING)
                started.set()
            elif KEY in text and not self.url:
                vendor, _, key = text.partition(KEY)
                self.keys[vendor] = key
        started.set()


def child_environment() -> dict[str, str]:
    """Return our environment, changed so that a child can import this package even if it is not installed."""
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([root, inherited] if inherited else [root])
    return environment
