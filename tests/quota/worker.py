"""One task process within shared limits; its settings are on the command line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.errors import DescriberError, RateLimited
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import Flow
from airflow_provider_describer.models import Description, Picture
from airflow_provider_describer.quota.document import open_limits_document
from airflow_provider_describer.quota.leases import Rate
from airflow_provider_describer.quota.shared import QuotaClosed, SharedLimits
from airflow_provider_describer.storage.cas_document import Token
from airflow_provider_describer.vendors import get_vendor


class Task:
    """Makes calls as fast as the limits allow."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.vendor = get_vendor("segmind")
        self.account = account_from_connection(
            self.vendor.defaults(),
            conn_id="shop",
            password=settings["key"],
            host=settings["host"],
            extra={"limits_path": settings["limits"]},
        )
        self.picture = Picture("image/jpeg", Path(settings["picture"]).read_bytes())
        self.price = settings["price"]
        document = open_limits_document(self.account)
        self.swaps = 0
        swap = document.swap

        def counting(content: bytes, token: Token) -> Token:
            self.swaps += 1
            return swap(content, token)

        document.swap = counting  # type: ignore[method-assign]
        self.limits = SharedLimits(
            document,
            rate=Rate(*settings["rate"]) if settings["rate"] else None,
            max_cost_per_day=settings["max_cost_per_day"],
            price=self.price,
        )
        self.ends: Counter[str] = Counter()

    def call(self) -> Flow[Any]:
        spec = self.vendor.spec()
        response = yield self.vendor.build_request(self.account, spec, self.picture)
        return self.vendor.parse_response(self.account, spec, response)

    async def one(self, client: AsyncClient) -> None:
        """Acquire a permit, make a call and settle its cost, as the engine does for each image."""
        permit = await self.limits.acquire()
        if not self.limits.is_valid(permit):
            self.limits.cancel(permit)
            return
        end: Description | DescriberError
        try:
            end = await client.arun(self.call())
        except DescriberError as error:
            end = error
            if isinstance(error, RateLimited) and error.retry_at is not None:
                self.limits.pause_until(error.retry_at)
        self.limits.settle(permit, self.price if end.billed != "no" else 0.0)
        self.ends[type(end).__name__] += 1

    async def work(self, client: AsyncClient) -> None:
        try:
            while True:
                await self.one(client)
        except QuotaClosed as over:
            self.ends[type(over).__name__] += 1

    async def run(self, concurrency: int, seconds: float) -> dict[str, Any]:
        async with AsyncClient(timeout=30.0, connections=concurrency) as client, self.limits:
            workers = [asyncio.create_task(self.work(client)) for _ in range(concurrency)]
            await asyncio.wait(workers, timeout=seconds)
            self.limits.stop()
            await asyncio.gather(*workers)
        return {"ends": self.ends, "swaps": self.swaps}


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(Task(settings).run(settings["concurrency"], settings["seconds"]))))
