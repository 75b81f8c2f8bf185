"""Settling: killed at any step, beside readers, writers and others that settle, the plan stays the same."""

from __future__ import annotations

import json

import pytest

from airflow_provider_describer.errors import CorruptShard, StoreError
from airflow_provider_describer.store import settling
from airflow_provider_describer.store.index import load_index, open_index, read_history
from airflow_provider_describer.store.settling import compact, settle, shard_names
from airflow_provider_describer.store.shard import encode_shard, json_line, shard_lines
from airflow_provider_describer.store.table import SettledTable


@pytest.fixture
def history(disk, events):
    """Shards in which every kind of call has begun and ended, in shards apart from each other."""
    disk.put("1", events.sent("a1", "a"), events.sent("b1", "b"), events.sent("c1", "c"), events.sent("d1", "d"))
    disk.put("2", events.outcome("a1", "a"), events.closed("b1"), events.lost("c1", "c"), events.sent("c2", "c"))
    disk.put("3", events.outcome("c2", "c", "unknown"), events.accepted("d1", "d"), events.sent("b2", "b"))
    disk.put("4", events.outcome("b2", "b", "rejected"), events.sent("c3", "c"))
    return disk


def all_events(disk):
    return list(read_history(disk))


def ends(disk):
    return {(event["event"], event["call"]) for event in all_events(disk) if event["event"] in settling.ENDS}


def test_what_has_ended_is_in_the_table_and_what_is_open_in_the_journal(history, plans_of):
    before, ended = plans_of(history), ends(history) - {("closed", "b1")}
    assert compact(history) == (4, 1)
    assert plans_of(history) == before
    assert ends(history) == ended
    begun = {(event["event"], event["call"]) for event in all_events(history)} - ended
    assert begun == {("sent", "d1"), ("accepted", "d1"), ("sent", "c3")}
    assert len(lines(history)) == 3
    assert compact(history) == (1, 1)


def test_killed_at_any_step(history, new_disk, killed, plans_of):
    before, ended = plans_of(history), ends(history)
    settled = ended - {("closed", "b1")}
    steps = 0
    while True:
        disk = new_disk(history)
        disk.kill_at(steps + 1)
        try:
            compact(disk)
        except killed:
            disk.calm()
            assert plans_of(disk) == before and ends(disk) in (ended, settled)
            # And so it is when it is done again.
            compact(disk)
            assert plans_of(disk) == before and ends(disk) in (ended, settled)
            assert len(all_events(disk)) == len({str(event) for event in all_events(disk)})
            steps += 1
        else:
            break
    assert steps > 10


def disturbed(disk, step, act):
    """Run another actor to its end before the step that has this number, and not again meanwhile."""

    def before(number, operation, name):
        if number == step:
            disk.calm()
            act()

    disk.operations, disk.before = 0, before


def test_a_reader_at_any_step_of_a_merge(history, new_disk, plans_of):
    before = plans_of(history)
    for step in range(1, 30):
        disk = new_disk(history)
        read: list[object] = []
        disturbed(disk, step, lambda disk=disk, read=read: read.append(plans_of(disk)))
        compact(disk)
        assert read in ([before], [])


def test_a_merge_at_any_step_of_a_reader(history, new_disk, plans_of):
    before = plans_of(history)
    for step in range(1, 15):
        disk = new_disk(history)
        disturbed(disk, step, lambda disk=disk: compact(disk))
        assert plans_of(disk) == before


def test_settling_at_any_step_of_settling(history, new_disk, plans_of):
    before, ended = plans_of(history), ends(history) - {("closed", "b1")}
    for step in range(1, 40):
        disk = new_disk(history)
        disturbed(disk, step, lambda disk=disk: compact(disk))
        compact(disk)
        assert plans_of(disk) == before and ends(disk) >= ended
        # Copies that two of them have made go with the next.
        compact(disk)
        assert plans_of(disk) == before and len(shard_names(disk)) == 1
        assert len(all_events(disk)) == len({str(event) for event in all_events(disk)})


def test_a_writer_that_settles_its_own_at_any_step_of_compacting(history, new_disk, plans_of):
    """A writer that is taken for dead and is not: its calls come into the table twice, and count once."""
    before = plans_of(history)
    names = ["journal/2.jsonl", "journal/3.jsonl"]
    own = [line for name in names for _, line in shard_lines(name, history.files[name])]
    for step in range(1, 40):
        disk = new_disk(history)

        def roll(disk=disk):
            settle(disk, SettledTable(disk), own, names, lambda: "journal/w.jsonl", is_new=True)

        disturbed(disk, step, roll)
        compact(disk)
        assert plans_of(disk) == before


def test_a_listing_taken_in_the_middle_of_a_merge(history, plans_of):
    """A listing is no snapshot: it may miss the new shard, made where it has looked, and the old ones, gone by then."""
    before = plans_of(history)
    real, listed = history.names, []

    def names(under):
        found = real(under)
        listed.append(found)
        if len(listed) > 1:
            return found
        history.names = real
        compact(history)
        history.names = names
        return []

    history.names = names
    assert plans_of(history) == before


