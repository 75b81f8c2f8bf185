"""Starts the processes of a test session, and ends them with all their children when its stdin closes.

A test session may be killed without a chance to clean up; its end of the pipe closes all the same. Run as a program: a
JSON object a line on stdin, ``{"start": name, "command": […], "log": path, "env": {…}}``, ``{"kill": name}`` or
``{"remove": folder}`` (when all is over), each answered with a line.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

GRACE_S = 5.0
PR_SET_CHILD_SUBREAPER = 36


class Keeper:
    """The side of the test session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Signals to the group of the test session (Ctrl-C, a timeout) must not reach it.
            start_new_session=True,
        )

    def start(self, name: str, command: list[str], log: Path, env: dict[str, str]) -> int:
        """Start a process in a group of its own and return its id; it appends to the log."""
        answer = self._order(start=name, command=command, log=str(log), env=env)
        pid: int = answer["pid"]
        return pid

    def kill(self, name: str) -> None:
        """`kill -9` a process and all that it has started; return when they are gone."""
        self._order(kill=name)

    def remove(self, folder: Path) -> None:
        """Have a folder removed when all processes are gone."""
        self._order(remove=str(folder))

    def close(self) -> None:
        """End all processes; return when they are gone."""
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close()
        self._child.wait()
        self._child.stdout.close()

    def _order(self, **order: Any) -> dict[str, Any]:
        assert self._child.stdin and self._child.stdout
        with self._lock:
            print(json.dumps(order), file=self._child.stdin, flush=True)
            answer: dict[str, Any] = json.loads(self._child.stdout.readline())
        return answer


def keep() -> None:
    """Carry out the orders on stdin until it closes, then end everything."""
    if sys.platform == "linux":
        # Orphans of killed processes become our children, so that they are found.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    kept: dict[str, subprocess.Popen[bytes]] = {}
    folders: list[str] = []
    try:
        for line in sys.stdin:
            order, answer = json.loads(line), {}
            if name := order.get("start"):
                kept[name] = start(order)
                answer["pid"] = kept[name].pid
            elif name := order.get("kill"):
                end([psutil.Process(kept[name].pid)], 0.0)
                kept.pop(name).wait()
            else:
                folders.append(order["remove"])
            print(json.dumps(answer), flush=True)
    finally:
        end(psutil.Process().children(), GRACE_S)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def start(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    with Path(order["log"]).open("ab") as log:
        return subprocess.Popen(
            order["command"],
            env=order["env"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def end(processes: list[psutil.Process], grace: float) -> None:
    """Ask the processes to end; kill those that do not in time, and all that they have started."""
    family = list(processes)
    for process in processes:
        family += process.children(recursive=True)
    if grace:
        send(processes, signal.SIGTERM)
        psutil.wait_procs(family, grace)
        # Orphans that became our children meanwhile.
        family += psutil.Process().children(recursive=True)
    send(family, signal.SIGKILL)
    psutil.wait_procs(family, GRACE_S)


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    keep()
