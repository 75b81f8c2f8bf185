"""A budget is the task instance's, whatever the try, the stint or the slice: asserted from the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.slices import goes_on, slice_of
from airflow_provider_describer.errors import InsufficientCredits
from airflow_provider_describer.store.rows import TaskInstanceKey

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]
PRICE = 0.015
RUN = TaskInstanceKey("shop", "nightly", "describe")
LIMITS = [{"max_cost": 4 * PRICE}, {"max_calls": 4}]


def settled(shop: Shop) -> dict[str, Any]:
    """The ledger, once no request runs at the vendor any more."""
    until = time.monotonic() + 20
    while (ledger := shop.emulator.ledger())["in_flight"] and time.monotonic() < until:
        time.sleep(0.01)
    return ledger


@pytest.mark.parametrize("limits", LIMITS)
def test_tries_that_fail_share_one_budget(any_shop: Shop, pictures: Pictures, limits: dict[str, Any]) -> None:
    """Three tries that each ended after two calls spent the budget one and a half times."""
    any_shop.fields["price_per_call"] = PRICE
    paths = pictures(12)
    for number in (1, 2, 3):
        # Each try ends as the account has credits for two calls.
        any_shop.faults(price=PRICE, credits=2.5 * PRICE)
        job = any_shop.job(paths, task_instance=replace(RUN, try_number=number), concurrency=1, **limits)
        outcome = job.run()
        assert outcome.manifest["counts"]["pending"] > 0
    assert type(outcome.error) is not InsufficientCredits, "the last try has nothing left to spend"
    assert settled(any_shop)["billed"] == 4


@pytest.mark.parametrize("limits", LIMITS)
def test_lost_answers_of_earlier_tries_count_at_the_price(
    shop: Shop, pictures: Pictures, limits: dict[str, Any]
) -> None:
    shop.fields["price_per_call"] = PRICE
    paths = pictures(9)
    shop.faults(price=PRICE, errors=[{"kind": "drop_after_bill", "first": 3}])
    shop.job(paths[:3], task_instance=RUN, concurrency=1, on_unknown="hold", **limits).run()
    assert shop.emulator.ledger()["billed"] == 3
    shop.faults(price=PRICE)
    again = shop.job(paths[3:], task_instance=replace(RUN, try_number=2), concurrency=4, **limits).run()
    assert shop.emulator.ledger()["billed"] == 4
    assert again.manifest["counts"]["pending"] == 5


def test_another_task_and_another_run_have_budgets_of_their_own(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(8)
    shop.faults(price=PRICE)
    others = [RUN, replace(RUN, run_id="next"), replace(RUN, task_id="other"), replace(RUN, map_index=3)]
    for number, run in enumerate(others, 1):
        shop.job(paths, task_instance=run, max_calls=2).run()
        assert shop.emulator.ledger()["billed"] == 2 * number


def test_outside_airflow_each_run_has_its_own(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(4)
    for number in (1, 2):
        shop.job(paths, max_calls=2).run()
        assert shop.emulator.ledger()["billed"] == 2 * number


def submit_and_leave(shop: Shop, paths: list[Path], run: TaskInstanceKey = RUN, **limits: Any) -> Any:
    """Submit v2 requests and leave them running at the vendor, as a deferrable task does."""
    return shop.job(paths, task_instance=run, concurrency=5, max_wait=0.05, **limits).run()


@pytest.mark.parametrize("limits", [{"max_cost": 5 * PRICE}, {"max_calls": 5}])
@pytest.mark.parametrize("keep_carried", [True, False], ids=["resumed", "another try"])
def test_requests_that_run_at_the_vendor_are_reserved(
    shop: Shop, pictures: Pictures, limits: dict[str, Any], keep_carried: bool
) -> None:
    """The resumed task submitted five more."""
    shop.vendor, shop.fields = "segmind", {"api_version": "v2", "price_per_call": PRICE}
    shop.faults(price=PRICE, v2_delay_s=1.5)
    paths = pictures(12)
    outcome = submit_and_leave(shop, paths, **limits)
    assert outcome.resume_condition is not None and outcome.manifest["calls"] == 5
    resumes = 0
    while outcome.resume_condition is not None:
        resumes += 1
        job = shop.job(
            paths,
            task_instance=RUN if keep_carried else replace(RUN, try_number=1 + resumes),
            concurrency=5,
            max_wait=0.3,
            carried=outcome.carried if keep_carried else None,
            **limits,
        )
        outcome = job.run()
        assert resumes < 60
    ledger = settled(shop)
    assert ledger["requests"] == ledger["billed"] == 5
    assert set(ledger["by_image"].values()) == {1}
    assert outcome.manifest["counts"]["pending"] == 7
    if keep_carried:
        assert outcome.manifest["cost_usd"] == pytest.approx(5 * PRICE)


def test_a_running_request_that_fails_frees_its_money(shop: Shop, pictures: Pictures) -> None:
    """FAILED is not billed: the money that was reserved for it describes another image."""
    shop.vendor, shop.fields = "segmind", {"api_version": "v2", "price_per_call": PRICE}
    shop.faults(price=PRICE, v2_delay_s=1.0, v2_fail_share=1.0)
    paths = pictures(6)
    outcome = submit_and_leave(shop, paths[:2], max_cost=2 * PRICE)
    assert outcome.manifest["calls"] == 2
    shop.faults(price=PRICE)
    outcome = shop.job(paths, task_instance=RUN, carried=outcome.carried, concurrency=4, max_cost=2 * PRICE).run()
    ledger = settled(shop)
    assert ledger["billed"] == outcome.manifest["counts"]["described"] == 2
    assert outcome.manifest["counts"]["rejected"] == 2


def test_the_slices_of_a_sensor_share_one_budget_over_tries(shop: Shop, pictures: Pictures) -> None:
    shop.vendor, shop.fields = "segmind", {"api_version": "v2", "price_per_call": PRICE}
    shop.faults(price=PRICE, v2_delay_s=0.3)
    paths, limits = pictures(12), TaskLimits(concurrency=4, max_cost=5 * PRICE, max_failure_ratio=1.0)
    for number in (1, 2, 3):
        for _ in range(20):
            job = shop.job(paths, task_instance=replace(RUN, try_number=number))
            job.limits = replace(slice_of(limits, 2), max_wait=0.1)
            outcome = job.run()
            if not goes_on(outcome, shop.account()):
                break
        else:
            pytest.fail("the slices never end")
        assert settled(shop)["billed"] == settled(shop)["requests"] == 5
