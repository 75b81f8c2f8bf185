"""What the plan promises: no more calls and money than the limits allow, and no fewer than the run then uses."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.engine.limits import Allowance, Budget, TaskLimits, days_allowance, tightest, used_up
from airflow_provider_describer.engine.progress import Outcome
from airflow_provider_describer.errors import BadConnection, StoreError
from airflow_provider_describer.quota.days_money import DaysCalls, calls_left_today
from airflow_provider_describer.quota.document import encode_leases, open_limits_document
from airflow_provider_describer.quota.leases import Lease, Leases, day_of
from airflow_provider_describer.quota.shared import DayBudgetSpent, open_quota
from airflow_provider_describer.store.index import Spending
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.vendors import get_vendor

if TYPE_CHECKING:
    from clouds import Cloud

    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]
PRICE = 0.015
RUN = TaskInstanceKey("shop", "nightly", "describe", -1, 1)
AGAIN = replace(RUN, try_number=2)
OTHER = replace(RUN, task_id="another")
DAY_S = 86400.0
NOON = (time.time() // DAY_S + 1.5) * DAY_S
"""No test is to run over midnight."""


@dataclass
class Ran:
    """What a run, also a dry one, has said and done."""

    outcome: Outcome
    lines: list[str]
    ledger: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.outcome.manifest["counts"]
        return counts

    @property
    def plan(self) -> str:
        return next(line for line in self.lines if "at most" in line)

    @property
    def promised(self) -> int:
        found = re.search(r"at most (\d+) call", self.plan)
        assert found
        return int(found[1])


def work(shop: Shop, paths: list[Path], *, run: TaskInstanceKey = RUN, days: float = 0.0, **options: Any) -> Ran:
    """Run a job as if it were noon, some days later."""
    lines: list[str] = []
    began = time.time()
    job = shop.job(paths, task_instance=run, report=lines.append, **options)
    job.vendor_calls = replace(job.vendor_calls, clock=lambda: NOON + days * DAY_S + time.time() - began)
    return Ran(job.run(), lines, shop.emulator.ledger())


DAY = "max_cost_per_day ($0.06) of connection 'shop' allows no more today"
LIMITS: list[tuple[tuple[dict[str, Any], dict[str, Any]], dict[str, Any], tuple[int, int], str]] = [
    # Limits of two runs, and of the connection; calls of each run; why the second makes no more.
    (({"max_calls": 2}, {"max_calls": 5}), {}, (2, 3), "max_calls (5) allows no more"),
    (({"max_calls": 4}, {"max_cost": 0.075}), {}, (4, 1), "max_cost ($0.075) allows no more"),
    (({"max_calls": 4}, {"max_calls": 4}), {}, (4, 0), "max_calls (4) allows no more"),
    (({"max_calls": 4}, {"max_calls": 3}), {}, (4, 0), "max_calls (3) allows no more"),
    (({"slice_size": 3}, {"slice_size": 2}), {}, (3, 2), "slice_size (2) allows no more"),
    (({"slice_size": 3}, {"slice_size": 2, "max_calls": 4}), {}, (3, 1), "max_calls (4) allows no more"),
    (({"slice_size": 3}, {"slice_size": 2, "max_cost": 0.075}), {}, (3, 2), "slice_size (2) allows no more"),
    (({"slice_size": 3}, {"slice_size": 3, "max_calls": 5}), {}, (3, 2), "max_calls (5) allows no more"),
    (({"max_calls": 2}, {"max_calls": 8}), {"max_cost_per_day": 0.06}, (2, 2), DAY),
    (({"max_calls": 4}, {}), {"max_cost_per_day": 0.06}, (4, 0), DAY),
    (({"max_calls": 3}, {"slice_size": 2, "max_calls": 9}), {"max_cost_per_day": 0.06}, (3, 1), DAY),
    (
        ({"max_calls": 3}, {"slice_size": 2, "max_cost": 0.09}),
        {"max_cost_per_day": 0.09},
        (3, 2),
        "slice_size (2) allows no more",
    ),
]


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize(("limits", "fields", "calls", "why"), LIMITS)
def test_what_earlier_tries_have_spent_is_not_promised_again(
    shop: Shop,
    pictures: Pictures,
    tmp_path: Path,
    limits: tuple[dict[str, Any], dict[str, Any]],
    fields: dict[str, Any],
    calls: tuple[int, int],
    why: str,
    is_shared: bool,
) -> None:
    (first, second), (before, more) = limits, calls
    shop.fields = fields | ({"limits_path": str(tmp_path / "limits")} if is_shared else {})
    paths = pictures(12)
    assert work(shop, paths, **first).promised == before
    planned = work(shop, paths, run=AGAIN, dry_run=True, **second)
    result = work(shop, paths, run=AGAIN, **second)
    assert result.ledger["billed"] == before + more and result.outcome.error is None
    assert result.promised == more and result.plan.endswith(f"({why})"), result.plan
    assert planned.plan == result.plan, "a dry run promises the same"
    assert planned.counts == {
        **dict.fromkeys(result.counts, 0),
        "requested": 12,
        "reused": before,
        "pending": 12 - before,
    }


def test_another_days_spending_leaves_this_days_money(shop: Shop, pictures: Pictures) -> None:
    """The day's limit was compared with what the task had spent on all days: it promised nothing and made two calls."""
    shop.fields = {"max_cost_per_day": 2 * PRICE}
    paths = pictures(6)
    for days in range(2):
        result = work(shop, paths, run=replace(RUN, try_number=days + 1), days=days)
        assert result.promised == 2 and result.ledger["billed"] == 2 * (days + 1)


