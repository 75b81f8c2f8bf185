"""Stores of a few outcomes, as tasks leave them: in the journal, half settled, settled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.models import Spec
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.store.settling import compact
from airflow_provider_describer.store.shard import encode_shard, json_line

SPEC = Spec("vendor", "model", "What is it?", "en")
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def outcome(call: str, minute: float = 0, **more: Any) -> dict[str, Any]:
    """The event of an ended call, so many minutes after `FIRST`."""
    content = more.pop("content", call)
    return {
        "event": "outcome",
        "call": call,
        "keys": list(identity_keys(SPEC, "", content, None)),
        "uri": f"/images/{call}.jpg",
        "sha256": content,
        "vendor": SPEC.vendor,
        "model": SPEC.model,
        "prompt": SPEC.prompt,
        "lang": SPEC.lang,
        "status": "described",
        "text": f"a picture of {call}",
        "cost_usd": 0.015,
        "billed": "yes",
        "described_at": (FIRST + timedelta(minutes=minute)).isoformat(timespec="milliseconds"),
        "dag_id": "shop",
        "run_id": "night 1",
        "task_id": "describe",
        "map_index": -1,
        **more,
    }


@pytest.fixture(name="outcome", scope="session")
def outcome_fixture() -> Callable[..., dict[str, Any]]:
    return outcome


class Writer:
    """Writes into a store as tasks do."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.shards = 0

    def journal(self, events: Iterable[dict[str, Any]]) -> None:
        self.shards += 1
        name = f"journal/20260101T000000.000-{self.shards:012x}-000001.jsonl"
        self.folder.create(name, encode_shard(map(json_line, events)))

    def settle(self) -> None:
        compact(self.folder)


@pytest.fixture
def writer_to() -> type[Writer]:
    return Writer


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return open_folder(tmp_path / "store")


@pytest.fixture
def writer(folder: Folder) -> Writer:
    return Writer(folder)


@pytest.fixture(params=["in the journal", "half settled", "settled", "settled, and copies of it in the journal"])
def store_of(request: pytest.FixtureRequest, folder: Folder, writer: Writer) -> Callable[..., Folder]:
    """Make a store of these events, however far it is settled."""

    def make(events: Iterable[dict[str, Any]]) -> Folder:
        events = list(events)
        half = len(events) // 2
        writer.journal(events[:half])
        if request.param == "half settled":
            writer.settle()
        writer.journal(events[half:])
        if request.param.startswith("settled"):
            writer.settle()
        if request.param.endswith("journal"):
            writer.journal(events)
        return folder

    return make
