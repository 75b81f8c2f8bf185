"""A task's own limits: not exceeded by a single call, read from the vendor's ledger and not from our counters."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.errors import RateLimited, TooManyRejected
from airflow_provider_describer.http.retry import RetryPolicy

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]


@pytest.mark.parametrize("max_calls", [0, 7, 33])
def test_no_more_calls_than_allowed(any_shop: Shop, pictures: Pictures, max_calls: int) -> None:
    result = any_shop.describe(pictures(40), max_calls=max_calls, concurrency=32)
    assert result.ledger["requests"] == result.ledger["billed"] == result.manifest["calls"] <= max_calls
    assert (result.counts["described"], result.counts["pending"]) == (
        result.ledger["billed"],
        40 - result.ledger["billed"],
    )
    assert result.error is None, "what a task was told to leave is no failure"


@pytest.mark.parametrize(("max_cost", "calls"), [(0.0149, 0), (0.015, 1), (0.45, 30)])
def test_no_more_money_than_allowed(any_shop: Shop, pictures: Pictures, max_cost: float, calls: int) -> None:
    any_shop.faults(price=0.015, latency_s=0.01)
    result = any_shop.describe(pictures(40), max_cost=max_cost, concurrency=32)
    assert result.ledger["billed"] <= calls
    assert result.ledger["cost_usd"] <= max_cost
    assert result.error is None


def test_unbilled_failures_use_up_calls_and_no_money(shop: Shop, pictures: Pictures) -> None:
    shop.breaks("unavailable", attempts=1)
    result = shop.describe(pictures(10), max_cost=0.15, concurrency=10)
    assert (result.ledger["requests"], result.ledger["billed"]) == (20, 10)
    result = shop.describe(pictures(20)[10:], max_calls=8, concurrency=4)
    assert result.manifest["calls"] == result.ledger["requests"] - 20 <= 8


@pytest.mark.parametrize("kind", ["drop_before_bill", "drop_after_bill", "wrong_types", "server_error", "harmful"])
def test_no_fault_breaks_a_limit(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    any_shop.breaks(kind, share=0.4)
    result = any_shop.describe(pictures(40), max_calls=12, concurrency=32)
    assert result.ledger["requests"] <= 12
    assert result.manifest["calls"] == result.ledger["requests"]


@pytest.mark.parametrize("kind", ["drop_after_bill", "wrong_types"])
def test_money_that_may_be_gone_counts_as_gone(shop: Shop, pictures: Pictures, kind: str) -> None:
    shop.faults(price=0.015, errors=[{"kind": kind, "share": 0.5}])
    result = shop.describe(pictures(40), max_cost=0.15, concurrency=32)
    assert result.ledger["billed"] <= 10
    assert result.ledger["cost_usd"] <= 0.15


def test_no_more_calls_at_a_time_than_allowed(any_shop: Shop, pictures: Pictures) -> None:
    any_shop.faults(latency_s=0.03)
    result = any_shop.describe(pictures(24), concurrency=3)
    assert result.ledger["max_in_flight"] <= 3
    assert result.ledger["connections"] <= 3
    assert result.counts["described"] == 24


def test_the_accounts_rate_is_kept(shop: Shop, pictures: Pictures) -> None:
    result = shop.describe(pictures(12), fields={"requests_per_minute": 1200})
    assert result.manifest["elapsed_s"] >= 11 * 60 / 1200 - 0.01
    assert result.counts["described"] == 12


def test_a_rate_limit_slows_down_and_finishes(any_shop: Shop, pictures: Pictures) -> None:
    any_shop.faults(requests_per_minute=8, rate_window_s=0.25)
    result = any_shop.describe(pictures(24), concurrency=8)
    assert result.error is None
    assert result.counts["described"] == result.ledger["billed"] == 24
    assert set(result.ledger["by_image"].values()) == {1}


def test_every_image_may_be_told_to_wait_once(any_shop: Shop, pictures: Pictures) -> None:
    any_shop.faults(errors=[{"kind": "rate_limited", "attempts": 1}], retry_after="0.1")
    result = any_shop.describe(pictures(6))
    assert (result.ledger["requests"], result.ledger["billed"], result.counts["described"]) == (12, 6, 6)
    assert Counter(entry["status"] for entry in result.ledger["entries"]) == {429: 6, 200: 6}


def test_a_limit_that_lasts_longer_than_retries_wait_stops_the_run(any_shop: Shop, pictures: Pictures) -> None:
    any_shop.faults(errors=[{"kind": "rate_limited", "after": 2}], retry_after="7200")
    result = any_shop.describe(pictures(20), concurrency=2)
    assert type(result.error) is RateLimited and result.error.retry_at
    assert (result.counts["described"], result.counts["pending"]) == (2, 18)
    assert result.ledger["billed"] == 2
    assert result.ledger["requests"] <= 4


def test_a_limit_that_never_ends_is_given_up(shop: Shop, pictures: Pictures) -> None:
    shop.breaks("rate_limited")
    policy = RetryPolicy(base=0.001, cap=0.002, rate_limited_attempts=3)
    result = shop.describe(pictures(6), concurrency=2, policy=policy)
    assert type(result.error) is RateLimited
    assert result.counts["pending"] == 6
    assert result.ledger["billed"] == 0


@pytest.mark.parametrize(("ratio", "stops"), [(0.0, True), (0.1, True), (0.2, False), (1.0, False)])
def test_too_many_rejected_images_fail_the_run(any_shop: Shop, pictures: Pictures, ratio: float, stops: bool) -> None:
    paths = pictures(20)
    bad = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths[:4]]
    any_shop.breaks("harmful", images=bad)
    result = any_shop.describe(paths, max_failure_ratio=ratio, concurrency=2)
    if stops:
        assert type(result.error) is TooManyRejected and "max_failure_ratio" in str(result.error)
        assert result.counts["pending"] > 0
        assert result.ledger["requests"] < 20
    else:
        assert (result.error, result.counts["rejected"], result.counts["described"]) == (None, 4, 16)
