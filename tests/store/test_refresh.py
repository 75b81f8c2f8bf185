"""An index that is read again, while others write and settle: it knows what one that is read anew knows."""

from __future__ import annotations

import random

import pytest

from airflow_provider_describer.store.index import open_index
from airflow_provider_describer.store.settling import compact
from airflow_provider_describer.store.table import SettledTable


def described(index, key):
    found = index.outcome((key,))
    return found is not None and index.row((key,))["text"]


def test_what_was_looked_up_before_there_was_a_table_is_found_in_it(disk, events):
    index = open_index(disk, [events.key("a"), events.key("b")])
    assert index.outcome((events.key("a"),)) is None
    disk.put("1", events.sent("a1", "a"), events.outcome("a1", "a"))
    compact(disk)
    index.refresh()
    assert described(index, events.key("a")) == "a by a1" and index.outcome((events.key("b"),)) is None


def test_a_table_that_has_not_changed_is_not_asked_again(disk, events, monkeypatch):
    disk.put("1", events.sent("a1", "a"), events.outcome("a1", "a"))
    compact(disk)
    index = open_index(disk, [events.key("a"), events.key("b")])
    asked = []
    find = SettledTable.find

    def counted(self, keys):
        asked.append(set(keys))
        return find(self, asked[-1])

    monkeypatch.setattr(SettledTable, "find", counted)
    index.refresh()
    assert asked == []
    disk.put("2", events.sent("b1", "b"), events.outcome("b1", "b"))
    index.refresh()
    assert asked == [] and described(index, events.key("b")) == "b by b1"
    compact(disk)
    index.refresh()
    assert len(asked) >= 1 and described(index, events.key("b")) == "b by b1"


def test_an_identity_that_the_journal_links_later_is_asked_for_although_the_table_is_the_same(disk, events):
    disk.put("1", events.sent("a1", "a"), events.outcome("a1", "a"))
    compact(disk)
    index = open_index(disk, [events.key("b")])
    assert index.outcome((events.key("b"),)) is None
    disk.put("2", {"event": "same", "call": "s1", "keys": [events.key("a"), events.key("b")], "uri": "u", "at": 1.0})
    index.refresh()
    assert described(index, events.key("b")) == "a by a1"


@pytest.mark.parametrize("seed", range(4))
def test_read_again_and_again_it_knows_the_same_as_read_anew(disk, events, seed):
    rng, contents = random.Random(seed), "abcdef"
    keys = [events.key(content) for content in contents]
    index = open_index(disk, keys[:3])
    for number in range(12):
        content, call = rng.choice(contents), f"call {number}"
        end = rng.choice(["none", "described", "rejected", "lost", "closed", "same"])
        happened = [events.sent(call, content)]
        if end in ("described", "rejected"):
            happened.append(events.outcome(call, content, end))
        elif end == "lost":
            happened.append(events.lost(call, content))
        elif end == "closed":
            happened.append(events.closed(call))
        elif end == "same":
            linked = [events.key(content), rng.choice(keys)]
            happened = [{"event": "same", "call": call, "keys": linked, "uri": "u", "at": 1.0}]
        disk.put(f"{number:03}", *happened)
        if rng.random() < 0.4:
            compact(disk)
        if rng.random() < 0.5:
            index.look_up([rng.choice(keys)])
        index.refresh()
        index.look_up(keys[:4])
        fresh = open_index(disk, keys[:4])
        for key in keys[:4]:
            assert bool(index.outcome((key,))) == bool(fresh.outcome((key,)))
            assert described(index, key) == described(fresh, key)
            assert index.lost_calls((key,)) == fresh.lost_calls((key,))
