"""Shards of runs that are gone: settled by one process at a time, never those of a run at work, killed at any step."""

from __future__ import annotations

import json
import threading
import time

import pytest

from airflow_provider_describer.errors import CorruptShard
from airflow_provider_describer.storage.cas_document import MemoryDocument
from airflow_provider_describer.store.abandoned import LOCKED_S, settle_abandoned
from airflow_provider_describer.store.index import load_index, read_history
from airflow_provider_describer.store.settling import shard_names
from airflow_provider_describer.store.shard import encode_shard, json_line, shard_name

NOW = 1_800_000_000.0


@pytest.fixture
def put(disk):
    """Write a shard of a writer."""
    numbers = iter(range(100))

    def put(writer, *events):
        name = shard_name(NOW, f"{writer}-{next(numbers):06d}")
        disk.files[name] = encode_shard(map(json_line, events))
        return name

    return put


def settle(disk, live=(), lock=None, **options):
    return settle_abandoned(disk, lambda: live, lock or MemoryDocument(), clock=lambda: NOW, **options)


def outcomes(disk):
    return sorted(event["call"] for event in read_history(disk) if event["event"] == "outcome")


def test_only_shards_without_a_live_writer_are_settled(disk, events, put):
    dead = [put("dead", events.sent("d", "a")), put("dead", events.outcome("d", "a"))]
    live = [put("live", events.sent("l", "b")), put("live", events.outcome("l", "b"))]
    assert settle(disk, live={"live"}) == len(dead)
    assert shard_names(disk) == live
    assert outcomes(disk) == ["d", "l"]


def test_a_shard_of_an_older_release_has_no_live_writer(disk, events):
    disk.put("old name", events.outcome("a"))
    disk.put("20260101T000000.000-0123456789ab-000001", events.outcome("b", "b"))
    assert settle(disk, live={"live"}) == 2 and not shard_names(disk)
    assert outcomes(disk) == ["a", "b"]


def test_one_shard_of_open_calls_is_left_alone(disk, events, put):
    name = put("dead", events.sent("open"), events.accepted("open"))
    written = dict(disk.files)
    assert settle(disk) == 0
    assert disk.files == written and shard_names(disk) == [name]


def test_several_shards_of_open_calls_become_one(disk, events, put):
    for number in range(5):
        put("dead", events.sent(f"open {number}"))
    settle(disk)
    assert len(shard_names(disk)) == 1
    assert len(load_index(disk).open_calls) == 5


def test_a_damaged_shard_stops_it(disk, events, put):
    put("dead", events.outcome("a"))
    name = put("dead", events.outcome("b"))
    disk.files[name] = disk.files[name][:-1]
    with pytest.raises(CorruptShard, match=name):
        settle(disk)
    assert len(shard_names(disk)) == 2


def test_who_comes_while_another_settles_waits_for_it(disk, events, put):
    put("dead", events.outcome("a"))
    lock = MemoryDocument()
    lock.swap(json.dumps({"by": "another", "until": NOW + LOCKED_S}).encode(), None)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            # The other one is done.
            settle(disk, lock=MemoryDocument())

    assert settle(disk, lock=lock, sleep=sleep) == 0
    assert len(waits) == 3 and outcomes(disk) == ["a"]


@pytest.mark.parametrize("content", [b"", b"{}", b"nonsense", b"[1]", b'{"until": "x"}', b'{"until": 1.0}'])
def test_a_lock_that_is_over_or_damaged_is_taken(disk, events, put, content):
    put("dead", events.outcome("a"))
    lock = MemoryDocument()
    lock.swap(content, None)
    assert settle(disk, lock=lock) == 1


def test_many_that_begin_together_lose_nothing_and_add_nothing_twice(disk, events, put):
    for number in range(20):
        put(f"dead{number}", events.sent(f"c{number}", str(number)), events.outcome(f"c{number}", str(number)))
    lock, failed = MemoryDocument(), []

    def one():
        try:
            settle_abandoned(disk, lambda: (), lock, sleep=lambda seconds: time.sleep(0.01))
        except Exception as error:  # noqa: BLE001  # shown by the assertion
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and not shard_names(disk)
    assert outcomes(disk) == sorted(f"c{number}" for number in range(20))


def test_a_lock_that_is_lost_meanwhile_does_no_harm(disk, events, put):
    """The process was stopped for so long that another one has taken over and settled all."""
    put("dead", events.outcome("a"))
    lock = MemoryDocument()
    taken: list[bool] = []

    def live():
        if len(taken) == 1:
            lock.swap(json.dumps({"by": "another", "until": 0.0}).encode(), lock.load()[1])
            settle(disk, lock=MemoryDocument())
        taken.append(True)
        return ()

    settle_abandoned(disk, live, lock, clock=lambda: NOW, sleep=lambda seconds: None)
    assert outcomes(disk) == ["a"] and not shard_names(disk)


def test_killed_at_any_step(disk, events, put, new_disk, killed, plans_of):
    put("one", events.sent("a1", "a"), events.sent("b1", "b"), events.accepted("d1", "d"))
    put("two", events.outcome("a1", "a"), events.lost("c1", "c"), events.closed("b1"))
    before, steps = plans_of(disk), 0
    while True:
        copy = new_disk(disk)
        copy.kill_at(steps + 1)
        try:
            settle(copy)
        except killed:
            copy.calm()
            assert plans_of(copy) == before
            settle(copy)
            assert plans_of(copy) == before and outcomes(copy) == ["a1"]
            steps += 1
        else:
            break
    assert steps > 10
