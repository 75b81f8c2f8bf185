"""How many calls a task may make, and what they may cost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_describer.engine.limits import Budget


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
