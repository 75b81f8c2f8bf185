"""One writer: events are durable when it says so, whatever becomes of the disk, and no task waits for ever."""

from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_provider_describer.errors import CorruptShard, StoreError
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store import journal as journal_module
from airflow_provider_describer.store.index import read_history
from airflow_provider_describer.store.journal import CommitInterval, Journal
from airflow_provider_describer.store.shard import SETTLED


def calls(folder):
    return sorted(event["call"] for event in read_history(folder))


def shards(disk):
    return [name for name in disk.files if name.startswith("journal/")]


def test_an_event_is_on_disk_when_commit_returns(disk, events):
    async def work():
        async with Journal(disk) as journal:
            await journal.commit(events.sent("c"))
            assert calls(disk) == ["c"]

    asyncio.run(work())


def test_no_commit_returns_before_the_shard_is_written(disk, events):
    """Each commit() returns after the shard with its event is there: while it is written, none has returned."""
    returned: list[int] = []

    def before(number, operation, name):
        if operation == "create":
            assert not returned

    disk.before = before

    async def one(journal, number):
        await journal.commit(events.sent(str(number)))
        disk.calm()
        returned.append(number)

    async def work():
        async with Journal(disk) as journal:
            await asyncio.gather(*(one(journal, number) for number in range(50)))
            assert len(shards(disk)) == 1

    asyncio.run(work())
    assert len(returned) == 50


def test_appended_events_are_written_at_the_end(disk, events):
    async def work():
        async with Journal(disk) as journal:
            journal.append(events.closed("c"))

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
                await asyncio.gather(one.commit(events.sent(f"a{number}")), other.commit(events.sent(f"b{number}")))
            assert len(shards(disk)) == 20

    asyncio.run(work())
    assert len(calls(disk)) == 20
    # Each has put its own into one shard at its end: none of these calls has ended.
    assert len(shards(disk)) == 2


def test_a_disk_that_fails_fails_every_waiting_commit(disk, events):
    disk.fail_on("create")

    async def work():
        async with Journal(disk) as journal:
            waiting = [asyncio.create_task(journal.commit(events.sent(str(number)))) for number in range(20)]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(result, StoreError) for result in results)
            with pytest.raises(StoreError, match="no space left"):
                await journal.commit(events.sent("later"))

    asyncio.run(work())
    assert not disk.files


def test_what_could_not_be_written_is_tried_again(disk, events):
    disk.fail_on("create")

    async def work():
        async with Journal(disk) as journal:
            with pytest.raises(StoreError):
                await journal.commit(events.outcome("first"))
            disk.calm()
            await journal.commit(events.outcome("second"))
            assert calls(disk) == ["first", "second"]
            disk.fail_on("create")
            with pytest.raises(StoreError):
                await journal.commit(events.outcome("third"))
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
                await journal.commit(events.sent("c"))

    asyncio.run(work())


def test_a_cancelled_commit_loses_nothing(disk, events):
    async def work():
        async with Journal(disk) as journal:
            waiting = asyncio.create_task(journal.commit(events.outcome("c")))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(work())
    assert calls(disk) == ["c"]


def test_a_journal_that_is_not_open_refuses_commits(disk, events):
    journal = Journal(disk)

    async def work():
        with pytest.raises(StoreError, match="not open"):
            await journal.commit(events.sent("early"))
        async with journal:
            pass
        with pytest.raises(StoreError, match="not open"):
            await journal.commit(events.sent("late"))

    asyncio.run(work())


def test_a_cancelled_writer_wakes_waiting_commits(disk, events):
    async def work():
        journal = Journal(disk, window=60)
        await journal.__aenter__()
        waiting = asyncio.create_task(journal.commit(events.sent("c")))
        await asyncio.sleep(0)
        assert journal._writer is not None
        journal._writer.cancel()
        with pytest.raises(StoreError, match="has been closed"):
            await waiting

    asyncio.run(work())


def test_a_long_run_settles_as_it_goes(disk, events, monkeypatch):
    """A writer holds in memory what it has not settled yet."""
    monkeypatch.setattr(journal_module, "SETTLE_BYTES", 5000)

    async def work():
        async with Journal(disk, window=0) as journal:
            for number in range(30):
                await journal.commit(events.sent(str(number)))
                await journal.commit(events.outcome(str(number), text="long " * 200))
                if journal._settling is not None:
                    await journal._settling
                assert sum(map(len, disk.files.values())) <= 5000 + 2500

    asyncio.run(work())
    assert shards(disk) == [SETTLED]
    assert calls(disk) == sorted(map(str, range(30)))


