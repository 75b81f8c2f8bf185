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

from airflow_provider_describer.engine.call import ImageCall, RunStopping
from airflow_provider_describer.engine.deferral import DeferPolicy, ResumeCondition
from airflow_provider_describer.engine.limits import Budget, TaskLimits
from airflow_provider_describer.engine.outcomes import OutcomeRecorder
from airflow_provider_describer.engine.pacing import Gate, Pace, ReadAhead, Throttle
from airflow_provider_describer.engine.plan import IdentifiedImage, OnUnknown, PlannedImage
from airflow_provider_describer.engine.progress import Totals, progress_line, too_many_rejected
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
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.prepare import prepare
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.models import Description, Running
from airflow_provider_describer.quota.shared import SharedLimits
from airflow_provider_describer.store.journal import Journal, new_call_id
from airflow_provider_describer.store.rows import Status

REPORT_EVERY_S = 5.0
GIVE_UP_AFTER = 3
"""So many images in a row without an answer, or with one that nobody can read: it is not the images."""


class AlreadyKnown(Exception):  # no error: nothing is paid for this image
    """Reading the image has shown that an earlier run has its outcome, or that another entry of this run gets it."""

    def __init__(self, found: PlannedImage) -> None:
        super().__init__()
        self.found = found


@dataclass(slots=True)
class Runner:
    """One run over planned images.

    :param reconsider: asked about an image of which reading has shown more than the plan knew: what is to be done about
        it, or the other entry of this run that has its content.
    """

    vendor_calls: VendorCalls
    client: AsyncClient
    reader: Reader
    limits: TaskLimits
    recorder: OutcomeRecorder
    report: Callable[[str], None]
    reconsider: Callable[[PlannedImage, IdentifiedImage], PlannedImage]
    journal: Journal | None = None
    on_unknown: OnUnknown = "retry"
    shared: SharedLimits | None = None
    """Where the account's limits are shared with other tasks; otherwise each task counts for itself."""
    stopped_by: DescriberError | None = field(default=None, init=False)
    known_after_all: list[PlannedImage] = field(default_factory=list, init=False)
    """Entries that an earlier run has an outcome of; not recorded here."""
    copies: list[tuple[PlannedImage, IdentifiedImage]] = field(default_factory=list, init=False)
    """Images with the content of another entry of this run; not recorded here."""
    slowdowns: int = field(default=0, init=False)
    paused_until: float = field(default=0.0, init=False)
    pace: Pace = field(init=False)
    budget: Budget = field(init=False)
    throttle: Throttle = field(init=False)
    ahead: ReadAhead = field(init=False)
    stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    leaving: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    settled: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Set when a call has ended, or was not made after all."""
    calling: Gate = field(init=False)
    """Around each call under way."""
    in_memory: Gate = field(init=False)
    """Around each image, from before it is read until its call has ended."""
    line: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    defer_policy: DeferPolicy = field(init=False)
    _left: list[Running] = field(default_factory=list, init=False)
    _in_a_row: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        account, totals = self.vendor_calls.account, self.totals
        per_minute, per_day = (None, None) if self.shared else (account.requests_per_minute, account.max_cost_per_day)
        self.pace = Pace(per_minute, in_bursts=self.limits.max_wait is not None)
        allowed = [cost for cost in (self.limits.max_cost, per_day) if cost is not None]
        self.budget = Budget(self.limits.max_calls, min(allowed, default=None), account.price_per_call)
        # A run that goes on has spent something already.
        self.budget.calls, self.budget.spent = totals.calls, (totals.cost_usd or 0.0) + totals.unknown_cost_usd
        self.throttle = Throttle(self.limits.concurrency)
        self.ahead = ReadAhead(self.limits.concurrency)
        self.calling = Gate(lambda: int(self.throttle.allowed))
        self.in_memory = Gate(self.ahead.images)
        self.defer_policy = DeferPolicy(self.limits.max_wait)

    @property
    def totals(self) -> Totals:
        """What has been done so far."""
        return self.recorder.totals

    async def describe(self, entries: Iterable[PlannedImage]) -> None:
        """Describe every image, or record of each why not. Returns when nothing is under way any more."""
        queue = iter(entries)
        # More than there are calls under way: some get the next images ready, some wait for outcomes to be durable.
        count = self.limits.concurrency + self.limits.concurrency // 2 + 1
        workers = [asyncio.create_task(self._work(queue)) for _ in range(count)]
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
            if self.shared is not None:
                self.shared.stop()
            self.calling.open()
            self.notify()

    def wait(self) -> ResumeCondition | None:
        """Return what the run waits for if it was left; None where it has ended otherwise."""
        return None if self.stopped_by else self.defer_policy.wait(self._left)

    def too_long(self, seconds: float) -> bool:
        """No call can be made for so long; return whether the run has no patience for it, and makes no more of them.

        Calls whose moment has come are still made, and answers under way are awaited.
        """
        return self.defer_policy.must_wait(seconds, max(self.vendor_calls.clock() + seconds, self.pace.idle_at()))

    def only_polls(self) -> None:
        """A running request has been asked about, and runs on."""
        if self.defer_policy.only_polls(time.monotonic()):
            self.stop(leave_running=True)

    def notify(self) -> None:
        """A call has ended, or was not made after all: another one may start, or none any more."""
        if self.totals.budget_reached and not self.budget.under_way:
            self.stop()
        self.settled.set()

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

    async def _work(self, queue: Iterator[PlannedImage]) -> None:
        for entry in queue:
            if self._is_over(entry):
                for image in entry.all:
                    self.recorder.without_call(image, "pending")
            else:
                await self._one(entry)

    def _is_over(self, entry: PlannedImage) -> bool:
        """Whether an entry that nobody has begun with is left alone."""
        return self.stopping.is_set() or (
            entry.action == "call" and (self.totals.budget_reached or self.defer_policy.out)
        )

    async def _one(self, entry: PlannedImage) -> None:
        watch = ImageCall(self, entry)
        try:
            description = await self._described(entry, watch)
        except RunStopping:
            if watch.running and watch.in_journal:
                self._left.append(watch.running)
            await self._end(entry, watch, "pending")
        except AlreadyKnown as elsewhere:
            self._pass_on(entry, watch, elsewhere.found)
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

    async def _described(self, entry: PlannedImage, watch: ImageCall) -> Description:
        if entry.action == "attach":
            return await self._fetched(entry, watch)
        await self.in_memory.enter()
        try:
            if self._is_over(entry):
                raise RunStopping
            watch.began = time.monotonic()
            return await self._read_and_called(entry, watch)
        finally:
            self.in_memory.leave()

    async def _read_and_called(self, entry: PlannedImage, watch: ImageCall) -> Description:
        request = entry.first.request
        shown = await prepare(self.reader, self.vendor_calls.vendor, self.vendor_calls.account, request)
        watch.shows(shown)
        self.totals.saved_bytes += shown.saved
        if watch.learned:
            found = self.reconsider(entry, watch.image)
            if found.first is not watch.image or found.action in ("reuse", "rejected", "unknown"):
                raise AlreadyKnown(found)
            entry.lost = max(entry.lost, found.lost)
            if found.action == "attach":
                return await self._fetched(found, watch)
        flow = self.vendor_calls.describe(request.spec, shown.picture, upload=shown.upload)
        return await self.client.arun(flow, watch)

    async def _fetched(self, entry: PlannedImage, watch: ImageCall) -> Description:
        """Fetch what an earlier try has submitted."""
        assert entry.open_call is not None
        call, opened = entry.open_call
        running = Running(opened.request_id or "", opened.accepted_at)
        watch.attach(call, running)
        return await self.client.arun(self.vendor_calls.fetch(entry.first.request.spec, running), watch)

    def _pass_on(self, entry: PlannedImage, watch: ImageCall, found: PlannedImage) -> None:
        """Leave the image to whoever knows its outcome, and tell later runs that these identities are one image's."""
        if self.journal is not None:
            self.journal.append({"event": "same", "call": new_call_id(), **watch.subject()})
        if watch.changed:
            # Copies of what the image was before are no copies of it any more.
            self._settle_others(entry, watch, "pending")
        others = () if watch.changed else entry.others
        if found.first is watch.image:
            self.known_after_all.append(replace(found, others=others))
        else:
            self.copies += [(found, image) for image in (watch.image, *others)]

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

    def _count_in_a_row(self, error: DescriberError) -> None:
        self._in_a_row += 1
        if self._in_a_row >= GIVE_UP_AFTER:
            self.stop(error)

    async def _end(
        self,
        entry: PlannedImage,
        watch: ImageCall,
        status: Status,
        *,
        description: Description | None = None,
        error: DescriberError | None = None,
    ) -> None:
        """Make the outcome durable, then count it for every image of this content."""
        image = watch.image
        row = self.recorder.row(image, status, description=description, error=error, lost=entry.lost + watch.lost)
        if status == "pending" and watch.running:
            row = replace(row, request_id=watch.running.request_id, billed="unknown")
        if self.journal is not None and watch.call is not None:
            if status == "pending" and not watch.running:
                self.journal.append({"event": "closed", "call": watch.call, "why": error.kind if error else "stopped"})
            elif status != "pending":
                event = {"event": "outcome", "call": watch.call, "keys": list(image.keys), **row.to_dict()}
                try:
                    await self.journal.commit(event)
                except StoreError as broken:
                    # The row may be of a paid answer: it is in the result files at least.
                    self.stop(broken)
        self.defer_policy.moved(time.monotonic())
        self.recorder.keep(image, row, error)
        self._settle_others(entry, watch, status, description, error)
        if status == "rejected" and (too_many := too_many_rejected(self.totals, self.limits.max_failure_ratio)):
            self.stop(too_many)

    def _settle_others(
        self,
        entry: PlannedImage,
        watch: ImageCall,
        status: Status,
        description: Description | None = None,
        error: DescriberError | None = None,
    ) -> None:
        """Record the other images of this content."""
        for other in entry.others:
            if watch.changed:
                # They are no longer known to be copies.
                self.recorder.without_call(other, "pending")
            else:
                self.recorder.without_call(other, "reused" if status == "described" else status, description, error)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self.report(progress_line(self.totals, time.monotonic()))
