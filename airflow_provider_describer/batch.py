"""Many images: read, call, record, with bounded concurrency. Knows nothing of Airflow.

Workers pull asks from one iterator, so memory grows with the concurrency and not with the images. Whatever ends a run
early, answers under way are awaited and recorded, as they may have been paid for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from airflow_provider_describer.client.flow import Caller, Sleep
from airflow_provider_describer.client.limiter import Budget, Pace
from airflow_provider_describer.client.transport import AsyncClient
from airflow_provider_describer.description import Description, Running
from airflow_provider_describer.errors import (
    AccountError,
    AmbiguousCall,
    DescriberError,
    RateLimited,
    RejectedImage,
    TooManyRejected,
    UnexpectedAnswer,
    UnreadableImage,
    VendorUnavailable,
)
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.images.reference import Ask
from airflow_provider_describer.images.showing import Shown, show
from airflow_provider_describer.progress import Totals, progress_line
from airflow_provider_describer.store.rows import Row, Run, Status, row_of
from airflow_provider_describer.vendors.wire import Request

REPORT_EVERY_S = 5.0
GIVE_UP_AFTER = 3
"""So many images in a row without an answer, or with one that nobody can read: it is not the images."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task allows itself.

    :param concurrency: calls under way at a time.
    :param max_calls: billable calls, or None.
    :param max_cost: USD, or None.
    :param max_failure_ratio: share of the images that may be rejected; past it the run stops.
    """

    concurrency: int = 32
    max_calls: int | None = None
    max_cost: float | None = None
    max_failure_ratio: float = 0.1


class _Stopped(Exception):
    """No error: this image's turn will not come in this run."""


