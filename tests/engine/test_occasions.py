"""When a task's end is worth a person's attention, and what is said."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_describer.engine.occasions import OCCASIONS, check_occasions, message_of, occasions_of
from airflow_provider_describer.errors import BadInput, InsufficientCredits, RateLimited, TooManyRejected


def manifest(cost: float | None = 7.2, **counts: int) -> dict[str, Any]:
    names = ("described", "reused", "rejected", "unknown", "pending")
    counts = {"requested": sum(counts.values()), **dict.fromkeys(names, 0), **counts}
    return {"store": "s3://shop/d", "failures": None, "counts": counts, "cost_usd": cost}


def occasions(found: dict[str, Any] | None = None, limit: object = None, error: object = None) -> Any:
    return occasions_of(found, limit, error, 0.05)


def test_a_task_that_has_done_all_is_no_occasion() -> None:
    assert occasions(manifest(described=100)) == {}


def test_a_limit_that_has_left_images_is_one() -> None:
    found = occasions(manifest(described=480, pending=120), "max_cost ($7.20)")
    assert found == {"budget_reached": "max_cost ($7.20) allows no further call: 120 images are left pending."}


def test_images_that_are_pending_for_another_reason_are_none() -> None:
    assert occasions(manifest(described=480, pending=120)) == {}


def test_a_day_whose_money_is_spent_is_one_without_a_manifest() -> None:
    error = RateLimited("The day's money is spent.", kind="day_budget_spent")
    assert occasions(error=error) == {"budget_reached": "The day's money is spent."}
    assert occasions(error=RateLimited("Too many requests.")) == {}


def test_an_empty_account_is_one() -> None:
    assert occasions(error=InsufficientCredits("Top up.")) == {"out_of_credits": "Top up."}


@pytest.mark.parametrize(
    ("counts", "is_one"),
    [
        ({"described": 95, "rejected": 5}, False),
        ({"described": 94, "rejected": 6}, True),
        ({"described": 94, "rejected": 3, "unknown": 3}, True),
        ({"described": 94, "pending": 6}, False),
        ({}, False),
    ],
)
def test_a_share_of_failures_above_the_limit_is_one(counts: dict[str, int], is_one: bool) -> None:
    assert ("failure_share" in occasions(manifest(**counts))) is is_one


def test_a_task_that_its_own_failures_have_stopped_is_one_without_a_manifest() -> None:
    assert occasions(error=TooManyRejected("6 of 10.")) == {"failure_share": "6 of 10."}


@pytest.mark.parametrize("error", [None, ValueError("Bearer sk-secret"), "a text", 7])
def test_an_error_of_anything_else_is_none_and_is_not_quoted(error: object) -> None:
    assert occasions(error=error) == {}


@pytest.mark.parametrize("limit", [None, "", {"a": 1}, 3])
def test_what_is_no_limit_is_none(limit: object) -> None:
    assert occasions(manifest(described=1), limit) == {}


def test_the_message_names_the_task_what_happened_and_what_was_spent() -> None:
    found = occasions_of(manifest(described=480, pending=120), "max_calls (480)", None, 0.05)
    subject, message = message_of(found, "catalog.describe", "nightly", manifest(described=480, pending=120))
    assert subject == "catalog.describe: the budget is reached"
    assert message.splitlines() == [
        "Task catalog.describe of run nightly.",
        "max_calls (480) allows no further call: 120 images are left pending.",
        "Described: 480 images for $7.20.",
        "Store: s3://shop/d",
    ]


def test_the_message_needs_no_manifest_and_no_price() -> None:
    found = occasions_of(None, None, InsufficientCredits("Top up."), 0.05)
    assert message_of(found, "catalog.describe", "nightly", None)[1].splitlines()[1:] == ["Top up."]
    unpriced = message_of(found, "catalog.describe", "nightly", manifest(None, described=1))[1]
    assert "1 image for unknown" in unpriced


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"send": []}, "send"),
        ({"send": ["slack"]}, "send"),
        ({"on": []}, "on"),
        ({"on": "out_of_credits"}, "on"),
        ({"on": ["out_of_money"]}, "on"),
        ({"failure_share": 5}, "failure_share"),
        ({"failure_share": "0.05"}, "failure_share"),
        ({"failure_share": True}, "failure_share"),
    ],
)
def test_arguments_that_cannot_work_are_refused_by_name(given: dict[str, Any], names: str) -> None:
    arguments = {"send": [print], "on": OCCASIONS, "failure_share": 0.05, **given}
    with pytest.raises(BadInput, match=f"^{names} is "):
        check_occasions(**arguments)
