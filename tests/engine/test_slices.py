"""A job in slices: within its limits, over all of them, and for the price of one job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine.deferral import CarriedTotals, ResumeCondition
from airflow_provider_describer.engine.limits import Budget, TaskLimits
from airflow_provider_describer.engine.progress import Outcome
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
        job = shop.job(paths, task_instance=run, carried=carried)
        job.limits = slice_of(limits, size)
        outcome = job.run()
        save_totals(folder, run, outcome.carried)
        outcomes.append(shop.result(outcome, []))
        if not goes_on(outcome, shop.account()):
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


def outcome(pending: int = 1, budget: Budget | None = None, **ended: Any) -> Outcome:
    manifest = {"counts": {"pending": pending}}
    return Outcome(manifest, ended.get("error"), ended.get("resume_condition"), budget=budget or Budget())


@pytest.mark.parametrize(
    ("what", "fields", "again"),
    [
        (outcome(0, Budget(slice_left=7)), {}, False),
        (outcome(1, Budget(slice_left=0)), {}, True),
        (outcome(1, Budget(slice_left=0, max_calls=10, calls=10)), {}, False),
        (outcome(1, Budget(slice_left=0, max_cost=1.0, price=0.015, spent=0.985)), {}, True),
        (outcome(1, Budget(slice_left=0, max_cost=1.0, price=0.015, spent=0.986)), {}, False),
        (outcome(1, Budget(slice_left=0, max_cost=0.03, price=0.015, open_calls={"a", "b"})), {}, False),
        (outcome(1, Budget(slice_left=3)), {}, False),
        # Others may have used up the day.
        (outcome(1, Budget(slice_left=3)), {"limits_path": "/limits"}, True),
        (outcome(1, Budget(slice_left=3, max_calls=4, calls=4)), {"limits_path": "/limits"}, False),
        (outcome(0, resume_condition=ResumeCondition(9.0)), {}, True),
        (outcome(0, error=VendorUnavailable("gone")), {}, True),
    ],
)
def test_whether_another_slice_could_do_more(shop: Shop, what: Outcome, fields: dict[str, Any], again: bool) -> None:
    assert goes_on(what, shop.account(**fields)) is again


def test_a_slice_keeps_the_limits_of_the_whole_job() -> None:
    part = slice_of(TaskLimits(7, max_calls=300, max_cost=2.0, max_failure_ratio=0.5), 100)
    assert (part.slice_size, part.max_calls, part.max_cost, part.max_failure_ratio) == (100, 300, 2.0, 0.5)
    assert part.concurrency == 7 and part.max_wait


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
