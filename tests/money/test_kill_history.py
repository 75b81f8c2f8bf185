"""Workers that are killed with calls under way: the vendor's own history is asked, and nothing is paid for twice."""

from __future__ import annotations

from hashlib import sha256

import pytest

COUNT = 150
KILLS = 4

pytestmark = pytest.mark.slow


@pytest.fixture(params=["v1", "v2"])
def asking(works, emulator, request):
    works.vendor, works.extra = "segmind", {"api_version": request.param}
    emulator.faults({"segmind": {"latency_s": 0.15, "v2_delay_s": 0.15}})
    return works


def lost(entry, journaled):
    """Whether the end of a request was not durable when its worker was killed."""
    return entry["request_id"] not in journaled.accepted


def test_no_image_is_paid_for_twice_however_often_its_worker_is_killed(asking, thousand):
    paths = thousand[:COUNT]
    options = {"concurrency": 12, "settling_s": 3.0}
    assert asking.kill_often(paths, KILLS, lost, (20, 0.05), **options), "calls were under way"
    asking.finish(paths, **options)
    ledger = asking.emulator.ledger()
    assert ledger["by_image"] == {sha256(path.read_bytes()).hexdigest(): 1 for path in paths}
    assert ledger["billed"] == COUNT


def test_what_is_held_was_never_sent(asking, thousand):
    """A worker may die between an intent and its call: the history shows none, and ``hold`` leaves the image alone."""
    paths = thousand[:COUNT]
    options = {"concurrency": 12, "settling_s": 2.0, "on_unknown": "hold"}
    asking.kill_often(paths, 2, lost, (20, 0.05), **options)
    counts = asking.start(paths, **options).result()["manifest"]["counts"]
    ledger = asking.emulator.ledger()
    assert counts["described"] + counts["reused"] == ledger["billed"] == len(ledger["by_image"])
    assert counts["unknown"] == COUNT - ledger["billed"]


def test_answers_that_are_lost_besides_and_a_slow_history(asking, thousand, emulator):
    paths = thousand[:COUNT]
    errors = [{"kind": "drop_after_bill", "share": 0.1}]
    if asking.extra["api_version"] == "v1":
        # A v2 request that fails while it is fetched rejects its image.
        errors.append({"kind": "drop_after_failure", "share": 0.05})
    emulator.faults(
        {
            "segmind": {
                "latency_s": 0.1,
                "v2_delay_s": 0.1,
                "history_lag_s": 0.7,
                "errors": errors,
            }
        }
    )
    options = {"concurrency": 12, "settling_s": 4.0}
    asking.kill_often(paths, 2, lost, (20, 0.05), **options)
    asking.finish(paths, **options)
    ledger = asking.emulator.ledger()
    assert ledger["by_image"] == {sha256(path.read_bytes()).hexdigest(): 1 for path in paths}


def test_a_run_that_has_waited_for_a_killed_one_asks_before_it_pays(asking, thousand):
    paths = thousand[:COUNT]
    options = {"concurrency": 12, "settling_s": 3.0}
    owner = asking.start(paths, run={"dag_id": "catalog", "run_id": "first", "task_id": "describe"}, **options)
    asking._wait_for_requests(owner, 40)
    other = asking.start(paths, run={"dag_id": "catalog", "run_id": "second", "task_id": "describe"}, **options)
    assert owner.kill(asking.emulator) is not None, "it was done before it could be killed"
    result = other.result()
    assert result["error"] is None
    counts = result["manifest"]["counts"]
    assert counts["described"] + counts["reused"] == COUNT
    ledger = asking.emulator.ledger()
    assert ledger["by_image"] == {sha256(path.read_bytes()).hexdigest(): 1 for path in paths}
