"""Many images: read, call, record, with bounded concurrency. Knows nothing of Airflow.

For every call: intent durable, then the call, then its outcome durable, then counted. Workers pull from one iterator,
so memory grows with the concurrency and not with the images; there are more workers than calls under way, so that
reading and journaling one image overlap the calls of others. Whatever ends a run early, answers under way are awaited
and recorded, as they may have been paid for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from airflow_provider_describer.client.flow import Caller
from airflow_provider_describer.client.limiter import Budget, Pace, Throttle
from airflow_provider_describer.client.transport import AsyncClient
from airflow_provider_describer.description import Description, Running
from airflow_provider_describer.errors import (
    AccountError,
    AmbiguousCall,
    DescriberError,
    RateLimited,
    RejectedImage,
    StoreError,
    UnexpectedAnswer,
    UnknownOutcome,
    UnreadableImage,
    VendorUnavailable,
)
from airflow_provider_describer.images.reading import Reader, masked
from airflow_provider_describer.images.showing import show
from airflow_provider_describer.progress import Totals, progress_line, too_many_rejected
from airflow_provider_describer.store.journal import Journal
from airflow_provider_describer.store.plan import Identified, OnUnknown, Planned
from airflow_provider_describer.store.rows import Row, Run, Status, row_of
from airflow_provider_describer.watch import CallWatch, Stopped

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


@dataclass(slots=True)
class Batch:
    """One run over planned images. ``record`` gets each row once it is durable, in the event loop's own thread."""

    caller: Caller
    client: AsyncClient
    reader: Reader
    limits: Limits
    run: Run
    record: Callable[[Identified, Row], None]
    report: Callable[[str], None]
    totals: Totals
    journal: Journal | None = None
    on_unknown: OnUnknown = "retry"
    claim: Callable[[tuple[str, ...]], bool] = lambda keys: True
    """Asked about an image that has changed since it was planned: whether this run is the one to describe it."""
    stopped_by: DescriberError | None = field(default=None, init=False)
    slowdowns: int = field(default=0, init=False)
    paused_until: float = field(default=0.0, init=False)
    pace: Pace = field(init=False)
    budget: Budget = field(init=False)
    throttle: Throttle = field(init=False)
    stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    leaving: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    room: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _in_a_row: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        account = self.caller.account
        self.pace = Pace(account.requests_per_minute)
        # Without a shared folder for limits each task counts its spending for itself.
        allowed = [cost for cost in (self.limits.max_cost, account.max_cost_per_day) if cost is not None]
        self.budget = Budget(self.limits.max_calls, min(allowed, default=None), account.price_per_call)
        self.throttle = Throttle(self.limits.concurrency)

    async def describe(self, entries: Iterable[Planned]) -> None:
        """Describe every image, or record of each why not. Returns when nothing is under way any more."""
        queue = iter(entries)
        # A quarter more: while calls are under way, the next images are read and their intents journaled. Each worker
        # holds one image in memory.
        ahead = self.limits.concurrency // 4 + 1
        workers = [asyncio.create_task(self._work(queue)) for _ in range(self.limits.concurrency + ahead)]
        reporter = asyncio.create_task(self._report())
        try:
            await self._all_done(workers)
        finally:
            reporter.cancel()
        self.report(progress_line(self.totals, time.monotonic()))

    def stop(self, reason: DescriberError | None = None, *, leave_running: bool = False) -> None:
        """Start no further call; what is under way is awaited. To be called from the event loop's thread.

        :param leave_running: do not wait for requests that run at the vendor and stand in the journal: a later run
            fetches their results.
        """
        if leave_running:
            self.leaving.set()
        self.stopped_by = self.stopped_by or reason
        if not self.stopping.is_set():
            self.stopping.set()
            self.notify()

    def notify(self) -> None:
        """A call has ended, or was not made after all: another one may start, or none any more."""
        if self.totals.budget_reached and not self.budget.under_way:
            self.stop()
        self.room.set()

    async def _all_done(self, workers: list[asyncio.Task[None]]) -> None:
        """Wait for every worker, also where one has failed or we are cancelled: the others' answers may be paid for."""
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            # Nothing is left to stop where all are done.
            if not all(worker.done() for worker in workers):
                self.stop(leave_running=True)
                await asyncio.wait(workers)
        failed = [error for worker in workers if not worker.cancelled() and (error := worker.exception())]
        if failed:
            raise failed[0]

    async def _work(self, queue: Iterator[Planned]) -> None:
        for entry in queue:
            if self.stopping.is_set() or (self.totals.budget_reached and entry.action == "call"):
                for image in entry.all:
                    self._settle(image, "pending")
            else:
                await self._one(entry)

    async def _one(self, entry: Planned) -> None:
        watch = CallWatch(self, entry)
        try:
            description = await self._described(entry, watch)
        except Stopped:
            await self._end(entry, watch, "pending")
        except DescriberError as error:
            status = self._judge(error)
            if status == "pending" and watch.running and not watch.in_journal:
                # It may be billed, and no later run would find it.
                status = "unknown"
            watch.ended(error, pending=status == "pending")
            await self._end(entry, watch, status, error=error)
        else:
            watch.ended(description)
            self._in_a_row = 0
            await self._end(entry, watch, "described", description=description)

    async def _described(self, entry: Planned, watch: CallWatch) -> Description:
        ask = entry.first.ask
        if entry.action == "attach" and entry.open_call is not None:
            call, opened = entry.open_call
            running = Running(opened.request_id or "", opened.accepted_at)
            watch.attach(call, running)
            return await self.client.arun(self.caller.fetch(ask.spec, running), watch)
        shown = await show(self.reader, self.caller.vendor, self.caller.account, ask.image)
        watch.shows(shown)
        if watch.changed and not self.claim(watch.image.keys):
            raise UnreadableImage(
                f"{masked(ask.image.uri)}: has changed since this run looked at it, and another image of this run or "
                "an earlier one has its new content. Running again finds that.",
                kind="changed",
            )
        flow = self.caller.describe(ask.spec, shown.picture, upload=shown.upload)
        return await self.client.arun(flow, watch)

    def _judge(self, error: DescriberError) -> Status:
        """Return what has become of the image, and stop the run where the error says more than that."""
        match error:
            case RejectedImage():
                return "rejected"
            case UnexpectedAnswer():
                self._count_in_a_row(error)
                return "rejected"
            case AmbiguousCall():
                if self.on_unknown == "fail":
                    self.stop(UnknownOutcome(f"{error} With on_unknown='fail' nothing more is sent.", billed="unknown"))
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

    def may_afford_later(self) -> bool:
        """Whether a call that the task's limits do not allow now may be allowed when others have cost nothing."""
        budget = self.budget
        if not budget.under_way or (budget.max_calls is not None and budget.calls >= budget.max_calls):
            return False
        return budget.max_cost is None or budget.spent < budget.max_cost

    def _count_in_a_row(self, error: DescriberError) -> None:
        self._in_a_row += 1
        if self._in_a_row >= GIVE_UP_AFTER:
            self.stop(error)

    async def _end(
        self,
        entry: Planned,
        watch: CallWatch,
        status: Status,
        *,
        description: Description | None = None,
        error: DescriberError | None = None,
    ) -> None:
        """Make the outcome durable, then count it for every image of this content."""
        image = watch.image
        row = self._row(image, status, description, error, lost=entry.lost + watch.lost)
        if status == "pending" and watch.running:
            row = replace(row, request_id=watch.running.request_id, billed="unknown")
        if self.journal is not None and watch.call is not None:
            if status == "pending" and not watch.running:
                self.journal.add({"event": "closed", "call": watch.call, "why": error.kind if error else "stopped"})
            elif status != "pending":
                event = {"event": "outcome", "call": watch.call, "keys": list(image.keys), **row.to_dict()}
                try:
                    await self.journal.durable(event)
                except StoreError as broken:
                    # The row may be of a paid answer: it is in the result files at least.
                    self.stop(broken)
        self._count(image, row, error)
        for other in entry.others:
            if watch.changed:
                # Its copies are no longer known to be copies.
                self._settle(other, "pending")
            else:
                self._settle(other, "reused" if status == "described" else status, description, error)

    def _settle(
        self,
        image: Identified,
        status: Status,
        description: Description | None = None,
        error: DescriberError | None = None,
    ) -> None:
        """Count an image for which no call was made of its own."""
        row = self._row(image, status, description, error)
        self._count(image, replace(row, cost_usd=0.0 if description else None, billed="no", elapsed_s=None), error)

    def _row(
        self,
        image: Identified,
        status: Status,
        description: Description | None,
        error: DescriberError | None,
        lost: int = 0,
    ) -> Row:
        return row_of(
            image.ask,
            self.run,
            status,
            self.caller.clock(),
            description=description,
            error=error,
            sha256=image.sha256,
            version=image.version,
            lost_calls=lost,
        )

    def _count(self, image: Identified, row: Row, error: DescriberError | None) -> None:
        self.record(image, row)
        self.totals.counts[row.status] += 1
        if row.status == "rejected":
            self.totals.count_rejected(str(error) if error else None)
            if too_many := too_many_rejected(self.totals, self.limits.max_failure_ratio):
                self.stop(too_many)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self.report(progress_line(self.totals, time.monotonic()))
