"""Tasks as processes, a Redis, and an in-memory bucket with the semantics of a real one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis_server import RedisServer

from airflow_provider_describer.emulator.process import EmulatorProcess, child_environment
from airflow_provider_describer.errors import BucketError
from airflow_provider_describer.quota.document import LeaseDocument, document_name
from airflow_provider_describer.quota.leases import Leases
from airflow_provider_describer.storage.redis_document import open_shared_document

WORKER = Path(__file__).with_name("worker.py")
DOCUMENT = document_name("segmind", "shop")


class Content(NamedTuple):
    data: bytes
    version: str | None
    size: int


@dataclass
class FakeBucket:
    """One object, replaced only by a writer that names its version.

    ``fails`` are raised in this order, one a request; ``lost`` is raised after the next write has been made.
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
                raise BucketError("another writer was faster", kind="changed")
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


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@dataclass
class TaskProcesses:
    """Task processes that share one document."""

    emulator: EmulatorProcess
    folder: Path
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place = str(self.folder / "limits")

    def leases(self) -> Leases:
        """Return what they share."""
        with closing(open_shared_document("place", self.place, DOCUMENT, None)) as document:
            return LeaseDocument(document, time.time).read()

    def start(self, count: int, **settings: Any) -> list[subprocess.Popen[str]]:
        defaults = {
            "key": self.emulator.keys["segmind"],
            "host": self.emulator.url,
            "picture": str(self.folder / "picture.jpg"),
            "limits": self.place,
            "rate": None,
            "max_cost_per_day": None,
            "price": 0.015,
            "concurrency": 8,
            "seconds": 30,
        }
        started = [
            subprocess.Popen(
                [sys.executable, str(WORKER), json.dumps({**defaults, **settings})],
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
def processes(emulator: EmulatorProcess, tmp_path: Path, draw: Callable[..., bytes]) -> Iterator[TaskProcesses]:
    (tmp_path / "picture.jpg").write_bytes(draw(1))
    processes = TaskProcesses(emulator, tmp_path)
    yield processes
    for child in processes.children:
        child.kill()
        child.wait()
        for stream in (child.stdout, child.stderr):
            if stream:
                stream.close()
