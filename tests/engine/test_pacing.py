"""How fast calls may start and how many there may be."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_describer.engine.limits import Budget
from airflow_provider_describer.engine.pacing import Pace

NOW = 1_763_708_820.0


def test_without_a_limit_nothing_waits() -> None:
    pace = Pace()
    assert [pace.reserve(NOW) for _ in range(1000)] == [0.0] * 1000


def test_calls_are_spaced_evenly() -> None:
    pace = Pace(per_minute=50)
    assert [pace.reserve(NOW) for _ in range(4)] == pytest.approx([0.0, 1.2, 2.4, 3.6])


def test_time_unused_is_not_saved_up() -> None:
    """A burst after a quiet hour would break a vendor's limit all the same."""
    pace = Pace(per_minute=60)
    pace.reserve(NOW)
    assert [pace.reserve(NOW + 3600) for _ in range(3)] == [0.0, 1.0, 2.0]


def test_a_pause_holds_for_everybody_and_is_never_shortened() -> None:
    pace = Pace()
    pace.pause_until(NOW + 30)
    pace.pause_until(NOW + 10)
    assert (pace.waits(NOW), pace.reserve(NOW)) == (30.0, 30.0)
    assert pace.waits(NOW + 31) == 0.0


def test_looking_takes_no_turn() -> None:
    pace = Pace(per_minute=60)
    assert pace.reserve(NOW) == 0.0
    assert [pace.waits(NOW) for _ in range(3)] == [1.0] * 3


@settings(deadline=None)
@given(per_minute=st.floats(0.1, 6000), gaps=st.lists(st.floats(0, 5), min_size=2, max_size=60))
def test_no_minute_ever_holds_more_calls_than_allowed(per_minute: float, gaps: list[float]) -> None:
    pace, now, starts = Pace(per_minute=per_minute), 0.0, []
    for gap in gaps:
        now += gap
        starts.append(now + pace.reserve(now))
    spacing = 60.0 / per_minute
    assert all(later - earlier >= spacing - 1e-6 for earlier, later in pairwise(starts))


def test_a_limit_of_calls_counts_what_is_under_way() -> None:
    budget = Budget(max_calls=2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.settle(0.015)
    assert budget.take() is False


@pytest.mark.parametrize(
    "limits", [{"max_calls": 0}, {"max_cost": 0.0, "price": 0.015}, {"max_cost": 0.0149, "price": 0.015}]
)
def test_a_limit_that_allows_nothing_allows_nothing(limits: dict[str, float]) -> None:
    assert Budget(**limits).take() is False  # type: ignore[arg-type]  # ints where ints belong


def test_what_is_under_way_counts_as_spent() -> None:
    budget = Budget(max_cost=0.05, price=0.015)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]


def test_a_call_that_cost_nothing_gives_its_money_back() -> None:
    budget = Budget(max_cost=0.015, price=0.015)
    assert budget.take() and not budget.take()
    budget.settle(0.0)
    assert budget.take()


def test_a_call_dearer_than_told_raises_what_later_ones_reserve() -> None:
    budget = Budget(max_cost=0.10, price=0.01)
    assert budget.take()
    budget.settle(0.04)
    assert [budget.take() for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("price", "calls"), [(0.015, 1000), (0.1, 333), (0.000001, 10), (7.77, 3)])
def test_binary_fractions_lose_and_give_away_no_call(price: float, calls: int) -> None:
    budget = Budget(max_cost=round(price * calls, 6), price=price)
    taken = 0
    while budget.take():
        taken += 1
        budget.settle(price)
    assert taken == calls


@settings(deadline=None)
@given(
    max_cost=st.floats(0, 2),
    price=st.floats(0.001, 0.5),
    seed=st.integers(0, 2**32),
    free=st.floats(0, 1),
)
def test_a_budget_is_never_exceeded_whatever_the_order(max_cost: float, price: float, seed: int, free: float) -> None:
    rng = random.Random(seed)
    budget, under_way, paid = Budget(max_cost=max_cost, price=price), 0, 0.0
    for _ in range(100):
        if rng.random() < 0.6 and budget.take():
            under_way += 1
        elif under_way:
            under_way -= 1
            cost = 0.0 if rng.random() < free else price
            paid += cost
            budget.settle(cost)
        assert paid + under_way * price <= max_cost + price / 500
