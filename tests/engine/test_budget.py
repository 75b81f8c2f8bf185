"""What a task was allowed is used to the last call and never exceeded; what is bound to fail costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.errors import TooManyRejected

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]


@pytest.mark.parametrize("max_calls", [0, 1, 7, 33])
def test_exactly_as_many_calls_as_allowed(any_shop: Shop, pictures: Pictures, max_calls: int) -> None:
    """A task with max_calls=7 at concurrency 32 made none at all, night after night, and ended as a success."""
    result = any_shop.describe(pictures(40), max_calls=max_calls, concurrency=32)
    assert result.ledger["requests"] == result.ledger["billed"] == result.manifest["calls"] == max_calls
    assert (result.counts["described"], result.counts["pending"]) == (max_calls, 40 - max_calls)
    assert result.error is None, "what a task was told to leave is no failure"


@pytest.mark.parametrize(("max_cost", "calls"), [(0.0, 0), (0.0149, 0), (0.015, 1), (0.10, 6), (0.45, 30)])
def test_exactly_as_much_money_as_allowed(any_shop: Shop, pictures: Pictures, max_cost: float, calls: int) -> None:
    any_shop.faults(price=0.015, latency_s=0.01)
    result = any_shop.describe(pictures(40), max_cost=max_cost, concurrency=32)
    assert result.ledger["billed"] == calls
    assert result.error is None


def test_failed_attempts_leave_no_allowed_call_unused(shop: Shop, pictures: Pictures) -> None:
    shop.breaks("unavailable", attempts=1)
    assert shop.describe(pictures(10), max_calls=8, concurrency=4).manifest["calls"] == 8


def test_too_many_images_that_cannot_be_sent_stop_the_run_before_it_costs(any_shop: Shop, pictures: Pictures) -> None:
    paths = pictures(20)
    for path in paths[:4]:
        path.write_bytes(b"no image")
    result = any_shop.describe(paths, max_failure_ratio=0.1)
    assert type(result.error) is TooManyRejected
    assert (result.counts["rejected"], result.counts["pending"], result.ledger["requests"]) == (4, 16, 0)
