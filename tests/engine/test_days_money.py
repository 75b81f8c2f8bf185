"""A connection's ``max_cost_per_day``: by UTC day, over all tries of a task instance, and whatever ends a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.store.rows import TaskInstanceKey

if TYPE_CHECKING:
    from tests.conftest import Result, Shop

Pictures = Callable[..., list[Path]]
PRICE = 0.015
RUN = TaskInstanceKey("shop", "nightly", "describe", -1, 1)
DAY_S = 86400.0


def work(shop: Shop, paths: list[Path], *, days: float = 0.0, run: TaskInstanceKey = RUN, **options: Any) -> Result:
    """Run a job as if it were some days later."""
    # Noon: no test is to run over midnight.
    noon = (time.time() // DAY_S + days + 0.5) * DAY_S - time.time()
    job = shop.job(paths, task_instance=run, **{"concurrency": 4, **options})
    job.vendor_calls = replace(job.vendor_calls, clock=lambda: time.time() + noon)
    return shop.result(job.run(), [])


def test_a_day_is_one_day_over_all_tries_and_the_next_has_its_own_money(any_shop: Shop, pictures: Pictures) -> None:
    any_shop.fields["max_cost_per_day"] = 2 * PRICE
    paths = pictures(8)
    assert work(any_shop, paths).ledger["billed"] == 2
    assert work(any_shop, paths, run=replace(RUN, try_number=2)).ledger["billed"] == 2, "the same day"
    assert work(any_shop, paths, run=replace(RUN, try_number=3), days=1).ledger["billed"] == 4, "cleared on the next"
    # Without a limits_path, each task counts for itself.
    assert work(any_shop, paths, run=replace(RUN, run_id="another"), days=1).ledger["billed"] == 6


@pytest.mark.parametrize("fault", ["drop_before_bill", "drop_after_bill"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_lost_answer_counts_for_the_day(
    any_shop: Shop, pictures: Pictures, tmp_path: Path, fault: str, shared: bool
) -> None:
    any_shop.fields["max_cost_per_day"] = 3 * PRICE
    if shared:
        any_shop.fields["limits_path"] = str(tmp_path / "limits")
    any_shop.faults(price=PRICE, errors=[{"kind": fault, "first": 2}])
    paths = pictures(8)
    for number in (1, 2):
        result = work(any_shop, paths, run=replace(RUN, try_number=number), concurrency=1)
    assert result.ledger["requests"] == 3 and result.ledger["cost_usd"] <= 3 * PRICE


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_dearer_than_its_price_raises_the_price_of_later_calls(
    shop: Shop, pictures: Pictures, tmp_path: Path, shared: bool
) -> None:
    shop.vendor, shop.fields = "segmind", {"max_cost_per_day": 0.1}
    if shared:
        shop.fields["limits_path"] = str(tmp_path / "limits")
    shop.faults(price=0.04)
    result = work(shop, pictures(8), concurrency=1)
    assert result.ledger["billed"] == 2 and result.ledger["cost_usd"] <= 0.1


def test_a_resumed_task_has_the_days_money_once(shop: Shop, pictures: Pictures) -> None:
    shop.fields = {"requests_per_minute": 3, "max_cost_per_day": 5 * PRICE}
    paths, later, carried = pictures(12), 0.0, None
    # Early on a day that has begun by all clocks.
    today = (time.time() // DAY_S + 1.2) * DAY_S - time.time()
    while True:
        job = shop.job(paths, task_instance=RUN, concurrency=8, max_wait=0.3)
        job.vendor_calls = replace(job.vendor_calls, clock=lambda: time.time() + today + later)  # noqa: B023
        job.carried = carried
        outcome = job.run()
        result, carried = shop.result(outcome, []), outcome.carried
        if outcome.resume_condition is None:
            break
        assert outcome.resume_condition.until is not None
        later = outcome.resume_condition.until - time.time() - today
    assert result.error is None and result.ledger["billed"] == result.manifest["calls"] == 5
