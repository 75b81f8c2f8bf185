"""One writer: events are durable when it says so, whatever becomes of the disk, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_describer.errors import CorruptShard, StoreError
from airflow_provider_describer.store import journal as journal_module
from airflow_provider_describer.store.folder import LocalFolder
from airflow_provider_describer.store.journal import Journal, read_events


def calls(folder):
    return sorted(event["call"] for *_, event in read_events(folder))


def shards(disk):
    return [name for name in disk.files if name.startswith("journal/")]


def test_an_event_is_on_disk_when_durable_returns(disk, events):
    async def work():
        async with Journal(disk) as journal:
            await journal.durable(events.sent("c"))
            assert calls(disk) == ["c"]

    asyncio.run(work())


def test_nobody_is_told_before_the_shard_is_written(disk, events):
    """Each durable() returns after the shard with its event is there: while writing, nobody has returned."""
    returned: list[int] = []

    def before(number, operation, name):
        if operation == "create":
            assert not returned

    disk.before = before

    async def one(journal, number):
        await journal.durable(events.sent(str(number)))
        disk.calm()
        returned.append(number)

    async def work():
        async with Journal(disk) as journal:
            await asyncio.gather(*(one(journal, number) for number in range(50)))
            assert len(shards(disk)) == 1

    asyncio.run(work())
    assert len(returned) == 50


def test_events_nobody_waits_for_are_written_at_the_end(disk, events):
    async def work():
        async with Journal(disk) as journal:
            journal.add(events.closed("c"))

    asyncio.run(work())
    assert calls(disk) == ["c"]


def test_nothing_is_written_where_nothing_happened(disk):
    async def work():
        async with Journal(disk):
            pass

    asyncio.run(work())
    assert not disk.files


def test_writers_never_share_a_shard(disk, events):
    async def work():
        async with Journal(disk, clock=lambda: 5.0) as one, Journal(disk, clock=lambda: 5.0) as other:
            for number in range(10):
                await asyncio.gather(one.durable(events.sent(f"a{number}")), other.durable(events.sent(f"b{number}")))
            assert len(shards(disk)) == 20

    asyncio.run(work())
    assert len(calls(disk)) == 20
    # Each has merged its own at its end.
    assert len(shards(disk)) == 2


def test_a_disk_that_fails_fails_everybody_who_waits(disk, events):
    disk.fail_on("create")

    async def work():
        async with Journal(disk) as journal:
            waiting = [asyncio.create_task(journal.durable(events.sent(str(number)))) for number in range(20)]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(result, StoreError) for result in results)
            with pytest.raises(StoreError, match="no space left"):
                await journal.durable(events.sent("later"))

    asyncio.run(work())
    assert not disk.files


def test_what_could_not_be_written_is_tried_again(disk, events):
    disk.fail_on("create")

    async def work():
        async with Journal(disk) as journal:
            with pytest.raises(StoreError):
                await journal.durable(events.outcome("first"))
            disk.calm()
            await journal.durable(events.outcome("second"))
            assert calls(disk) == ["first", "second"]
            disk.fail_on("create")
            with pytest.raises(StoreError):
                await journal.durable(events.outcome("third"))
            disk.calm()

    asyncio.run(work())
    assert calls(disk) == ["first", "second", "third"]


def test_a_folder_with_errors_of_its_own(disk, events):
    def before(number, operation, name):
        raise ConnectionResetError("by a bucket")

    disk.before = before

    async def work():
        async with Journal(disk) as journal:
            with pytest.raises(StoreError, match=r"memory:journal cannot be written: .*by a bucket"):
                await journal.durable(events.sent("c"))

    asyncio.run(work())


def test_whoever_stops_waiting_loses_nothing(disk, events):
    async def work():
        async with Journal(disk) as journal:
            waiting = asyncio.create_task(journal.durable(events.outcome("c")))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(work())
    assert calls(disk) == ["c"]


def test_nobody_waits_for_a_journal_that_is_not_open(disk, events):
    journal = Journal(disk)

    async def work():
        with pytest.raises(StoreError, match="not open"):
            await journal.durable(events.sent("early"))
        async with journal:
            pass
        with pytest.raises(StoreError, match="not open"):
            await journal.durable(events.sent("late"))

    asyncio.run(work())


def test_nobody_waits_for_a_writer_that_was_cancelled(disk, events):
    async def work():
        journal = Journal(disk, window=60)
        await journal.__aenter__()
        waiting = asyncio.create_task(journal.durable(events.sent("c")))
        await asyncio.sleep(0)
        assert journal._task is not None
        journal._task.cancel()
        with pytest.raises(StoreError, match="has been closed"):
            await waiting

    asyncio.run(work())


def test_small_shards_are_merged_while_it_runs(disk, events, monkeypatch):
    monkeypatch.setattr(journal_module, "ROLL", 4)

    async def work():
        async with Journal(disk, window=0) as journal:
            for number in range(20):
                await journal.durable(events.outcome(str(number)))
                # Four are merged into one when they are complete, which leaves at most five in five rolls.
                assert len(shards(disk)) <= 5 + 4

    asyncio.run(work())
    assert len(calls(disk)) == len(set(calls(disk))) == 20


@pytest.mark.parametrize("operation", ["read", "delete", "create"])
def test_a_merge_that_fails_fails_nobody(disk, events, monkeypatch, operation):
    monkeypatch.setattr(journal_module, "ROLL", 3)

    def before(number, done, name):
        merging = len(shards(disk)) >= 3
        if done == operation and merging:
            raise StoreError("not now")

    async def work():
        async with Journal(disk, window=0) as journal:
            for number in range(3):
                await journal.durable(events.outcome(str(number)))
            disk.before = before
            await asyncio.sleep(0.05)
            disk.calm()
            await journal.durable(events.outcome("3"))

    asyncio.run(work())
    assert set(calls(disk)) == {"0", "1", "2", "3"}


def test_a_merge_by_somebody_else_is_no_failure(disk, events, monkeypatch):
    monkeypatch.setattr(journal_module, "ROLL", 3)
    from airflow_provider_describer.store.merge import compact

    async def work():
        async with Journal(disk, window=0) as journal:
            for number in range(10):
                await journal.durable(events.outcome(str(number)))
                compact(disk)

    asyncio.run(work())
    assert set(calls(disk)) == set("0123456789")


def test_a_damaged_shard_is_named(tmp_path, events):
    folder = LocalFolder(tmp_path)

    async def work():
        async with Journal(folder) as journal:
            await journal.durable(events.sent("c"))

    asyncio.run(work())
    (shard,) = (tmp_path / "journal").iterdir()
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CorruptShard, match=shard.name):
        calls(folder)
    shard.write_bytes(b"")
    with pytest.raises(CorruptShard, match=shard.name):
        calls(folder)
