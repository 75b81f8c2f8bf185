"""One task's whole work: from the asks to the manifest. What the operators and the hook call; knows no Airflow."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_describer.batch import Batch, Limits
from airflow_provider_describer.client.flow import Caller
from airflow_provider_describer.client.transport import AsyncClient
from airflow_provider_describer.errors import BadInput, DescriberError, TooManyRejected, Unfinished
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.images.reference import Ask
from airflow_provider_describer.images.showing import choose_transport
from airflow_provider_describer.progress import Totals, manifest_of
from airflow_provider_describer.store.results import ResultFiles
from airflow_provider_describer.store.rows import Row, Run

MAX_INLINE = 500
"""Rows that are returned without a store; about 2 KB each, more would bloat Airflow's database."""


@dataclass(slots=True)
class Job:
    """What one task is to do. ``report`` gets a line of progress about every five seconds."""

    caller: Caller
    asks: Sequence[Ask]
    limits: Limits = field(default_factory=Limits)
    store: str | os.PathLike[str] | None = None
    run: Run = field(default_factory=Run)
    report: Callable[[str], None] = print
    new_client: Callable[[int], AsyncClient] | None = None
    _stop: Callable[[], object] | None = field(default=None, init=False)

    def check(self) -> None:
        """Find what would fail for certain, before anything is read or called.

        :raises BadInput: naming the argument or the connection's field.
        """
        account, limits = self.caller.account, self.limits
        if not self.asks:
            raise BadInput("images is empty: there is nothing to describe.")
        if not 1 <= limits.concurrency <= 1024:
            raise BadInput(f"concurrency is {limits.concurrency!r}, expected a whole number from 1 to 1024.")
        if not 0 <= limits.max_failure_ratio <= 1:
            raise BadInput(f"max_failure_ratio is {limits.max_failure_ratio!r}, expected a share from 0 to 1.")
        for name, limit in (("max_calls", limits.max_calls), ("max_cost", limits.max_cost)):
            if limit is not None and limit < 0:
                raise BadInput(f"{name} is {limit!r}, expected 0 or more, or None for no limit.")
        if limits.max_cost is not None and account.price_per_call is None:
            raise BadInput(
                f"max_cost needs to know what a call costs: set price_per_call (USD) on connection {account.conn_id!r}."
            )
        if self.store is None and len(self.asks) > MAX_INLINE:
            raise BadInput(
                f"{len(self.asks)} descriptions do not fit XCom ({MAX_INLINE} at most). Give a store: a folder for them."
            )
        for ask in self.asks:
            choose_transport(self.caller.vendor, account, ask.image.uri)

    async def arun(self) -> Outcome:
        """Do the work. Errors of the run are in the outcome and not raised, as what is done is worth keeping."""
        self.check()
        began = time.monotonic()
        rows: dict[Ask, Row] = {}
        with ExitStack() as files:
            results = files.enter_context(ResultFiles(self.store, self.run)) if self.store is not None else None
            batch = await self._batch(results.write if results else rows.__setitem__)
        manifest = manifest_of(
            batch.totals,
            vendor=self.caller.account.vendor,
            store=None if self.store is None else os.fspath(self.store),
            results=str(results.results) if results else None,
            failures=str(results.failures) if results else None,
            elapsed_s=time.monotonic() - began,
        )
        if results is None:
            manifest["descriptions"] = [rows[ask].to_dict() for ask in self.asks]
        return Outcome(manifest, verdict(batch.totals, self.limits, batch.stopped_by))

    async def _batch(self, record: Callable[[Ask, Row], None]) -> Batch:
        concurrency = min(self.limits.concurrency, len(self.asks))
        async with AsyncExitStack() as clients:
            new = self.new_client or self._client
            client = await clients.enter_async_context(new(concurrency))
            images = await clients.enter_async_context(new(concurrency))
            batch = Batch(self.caller, client, Reader(images), self.limits, self.run, record, self.report)
            loop = asyncio.get_running_loop()
            self._stop = lambda: loop.call_soon_threadsafe(batch.stop)
            try:
                await batch.describe(self.asks, len(self.asks))
            finally:
                self._stop = None
            return batch

    def _client(self, connections: int) -> AsyncClient:
        return AsyncClient(timeout=self.caller.account.timeout, connections=connections)

    def stop(self) -> None:
        """Start no further call; from any thread or signal handler. What is under way is awaited and recorded."""
        if self._stop:
            self._stop()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The manifest, and the error that the task should end with, if any."""

    manifest: dict[str, Any]
    error: DescriberError | None


def verdict(totals: Totals, limits: Limits, stopped_by: DescriberError | None) -> DescriberError | None:
    """Return the error that a run should end with, or None where it did what it could and was allowed to."""
    if stopped_by is not None:
        return stopped_by
    rejected, requested = totals.counts["rejected"], totals.requested
    if rejected > limits.max_failure_ratio * requested:
        return TooManyRejected(f"{rejected} of {requested} images were rejected, more than max_failure_ratio allows.")
    left = totals.counts["pending"]
    if left and not totals.budget_reached:
        return Unfinished(
            f"{left} of {requested} images could not be described now; the failures file says why. Running again goes "
            "on with them."
        )
    return None
