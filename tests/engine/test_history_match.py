"""A record stands for one call at most, and no call counts as failed where a paid record could be its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.engine.history_match import LONGEST_S, SKEW_S, UnclearCall, match
from airflow_provider_describer.engine.vendor_history import SETTLING_S, judge
from airflow_provider_describer.models import HistoryRecord
from airflow_provider_describer.store.index import OpenCall

NOW = 1_763_708_820.0
shown = st.sampled_from("ab")
moments = st.floats(0, 3000).map(lambda seconds: NOW + seconds)
records = st.lists(
    st.builds(
        HistoryRecord,
        request_id=st.sampled_from([f"r{number}" for number in range(8)]),
        created_at=moments,
        status=st.sampled_from(["completed", "failed", "running"]),
        shown=st.none() | shown,
        text=st.none() | st.just("A mug"),
    ),
    max_size=8,
    unique_by=lambda record: record.request_id,
)
opened = st.builds(
    OpenCall,
    sent_at=moments,
    lost_at=st.just(0.0) | moments.map(lambda at: at + 500),
    shown=st.frozensets(shown, min_size=1),
    request_id=st.none() | st.sampled_from(["r1", "r2"]),
)
calls = st.lists(opened, max_size=5).map(
    lambda found: [UnclearCall.of(f"c{number}", call) for number, call in enumerate(found)]
)


@given(calls, records, st.frozensets(st.sampled_from(["r0", "r1", "r3"])), st.randoms(use_true_random=False))
def test_matching(calls, records, taken, order):
    found = match(calls, records, taken)
    by_id = {call.call: call for call in calls}
    used = [record.request_id for record in found.values()]
    assert len(used) == len(set(used)) and not taken & set(used)
    assert all(by_id[call].fits(record) for call, record in found.items())
    free = [record for record in records if record.request_id not in {*used, *taken}]
    for call in calls:
        if call.call not in found:
            assert not any(call.fits(record) for record in free), "it could have had one"
        elif found[call.call].status == "failed":
            assert not any(call.fits(record) for record in free if record.status != "failed"), "it may be paid for"
    order.shuffle(calls)
    order.shuffle(records)
    assert match(calls, records, taken) == found


@given(opened, moments)
def test_a_record_outside_the_window_is_another_calls(call, at):
    unclear = UnclearCall.of("c", call)
    record = HistoryRecord("other", at, "completed", shown=next(iter(call.shown)))
    inside = call.sent_at - SKEW_S <= at <= (call.lost_at or call.sent_at + 900) + SKEW_S
    assert unclear.fits(record) == (inside and call.request_id is None)


def test_a_lost_call_without_its_moment_is_looked_for_within_the_hour_before():
    unclear = UnclearCall.of("c", OpenCall(lost_at=NOW, shown=frozenset("a")))
    assert (unclear.earliest, unclear.latest) == (NOW - LONGEST_S - SKEW_S, NOW + SKEW_S)


@given(st.lists(opened, min_size=1, max_size=3), st.data(), st.floats(0, 6000))
def test_nothing_is_paid_again_before_the_books_have_settled(found, data, later):
    calls = {f"c{number}": call for number, call in enumerate(found)}
    known = {call: record for call in calls if (record := data.draw(st.none() | records.filter(bool).map(min_of)))}
    now = NOW + later
    finding = judge(calls, known, now)
    statuses = {record.status for record in known.values()}
    missing = [call for name, call in calls.items() if name not in known]
    fresh = any(now < max(call.sent_at, call.lost_at) + SETTLING_S for call in missing)
    if finding.verdict in ("unknown", "failed"):
        assert not fresh and "running" not in statuses
        assert not any(record.status == "completed" and record.text for record in known.values())
    if finding.verdict == "failed":
        assert statuses == {"failed"} and not missing
    if finding.verdict == "described":
        assert finding.record is not None and finding.record.text


def min_of(found):
    return min(found, key=lambda record: record.request_id)
