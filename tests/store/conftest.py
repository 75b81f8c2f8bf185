"""A folder in memory that fails, dies and is disturbed exactly where a test says; and plans, made comparable."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.engine.plan import IdentifiedImage, make_plan
from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.models import DescribeRequest, Image, Spec
from airflow_provider_describer.storage.folder import Folder, Location
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.store.index import JournalIndex, load_index
from airflow_provider_describer.store.shard import encode_shard, json_line
from airflow_provider_describer.store.table import NAME as TABLE


class Killed(BaseException):
    """The process is gone."""


class Disk:
    """A `Folder`. ``before`` is called before each operation with its number, its name and the file's.

    Its table is in a real folder, as Lance knows no other.

    :param like: a disk that this one is a copy of.
    """

    def __init__(self, like: Disk | None = None) -> None:
        self.files: dict[str, bytes] = dict(like.files) if like else {}
        self.table = Path(tempfile.mkdtemp(prefix="describer-test-"))
        weakref.finalize(self, shutil.rmtree, self.table, ignore_errors=True)
        if like:
            shutil.copytree(like.table, self.table, dirs_exist_ok=True)
        self.operations = 0
        self.before: Callable[[int, str, str], None] = lambda number, operation, name: None

    def _step(self, operation: str, name: str) -> None:
        self.operations += 1
        self.before(self.operations, operation, name)

    def where(self, name: str = "") -> str:
        return f"memory:{name}"

    def names(self, under: str) -> Sequence[str]:
        self._step("names", under)
        # A copy: a compaction in another thread may write meanwhile.
        if under.startswith(TABLE):
            real = self.table / under
            return sorted(f"{under}/{file.name}" for file in real.iterdir()) if real.is_dir() else []
        return sorted(name for name in list(self.files) if name.startswith(under + "/"))

    def read(self, name: str, start: int = 0, length: int = -1) -> bytes | None:
        self._step("read", name)
        content = self.files.get(name)
        return content if content is None else content[start:] if length < 0 else content[start : start + length]

    def create(self, name: str, content: bytes) -> None:
        self._step("create", name)
        self.files[name] = content

    def replace(self, name: str, content: bytes) -> None:
        self._step("replace", name)
        self.files[name] = content

    def publish(self, spool: Path, name: str) -> None:
        self._step("publish", name)
        self.files[name] = spool.read_bytes()

    def delete(self, *names: str) -> None:
        for name in names:
            self._step("delete", name)
            self.files.pop(name, None)

    def location(self, name: str) -> Location:
        self._step("location", name)
        return Location(str(self.table / name))

    def kill_at(self, number: int) -> None:
        """Let the process die instead of doing that operation, counted from now."""
        last = self.operations + number

        def before(number: int, operation: str, name: str) -> None:
            if number >= last:
                raise Killed

        self.before = before

    def fail_on(self, wanted: str) -> None:
        def before(number: int, operation: str, name: str) -> None:
            if operation == wanted:
                raise StoreError(f"{self.where(name)} cannot be written: no space left on device.")

        self.before = before

    def calm(self) -> None:
        self.before = lambda number, operation, name: None

    def put(self, name: str, *events: dict[str, Any]) -> str:
        """Write a shard of these events."""
        path = f"journal/{name}.jsonl"
        self.files[path] = encode_shard(map(json_line, events))
        return path


@pytest.fixture
def new_disk() -> type[Disk]:
    return Disk


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def killed() -> type[Killed]:
    return Killed


class Events:
    """Writes events as the engine does. ``content`` is any text that stands for an image's bytes."""

    spec = Spec("vendor", "model", "What is it?", "en")

    def key(self, content: str, spec: Spec | None = None) -> str:
        return identity_keys(spec or self.spec, "", content, None)[0]

    def sent(self, call: str, content: str = "a", at: float = 1.0, **more: Any) -> dict[str, Any]:
        return {"event": "sent", "call": call, "keys": [self.key(content)], "uri": "u", "at": at, **more}

    def accepted(self, call: str, content: str = "a", request: str = "", at: float = 2.0) -> dict[str, Any]:
        request = request or f"request of {call}"
        return {**self.sent(call, content, at), "event": "accepted", "request_id": request}

    def closed(self, call: str) -> dict[str, Any]:
        return {"event": "closed", "call": call, "why": "rate_limited"}

    def lost(self, call: str, content: str = "a") -> dict[str, Any]:
        return {**self.sent(call, content), "event": "lost", "why": "ambiguous"}

    def outcome(self, call: str, content: str = "a", status: str = "described", **more: Any) -> dict[str, Any]:
        row = {"uri": "u", "sha256": content, "text": f"{content} by {call}", "cost_usd": 0.015, "billed": "yes"}
        row |= {
            "vendor": "vendor",
            "prompt": "What is it?",
            "lang": "en",
            "described_at": "2026-01-01T00:00:00.000+00:00",
        }
        return {"event": "outcome", "call": call, "keys": [self.key(content)], **row, "status": status, **more}


@pytest.fixture(scope="session")
def events() -> Events:
    return Events()


def image(content: str, spec: Spec = Events.spec, uri: str = "u", version: str | None = None) -> IdentifiedImage:
    """An image as the plan gets it: ``content`` stands for its bytes' checksum; empty where they were not read."""
    keys = identity_keys(spec, uri, content or None, version)
    return IdentifiedImage(DescribeRequest(Image(uri, version), spec), keys, content or None, version)


@pytest.fixture(name="image")
def image_fixture() -> Callable[..., IdentifiedImage]:
    return image


def plans(index: JournalIndex, contents: Iterable[str] = "abcd") -> list[tuple[object, ...]]:
    """Everything that the plan decides, under all its settings."""
    found: list[tuple[object, ...]] = []
    for on_unknown in ("retry", "hold", "fail"):
        for retry_rejected in (False, True):
            images = [image(content) for content in contents]
            plan = make_plan(images, index, on_unknown=on_unknown, retry_rejected=retry_rejected)
            for entry in plan.entries:
                call = entry.open_call and (entry.open_call[0], entry.open_call[1].request_id)
                said = entry.known and (entry.known.described, entry.known.described_at)
                found.append((on_unknown, retry_rejected, entry.action, entry.lost, call, said))
    return found


@pytest.fixture(name="plans", scope="session")
def plans_fixture() -> Callable[..., list[tuple[object, ...]]]:
    return plans


@pytest.fixture
def plans_of(plans: Any) -> Callable[[Folder], list[tuple[object, ...]]]:
    return lambda folder: plans(load_index(folder))
