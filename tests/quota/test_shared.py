"""Turns for one process: paid for, in line, paused with all; and what happens when the document is out of reach."""

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
    """Runs as time does, from where a test sets it."""

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
def cell() -> MemoryDocument:
    return MemoryDocument()


def told(cell: Any) -> Any:
    return decode_leases("here", cell.load()[0])


def runs(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test, and not for ever."""

    def run(**fixtures: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await test(**fixtures)

        asyncio.run(bounded())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__signature__ = __import__("inspect").signature(test)  # type: ignore[attr-defined]  # for pytest's fixtures
    return run


async def eventually(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110  # what is waited for happens in a thread, or in a file
        await asyncio.sleep(0.01)


def limited(cell: Any, clock: Clock, calls: int | None = None, **about: Any) -> SharedLimits:
    money = {"max_cost_per_day": calls * PRICE, "price": PRICE} if calls is not None else {}
    return SharedLimits(cell, clock=clock, **{**money, **about})


@runs
async def test_turns_come_no_faster_than_the_rate(cell, clock):
    async with limited(cell, clock, rate=Rate(600)) as limits:
        started = []
        for _ in range(6):
            await limits.acquire()
            started.append(clock())
        assert started[-1] - started[0] >= 5 * 60 / 600 * 0.98


@runs
async def test_no_more_turns_than_the_day_can_pay_for(cell, clock):
    async with limited(cell, clock, 3) as limits:
        tickets = [await limits.acquire() for _ in range(3)]
        fourth = asyncio.create_task(limits.acquire())
        for ticket in tickets[:2]:
            limits.settle(ticket, PRICE)
        assert not fourth.done()
        limits.settle(tickets[2], 0.0)
        limits.settle(await fourth, PRICE)
        with pytest.raises(DayBudgetSpent):
            await limits.acquire()
    assert told(cell).spent == {day_of(NOON): 45_000}


@runs
async def test_a_call_that_was_not_made_gives_its_money_back(cell, clock):
    async with limited(cell, clock, 1) as limits:
        for _ in range(3):
            limits.cancel(await limits.acquire())
        limits.settle(await limits.acquire(), PRICE)


@runs
async def test_where_not_even_one_call_is_allowed_nobody_waits(cell, clock):
    async with limited(cell, clock, max_cost_per_day=0.0149, price=PRICE) as limits:
        with pytest.raises(DayBudgetSpent):
            await limits.acquire()


@runs
async def test_a_call_dearer_than_told_raises_what_later_ones_take(cell, clock):
    async with limited(cell, clock, 10) as limits:
        limits.settle(await limits.acquire(), 8 * PRICE)
        with pytest.raises(DayBudgetSpent):
            await limits.acquire()


@runs
async def test_who_waits_for_money_gets_what_another_gives_back(cell, clock):
    async with limited(cell, clock, 2) as one, limited(cell, clock, 2) as other:
        tickets = [await one.acquire(), await one.acquire()]
        waiting = asyncio.create_task(other.acquire())
        await eventually(lambda: len(told(cell).holders) == 2)
        one.settle(tickets[0], PRICE)
        one.cancel(tickets[1])
        other.settle(await waiting, PRICE)
        with pytest.raises(DayBudgetSpent):
            await one.acquire()


@runs
async def test_who_waits_for_money_is_told_when_all_of_it_is_spent(cell, clock):
    async with limited(cell, clock, 1) as one, limited(cell, clock, 1) as other:
        ticket = await one.acquire()
        waiting = asyncio.create_task(other.acquire())
        await eventually(lambda: len(told(cell).holders) == 2)
        assert not waiting.done()
        one.settle(ticket, PRICE)
        with pytest.raises(DayBudgetSpent):
            await waiting


@runs
async def test_calls_under_way_at_the_end_count_as_spent_and_the_rest_is_given_back(cell, clock):
    async with limited(cell, clock, 100, rate=Rate(1200)) as limits:
        await limits.acquire()
        tasks = [asyncio.create_task(limits.acquire()) for _ in range(50)]
        await tasks[0]
        await eventually(lambda: told(cell).committed_on(day_of(NOON)) > 30_000)
        limits.stop()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    sent = 1 + sum(not isinstance(end, Exception) for end in done)
    assert told(cell).spent == {day_of(NOON): sent * 15_000}
    assert told(cell).holders == {} and len(told(cell).free) > 0


@runs
async def test_a_new_day_has_new_money_and_a_turn_of_yesterday_is_none_of_today(cell):
    clock = Clock(MIDNIGHT - 30)
    async with limited(cell, clock, 2) as limits:
        limits.settle(await limits.acquire(), PRICE)
        late = await limits.acquire()
        assert limits.is_valid(late)
        clock.set(MIDNIGHT + 1)
        assert not limits.is_valid(late)
        today = [await limits.acquire()]
        limits.cancel(late)
        today.append(await limits.acquire())
        assert all(limits.is_valid(ticket) for ticket in today)
        for ticket in today:
            limits.settle(ticket, PRICE)
        with pytest.raises(DayBudgetSpent):
            await limits.acquire()
    assert told(cell).spent == {"2025-11-21": 15_000, "2025-11-22": 30_000}


@runs
async def test_a_call_counts_for_the_day_on_which_it_was_sent(cell):
    clock = Clock(MIDNIGHT - 30)
    async with limited(cell, clock, 2) as limits:
        ticket = await limits.acquire()
        clock.set(MIDNIGHT + 1)
        limits.settle(ticket, PRICE)
    assert told(cell).spent == {"2025-11-21": 15_000}


@pytest.mark.parametrize("about", [{}, {"rate": Rate(6000)}, {"calls": 50}], ids=["nothing", "rate", "money"])
def test_a_pause_that_one_is_told_holds_for_all(cell, clock, about):
    @runs
    async def test():
        async with limited(cell, clock, **about) as one, limited(cell, clock, **about) as other:
            held = await other.acquire()
            until = clock() + 1.0
            one.pause_until(until)
            await eventually(lambda: other.paused_until == until)
            assert not other.is_valid(held)
            other.cancel(held)
            await asyncio.gather(one.acquire(), other.acquire())
            assert clock() >= until
        async with limited(cell, clock, **about) as later:
            assert later.paused_until == until

    test()


@runs
async def test_a_pause_is_told_though_its_task_ends_at_once(cell, clock):
    async with limited(cell, clock) as limits:
        limits.pause_until(NOON + 900)
    assert told(cell).paused_until == NOON + 900


@runs
async def test_who_is_stopped_waits_no_longer(cell, clock):
    async with limited(cell, clock) as limits:
        limits.pause_until(clock() + 900)
        waiting = [asyncio.create_task(limits.acquire()) for _ in range(5)]
        await asyncio.sleep(0)
        limits.stop()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ends} == {QuotaClosed}


@runs
async def test_who_is_cancelled_in_line_takes_nobodys_turn(cell, clock):
    async with limited(cell, clock, 3) as limits:
        ticket = await limits.acquire()
        limits.pause_until(clock() + 0.5)
        waiting = [asyncio.create_task(limits.acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        for task in waiting[:2]:
            task.cancel()
        later = await asyncio.gather(*waiting[2:])
        for each in (ticket, *later):
            limits.settle(each, PRICE)
        with pytest.raises(DayBudgetSpent):
            await limits.acquire()


@runs
async def test_a_holder_whose_lease_ran_out_begins_anew_and_loses_what_it_held(cell, clock):
    async with limited(cell, clock, 10) as sleeper:
        ticket = await sleeper.acquire()
        # It is stopped in mid-flight: another one finds its lease expired, and counts it as spent.
        await eventually(lambda: told(cell).holders)
        clock.set(NOON + LEASE_S + 5)
        async with limited(cell, clock, 10) as other:
            other.settle(await other.acquire(), PRICE)
        buried = told(cell).spent[day_of(NOON)]
        assert buried >= 2 * 15_000
        sleeper.settle(ticket, 0.0)
        sleeper.settle(await sleeper.acquire(), PRICE)
    assert told(cell).spent[day_of(NOON)] in (buried, buried + 15_000)


@runs
async def test_alone_it_counts_for_itself(clock):
    async with limited(None, clock, 2, rate=Rate(6000)) as one, limited(None, clock, 2) as other:
        for limits in (one, other):
            for _ in range(2):
                limits.settle(await limits.acquire(), PRICE)
            with pytest.raises(DayBudgetSpent):
                await limits.acquire()


@runs
async def test_what_cannot_be_read_is_found_before_any_call(tmp_path, clock):
    (tmp_path / "x.json").write_bytes(b"{")
    limits = limited(LocalDocument(tmp_path / "x.json"), clock, 5)
    with pytest.raises(StoreError, match=r"x\.json is damaged"):
        await limits.__aenter__()


@runs
async def test_what_is_damaged_meanwhile_stops_whoever_waits_and_whoever_comes(tmp_path, clock, caplog):
    path = tmp_path / "x.json"
    async with limited(LocalDocument(path), clock, 2) as limits:
        tickets = [await limits.acquire() for _ in range(2)]
        waiting = asyncio.create_task(limits.acquire())
        path.write_bytes(b"{")
        for _ in range(2):
            with pytest.raises(StoreError, match=r"x\.json is damaged"):
                await waiting
            waiting = asyncio.create_task(limits.acquire())
        limits.settle(tickets[0], PRICE)
        with pytest.raises(StoreError):
            await waiting
    assert path.read_bytes() == b"{"
    assert "counts as spent" in caplog.text


@runs
async def test_a_bucket_that_is_away_for_a_while_is_waited_for(bucket, clock, monkeypatch):
    monkeypatch.setattr(BucketDocument, "poll_interval", 0.05)
    cell = BucketDocument(bucket, "x")
    cell.write_interval = 0.05
    async with limited(cell, clock, 40) as limits:
        limits.settle(await limits.acquire(), PRICE)
        bucket.fails = ["unreachable", "throttled", "unreachable"]
        for _ in range(20):
            limits.settle(await limits.acquire(), PRICE)
        await eventually(lambda: not bucket.fails)
    assert told(cell).spent == {day_of(NOON): 21 * 15_000}


@runs
async def test_a_bucket_that_stays_away_ends_the_run(bucket, clock, monkeypatch):
    monkeypatch.setattr(shared, "MAX_OUTAGE_S", 0.2)
    monkeypatch.setattr(BucketDocument, "poll_interval", 0.05)
    cell = BucketDocument(bucket, "x")
    async with limited(cell, clock, 1) as limits:
        limits.settle(await limits.acquire(), 0.0)
        held = await limits.acquire()
        bucket.fails = ["unreachable"] * 10_000
        with pytest.raises(StoreError, match=r"^the bucket is unreachable$"):
            await limits.acquire()
        limits.cancel(held)
        bucket.fails = []


@pytest.mark.parametrize("lost_at", range(2, 9))
def test_an_answer_that_is_lost_costs_no_money_twice_and_exceeds_no_cap(bucket, clock, lost_at, monkeypatch):
    """The write was made and nobody was told: the first one after so many requests, whichever that is."""

    @runs
    async def test():
        monkeypatch.setattr(BucketDocument, "poll_interval", 0.02)
        monkeypatch.setattr(shared, "EXCHANGE_S", 0.02)
        cell = BucketDocument(bucket, "x")
        cell.write_interval = 0.01
        bucket.fails = [""] * (lost_at - 1) + ["lost"]
        sent = 0
        async with limited(cell, clock, 5) as limits:
            for _ in range(5):
                limits.settle(await limits.acquire(), PRICE)
                sent += 1
            with pytest.raises(DayBudgetSpent):
                await limits.acquire()
            await eventually(lambda: not bucket.fails)
        assert (sent, told(cell).spent) == (5, {day_of(NOON): 75_000})

    test()


def test_a_cap_needs_a_price(cell):
    with pytest.raises(ValueError, match="price"):
        SharedLimits(cell, max_cost_per_day=1.0)