def test_what_other_tasks_have_spent_today_is_not_promised(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    shop.fields = {"max_cost_per_day": 5 * PRICE, "limits_path": str(tmp_path / "limits")}
    paths = pictures(12)
    assert work(shop, paths[:3], run=OTHER).ledger["billed"] == 3
    result = work(shop, paths[3:])
    assert result.promised == 2 and result.ledger["billed"] == 5
    assert result.plan.endswith("(max_cost_per_day ($0.075) of connection 'shop' allows no more today)")


@pytest.mark.parametrize("limits", [{"max_calls": 6}, {"max_cost": 0.09}])
def test_calls_that_brought_nothing_are_not_promised_again(
    shop: Shop, pictures: Pictures, limits: dict[str, Any]
) -> None:
    shop.breaks("drop_after_bill", first=2)
    paths = pictures(12)
    first = work(shop, paths, concurrency=1, slice_size=4, **limits)
    assert first.ledger["billed"] == 4
    result = work(shop, paths, run=AGAIN, **limits)
    assert result.promised == 2 and result.ledger["billed"] == 6


def test_what_a_resumed_run_has_called_for_nothing_is_not_promised_again(shop: Shop, pictures: Pictures) -> None:
    """Calls that were refused are not in the journal's sums, but the task has made them."""
    shop.breaks("unavailable", first=3)
    paths = pictures(9)
    job = shop.job(paths, task_instance=RUN, concurrency=1, slice_size=4, max_calls=6)
    carried = job.run().carried
    assert carried.calls == 4
    result = work(shop, paths, carried=carried, max_calls=6)
    assert result.promised == 2 and result.outcome.manifest["calls"] == result.ledger["requests"] == 6


@pytest.mark.parametrize(
    ("limits", "calls", "why"),
    [
        ({"max_calls": 3}, 1, "max_calls (3) allows no more"),
        ({"max_cost": 0.045}, 1, "max_cost ($0.045) allows no more if those still running are billed"),
        ({"max_calls": 2}, 0, "max_calls (2) allows no more"),
    ],
)
@pytest.mark.parametrize("run", [RUN, OTHER])
def test_requests_that_are_fetched_have_their_money(
    shop: Shop, pictures: Pictures, limits: dict[str, Any], calls: int, why: str, run: TaskInstanceKey
) -> None:
    paths = pictures(7)
    shop.vendor, shop.fields = "segmind", {"api_version": "v2"}
    stuck = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths[:2]]
    shop.faults(errors=[{"kind": "stuck", "images": stuck}])
    assert work(shop, paths[:2], max_wait=0.0).counts["pending"] == 2
    result = work(shop, paths, run=run, max_wait=0.2, **limits)
    assert "7 images: 5 new, 0 reused, 2 still running at the vendor" in result.plan
    assert result.promised == calls and result.plan.endswith(f"({why})"), result.plan
    assert result.ledger["requests"] == 2 + calls


