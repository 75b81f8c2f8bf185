"""Permits for one process: rate, money and pauses, and what happens when the document is out of reach."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.quota import shared
from airflow_provider_describer.quota.document import decode_leases
from airflow_provider_describer.quota.leases import LEASE_S, Rate, day_of
from airflow_provider_describer.quota.shared import DayBudgetSpent, QuotaClosed, SharedLimits
from airflow_provider_describer.storage.cas_document import BucketDocument, LocalDocument, MemoryDocument

PRICE = 0.015
NOON = 1_763_726_400.0
MIDNIGHT = 1_763_769_600.0


class Clock:
    """Real time, shifted to where a test sets it."""

    def __init__(self, at: float = NOON) -> None:
        self.ahead = at - time.time()

    def __call__(self) -> float:
        return time.time() + self.ahead

    def set(self, at: float) -> None:
        self.ahead = at - time.time()


@pytest.fixture(autouse=True)
def exchange_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "EXCHANGE_S", 0.1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def document() -> MemoryDocument:
    return MemoryDocument()


def state_of(document: Any) -> Any:
    return decode_leases("here", document.load()[0])


def runs(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test, with a time limit."""

    def run(**fixtures: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await test(**fixtures)

        asyncio.run(bounded())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__signature__ = __import__("inspect").signature(test)  # type: ignore[attr-defined]  # for pytest's fixtures
    return run


async def eventually(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110  # happens in a thread, or in a file
        await asyncio.sleep(0.01)


def limited(document: Any, clock: Clock, calls: int | None = None, **options: Any) -> SharedLimits:
    money = {"max_cost_per_day": calls * PRICE, "price": PRICE} if calls is not None else {}
    return SharedLimits(document, clock=clock, **{**money, **options})


@runs
async def test_permits_come_no_faster_than_the_rate(document, clock):
    async with limited(document, clock, rate=Rate(600)) as limits:
        started = []
        for _ in range(6):
            await limits.acquire()
            started.append(clock())
        assert started[-1] - started[0] >= 5 * 60 / 600 * 0.98


@runs
async def test_no_more_permits_than_the_day_can_pay_for(document, clock):
    async with limited(document, clock, 3) as limits:
        permits = [await limits.acquire() for _ in range(3)]
        fourth = asyncio.create_task(limits.acquire())
        for permit in permits[:2]:
            limits.settle(permit, PRICE)
        assert not fourth.done()
        limits.settle(permits[2], 0.0)
        limits.settle(await fourth, PRICE)
        with pytest.raises(DayBudgetSpent):
            await limits.acquire()
    assert state_of(document).spent == {day_of(NOON): 45_000}


@runs
async def test_a_cancelled_permit_returns_its_money(document, clock):
    async with limited(document, clock, 1) as limits:
        for _ in range(3):
            limits.cancel(await limits.acquire())
        limits.settle(await limits.acquire(), PRICE)


@runs
async def test_a_cap_below_one_call_is_spent_at_once(document, clock):
    async with limited(document, clock, max_cost_per_day=0.0149, price=PRICE) as limits:
        with pytest.raises(DayBudgetSpent):
            await limits.acquire()


@runs
async def test_a_cost_above_the_price_raises_the_price_of_later_calls(document, clock):
    async with limited(document, clock, 10) as limits:
        limits.settle(await limits.acquire(), 8 * PRICE)
        with pytest.raises(DayBudgetSpent):
            await limits.acquire()


@runs
async def test_a_call_that_waits_for_money_gets_what_another_task_returns(document, clock):
    async with limited(document, clock, 2) as one, limited(document, clock, 2) as other:
        permits = [await one.acquire(), await one.acquire()]
        waiting = asyncio.create_task(other.acquire())
        await eventually(lambda: len(state_of(document).holders) == 2)
        one.settle(permits[0], PRICE)
        one.cancel(permits[1])
        other.settle(await waiting, PRICE)
        with pytest.raises(DayBudgetSpent):
            await one.acquire()


@runs
async def test_a_call_that_waits_for_money_ends_when_all_of_it_is_spent(document, clock):
    async with limited(document, clock, 1) as one, limited(document, clock, 1) as other:
        permit = await one.acquire()
        waiting = asyncio.create_task(other.acquire())
        await eventually(lambda: len(state_of(document).holders) == 2)
        assert not waiting.done()
        one.settle(permit, PRICE)
        with pytest.raises(DayBudgetSpent):
            await waiting


@runs
async def test_calls_under_way_at_the_end_count_as_spent_and_the_rest_is_returned(document, clock):
    async with limited(document, clock, 100, rate=Rate(1200)) as limits:
        await limits.acquire()
        tasks = [asyncio.create_task(limits.acquire()) for _ in range(50)]
        await tasks[0]
        await eventually(lambda: state_of(document).committed_on(day_of(NOON)) > 30_000)
        limits.stop()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    sent = 1 + sum(not isinstance(end, Exception) for end in done)
    assert state_of(document).spent == {day_of(NOON): sent * 15_000}
    assert state_of(document).holders == {} and len(state_of(document).free) > 0


@runs
async def test_a_new_day_has_new_money_and_yesterdays_permits_are_invalid(document):
    clock = Clock(MIDNIGHT - 30)
    async with limited(document, clock, 2) as limits:
        limits.settle(await limits.acquire(), PRICE)
        late = await limits.acquire()
        assert limits.is_valid(late)
        clock.set(MIDNIGHT + 1)
        assert not limits.is_valid(late)
        today = [await limits.acquire()]
        limits.cancel(late)
        today.append(await limits.acquire())
        assert all(limits.is_valid(permit) for permit in today)
        for permit in today:
            limits.settle(permit, PRICE)
        with pytest.raises(DayBudgetSpent):
            await limits.acquire()
    assert state_of(document).spent == {"2025-11-21": 15_000, "2025-11-22": 30_000}


@runs
async def test_a_call_counts_for_the_day_on_which_it_was_sent(document):
    clock = Clock(MIDNIGHT - 30)
    async with limited(document, clock, 2) as limits:
        permit = await limits.acquire()
        clock.set(MIDNIGHT + 1)
        limits.settle(permit, PRICE)
    assert state_of(document).spent == {"2025-11-21": 15_000}


@pytest.mark.parametrize("options", [{}, {"rate": Rate(6000)}, {"calls": 50}], ids=["nothing", "rate", "money"])
def test_a_pause_applies_to_all_tasks(document, clock, options):
    @runs
    async def test():
        async with limited(document, clock, **options) as one, limited(document, clock, **options) as other:
            held = await other.acquire()
            until = clock() + 1.0
            one.pause_until(until)
            await eventually(lambda: other.paused_until == until)
            assert not other.is_valid(held)
            other.cancel(held)
            await asyncio.gather(one.acquire(), other.acquire())
            assert clock() >= until
        async with limited(document, clock, **options) as later:
            assert later.paused_until == until

    test()


@runs
async def test_a_pause_is_shared_although_its_task_ends_at_once(document, clock):
    async with limited(document, clock) as limits:
        limits.pause_until(NOON + 900)
    assert state_of(document).paused_until == NOON + 900


@runs
async def test_stop_ends_all_waits(document, clock):
    async with limited(document, clock) as limits:
        limits.pause_until(clock() + 900)
        waiting = [asyncio.create_task(limits.acquire()) for _ in range(5)]
        await asyncio.sleep(0)
        limits.stop()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ends} == {QuotaClosed}


@runs
async def test_a_cancelled_wait_takes_no_permit(document, clock):
    async with limited(document, clock, 3) as limits:
        permit = await limits.acquire()
        limits.pause_until(clock() + 0.5)
        waiting = [asyncio.create_task(limits.acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        for task in waiting[:2]:
            task.cancel()
        later = await asyncio.gather(*waiting[2:])
        for each in (permit, *later):
            limits.settle(each, PRICE)
        with pytest.raises(DayBudgetSpent):
            await limits.acquire()


@runs
async def test_after_its_lease_expired_a_task_starts_a_new_one_and_loses_what_it_held(document, clock):
    async with limited(document, clock, 10) as sleeper:
        permit = await sleeper.acquire()
        # Its process is suspended: another task finds the lease expired, and counts what it held as spent.
        await eventually(lambda: state_of(document).holders)
        clock.set(NOON + LEASE_S + 5)
        async with limited(document, clock, 10) as other:
            other.settle(await other.acquire(), PRICE)
        expired = state_of(document).spent[day_of(NOON)]
        assert expired >= 2 * 15_000
        sleeper.settle(permit, 0.0)
        sleeper.settle(await sleeper.acquire(), PRICE)
    assert state_of(document).spent[day_of(NOON)] in (expired, expired + 15_000)


@runs
async def test_without_a_document_each_task_counts_for_itself(clock):
    async with limited(None, clock, 2, rate=Rate(6000)) as one, limited(None, clock, 2) as other:
        for limits in (one, other):
            for _ in range(2):
                limits.settle(await limits.acquire(), PRICE)
            with pytest.raises(DayBudgetSpent):
                await limits.acquire()


@runs
async def test_an_unreadable_document_is_found_before_any_call(tmp_path, clock):
    (tmp_path / "x.json").write_bytes(b"{")
    limits = limited(LocalDocument(tmp_path / "x.json"), clock, 5)
    with pytest.raises(StoreError, match=r"x\.json is damaged"):
        await limits.__aenter__()


@runs
async def test_a_document_damaged_meanwhile_ends_present_and_later_waits(tmp_path, clock, caplog):
    path = tmp_path / "x.json"
    async with limited(LocalDocument(path), clock, 2) as limits:
        permits = [await limits.acquire() for _ in range(2)]
        waiting = asyncio.create_task(limits.acquire())
        path.write_bytes(b"{")
        for _ in range(2):
            with pytest.raises(StoreError, match=r"x\.json is damaged"):
                await waiting
            waiting = asyncio.create_task(limits.acquire())
        limits.settle(permits[0], PRICE)
        with pytest.raises(StoreError):
            await waiting
    assert path.read_bytes() == b"{"
    assert "counts as spent" in caplog.text


@runs
async def test_a_short_outage_of_the_bucket_is_waited_for(bucket, clock, monkeypatch):
    monkeypatch.setattr(BucketDocument, "poll_interval", 0.05)
    document = BucketDocument(bucket, "x")
    document.write_interval = 0.05
    async with limited(document, clock, 40) as limits:
        limits.settle(await limits.acquire(), PRICE)
        bucket.fails = ["unreachable", "throttled", "unreachable"]
        for _ in range(20):
            limits.settle(await limits.acquire(), PRICE)
        await eventually(lambda: not bucket.fails)
    assert state_of(document).spent == {day_of(NOON): 21 * 15_000}


@runs
async def test_a_long_outage_of_the_bucket_ends_the_run(bucket, clock, monkeypatch):
    monkeypatch.setattr(shared, "MAX_OUTAGE_S", 0.2)
    monkeypatch.setattr(BucketDocument, "poll_interval", 0.05)
    document = BucketDocument(bucket, "x")
    async with limited(document, clock, 1) as limits:
        limits.settle(await limits.acquire(), 0.0)
        held = await limits.acquire()
        bucket.fails = ["unreachable"] * 10_000
        with pytest.raises(StoreError, match=r"^the bucket is unreachable$"):
            await limits.acquire()
        limits.cancel(held)
        bucket.fails = []


@pytest.mark.parametrize("lost_at", range(2, 9))
def test_a_lost_answer_costs_no_money_twice_and_exceeds_no_cap(bucket, clock, lost_at, monkeypatch):
    """The write was made and its answer lost: the first write after that many requests."""

    @runs
    async def test():
        monkeypatch.setattr(BucketDocument, "poll_interval", 0.02)
        monkeypatch.setattr(shared, "EXCHANGE_S", 0.02)
        document = BucketDocument(bucket, "x")
        document.write_interval = 0.01
        bucket.fails = [""] * (lost_at - 1) + ["lost"]
        sent = 0
        async with limited(document, clock, 5) as limits:
            for _ in range(5):
                limits.settle(await limits.acquire(), PRICE)
                sent += 1
            with pytest.raises(DayBudgetSpent):
                await limits.acquire()
            await eventually(lambda: not bucket.fails)
        assert (sent, state_of(document).spent) == (5, {day_of(NOON): 75_000})

    test()


def test_an_error_of_our_own_ends_the_run_as_an_outage_does_and_is_raised_at_the_end(document, clock, monkeypatch):
    def fail(*_):
        raise RuntimeError("a defect")

    @runs
    async def test():
        async with limited(document, clock, 5) as limits:
            limits.settle(await limits.acquire(), PRICE)
            monkeypatch.setattr(shared, "exchange", fail)

            async def call_for_ever():
                while True:
                    limits.settle(await limits.acquire(), 0.0)
                    await asyncio.sleep(0.01)

            with pytest.raises(StoreError, match=r"memory: the limits are no longer kept"):
                await call_for_ever()

    with pytest.raises(RuntimeError, match="a defect"):
        test()


def test_a_cap_needs_a_price(document):
    with pytest.raises(ValueError, match="price"):
        SharedLimits(document, max_cost_per_day=1.0)
