"""The journal against a simple model: whatever writers, crashes and merges do, the plan is the model's."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from airflow_provider_describer.store import journal as journal_module
from airflow_provider_describer.store.index import JournalIndex, load_index
from airflow_provider_describer.store.journal import Journal
from airflow_provider_describer.store.settling import compact

CONTENTS = "abcd"
LATER = "2026-01-02T00:00:00.000+00:00"
ENDS = ("closed", "lost", "described", "rejected", "unknown")


def same(call, keys):
    return {"event": "same", "keys": keys, "uri": "u", "at": 1.0, "call": call}


class Model:
    """What is durable, as a plain list of calls; decides as the plan should."""

    def __init__(self):
        self.calls = {}
        self.links = []

    def apply(self, kind, call, content):
        if kind == "same":
            self.links.append(set(content))
            return
        said = self.calls.setdefault(call, {"content": content, "said": set()})["said"]
        said.add(kind)

    def plans(self):
        return [
            (on_unknown, retry_rejected, *self.decide(content, on_unknown, retry_rejected))
            for on_unknown in ("retry", "hold", "fail")
            for retry_rejected in (False, True)
            for content in CONTENTS
        ]

    def names(self, content):
        """All that name the same image, found by walking the links until there is no new one."""
        names = {content}
        while more := {name for link in self.links if link & names for name in link} - names:
            names |= more
        return names

    def decide(self, content, on_unknown, retry_rejected):
        names = self.names(content)
        calls = {call: about["said"] for call, about in self.calls.items() if about["content"] in names}
        # What was said later has a greater id.
        decided = [(int(call), one) for call, said in calls.items() for one in said & {"described", "withdrawn"}]
        opened = [call for call, said in calls.items() if not said & {*ENDS, "withdrawn"}]
        running = [call for call in opened if "accepted" in calls[call]]
        lost = len(opened) + sum(
            # Where two runs tell different ends, one of them knows better.
            bool(said & {"lost", "unknown"}) and not said & {"closed", "described", "rejected", "withdrawn"}
            for said in calls.values()
        )
        if decided and max(decided)[1] == "described":
            return "reuse", None, 0
        if running:
            return "attach", max(running), lost - 1
        if (decided or any("rejected" in said for said in calls.values())) and not retry_rejected:
            return "rejected", None, 0
        if lost and (on_unknown != "retry" or lost - len(opened) >= 2):
            return "unknown", None, lost
        return "call", None, lost


class JournalMachine(RuleBasedStateMachine):
    tools: ClassVar[Any]

    def __init__(self):
        super().__init__()
        self.disk, self.model = self.tools.new_disk(), Model()
        self.ids = (f"{number:03d}" for number in itertools.count())
        self.content, self.writers, self.running = {}, [], []

    # -- writers: each with an event loop of its own, which runs only while it is spoken to --------------------

    @precondition(lambda self: len(self.writers) < 3)
    @rule()
    def open_writer(self):
        runner, journal = asyncio.Runner(), Journal(self.disk, window=0)
        runner.run(journal.__aenter__())
        self.writers.append((runner, journal, []))

    def commit(self, writer, kind, call):
        runner, journal, waiting = writer
        runner.run(journal.commit(self.event(kind, call)))
        if journal._settling is not None:
            # In a thread: it must not meet what is done to the disk next.
            runner.run(asyncio.wait_for(asyncio.shield(journal._settling), 60))
        for one in (*waiting, (kind, call)):
            self.tell(*one)
        waiting.clear()

    def tell(self, kind, call):
        self.model.apply(kind, call, self.content[call])

    def event(self, kind, call):
        content = self.content[call]
        at = float(call)
        make = self.tools.events
        match kind:
            case "sent" | "accepted":
                return getattr(make, kind)(call, content, at=at)
            case "closed":
                return make.closed(call)
            case "lost":
                return make.lost(call, content)
            case "same":
                return same(call, [make.key(name) for name in content])
        moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
        return make.outcome(call, content, kind, described_at=moment)

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), content=st.sampled_from(CONTENTS), kind=st.sampled_from(("described", "withdrawn")))
    def review(self, data, content, kind):
        """A person decides about an image, at once and whoever else is at work."""
        call = next(self.ids)
        self.content[call] = content
        self.commit(data.draw(st.sampled_from(self.writers)), kind, call)

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), content=st.sampled_from(CONTENTS), accepted=st.booleans())
    def send(self, data, content, accepted):
        writer = data.draw(st.sampled_from(self.writers))
        call = next(self.ids)
        self.content[call] = content
        self.commit(writer, "sent", call)
        if accepted:
            self.commit(writer, "accepted", call)
        self.running.append(call)

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), contents=st.lists(st.sampled_from(CONTENTS), min_size=2, max_size=3))
    def link(self, data, contents):
        call = next(self.ids)
        self.content[call] = contents
        self.commit(data.draw(st.sampled_from(self.writers)), "same", call)

    @precondition(lambda self: self.writers and self.running)
    @rule(data=st.data(), kind=st.sampled_from(ENDS))
    def end(self, data, kind):
        """Also by another writer than the one who has sent it, as when it attaches to a request."""
        writer = data.draw(st.sampled_from(self.writers))
        call = data.draw(st.sampled_from(self.running))
        if kind in ("closed", "lost"):
            # These are only appended: they are durable with the next event of this writer, or lost with it.
            writer[1].append(self.event(kind, call))
            writer[2].append((kind, call))
        else:
            self.commit(writer, kind, call)
        if data.draw(st.booleans()):
            self.running.remove(call)

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def crash(self, data):
        writer = data.draw(st.sampled_from(self.writers))
        self.writers.remove(writer)
        runner, journal, _ = writer
        journal._buffer.clear()
        journal._writer.cancel()
        runner.close()

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def close(self, data):
        writer = data.draw(st.sampled_from(self.writers))
        self.writers.remove(writer)
        runner, journal, waiting = writer
        runner.run(journal.__aexit__(None, None, None))
        runner.close()
        for kind, call in waiting:
            self.tell(kind, call)

    # -- merges --------------------------------------------------------------------------------------------------

    @rule(kill_at=st.none() | st.integers(1, 40))
    def compact(self, kill_at):
        if kill_at is not None:
            self.disk.kill_at(kill_at)
        try:
            compact(self.disk)
        except self.tools.killed:
            pass
        finally:
            self.disk.calm()

    @invariant()
    def plan_is_the_models(self):
        found = self.tools.plans(load_index(self.disk), CONTENTS)
        shown = [
            (on, retry, action, call[0] if call and action == "attach" else None, lost)
            for on, retry, action, lost, call, _ in found
        ]
        assert shown == self.model.plans()

    def teardown(self):
        for runner, journal, _ in self.writers:
            journal._writer.cancel()
            runner.close()


def test_any_history_gives_the_models_plan(new_disk, killed, events, plans, monkeypatch):
    monkeypatch.setattr(journal_module, "SETTLE_BYTES", 1000)
    JournalMachine.tools = SimpleNamespace(new_disk=new_disk, killed=killed, events=events, plans=plans)
    run_state_machine_as_test(
        JournalMachine,
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            derandomize=True,
        ),
    )


@pytest.fixture(scope="module")
def ends_of_all_kinds(events):
    told = []
    for number, content in enumerate("aabbcc"):
        call = str(number)
        told += [events.sent(call, content, at=number), events.accepted(call, content, at=number + 0.5)]
    told += [events.closed("0"), events.outcome("1", "a"), events.lost("2", "b")]
    told += [events.outcome("3", "b", "rejected"), events.outcome("4", "c", "unknown")]
    # Reviews of an image, also at the moment at which it was described.
    told += [events.outcome("7", "a", "withdrawn"), events.outcome("8", "a", described_at=LATER)]
    told += [events.outcome("9", "b", "withdrawn", described_at=LATER)]
    # The same outcome twice, as after a merge that was killed, and a call of which two runs tell different ends.
    told += [same("5", [events.key("a"), events.key("c")]), same("6", [events.key("d"), events.key("c")])]
    told += [events.outcome("1", "a"), events.outcome("4", "c", "rejected"), events.outcome("3", "b", "unknown")]
    return told


@given(data=st.data())
@settings(deadline=None)
def test_the_order_of_events_makes_no_difference(data, ends_of_all_kinds, plans):
    part = data.draw(st.lists(st.sampled_from(ends_of_all_kinds), unique_by=str))
    expected = plans(folded(part))
    shuffled = data.draw(st.permutations(part + data.draw(st.lists(st.sampled_from(part or [None]), max_size=4))))
    assert plans(folded([event for event in shuffled if event])) == expected


def folded(told):
    index = JournalIndex()
    for number, event in enumerate(told):
        index.apply(f"shard {number % 3}", number, 1, event)
    index.finish()
    return index