def test_a_plan_that_is_refused_promises_nothing(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(6)
    for path in paths[:3]:
        path.write_bytes(b"no image")
    for dry_run in (True, False):
        result = work(shop, paths, max_failure_ratio=0.1, dry_run=dry_run)
        assert result.plan.endswith("at most 0 calls, $0.00 (the run stops before its first call)")
        said = [line for line in result.lines if "3 of 6 images were rejected, more than max_failure_ratio=0.1" in line]
        assert len(said) == dry_run, "a real run ends with that error"
        assert result.ledger["requests"] == 0 and (result.outcome.error is None) == dry_run


def test_a_dry_run_warns_of_what_it_counts(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(6)
    paths[0].write_bytes(b"no image")
    outcome = shop.job(paths, dry_run=True).run()
    assert outcome.warning is not None and outcome.warning.startswith("1 of 6 images was rejected; the last one: ")
    shop.breaks("drop_after_bill", share=1)
    shop.job(paths[1:], max_lost_calls=1).run()
    outcome = shop.job(paths[1:], dry_run=True, max_lost_calls=1).run()
    assert outcome.manifest["counts"]["unknown"] == 5 and "5 of 5 images are held" in str(outcome.warning)


def test_without_a_price_calls_are_promised_and_no_money(shop: Shop, pictures: Pictures) -> None:
    shop.fields = {"price_per_call": None}
    result = work(shop, pictures(4), max_calls=3)
    assert result.plan.endswith("at most 3 calls (max_calls (3) allows no more)")
    assert result.ledger["billed"] == 3


# The shared document


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("content", "why"), [(b"{", "is damaged"), (b'{"format":"x"}', "is damaged"), (None, "cannot be read")]
)
def test_a_document_that_cannot_be_read_is_an_error_and_no_promise(
    shop: Shop, pictures: Pictures, tmp_path: Path, content: bytes | None, why: str, dry_run: bool
) -> None:
    shop.fields = {"max_cost_per_day": 1, "limits_path": str(tmp_path / "limits")}
    path = Path(open_limits_document(shop.account()).where)
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    lines: list[str] = []
    with pytest.raises(StoreError) as caught:
        shop.job(pictures(2), dry_run=dry_run, report=lines.append).run()
    assert f"{path} {why}" in str(caught.value)
    assert not any("at most" in line for line in lines) and shop.emulator.ledger()["requests"] == 0


def test_a_path_that_cannot_be_shared_is_found_by_a_dry_run(shop: Shop, pictures: Pictures) -> None:
    shop.fields = {"max_cost_per_day": 1, "limits_path": "https://example.com/limits"}
    with pytest.raises(BadConnection, match="limits_path"):
        shop.job(pictures(2), dry_run=True).run()


def test_a_dry_run_reads_the_document_once_and_writes_nothing(shop: Shop, pictures: Pictures, cloud: Cloud) -> None:
    shop.fields = {"max_cost_per_day": 2 * PRICE, "limits_path": f"{cloud.uri}/limits"}
    paths = pictures(4)
    shop.job(paths[:1], open_bucket=cloud.open_bucket).run()
    cloud.server.requests.clear()
    lines: list[str] = []
    shop.job(paths, open_bucket=cloud.open_bucket, dry_run=True, report=lines.append).run()
    assert [request.method for request in cloud.server.requests] == ["GET"]
    assert any("at most 1 call, " in line for line in lines)
    cloud.server.requests.clear()
    shop.job(paths[:1], open_bucket=cloud.open_bucket, dry_run=True).run()
    assert not cloud.server.requests, "nothing is to be called"


@pytest.mark.parametrize("lives", [True, False])
def test_what_others_hold_counts_as_spent(shop: Shop, tmp_path: Path, lives: bool) -> None:
    """That of a dead holder counts for good."""
    account = shop.account(max_cost_per_day=10 * PRICE, limits_path=str(tmp_path))
    today, yesterday = day_of(NOON), day_of(NOON - DAY_S)
    lease = Lease(NOON + (30 if lives else -30), spent={today: 15_000, yesterday: 60_000}, held={today: 45_000})
    leases = Leases(spent={today: 30_000, yesterday: 150_000}, holders={"another": lease})
    open_limits_document(account).swap(encode_leases(leases), None)
    left = calls_left_today(account, clock=lambda: NOON)
    assert left == DaysCalls(4, is_set_aside=lives)
    allowance = days_allowance(account, left)
    assert allowance is not None
    assert ("if other tasks spend what they have set aside" in allowance.more) == lives


def test_a_day_without_a_limit_reads_nothing(shop: Shop) -> None:
    assert calls_left_today(shop.account(limits_path="/proc/nowhere"), clock=lambda: NOON) is None
    assert days_allowance(shop.account(), None) is None


# Which limit binds


def budget(limits: TaskLimits, spending: Spending | None = None, attached: tuple[str, ...] = ()) -> Budget:
    return Budget.of_task(limits, PRICE, spending or Spending(), attached)


@pytest.mark.parametrize(
    ("limits", "spending", "expected"),
    [
        (TaskLimits(), Spending(9, 0.135), None),
        (TaskLimits(max_cost=0.15), Spending(4, 0.06), Allowance(6, "max_cost ($0.15)")),
        (TaskLimits(max_cost=0.15), Spending(4, 0.03, unpriced=2), Allowance(6, "max_cost ($0.15)")),
        (TaskLimits(max_cost=0.15), Spending(2, 0.03, 0, frozenset("ab")), Allowance(6, "max_cost ($0.15)")),
        (TaskLimits(max_calls=5, max_cost=0.15), Spending(4, 0.06), Allowance(1, "max_calls (5)")),
        (TaskLimits(max_calls=5), Spending(4, 0.06, 0, frozenset("abc")), Allowance(0, "max_calls (5)")),
        (TaskLimits(slice_size=3, max_calls=7), Spending(4, 0.06), Allowance(3, "slice_size (3)")),
        (TaskLimits(slice_size=3, max_calls=6), Spending(4, 0.06), Allowance(2, "max_calls (6)")),
    ],
)
def test_the_limit_that_binds_is_named(limits: TaskLimits, spending: Spending, expected: Allowance | None) -> None:
    assert tightest(budget(limits, spending), limits) == expected


def test_a_call_that_was_dearer_than_its_price_names_the_money() -> None:
    """By the price on the connection, one more call was within both limits, and the first of them was named."""
    limits = TaskLimits(max_calls=2, max_cost=0.06)
    left = budget(limits)
    assert left.take()
    left.settle(0.04)
    assert not left.take() and used_up(left, limits) == "max_cost ($0.06)"


PROMISES = st.fixed_dictionaries(
    {
        "planned": st.integers(0, 12),
        "price": st.integers(1, 50),
        "calls": st.integers(0, 8),
        "spent": st.integers(0, 200),
        "open_calls": st.integers(0, 3),
        "attached": st.integers(0, 3),
        "max_calls": st.none() | st.integers(0, 20),
        "max_cost": st.none() | st.integers(0, 500),
        "slice_size": st.none() | st.integers(1, 10),
        "day": st.none() | st.integers(1, 500),
        "spent_today": st.integers(0, 300),
        "share_of_price": st.lists(st.sampled_from([0, 1]), min_size=12, max_size=12),
    }
)


@given(PROMISES)
def test_made_within_promised_within_allowed(case: dict[str, Any]) -> None:
    """All money in thousandths of a USD, so that this arithmetic is exact. Calls that fail cost nothing."""
    price, day = case["price"], case["day"]
    limits = TaskLimits(
        max_calls=case["max_calls"],
        max_cost=None if case["max_cost"] is None else case["max_cost"] / 1000,
        slice_size=case["slice_size"],
    )
    open_calls = frozenset(f"open {number}" for number in range(case["open_calls"]))
    spending = Spending(case["calls"], case["spent"] / 1000, 0, open_calls)
    attached = [f"open {number}" for number in range(case["attached"])]
    left = Budget.of_task(limits, price / 1000, spending, attached)
    account = account_with(price_per_call=price / 1000, max_cost_per_day=None if day is None else day / 1000)
    spent_today = case["spent_today"] / 1000
    days = days_allowance(account, calls_left_today(account, spent=spent_today, clock=lambda: NOON))
    allowed = tightest(left, limits, days)
    promise = min([case["planned"]] + ([allowed.calls] if allowed else []))

    made, taken = len(open_calls | set(attached)), case["spent"]
    bounds = [case["planned"]]
    bounds += [] if case["max_calls"] is None else [case["max_calls"] - case["calls"] - made]
    bounds += [] if case["max_cost"] is None else [(case["max_cost"] - taken - made * price) // price]
    bounds += [] if case["slice_size"] is None else [case["slice_size"]]
    bounds += [] if day is None else [(day - case["spent_today"]) // price]
    assert promise == max(0, min(bounds))

    costs = [share * price / 1000 for share in case["share_of_price"]]
    calls, cost, reached = asyncio.run(spend(left, account, spent_today, costs[: case["planned"]]))
    assert calls <= case["planned"] and cost <= max(0, min(bounds)) * price / 1000 + 1e-9
    if all(case["share_of_price"]):
        assert calls == promise
        assert reached == ("" if calls == case["planned"] else "day" if allowed is days else "task")


def account_with(**extra: Any) -> Account:
    defaults = get_vendor("segmind").defaults()
    return account_from_connection(defaults, conn_id="shop", password="key", host="", extra=extra)


async def spend(left: Budget, account: Account, spent: float, costs: list[float]) -> tuple[int, float, str]:
    """Make one call after another, as a run does; return their number, their cost and the limit that ended it."""
    calls, total = 0, 0.0
    async with open_quota(account, spent=spent, clock=lambda: NOON) as quota:
        for cost in costs:
            if not left.take():
                return calls, total, "task"
            try:
                permit = await quota.acquire()
            except DayBudgetSpent:
                left.give_back()
                return calls, total, "day"
            quota.start(permit)
            quota.settle(permit, cost)
            left.settle(cost)
            calls, total = calls + 1, total + cost
    return calls, total, ""
