"""Runs over a store whose outcomes are settled: by themselves, by others, from an older release, after a kill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine.progress import Outcome
from airflow_provider_describer.errors import CorruptShard, StoreError
from airflow_provider_describer.storage.folder import LocalFolder, open_folder
from airflow_provider_describer.store.claim_files import open_claims
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.store.index import read_history
from airflow_provider_describer.store.journal import Journal
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.settling import shard_names
from airflow_provider_describer.store.shard import SETTLED, encode_shard, json_line, shard_name
from airflow_provider_describer.store.table import NAME, SettledTable

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]


def events_of(shop: Shop, pictures: list[Path], outcome: Outcome) -> list[dict[str, Any]]:
    """The journal's events of a run, as an older release has left them."""
    rows = {row["sha256"]: row for row in outcome.manifest["descriptions"]}
    told: list[dict[str, Any]] = []
    for number, (request, path) in enumerate(zip(shop.job(pictures).requests, pictures, strict=True)):
        checksum = sha256(path.read_bytes()).hexdigest()
        keys = list(identity_keys(request.spec, request.image.uri, checksum, None))
        told += [
            {"event": "sent", "call": f"c{number}", "keys": keys, "uri": str(path), "at": 1.0},
            {"event": "outcome", "call": f"c{number}", "keys": keys, **rows[checksum]},
        ]
    return told


def put(store: Path, told: list[dict[str, Any]], writer: str = "0123456789ab") -> LocalFolder:
    folder = LocalFolder(store)
    for number, event in enumerate(told):
        folder.create(shard_name(1e9 + number, f"{writer}-{number:06d}"), encode_shard([json_line(event)]))
    return folder


def run(shop: Shop, pictures: list[Path], **options: Any) -> Outcome:
    outcome = shop.job(pictures, return_rows=True, **options).run()
    assert outcome.error is None
    return outcome


def test_a_run_leaves_its_outcomes_in_the_table_and_nothing_in_the_journal(shop: Shop, pictures: Pictures) -> None:
    run(shop, pictures(6))
    folder = open_folder(shop.store)
    assert list(folder.names("journal")) == [SETTLED]
    assert sum(batch.num_rows for batch in SettledTable(folder).batches(["call"])) == 6
    again = run(shop, pictures(6))
    assert again.manifest["counts"]["reused"] == 6 and again.manifest["calls"] == 0
    assert all(row["text"] for row in again.manifest["descriptions"])
    assert shop.emulator.ledger()["billed"] == 6


def test_the_store_of_an_older_release_is_settled_on_first_use(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    images = pictures(8)
    told = events_of(shop, images, run(shop, images, store=tmp_path / "first"))
    folder = put(tmp_path / "old", told)
    outcome = run(shop, images, store=tmp_path / "old")
    assert outcome.manifest["counts"]["reused"] == 8
    assert shop.emulator.ledger()["billed"] == 8
    assert list(folder.names("journal")) == [SETTLED]
    assert sorted(event["call"] for event in read_history(folder)) == [f"c{number}" for number in range(8)]


def test_the_shards_of_a_run_at_work_are_left_to_it(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    images = pictures(4)
    told = events_of(shop, images, run(shop, images, store=tmp_path / "first"))
    folder = open_folder(shop.store)
    others = open_claims(shop.store, folder, None, TaskInstanceKey("shop", "night", "other"))
    others.look()
    others.arrive(["00" * 16])
    try:
        put(shop.store, told, writer=others.id)
        assert run(shop, images).manifest["counts"]["reused"] == 4
        assert len(shard_names(folder)) == len(told)
    finally:
        others.depart()
    assert run(shop, images).manifest["counts"]["reused"] == 4
    assert not shard_names(folder)
    assert shop.emulator.ledger()["billed"] == 4


def test_an_open_call_of_a_run_that_has_gone_is_resent_once(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    images = pictures(3)
    told = events_of(shop, images, run(shop, images, store=tmp_path / "first"))
    # The process was killed before the answer of its last call.
    folder = put(shop.store, told[:-1])
    outcome = run(shop, images)
    assert (outcome.manifest["counts"]["reused"], outcome.manifest["counts"]["described"]) == (2, 1)
    (row,) = (row for row in outcome.manifest["descriptions"] if row["status"] == "described")
    assert row["lost_calls"] == 1
    assert shop.emulator.ledger()["billed"] == 4
    # What is open for ever is all that the journal keeps.
    assert len(shard_names(folder)) == 1
    assert run(shop, images).manifest["calls"] == 0


@pytest.mark.parametrize("part", ["_versions", "data", "."])
def test_a_table_that_is_partly_gone_stops_the_run(shop: Shop, pictures: Pictures, part: str) -> None:
    images = pictures(3)
    run(shop, images)
    (shop.store / NAME / part).resolve().rename(shop.store.parent / "taken away")
    job = shop.job(images)
    with pytest.raises(StoreError, match=NAME):
        job.run()
    assert shop.emulator.ledger()["billed"] == 3


def test_a_newer_table_stops_the_run(shop: Shop, pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(3)
    with monkeypatch.context() as newer:
        newer.setattr("airflow_provider_describer.store.columns.VERSION", 99)
        run(shop, images)
    with pytest.raises(CorruptShard, match=r"version '99'.*Upgrade"):
        shop.job(images).run()
    assert shop.emulator.ledger()["billed"] == 3


def test_a_table_that_cannot_be_written_costs_nothing(
    shop: Shop, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images = pictures(4)

    def refused(self: SettledTable, events: object, *, is_new: bool) -> None:
        raise StoreError("no space left on device")

    with monkeypatch.context() as full:
        full.setattr(SettledTable, "add", refused)
        run(shop, images[:2])
        run(shop, images)
    assert "no space left" in caplog.text
    assert len(shard_names(open_folder(shop.store))) > 1
    assert run(shop, images).manifest["counts"]["reused"] == 4
    assert not shard_names(open_folder(shop.store))
    assert shop.emulator.ledger()["billed"] == 4


def test_a_writer_that_may_be_taken_for_dead_adds_nothing_twice(tmp_path: Path, shop: Shop, pictures: Pictures) -> None:
    images = pictures(2)
    told = events_of(shop, images, run(shop, images, store=tmp_path / "first"))
    folder = LocalFolder(tmp_path / "store")

    async def work() -> None:
        async with Journal(folder, is_alone=lambda: False) as journal:
            for event in told:
                await journal.commit(event)
            # Another run has settled the same calls.
            SettledTable(folder).add([event for event in told if event["event"] == "outcome"], is_new=False)

    asyncio.run(work())
    assert sum(batch.num_rows for batch in SettledTable(folder).batches(["call"])) == 2
