"""A job in slices: within its limits, over all of them, and for the price of one job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine.deferral import CarriedTotals, ResumeCondition
from airflow_provider_describer.engine.job import Outcome
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.slices import (
    check_slices,
    clear_totals,
    described_before,
    goes_on,
    is_transient,
    load_totals,
    save_totals,
    slice_of,
)
from airflow_provider_describer.errors import (
    BadInput,
    InsufficientCredits,
    RateLimited,
    StoreError,
    TooManyRejected,
    Unfinished,
    VendorUnavailable,
)
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store.rows import TaskInstanceKey

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]
RUN = TaskInstanceKey("shop", "scheduled__2026-01-01T00:00:00+00:00", "describe", 3, 2)


def in_slices(shop: Shop, paths: list[Path], size: int, limits: TaskLimits, run: TaskInstanceKey = RUN) -> list[Any]:
    """What each slice has done, until there is no further one; each as a worker of its own would do it."""
    folder, outcomes = LocalFolder(shop.store), []
    while True:
        carried = load_totals(folder, run)
        part = slice_of(limits, size, carried)
        job = shop.job(paths, task_instance=run, carried=carried)
        job.limits = part
        outcome = job.run()
        save_totals(folder, run, outcome.carried)
        outcomes.append(shop.result(outcome, []))
        if not goes_on(outcome, limits, part, shop.account()):
            return outcomes


def test_slices_add_up_to_one_job(any_shop: Shop, pictures: Pictures) -> None:
    slices = in_slices(any_shop, pictures(7), 3, TaskLimits())
    assert [result.counts["described"] for result in slices] == [3, 6, 7]
    last = slices[-1]
    assert last.counts["reused"] == last.counts["pending"] == 0
    assert last.manifest["calls"] == last.ledger["billed"] == 7
    assert last.manifest["cost_usd"] == pytest.approx(0.105)
    assert sum(row["cost_usd"] for row in last.rows) == pytest.approx(0.105)


@pytest.mark.parametrize("limit", [{"max_calls": 5}, {"max_cost": 0.075}])
def test_a_limit_holds_over_all_slices(shop: Shop, pictures: Pictures, limit: dict[str, Any]) -> None:
    slices = in_slices(shop, pictures(9), 2, TaskLimits(**limit))
    assert [result.counts["described"] for result in slices][-1] == 5
    assert slices[-1].ledger["billed"] == 5 and slices[-1].error is None


def test_calls_that_brought_nothing_count_over_all_slices(shop: Shop, pictures: Pictures) -> None:
    """They are in no row that a later slice could find."""
    shop.breaks("drop_after_bill", first=3)
    slices = in_slices(shop, pictures(8), 2, TaskLimits(max_calls=6, concurrency=1))
    assert slices[-1].ledger["billed"] == slices[-1].manifest["calls"] == 6
    assert slices[-1].counts["described"] == 3


def test_a_day_that_nobody_shares_is_the_tasks_own_budget(shop: Shop, pictures: Pictures) -> None:
    shop.fields = {"max_cost_per_day": 0.045}
    slices = in_slices(shop, pictures(9), 2, TaskLimits())
    assert slices[-1].ledger["billed"] == 3 and slices[-1].counts["pending"] == 6


def test_another_try_begins_anew_and_reuses(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(6)
    in_slices(shop, paths[:4], 2, TaskLimits())
    (last,) = in_slices(shop, paths, 2, TaskLimits(), replace(RUN, try_number=3))
    assert (last.counts["reused"], last.counts["described"], last.manifest["calls"]) == (4, 2, 2)
    assert described_before(LocalFolder(shop.store), replace(RUN, try_number=3)) == 4
    assert described_before(LocalFolder(shop.store), RUN) == 0
    assert described_before(LocalFolder(shop.store), replace(RUN, try_number=9, run_id="another")) == 0


# --- decisions ---


def outcome(pending: int = 1, *, calls: int = 0, cost: float = 0.0, unknown: float = 0.0, **more: Any) -> Outcome:
    manifest = {"counts": {"pending": pending}, "cost_usd": cost, "unknown_cost_usd": unknown}
    return Outcome(manifest, more.pop("error", None), more.pop("resume_condition", None), CarriedTotals(calls=calls))


@pytest.mark.parametrize(
    ("what", "limits", "fields", "again"),
    [
        (outcome(0, calls=3), TaskLimits(), {}, False),
        (outcome(1, calls=10), TaskLimits(), {}, True),
        (outcome(1, calls=10), TaskLimits(max_calls=10), {}, False),
        (outcome(1, calls=10, cost=0.985), TaskLimits(max_cost=1.0), {}, True),
        (outcome(1, calls=10, cost=0.986), TaskLimits(max_cost=1.0), {}, False),
        (outcome(1, calls=10, cost=0.5, unknown=0.486), TaskLimits(max_cost=1.0), {}, False),
        (outcome(1, calls=7), TaskLimits(), {}, False),
        # Others may have used up the day.
        (outcome(1, calls=7), TaskLimits(), {"limits_path": "/limits"}, True),
        (outcome(0, resume_condition=ResumeCondition(9.0)), TaskLimits(), {}, True),
        (outcome(0, error=VendorUnavailable("gone")), TaskLimits(), {}, True),
    ],
)
def test_whether_another_slice_could_do_more(
    shop: Shop, what: Outcome, limits: TaskLimits, fields: dict[str, Any], again: bool
) -> None:
    assert goes_on(what, limits, TaskLimits(max_calls=10), shop.account(**fields)) is again


def test_a_slice_has_no_more_calls_than_are_left() -> None:
    assert slice_of(TaskLimits(), 100, None).max_calls == 100
    assert slice_of(TaskLimits(), 100, CarriedTotals(calls=250)).max_calls == 350
    assert slice_of(TaskLimits(max_calls=300, max_cost=2.0), 100, CarriedTotals(calls=250)).max_calls == 300
    part = slice_of(TaskLimits(7, max_cost=2.0, max_failure_ratio=0.5), 1, None)
    assert (part.concurrency, part.max_cost, part.max_failure_ratio) == (7, 2.0, 0.5) and part.max_wait


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (RateLimited("slow"), True),
        (VendorUnavailable("gone"), True),
        (Unfinished("some left"), True),
        (InsufficientCredits("none"), False),
        (TooManyRejected("many"), False),
        (StoreError("damaged"), False),
    ],
)
def test_which_errors_are_waited_for(error: Any, passes: bool) -> None:
    assert is_transient(error) is passes


def test_results_are_not_left_until_they_are_forgotten(shop: Shop) -> None:
    shop.vendor = "segmind"
    check_slices(1, 1e9, shop.account())
    check_slices(1, 2700, shop.account(api_version="v2"))
    with pytest.raises(BadInput, match="poke_interval") as caught:
        check_slices(1, 2701, shop.account(api_version="v2"))
    assert "2700 s at most" in str(caught.value) and "'shop'" in str(caught.value)


@pytest.mark.parametrize("size", [0, -1, None, 2.5, "many"])
def test_a_slice_is_of_one_call_at_least(shop: Shop, size: Any) -> None:
    with pytest.raises(BadInput, match="slice_size"):
        check_slices(size, 60, shop.account())


# --- what is kept between them ---


def test_what_was_done_is_kept_for_this_try_alone(tmp_path: Path) -> None:
    folder, done = LocalFolder(tmp_path), CarriedTotals(3, 0.5, 1, 0.015, 12.5)
    assert load_totals(folder, RUN) is None
    save_totals(folder, RUN, done)
    save_totals(folder, replace(RUN, map_index=4), CarriedTotals(9))
    assert load_totals(folder, RUN) == done
    assert load_totals(folder, replace(RUN, try_number=3)) is None
    clear_totals(folder, RUN)
    assert load_totals(folder, RUN) is None
    assert load_totals(folder, replace(RUN, map_index=4)) == CarriedTotals(9)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"try_number": 2, "carried": {"money": 1}}'])
def test_a_damaged_note_is_never_taken_for_none(tmp_path: Path, content: str) -> None:
    folder = LocalFolder(tmp_path)
    save_totals(folder, RUN, CarriedTotals(3))
    (note,) = tmp_path.rglob("*.json")
    note.write_text(content)
    with pytest.raises(StoreError, match=note.name):
        load_totals(folder, RUN)
