"""The limits on a Redis that is killed, restarted, emptied or loses answers: no money is spent twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis_server import RedisGate, RedisServer

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.quota import shared
from airflow_provider_describer.quota.document import LeaseDocument
from airflow_provider_describer.quota.lease_client import Permit
from airflow_provider_describer.quota.leases import Leases, Rate
from airflow_provider_describer.quota.shared import DayBudgetSpent, SharedLimits
from airflow_provider_describer.storage import redis_document
from airflow_provider_describer.storage.redis_document import open_shared_document

if TYPE_CHECKING:
    from tests.quota.conftest import TaskProcesses

NAME = "segmind--shop.limits.json"
PRICE = 0.015


def state_at(url: str) -> Leases:
    with closing(open_shared_document("place", url, NAME, None)) as document:
        return LeaseDocument(document, time.time).read()


def limits_at(url: str, **options: Any) -> SharedLimits:
    return SharedLimits(open_shared_document("place", url, NAME, None), price=PRICE, **options)


async def spend_all(limits: SharedLimits) -> int:
    """Make calls until the day's money is spent; return how many."""
    sent = 0
    try:
        while True:
            permit = await limits.acquire()
            sent += 1
            limits.settle(permit, PRICE)
    except DayBudgetSpent:
        return sent


@pytest.mark.slow
def test_the_days_money_is_exact_although_redis_is_killed_and_restarted_under_way(
    processes: TaskProcesses, redis: RedisServer
) -> None:
    processes.emulator.faults({"segmind": {"price": PRICE, "latency_s": 0.1, "latency_jitter_s": 0.1}})
    processes.place = redis.url
    tasks = processes.start(4, max_cost_per_day=1.8, concurrency=4, rate=[1200, 60])
    for billed in (10, 30, 50):
        while processes.emulator.ledger(entries=False)["billed"] < billed:
            time.sleep(0.01)
        redis.kill()
        redis.start()
    ends = sum((Counter(result["ends"]) for result in processes.results(tasks)), Counter())
    assert processes.emulator.ledger(entries=False)["billed"] == ends["Description"] == 120
    assert ends["DayBudgetSpent"] == 4 * 4
    assert sum(processes.leases().spent.values()) == 1_800_000


@pytest.mark.parametrize("first", range(4))
def test_an_answer_that_is_lost_after_the_write_counts_once(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """The write after that many is made and its answer lost; the next one after it too."""
    monkeypatch.setattr(shared, "EXCHANGE_S", 0.02)
    monkeypatch.setattr(redis_document, "FIRST_PAUSE_S", 0.01)

    async def use(url: str) -> int:
        async with asyncio.timeout(60), limits_at(url, max_cost_per_day=5 * PRICE, rate=Rate(6000)) as limits:
            return await spend_all(limits)

    with RedisGate(redis) as gate:
        gate.before_loss = [first, 0]
        assert asyncio.run(use(gate.url)) == 5
        assert gate.lost == 2
    leases = state_at(redis.url)
    assert list(leases.spent.values()) == [75_000] and not leases.holders


def test_a_short_outage_is_waited_for_and_a_long_one_ends_the_run(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "EXCHANGE_S", 0.02)
    monkeypatch.setattr(redis_document, "FIRST_PAUSE_S", 0.01)

    async def use() -> None:
        async with asyncio.timeout(60), limits_at(redis.url, max_cost_per_day=1.0) as limits:
            limits.settle(await limits.acquire(), PRICE)
            redis.kill()
            waiting = asyncio.gather(*(limits.acquire() for _ in range(20)))
            await asyncio.sleep(0.1)
            redis.start()
            for permit in await waiting:
                limits.settle(permit, PRICE)
            monkeypatch.setattr(shared, "MAX_OUTAGE_S", 0.1)
            redis.kill()
            ends = await asyncio.gather(*(limits.acquire() for _ in range(20)), return_exceptions=True)
            failures = [end for end in ends if isinstance(end, StoreError)]
            assert failures and all("no answer from the server" in str(failure) for failure in failures)
            for end in ends:
                if isinstance(end, Permit):
                    limits.cancel(end)
            redis.start()

    asyncio.run(use())
    assert list(state_at(redis.url).spent.values()) == [21 * 15_000]


def test_a_redis_that_forgets_its_data_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "EXCHANGE_S", 0.02)

    async def use() -> None:
        async with asyncio.timeout(60), limits_at(forgetful.url, max_cost_per_day=1.0) as limits:
            limits.settle(await limits.acquire(), PRICE)
            forgetful.kill()
            forgetful.start()
            with pytest.raises(StoreError, match=r"has vanished while it was in use.*no further call"):
                await spend_all(limits)

    with RedisServer(tmp_path / "redis", keeps=False) as forgetful:
        asyncio.run(use())


def test_a_pause_reaches_another_machine_and_no_connection_is_left(redis: RedisServer) -> None:
    async def use() -> None:
        limits = [limits_at(redis.url, rate=Rate(600)) for _ in range(2)]
        async with asyncio.timeout(60), limits[0] as one, limits[1] as other:
            one.pause_until(4e9)
            while other.paused_until != 4e9:  # noqa: ASYNC110  # happens on a server
                await asyncio.sleep(0.01)

    with closing(redis.client()) as client:
        asyncio.run(use())
        deadline = time.monotonic() + 30
        while len(client.client_list()) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
