"""What admits a call, what keeps it waiting, and what is given back when it is not made. No vendor, no store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.engine.admission import Admission, RunStopping
from airflow_provider_describer.engine.limits import Budget, TaskLimits
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.errors import InvalidKey, RateLimited, StoreError
from airflow_provider_describer.models import Running
from airflow_provider_describer.store.index import Spending
from airflow_provider_describer.vendors import get_vendor

NOW = 1_763_708_820.0


class Calls:
    """Asks for calls and keeps what becomes of their intents. Its clock stands still until it is set."""

    def __init__(
        self,
        *,
        account: dict[str, Any] | None = None,
        spending: Spending | None = None,
        attached: Sequence[str] = (),
        **limits: Any,
    ) -> None:
        self.now = NOW
        self.totals = Totals()
        own = TaskLimits(**{"concurrency": 2, **limits})
        self.budget = Budget.of_task(own, 0.015, spending or Spending(), attached)
        self.admission = Admission(an_account(account or {}), own, self.budget, self.totals, lambda: self.now)
        self.intents: list[str] = []
        self.on_write: Callable[[], Awaitable[None]] = self._nothing

    async def acquire(self) -> Any:
        async def write() -> None:
            self.intents.append("written")
            await self.on_write()

        return await self.admission.acquire(write, self.intents.append)

    async def _nothing(self) -> None:
        pass


def an_account(extra: dict[str, Any]) -> Account:
    defaults = get_vendor("segmind").defaults()
    return account_from_connection(
        defaults, conn_id="shop", password="sk-0123456789", host=None, extra={"price_per_call": 0.015, **extra}
    )


async def run_ready() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_intent_is_written_before_a_call_is_admitted_and_counted() -> None:
    async def play() -> None:
        calls, may_finish = Calls(), asyncio.Event()
        calls.on_write = may_finish.wait  # type: ignore[assignment]  # its result is not looked at
        waiting = asyncio.create_task(calls.acquire())
        await run_ready()
        assert calls.intents == ["written"] and not waiting.done() and calls.totals.calls == 0
        may_finish.set()
        permit = await waiting
        assert permit.is_open and calls.totals.calls == 1

    asyncio.run(play())


def test_no_more_calls_are_under_way_than_the_concurrency() -> None:
    async def play() -> None:
        calls = Calls()
        first, _ = await calls.acquire(), await calls.acquire()
        third = asyncio.create_task(calls.acquire())
        await run_ready()
        assert not third.done()
        calls.admission.settle(first, 0.015)
        assert (await third).is_open and calls.totals.calls == 3

    asyncio.run(play())


def test_a_stop_lets_all_that_wait_go_and_admits_nothing_more() -> None:
    async def play() -> None:
        calls, reason = Calls(), InvalidKey("The key is wrong.")
        await calls.acquire()
        await calls.acquire()
        waiting = [asyncio.create_task(calls.acquire()) for _ in range(3)]
        await run_ready()
        calls.admission.stop(reason)
        calls.admission.stop(StoreError("later"))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [RunStopping] * 3
        with pytest.raises(RunStopping):
            await calls.acquire()
        assert calls.totals.calls == 2
        assert calls.admission.stopped_by is reason, "the first reason is the one that is reported"

    asyncio.run(play())


def test_an_intent_that_cannot_be_written_gives_its_call_and_its_money_back() -> None:
    async def play() -> None:
        calls = Calls(max_calls=1, max_cost=0.015)

        async def fail() -> None:
            raise StoreError("The disk is full.")

        calls.on_write = fail
        with pytest.raises(StoreError):
            await calls.acquire()
        assert calls.totals.calls == 0
        calls.on_write = calls._nothing
        assert (await calls.acquire()).is_open

    asyncio.run(play())


def test_a_pause_that_begins_while_the_intent_is_written_withdraws_it() -> None:
    async def play() -> None:
        calls = Calls()
        permit = await calls.acquire()

        async def refused() -> None:
            calls.on_write = calls._nothing
            calls.admission.back_off(permit, RateLimited("too many", retry_at=NOW + 0.05), 0.05)

        calls.on_write = refused
        waiting = asyncio.create_task(calls.acquire())
        await run_ready()
        assert calls.intents == ["written", "written", "paused"] and not waiting.done()
        calls.now += 1
        assert (await waiting).is_open
        assert calls.intents == ["written", "written", "paused", "written"]

    asyncio.run(play())


def test_a_spent_budget_stops_the_run_when_the_last_call_has_ended() -> None:
    async def play() -> None:
        calls = Calls(max_calls=1)
        permit = await calls.acquire()
        with pytest.raises(RunStopping):
            await calls.acquire()
        admission = calls.admission
        assert (calls.totals.budget_reached, admission.admits_no_more, admission.stopping) == (True, True, False)
        calls.admission.settle(permit, 0.015)
        assert (admission.stopping, admission.stopped_by) == (True, None)

    asyncio.run(play())


def test_a_call_that_turns_out_to_be_free_admits_another_one() -> None:
    async def play() -> None:
        calls = Calls(max_cost=0.015)
        permit = await calls.acquire()
        waiting = asyncio.create_task(calls.acquire())
        await run_ready()
        assert not waiting.done() and not calls.totals.budget_reached
        calls.admission.settle(permit, 0.0)
        assert (await waiting).is_open

    asyncio.run(play())


@pytest.mark.parametrize(
    "spending",
    [
        Spending(calls=2, cost_usd=0.03),
        Spending(calls=2, cost_usd=0.015, unpriced=1),
        Spending(open_calls=frozenset({"a", "b"})),
        Spending(calls=1, cost_usd=0.015, open_calls=frozenset({"a"})),
    ],
)
@pytest.mark.parametrize("limits", [{"max_cost": 0.03}, {"max_calls": 2}])
def test_what_earlier_tries_have_spent_counts(spending: Spending, limits: dict[str, Any]) -> None:
    async def play() -> None:
        calls = Calls(spending=spending, **limits)
        with pytest.raises(RunStopping):
            await calls.acquire()
        assert calls.totals.budget_reached and not calls.intents

    asyncio.run(play())


@pytest.mark.parametrize("own", [frozenset(), frozenset({"a"})])
def test_a_call_that_is_fetched_is_paid_from_the_budget(own: frozenset[str]) -> None:
    """Whoever has sent it. Another call waits for its cost: where it was free there is money for one more."""

    async def play() -> None:
        calls = Calls(spending=Spending(open_calls=own), attached=["a"], max_cost=0.015)
        waiting = asyncio.create_task(calls.acquire())
        await run_ready()
        assert not waiting.done() and not calls.totals.budget_reached
        calls.admission.settle_attached(0.0)
        assert (await waiting).is_open

        calls = Calls(spending=Spending(open_calls=own), attached=["a"], max_cost=0.015)
        waiting = asyncio.create_task(calls.acquire())
        await run_ready()
        calls.admission.settle_attached(0.015)
        with pytest.raises(RunStopping):
            await waiting

    asyncio.run(play())


def test_calls_refused_together_slow_the_run_down_once() -> None:
    async def play() -> None:
        calls = Calls(concurrency=4)
        permits = [await calls.acquire() for _ in range(4)]
        for permit in permits:
            calls.admission.settle(permit, 0.0)
            calls.admission.back_off(permit, RateLimited("too many"), 0.01)
        admitted = [asyncio.create_task(calls.acquire()) for _ in range(4)]
        await run_ready()
        assert [task.done() for task in admitted] == [True, True, False, False]
        calls.admission.stop()
        await asyncio.gather(*admitted, return_exceptions=True)

    asyncio.run(play())


def test_a_wait_that_is_too_long_ends_the_run_with_its_condition() -> None:
    async def play() -> None:
        calls, running = Calls(max_wait=5.0, account={"requests_per_minute": 1}), Running("r-1", NOW - 60)
        await calls.acquire()
        assert calls.admission.resume_condition([running]) is None
        with pytest.raises(RunStopping):
            await calls.acquire()
        condition = calls.admission.resume_condition([running])
        assert condition is not None
        assert (condition.until, condition.requests) == (NOW + 60, (("r-1", NOW - 60),))
        assert calls.admission.admits_no_more and not calls.admission.stopping
        calls.admission.stop(InvalidKey("The key is wrong."))
        assert calls.admission.resume_condition([running]) is None, "an error is not waited for"

    asyncio.run(play())


def test_polls_are_left_alone_only_when_the_run_leaves() -> None:
    async def play() -> None:
        calls = Calls()
        calls.admission.stop()
        await calls.admission.wait_to_poll(0.001)
        calls.admission.stop(leave_running=True)
        with pytest.raises(RunStopping):
            await calls.admission.wait_to_poll(60)

    asyncio.run(play())