def test_a_row_is_found_again_after_its_shard_was_merged_away(history, events):
    index = load_index(history)
    compact(history)
    keys = (events.key("a"),)
    assert index.row(keys)["text"] == "a by a1"
    # And again and again, as long as it is anywhere.
    for number in range(3):
        history.put(f"z{number}", events.sent(f"z{number}", "d"))
        compact(history)
        index._shard = ("", b"")
        assert index.row(keys)["text"] == "a by a1"


def test_a_row_that_is_nowhere_is_an_error(history, events):
    index = load_index(history)
    history.files.clear()
    with pytest.raises(StoreError, match="vanished"):
        index.row((events.key("a"),))


def test_a_journal_that_never_rests_is_an_error_and_not_a_guess(history, events):
    def before(number, operation, name):
        if operation == "read":
            history.files[f"journal/n{number}.jsonl"] = history.files.pop(name, b"")

    history.before = before
    with pytest.raises(StoreError, match="try again"):
        all_events(history)


def test_a_damaged_shard_is_named_and_nothing_is_removed(history):
    history.files["journal/3.jsonl"] = history.files["journal/3.jsonl"][:-5]
    files = dict(history.files)
    with pytest.raises(CorruptShard, match=r"journal/3\.jsonl"):
        compact(history)
    assert history.files == files


def test_two_ends_of_one_call_are_both_kept(disk, events, plans_of):
    """Two runs may attach to one request: what one could still fetch outlives that the other could not."""
    disk.put("1", events.accepted("a1"), events.outcome("a1", status="unknown"))
    disk.put("2", events.outcome("a1"), events.outcome("a1"))
    before = plans_of(disk)
    compact(disk)
    assert plans_of(disk) == before
    assert sorted(event["status"] for event in all_events(disk)) == ["described", "unknown"]


def lines(disk):
    return [line for name in shard_names(disk) for _, line in shard_lines(name, disk.files[name])]


def test_open_and_unknown_lines_are_left_byte_for_byte(disk, events):
    """Also such as this release does not write: spaced, in another order, of a kind that it does not know."""
    told = [
        json.dumps({"call": "c1", "event": "sent", "keys": [events.key("a")], "uri": "u", "at": 1.0}).encode() + b"\n",
        json_line(events.sent("\u00e9", "b", uri="\udcff «Bär»\u2028", more=[1, 2.50, None])),
        json_line({"event": "new in a later release", "call": "c2"}),
        json_line({"event": "of no call"}),
        json_line({"event": "closed"}),
    ]
    for number, line in enumerate(told):
        disk.files[f"journal/{number}.jsonl"] = encode_shard([line])
    disk.put("9", events.sent("c2", "c"), events.outcome("c2", "c"))
    compact(disk)
    assert sorted(lines(disk)) == sorted(told)
    assert [event["call"] for event in all_events(disk) if event["event"] == "outcome"] == ["c2"]


def test_a_row_comes_back_as_it_was_written(disk, events):
    outcome = events.outcome("c1", text="«Bär»\u2028", by="another", error={"kind": "k", "message": "m"}, try_number=3)
    told = [outcome, events.lost("c2", "b"), events.outcome("c3", "c", "unknown", cost_usd=None)]
    disk.put("1", *told)
    before = {event["call"]: event for event in all_events(disk)}
    compact(disk)
    after = {event["call"]: event for event in all_events(disk)}
    assert after.keys() == before.keys()
    for call, event in before.items():
        assert {name: after[call].get(name) for name in event if name != "described_at"} == {
            name: value for name, value in event.items() if name != "described_at"
        }


def test_more_identities_than_columns_are_all_found(disk, events, plans_of):
    keys = [events.key(content) for content in "abcdefg"]
    disk.put("1", {**events.outcome("c1"), "keys": keys})
    compact(disk)
    for content in "abcdefg":
        assert open_index(disk, [events.key(content)]).outcome((events.key(content),)) is not None


def test_what_is_the_same_stays_the_same(disk, events, plans_of):
    disk.put("1", events.sent("c1", "a"), events.outcome("c1", "a"), events.sent("c2", "b"))
    disk.put("2", {"event": "same", "call": "c2", "keys": [events.key("a"), events.key("b")], "uri": "u", "at": 1.0})
    disk.put("3", events.closed("c2"))
    before = plans_of(disk)
    assert [action for _, _, action, *_ in before[:4]] == ["reuse", "reuse", "call", "call"]
    compact(disk)
    assert plans_of(disk) == before


def test_a_large_journal_is_settled_in_groups(disk, events, monkeypatch):
    monkeypatch.setattr(settling, "GROUP_BYTES", 8000)
    for number in range(60):
        disk.put(f"{number:02d}", events.sent(f"c{number}"), events.outcome(f"c{number}", f"content {number}"))
    written: list[str] = []
    disk.before = lambda number, operation, name: written.append(name) if operation == "delete" else None
    assert compact(disk) == (60, 0)
    assert len(written) == 60
    assert len(load_index(disk).outcomes) == 60