@dataclass(slots=True)
class Batch:
    """One run over many asks. ``record`` gets each row once it is known, from the event loop's own thread."""

    caller: Caller
    client: AsyncClient
    reader: Reader
    limits: Limits
    run: Run
    record: Callable[[Ask, Row], None]
    report: Callable[[str], None]
    totals: Totals = field(init=False)
    stopped_by: DescriberError | None = field(default=None, init=False)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _in_a_row: int = field(default=0, init=False)
    _pace: Pace = field(init=False)
    _budget: Budget = field(init=False)

    def __post_init__(self) -> None:
        account = self.caller.account
        self.totals = Totals()
        self._pace = Pace(account.requests_per_minute)
        self._budget = Budget(self.limits.max_calls, self.limits.max_cost, account.price_per_call)

    async def describe(self, asks: Iterable[Ask], requested: int) -> Totals:
        """Describe every ask, or say of each why not. Returns when nothing is under way any more.

        :param requested: how many asks there are; they are not counted first, as they may come from a stream.
        """
        self.totals = Totals(requested=requested, began=time.monotonic())
        queue = iter(asks)
        workers = [asyncio.create_task(self._work(queue)) for _ in range(min(self.limits.concurrency, requested))]
        reporter = asyncio.create_task(self._report())
        try:
            await self._all_done(workers)
        finally:
            reporter.cancel()
        for ask in queue:
            self._settle(ask, "pending")
        self.report(progress_line(self.totals, time.monotonic()))
        return self.totals

    def stop(self, reason: DescriberError | None = None) -> None:
        """Start no further call; what is under way is awaited. To be called from the event loop's thread."""
        if not self._stopping.is_set():
            self.stopped_by = reason
            self._stopping.set()

    async def _all_done(self, workers: list[asyncio.Task[None]]) -> None:
        """Wait for every worker, also where one has failed or the run is cancelled: their answers may be paid for."""
        try:
            await asyncio.gather(*workers)
        except BaseException:
            self._stopping.set()
            await asyncio.gather(*workers, return_exceptions=True)
            raise

    async def _work(self, queue: Iterator[Ask]) -> None:
        for ask in queue:
            if self._stopping.is_set():
                self._settle(ask, "pending")
                continue
            await self._one(ask)

    async def _one(self, ask: Ask) -> None:
        shown: Shown | None = None
        watch = _Watch(self)
        try:
            shown = await show(self.reader, self.caller.vendor, self.caller.account, ask.image)
            flow = self.caller.describe(ask.spec, shown.picture, upload=shown.upload)
            description = await self.client.arun(flow, watch)
        except _Stopped:
            self._settle(ask, "pending", shown=shown)
        except DescriberError as error:
            watch.ended(error)
            status = self._judge(error)
            self._settle(ask, status, shown=shown, error=error)
        else:
            watch.ended(description)
            self._in_a_row = 0
            self._settle(ask, "described", shown=shown, description=description)

    def _judge(self, error: DescriberError) -> Status:
        """Return what has become of the image, and stop the run where the error says more than that."""
        match error:
            case RejectedImage():
                return "rejected"
            case UnexpectedAnswer():
                self._count_in_a_row(error)
                return "rejected"
            case AmbiguousCall():
                return "unknown"
            case AccountError() | RateLimited():
                self.stop(error)
            case VendorUnavailable():
                self._count_in_a_row(error)
            case UnreadableImage():
                pass
            case _:
                self.stop(error)
        return "pending"

    def _count_in_a_row(self, error: DescriberError) -> None:
        self._in_a_row += 1
        if self._in_a_row >= GIVE_UP_AFTER:
            self.stop(error)

    def _settle(
        self,
        ask: Ask,
        status: Status,
        *,
        shown: Shown | None = None,
        description: Description | None = None,
        error: DescriberError | None = None,
    ) -> None:
        row = row_of(
            ask,
            self.run,
            status,
            self.caller.clock(),
            description=description,
            error=error,
            sha256=shown.sha256 if shown else None,
            version=shown.version if shown else None,
        )
        self.record(ask, row)
        self.totals.counts[status] += 1
        allowed = self.limits.max_failure_ratio * self.totals.requested
        if self.totals.counts["rejected"] > allowed:
            self.stop(
                TooManyRejected(
                    f"{self.totals.counts['rejected']} of {self.totals.requested} images were rejected, more than "
                    f"max_failure_ratio={self.limits.max_failure_ratio} allows; the last one: {error}"
                )
            )

    async def turn(self) -> None:
        """Wait for the moment at which one more call may start, and take it."""
        while (wait := self._pace.waits(self.caller.clock())) > 0:
            await self.rest(wait)
        if self._stopping.is_set():
            raise _Stopped
        if not self._budget.take():
            self.stop()
            self.totals.budget_reached = True
            raise _Stopped
        self._pace.reserve(self.caller.clock())
        self.totals.calls += 1

    async def rest(self, seconds: float) -> None:
        """Sleep, unless the run is stopping: then this image's turn is over."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
        raise _Stopped

    def pause(self, seconds: float) -> None:
        """Let no worker start a call for so long."""
        self._pace.pause_until(self.caller.clock() + seconds)

    def settle_call(self, end: Description | DescriberError) -> None:
        """Count what an ended call has cost, or may have."""
        price = self.caller.account.price_per_call
        if isinstance(end, Description):
            cost = end.cost_usd
            if cost is not None:
                self.totals.cost_usd = (self.totals.cost_usd or 0.0) + cost
        elif end.billed == "no":
            cost = 0.0
        else:
            cost = price
            self.totals.count_failed_call(end.billed, price)
        self._budget.settle(cost or 0.0)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self.report(progress_line(self.totals, time.monotonic()))


class _Watch:
    """Stands between one image's flow and the run: asks for turns, keeps the pauses, counts what calls cost."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._open = False
        self._running: Running | None = None

    async def turn(self, request: Request) -> None:
        await self._batch.turn()
        self._open = True

    async def accepted(self, running: Running) -> None:
        self._running = running

    async def sleep(self, sleep: Sleep) -> None:
        if self._running:
            # It is being paid for; only its result ends the wait.
            await asyncio.sleep(sleep.seconds)
            return
        if sleep.because is not None:
            self.ended(sleep.because)
            if isinstance(sleep.because, RateLimited):
                self._batch.pause(sleep.seconds)
        await self._batch.rest(sleep.seconds)

    def ended(self, end: Description | DescriberError) -> None:
        """The open call, if there is one, has ended so."""
        if self._open:
            self._open = False
            self._batch.settle_call(end)
