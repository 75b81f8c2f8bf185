"""The document in a bucket of either cloud, as tasks on several machines share it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.quota.leases import Rate
from airflow_provider_describer.quota.shared import DayBudgetSpent, SharedLimits, open_quota
from airflow_provider_describer.storage import cas_document
from airflow_provider_describer.storage.cas_document import BucketDocument, Changed
from airflow_provider_describer.vendors import get_vendor

if TYPE_CHECKING:
    from clouds import Cloud


def test_one_of_many_concurrent_writers_wins_each_round(cloud: Cloud) -> None:
    documents = [BucketDocument(cloud.bucket(), "limits/shop.json") for _ in range(4)]

    def race(racer: int) -> int:
        try:
            documents[racer].swap(b"%d by %d" % (number, racer), token)
        except Changed:
            return 0
        return 1

    assert documents[0].load() == (None, None)
    token = None
    with ThreadPoolExecutor(4) as threads:
        for number in range(5):
            assert sum(threads.map(race, range(4))) == 1
            content, token = documents[0].load()
            assert content is not None and content.startswith(b"%d by " % number)


def test_a_missing_bucket_is_an_error_and_not_an_absent_document(cloud: Cloud) -> None:
    document = BucketDocument(cloud.bucket("no-such-bucket-anywhere"), "limits/shop.json")
    with pytest.raises(StoreError, match="no-such-bucket-anywhere"):
        document.load()


@pytest.mark.slow
def test_tasks_share_the_days_money_through_a_bucket(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests' servers take as many writes as come.
    monkeypatch.setattr(cas_document, "_WRITE_INTERVALS", {"s3": 0.1, "gs": 0.1})
    account = account_from_connection(get_vendor("segmind").defaults(), conn_id="shop", password="key-123")
    account = replace(account, limits_path=f"{cloud.uri}/limits/", max_cost_per_day=0.15, requests_per_minute=6000.0)

    async def task(limits: SharedLimits) -> int:
        sent = 0
        async with limits:
            try:
                while True:
                    permit = await limits.acquire()
                    sent += 1
                    limits.settle(permit, 0.015)
            except DayBudgetSpent:
                return sent

    async def all_tasks() -> list[int]:
        return await asyncio.gather(*(task(open_quota(account, cloud.open_bucket)) for _ in range(3)))

    assert sum(asyncio.run(all_tasks())) == 10
    assert asyncio.run(all_tasks()) == [0, 0, 0]


def test_a_pause_reaches_another_machine(cloud: Cloud) -> None:
    async def use() -> None:
        limits = [SharedLimits(BucketDocument(cloud.bucket(), "x"), rate=Rate(600)) for _ in range(2)]
        async with asyncio.timeout(60), limits[0] as one, limits[1] as other:
            one.pause_until(4e9)
            while other.paused_until != 4e9:  # noqa: ASYNC110  # happens in a bucket
                await asyncio.sleep(0.01)

    asyncio.run(use())
