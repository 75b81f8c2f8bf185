"""When a deferred run is resumed, from what polls of its running requests have shown. No clock, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_describer.engine.deferral import (
    ENOUGH,
    FETCH_WITHIN_S,
    LONGEST_AFTER_FIRST_S,
    QUIET_S,
    SHORTEST_S,
    DeferPolicy,
    ResumeCondition,
    ResumePolicy,
)
from airflow_provider_describer.http.flow import RESULTS_KEPT_S

NOW = 1_800_000_000.0
POLL_S = 15.0


def policy(count: int = 100, *, age: float = 60.0, until: float | None = None) -> ResumePolicy:
    """Of so many requests, each submitted ``age`` seconds ago."""
    return ResumePolicy(ResumeCondition(until, [(f"r{number}", NOW - age) for number in range(count)]), NOW)


def ids(count: int) -> list[str]:
    return [f"r{number}" for number in range(count)]


def test_nothing_to_wait_for_is_due() -> None:
    assert policy(0).is_due(NOW)


def test_it_is_due_when_all_have_ended() -> None:
    waiting = policy(3)
    assert not waiting.is_due(NOW)
    waiting.note_ended(ids(2), NOW + 15)
    assert not waiting.is_due(NOW + 15)
    waiting.note_ended(["r2"], NOW + 30)
    assert waiting.is_due(NOW + 30) and waiting.to_poll == []


def test_one_stuck_request_keeps_the_others_for_a_minute() -> None:
    waiting = policy(100)
    waiting.note_ended(ids(99), NOW + 15)
    assert waiting.to_poll == ["r99"]
    assert not waiting.is_due(NOW + 15 + QUIET_S - 1)
    assert waiting.is_due(NOW + 15 + QUIET_S)


def test_while_they_go_on_ending_there_is_no_hurry_and_yet_an_end() -> None:
    waiting = policy(100)
    now = NOW
    for number in range(99):
        now += POLL_S
        waiting.note_ended([f"r{number}"], now)
        if waiting.is_due(now):
            break
    assert now == NOW + POLL_S + LONGEST_AFTER_FIRST_S


def test_few_that_have_ended_wait_for_more_of_them() -> None:
    waiting = policy(100)
    waiting.note_ended(ids(int(100 * ENOUGH) - 1), NOW + 15)
    assert not waiting.is_due(NOW + 15 + LONGEST_AFTER_FIRST_S - 1)
    assert waiting.is_due(NOW + 15 + LONGEST_AFTER_FIRST_S)


def test_a_moment_at_which_calls_can_start_is_waited_for_without_polls() -> None:
    waiting = policy(3, until=NOW + 100)
    assert waiting.to_poll == []
    assert not waiting.is_due(NOW + 99) and waiting.is_due(NOW + 100)


@pytest.mark.parametrize("until", [None, NOW + 6 * 3600])
def test_results_are_fetched_while_they_are_kept(until: float | None) -> None:
    waiting = policy(2, age=600, until=until)
    assert not waiting.is_due(NOW + FETCH_WITHIN_S - 601) and waiting.is_due(NOW + FETCH_WITHIN_S - 600)


@pytest.mark.parametrize("until", [None, NOW + 6 * 3600])
def test_what_runs_on_past_that_is_waited_for_to_its_end_and_fetched_at_once(until: float | None) -> None:
    waiting = policy(2, age=FETCH_WITHIN_S + 60, until=until)
    assert waiting.to_poll == ids(2)
    assert not waiting.is_due(NOW)
    assert waiting.not_later_than == NOW - FETCH_WITHIN_S - 60 + RESULTS_KEPT_S
    waiting.note_ended(["r1"], NOW + 15)
    assert waiting.is_due(NOW + 15)


@pytest.mark.parametrize(
    ("nothing_for", "next_poll", "left"), [(29, 1, False), (31, 1, True), (1, 31, True), (1, 30, False)]
)
def test_a_run_that_only_polls_is_left(nothing_for: float, next_poll: float, left: bool) -> None:
    deferring = DeferPolicy(30.0)
    deferring.note_progress(NOW)
    assert deferring.polls_too_long(NOW + nothing_for, next_poll) == left == deferring.is_leaving


def test_a_run_that_cannot_defer_waits() -> None:
    assert not DeferPolicy(None).polls_too_long(NOW, 1e6)


# --- whole runs ---


@dataclass
class Deferrals:
    """A run that only fetches: it is resumed, fetches what has ended, and defers again for the rest."""

    requests: dict[str, tuple[float, float]]
    """When each was submitted and when it ends."""
    now: float
    until: float | None = None
    fetched: dict[str, float] = field(default_factory=dict)
    expired: list[str] = field(default_factory=list)
    resumed: int = 0

    def work(self) -> None:
        """What a worker does with each: it asks once, at least."""
        for request, (submitted, ends) in self.requests.items():
            if request not in self.fetched and request not in self.expired:
                if ends <= self.now:
                    self.fetched[request] = self.now
                elif self.now >= submitted + RESULTS_KEPT_S:
                    self.expired.append(request)

    def defer(self, *, polls_fail: bool) -> None:
        left = [one for one in self.requests if one not in self.fetched and one not in self.expired]
        condition = ResumeCondition(self.until, [(one, self.requests[one][0]) for one in left])
        began, waiting = self.now, ResumePolicy(condition, self.now)
        if waiting.to_poll:
            while not waiting.is_due(self.now):
                self.now += POLL_S
                over = [one for one in waiting.to_poll if self.requests[one][1] <= self.now]
                waiting.note_ended([] if polls_fail else over, self.now)
        elif waiting.not_later_than is not None:
            self.now = max(self.now, waiting.not_later_than)
        self.now = max(self.now, began + SHORTEST_S)
        self.resumed += 1

    def run(self, *, polls_fail: bool = False) -> None:
        self.work()
        while len(self.fetched) + len(self.expired) < len(self.requests):
            self.defer(polls_fail=polls_fail)
            self.now += 1.0
            if self.until is not None and self.now >= self.until:
                self.until = None
            self.work()
            assert self.resumed < 500, "it is resumed for ever"


NEVER = float("inf")
spans = st.lists(
    st.tuples(st.floats(-1800, 0), st.one_of(st.just(NEVER), st.floats(1, 2 * RESULTS_KEPT_S))),
    min_size=1,
    max_size=100,
)


def deferrals(found: Sequence[tuple[float, float]], until: float | None) -> Deferrals:
    requests = {
        f"r{number}": (NOW + submitted, NOW + submitted + lasts) for number, (submitted, lasts) in enumerate(found)
    }
    return Deferrals(requests, NOW, None if until is None else NOW + until)


@settings(max_examples=300, deadline=None)
@given(spans, st.one_of(st.none(), st.floats(15, 6 * 3600)))
def test_every_result_is_fetched_in_time_and_not_one_at_a_time(
    found: list[tuple[float, float]], until: float | None
) -> None:
    whole = deferrals(found, until)
    whole.run()
    for request, (submitted, ends) in whole.requests.items():
        if ends > submitted + RESULTS_KEPT_S - 2 * POLL_S - 2:
            continue
        assert request in whole.fetched, "it ended while the vendor kept it"
        late = whole.fetched[request] - max(ends, NOW)
        assert whole.fetched[request] <= submitted + RESULTS_KEPT_S
        if until is None:
            assert late <= LONGEST_AFTER_FIRST_S + 2 * SHORTEST_S + 2
    # A request that takes its time is worth one resumption at most at each of its two moments; all else is shared.
    late_ones = sum(ends > submitted + FETCH_WITHIN_S - POLL_S for submitted, ends in whole.requests.values())
    assert whole.resumed <= 3 * late_ones + (whole.now - NOW) / (QUIET_S + POLL_S) + 2


@settings(max_examples=100, deadline=None)
@given(spans)
def test_polls_that_tell_nothing_lose_no_result(found: list[tuple[float, float]]) -> None:
    whole = deferrals(found, None)
    whole.run(polls_fail=True)
    for request, (submitted, ends) in whole.requests.items():
        if ends <= submitted + FETCH_WITHIN_S - POLL_S:
            assert whole.fetched[request] <= submitted + FETCH_WITHIN_S + 2 * POLL_S + 2


@pytest.mark.parametrize("stuck", [1, 5, 50])
def test_stuck_requests_cost_few_resumptions(stuck: int) -> None:
    found = [(0.0, NEVER)] * stuck + [(0.0, 60.0 + number) for number in range(100 - stuck)]
    whole = deferrals(found, None)
    whole.run()
    assert len(whole.fetched) == 100 - stuck and len(whole.expired) == stuck
    assert max(whole.fetched.values()) - NOW < 160 + QUIET_S + 2 * POLL_S
    # For the results, once as long as there may be an unseen one, and once for the end of the stuck ones.
    assert whole.resumed == 3
