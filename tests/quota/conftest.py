"""Holders as threads of one test, holders as processes, and a bucket with the semantics of a real one in memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess, child_environment
from airflow_provider_describer.errors import BucketError

WORKER = Path(__file__).with_name("worker.py")


class Content(NamedTuple):
    data: bytes
    version: str | None
    size: int


@dataclass
class FakeBucket:
    """One object that is replaced only by whoever names its version.

    ``fails`` are raised, one a request, in this order; ``lost`` waits for a write, and is raised when it has been made.
    """

    scheme: str = "s3"
    data: bytes | None = None
    number: int = 0
    fails: list[str] = field(default_factory=list)
    versioned: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)

    def address(self, key: str = "") -> str:
        return f"{self.scheme}://bucket/{key}"

    def read(self, key: str, start: int = 0, length: int | None = None) -> Content | None:
        if self.fails[:1] != ["lost"]:
            self._fail()
        with self.lock:
            if self.data is None:
                return None
            return Content(self.data, str(self.number) if self.versioned else None, len(self.data))

    def replace(self, key: str, data: bytes, version: str | None) -> str:
        lost = self._fail()
        with self.lock:
            if version != (None if self.data is None else str(self.number)):
                raise BucketError("somebody was faster", kind="changed")
            self.data, self.number = data, self.number + 1
            if lost:
                raise BucketError("no answer", kind="unreachable")
            return str(self.number)

    def _fail(self) -> bool:
        kind = self.fails.pop(0) if self.fails else ""
        if kind and kind != "lost":
            raise BucketError(f"the bucket is {kind}", kind=kind)
        return kind == "lost"


@pytest.fixture
def bucket() -> FakeBucket:
    return FakeBucket()


@dataclass
class Crowd:
    """Tasks in processes of their own, which share one document."""

    emulator: EmulatorProcess
    folder: Path
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def cell(self) -> Path:
        return self.folder / "limits" / "shop.json"

    def start(self, count: int, **told: Any) -> list[subprocess.Popen[str]]:
        defaults = {
            "key": self.emulator.keys["segmind"],
            "host": self.emulator.url,
            "picture": str(self.folder / "picture.jpg"),
            "cell": str(self.cell),
            "rate": None,
            "max_cost_per_day": None,
            "price": 0.015,
            "concurrency": 8,
            "seconds": 30,
        }
        started = [
            subprocess.Popen(
                [sys.executable, str(WORKER), json.dumps({**defaults, **told})],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=child_environment(),
            )
            for _ in range(count)
        ]
        self.children += started
        return started

    def results(self, children: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
        results = []
        for child in children:
            out, errors = child.communicate()
            assert child.returncode == 0, errors
            results.append(json.loads(out.splitlines()[-1]))
        return results


@pytest.fixture
def crowd(emulator: EmulatorProcess, tmp_path: Path, draw: Callable[..., bytes]) -> Iterator[Crowd]:
    (tmp_path / "picture.jpg").write_bytes(draw(1))
    crowd = Crowd(emulator, tmp_path)
    yield crowd
    for child in crowd.children:
        child.kill()
        child.wait()
        for stream in (child.stdout, child.stderr):
            if stream:
                stream.close()