def test_what_is_written_while_others_are_settled_stays(disk, events, monkeypatch):
    """Only the shards are removed whose lines were settled, even if one is complete while they are removed."""
    monkeypatch.setattr(journal_module, "SETTLE_BYTES", 800)
    reached, go_on = threading.Event(), threading.Event()

    def before(number, operation, name):
        if operation == "delete":
            reached.set()
            assert go_on.wait(30)

    async def work():
        async with Journal(disk, window=0) as journal:
            for number in range(3):
                await journal.commit(events.outcome(str(number)))
            disk.before = before
            assert await asyncio.to_thread(reached.wait, 30)
            # Settling waits with the old shards on the disk; no commit waits for it.
            for number in range(3, 6):
                await journal.commit(events.outcome(str(number)))
            disk.calm()
            go_on.set()

    asyncio.run(work())
    assert calls(disk) == sorted("012345")


def test_the_first_of_a_burst_does_not_wait_for_a_window(disk, events):
    """The window is the least time between two shards: long enough here for the test to stop if it were waited for."""

    async def work():
        journal = Journal(disk, window=1e6)
        await journal.__aenter__()
        await journal.commit(events.sent("first"))
        waiting = asyncio.create_task(journal.commit(events.outcome("second")))
        await asyncio.sleep(0.01)
        assert calls(disk) == ["first"] and not waiting.done()
        # Closing waits for no window either.
        await journal.__aexit__(None, None, None)
        await waiting

    asyncio.run(work())
    assert calls(disk) == ["first", "second"]


@pytest.mark.parametrize(
    ("call_s", "interval"),
    [(0.0, 0.01), (0.05, 0.01), (0.12, 0.01), (0.36, 0.03), (0.6, 0.05), (4.0, 0.05), (1e9, 0.05)],
)
def test_shards_are_a_twelfth_of_a_call_apart_within_bounds(events, call_s, interval):
    decided = CommitInterval(0.01)
    assert decided.seconds == 0.01
    for number in range(50):
        decided.observe(events.sent(str(number)), number)
        decided.observe(events.accepted(str(number)), number + call_s / 2)
        decided.observe(events.outcome(str(number)), number + call_s)
        # When another writer sent its call is not known.
        decided.observe(events.outcome("unheard of"), number + 1e6)
    assert decided.seconds == pytest.approx(interval)
    assert not decided.sent_at


def test_how_long_calls_take_is_learned_anew(events):
    interval = CommitInterval(0.01)
    for call_s in (0.0, 4.0, 0.24):
        for number in range(60):
            interval.observe(events.sent(str(number)), 0.0)
            interval.observe(events.closed(str(number)), call_s)
    assert interval.seconds == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("operation", ["location", "delete", "create"])
def test_settling_that_fails_fails_no_commit(disk, events, monkeypatch, operation):
    monkeypatch.setattr(journal_module, "SETTLE_BYTES", 800)

    def before(number, done, name):
        merging = len(shards(disk)) >= 3
        if done == operation and merging:
            raise StoreError("not now")

    async def work():
        async with Journal(disk, window=0) as journal:
            for number in range(3):
                await journal.commit(events.outcome(str(number)))
            disk.before = before
            await asyncio.sleep(0.05)
            disk.calm()
            await journal.commit(events.outcome("3"))

    asyncio.run(work())
    assert set(calls(disk)) == {"0", "1", "2", "3"}


def test_settling_by_another_process_is_no_failure(disk, events, monkeypatch):
    monkeypatch.setattr(journal_module, "SETTLE_BYTES", 800)
    from airflow_provider_describer.store.settling import compact

    async def work():
        async with Journal(disk, window=0) as journal:
            for number in range(10):
                await journal.commit(events.outcome(str(number)))
                compact(disk)

    asyncio.run(work())
    assert set(calls(disk)) == set("0123456789")


def test_a_damaged_shard_is_named(tmp_path, events):
    folder = LocalFolder(tmp_path)

    async def work():
        async with Journal(folder) as journal:
            await journal.commit(events.sent("c"))

    asyncio.run(work())
    (shard,) = (tmp_path / "journal").iterdir()
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CorruptShard, match=shard.name):
        calls(folder)
    shard.write_bytes(b"")
    with pytest.raises(CorruptShard, match=shard.name):
        calls(folder)
