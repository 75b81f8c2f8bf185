"""Runs that may not sit out long waits: they leave, say what they wait for, and the resumed run pays nothing twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine.deferral import FETCH_WITHIN_S, CarriedTotals, ResumeCondition
from airflow_provider_describer.errors import InsufficientCredits

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]
MAX_WAIT_S = 0.3


def work_a_slice(
    shop: Shop, paths: list[Path], *, later: float = 0.0, carried: CarriedTotals | None = None, **limits: Any
) -> Any:
    """Work as a deferrable task does, some seconds later than now; return the outcome and the checked result."""
    job = shop.job(paths, **{"concurrency": 8, "max_wait": MAX_WAIT_S, **limits})
    job.vendor_calls = replace(job.vendor_calls, clock=lambda: time.time() + later)
    job.carried = carried
    outcome = job.run()
    return outcome, shop.result(outcome, [])


def test_a_rate_is_used_up_and_waited_for_elsewhere(shop: Shop, pictures: Pictures) -> None:
    shop.fields = {"requests_per_minute": 10}
    paths = pictures(15)
    began = time.time()
    outcome, result = work_a_slice(shop, paths)

    assert result.error is None and result.counts["described"] == 10 and result.counts["pending"] == 5
    assert result.ledger["billed"] == 10
    wait = outcome.resume_condition
    assert wait.requests == () and began + 60 <= wait.until <= time.time() + 60
    assert outcome.carried.calls == 10

    outcome, result = work_a_slice(shop, paths, later=wait.until - time.time(), carried=outcome.carried)
    assert outcome.resume_condition is None and result.error is None
    # As if it had never been left.
    assert result.counts == {"requested": 15, "described": 15, "reused": 0, "rejected": 0, "unknown": 0, "pending": 0}
    assert result.manifest["calls"] == result.ledger["billed"] == 15
    assert result.manifest["cost_usd"] == pytest.approx(0.225)
    assert {row["status"] for row in result.rows} == {"described"}
    assert sum(row["cost_usd"] for row in result.rows) == pytest.approx(0.225)


def test_a_run_that_is_not_resumed_reuses(shop: Shop, pictures: Pictures) -> None:
    shop.fields = {"requests_per_minute": 10}
    paths = pictures(12)
    outcome, _ = work_a_slice(shop, paths)
    _, result = work_a_slice(shop, paths, later=outcome.resume_condition.until - time.time())
    assert (result.counts["reused"], result.counts["described"], result.manifest["calls"]) == (10, 2, 2)
    assert result.manifest["cost_usd"] == pytest.approx(0.03)


def test_a_named_moment_is_waited_for_elsewhere(shop: Shop, pictures: Pictures) -> None:
    shop.vendor = "segmind"
    shop.faults(requests_per_minute=5, rate_window_s=30)
    paths = pictures(8)
    outcome, result = work_a_slice(shop, paths, concurrency=4)
    assert result.error is None and result.ledger["billed"] == 5 and result.counts["described"] == 5
    assert time.time() + 15 < outcome.resume_condition.until < time.time() + 35
    shop.faults()
    outcome, result = work_a_slice(shop, paths, carried=outcome.carried)
    assert result.counts["described"] == 8 and result.ledger["billed"] == 8


def test_running_requests_are_left_and_fetched_later(shop: Shop, pictures: Pictures) -> None:
    shop.vendor, shop.fields = "segmind", {"api_version": "v2"}
    shop.faults(v2_delay_s=4)
    paths = pictures(6)
    outcome, result = work_a_slice(shop, paths)
    assert result.error is None and result.counts["pending"] == 6
    assert outcome.resume_condition.until is None and len(outcome.resume_condition.requests) == 6
    journaled = {row["request_id"] for row in result.rows}
    assert {request_id for request_id, _ in outcome.resume_condition.requests} == journaled

    while outcome.resume_condition is not None:
        outcome, result = work_a_slice(shop, paths, carried=outcome.carried)
    assert result.counts["described"] == 6 and result.manifest["calls"] == 6
    assert result.ledger["requests"] == result.ledger["billed"] == 6
    assert result.manifest["cost_usd"] == pytest.approx(0.09)


def test_a_budget_spans_the_slices(shop: Shop, pictures: Pictures) -> None:
    shop.fields = {"requests_per_minute": 4}
    paths, later = pictures(12), 0.0
    outcome, result = work_a_slice(shop, paths, max_calls=6)
    while outcome.resume_condition is not None:
        later = outcome.resume_condition.until - time.time()
        outcome, result = work_a_slice(shop, paths, later=later, carried=outcome.carried, max_calls=6)
    assert result.error is None and result.ledger["billed"] == result.manifest["calls"] == 6
    assert (result.counts["described"], result.counts["pending"]) == (6, 6)


def test_rejected_images_count_once_over_the_slices(shop: Shop, pictures: Pictures) -> None:
    shop.fields = {"requests_per_minute": 6}
    paths = pictures(10)
    shop.faults(errors=[{"kind": "harmful", "first": 2}])
    outcome, _ = work_a_slice(shop, paths, max_failure_ratio=0.25)
    outcome, result = work_a_slice(
        shop, paths, later=outcome.resume_condition.until - time.time(), carried=outcome.carried, max_failure_ratio=0.25
    )
    assert result.error is None
    assert (result.counts["described"], result.counts["rejected"]) == (8, 2)
    assert result.ledger["billed"] == 8 and result.manifest["cost_usd"] == pytest.approx(0.12)


def test_an_account_at_fault_is_no_wait(shop: Shop, pictures: Pictures) -> None:
    shop.fields = {"requests_per_minute": 30}
    shop.faults(credits=0.0)
    outcome, result = work_a_slice(shop, pictures(8))
    assert outcome.resume_condition is None and isinstance(outcome.error, InsufficientCredits)
    assert result.ledger["billed"] == 0


def test_short_waits_are_sat_out(shop: Shop, pictures: Pictures) -> None:
    shop.vendor = "segmind"
    shop.faults(requests_per_minute=5, rate_window_s=1)
    outcome, result = work_a_slice(shop, pictures(12), max_wait=20.0)
    assert outcome.resume_condition is None and result.counts["described"] == result.ledger["billed"] == 12


def test_a_waiting_run_is_back_before_results_are_forgotten() -> None:
    wait = ResumeCondition(None, (("a", 100.0), ("b", 50.0)))
    assert wait.not_later_than() == 50.0 + FETCH_WITHIN_S
    assert replace(wait, until=60.0).not_later_than() == 60.0
    assert replace(wait, until=1e9).not_later_than() == 50.0 + FETCH_WITHIN_S
    assert ResumeCondition(7.0).not_later_than() == 7.0
    assert ResumeCondition().not_later_than() is None


def test_what_was_done_survives_a_trigger() -> None:
    carried = CarriedTotals(3, 0.5, 1, 0.015, 12.5)
    assert CarriedTotals.from_dict(carried.to_dict()) == carried
