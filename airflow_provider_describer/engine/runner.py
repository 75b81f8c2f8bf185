"""Takes planned images through prepare, call and record, with bounded concurrency (docs/how-an-image-travels.md).

Workers pull from one iterator, so memory grows with the concurrency and not with the images. There are more workers
than calls under way: reading one image and writing another's outcome overlap the calls of others. However a run ends,
answers under way are awaited and recorded, as they may have been paid for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_describer.engine.admission import Admission, RunStopping
from airflow_provider_describer.engine.call import ImageCall
from airflow_provider_describer.engine.learned import LearnedIdentities
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.outcomes import OutcomeRecorder
from airflow_provider_describer.engine.plan import IdentifiedImage, OnUnknown, Plan, PlannedImage
from airflow_provider_describer.engine.progress import progress_line, too_many_rejected
from airflow_provider_describer.engine.unclear import UnclearImages
from airflow_provider_describer.errors import (
    AmbiguousCall,
    DescriberError,
    RejectedImage,
    RequestExpired,
    UnexpectedAnswer,
    Unfinished,
    UnknownOutcome,
    UnreadableImage,
    VendorUnavailable,
)
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.prepare import prepare
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.models import Description, Running
from airflow_provider_describer.store.journal import Journal
from airflow_provider_describer.store.rows import Status

REPORT_EVERY_S = 5.0
GIVE_UP_AFTER = 3
"""Images in a row without an answer, or with an unreadable one, that stop the run: the images are not the cause."""

CHANGED = Unfinished(
    "Its content has changed since it was listed, and no call was made for it. The next run reads it again.",
    kind="changed",
)


@dataclass(frozen=True, slots=True)
class AlreadyKnown:
    """Reading the image has shown that an earlier run has its outcome, or that another entry of this run gets it."""

    found: PlannedImage


@dataclass(slots=True)
class Runner:
    """One run over the images of a plan."""

    plan: Plan
    vendor_calls: VendorCalls
    client: AsyncClient
    reader: Reader
    limits: TaskLimits
    admission: Admission
    recorder: OutcomeRecorder
    journal: Journal | None
    learned: LearnedIdentities
    report: Callable[[str], None]
    unclear: UnclearImages
    on_unknown: OnUnknown = "retry"
    known_after_all: list[PlannedImage] = field(default_factory=list, init=False)
    """Entries that an earlier run has an outcome of; not recorded here."""
    copies: list[tuple[PlannedImage, IdentifiedImage]] = field(default_factory=list, init=False)
    """Images with the content of another entry of this run; not recorded here."""
    left_running: list[Running] = field(default_factory=list, init=False)
    """Requests that a later run is to fetch."""
    _failures_in_a_row: int = field(default=0, init=False)

    async def describe(self, entries: Sequence[PlannedImage]) -> None:
        """Describe every image that needs a call, or record why not. Returns when nothing is under way any more."""
        reporter = asyncio.create_task(self._report_often())
        try:
            await self.unclear.begin()
            await self._describe_all(entries)
            while again := await self.unclear.settle():
                await self._describe_all(again)
        finally:
            reporter.cancel()
        self._report()

    async def _describe_all(self, entries: Sequence[PlannedImage]) -> None:
        # Each request that runs at the vendor has a worker of its own: they are forgotten after an hour, and those that
        # never end must keep neither the others nor new calls. Fetching holds no image in memory.
        queues = [iter([entry]) for entry in entries if entry.action == "attach"]
        queue = (entry for entry in entries if entry.action == "call")
        count = self.limits.concurrency + self.limits.concurrency // 2 + 1
        await self._wait_for([asyncio.create_task(self._work(queue)) for queue in (*queues, *[queue] * count)])

    async def _wait_for(self, workers: list[asyncio.Task[None]]) -> None:
        """Wait for every worker, also where one has failed or we are cancelled: the others' answers may be paid for."""
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            if not all(worker.done() for worker in workers):
                self.admission.stop(leave_running=True)
                await asyncio.wait(workers)
        failed = [error for worker in workers if not worker.cancelled() and (error := worker.exception())]
        if failed:
            raise failed[0]

    async def _work(self, queue: Iterator[PlannedImage]) -> None:
        for entry in queue:
            if self._is_left(entry):
                why = self.admission.why_left()
                for image in entry.all:
                    self.recorder.record_without_call(image, "pending", why)
            else:
                await self._one(entry)

    def _is_left(self, entry: PlannedImage) -> bool:
        """Whether an entry that is not yet begun is left for a later run. Fetching costs nothing and goes on longer."""
        return self.admission.stopping if entry.action == "attach" else self.admission.admits_no_more

    async def _one(self, entry: PlannedImage) -> None:
        instance = self.recorder.task_instance.instance
        call = ImageCall(entry.first, self.admission, self.recorder.totals, self.journal, self.vendor_calls, instance)
        try:
            result = await self._describe(entry, call)
        except RunStopping:
            if call.running and call.in_journal:
                self.left_running.append(call.running)
            await self._record(entry, call, "pending", self.admission.why_left())
        except DescriberError as error:
            if type(error) is AmbiguousCall and call.running is None and self.unclear.can_ask:
                self._count_in_a_row(error, GIVE_UP_AFTER + self.limits.concurrency)
                self.unclear.add(entry, call, error)
                return
            status = self._judge(error, entry)
            if status == "pending" and call.running and not call.in_journal:
                # It may be billed, and no later run would find it.
                status = "unknown"
            call.settle(error, pending=status == "pending")
            await self._record(entry, call, status, error)
        else:
            if isinstance(result, AlreadyKnown):
                self._leave_to(result.found, entry, call)
            else:
                call.settle(result)
                self._failures_in_a_row = 0
                await self._record(entry, call, "described", result)

    async def _describe(self, entry: PlannedImage, call: ImageCall) -> Description | AlreadyKnown:
        if entry.action == "attach":
            return await self._fetch(entry, call, reserved=True)
        async with self.admission.in_memory:
            if self._is_left(entry):
                raise RunStopping
            call.began = time.monotonic()
            return await self._prepare_and_call(entry, call)

    async def _prepare_and_call(self, entry: PlannedImage, call: ImageCall) -> Description | AlreadyKnown:
        request = entry.first.request
        prepared = await prepare(self.reader, self.vendor_calls.vendor, self.vendor_calls.account, request)
        call.show(prepared)
        self.recorder.totals.saved_bytes += prepared.saved
        if call.learned:
            await self.learned.look_up(call.image.all_keys)
            found = self.plan.decide_again(entry, call.image)
            if found.first is not call.image or found.action in ("reuse", "rejected", "unknown", "elsewhere"):
                return AlreadyKnown(found)
            entry.lost, entry.lost_answers = max(entry.lost, found.lost), max(entry.lost_answers, found.lost_answers)
            entry.known = found.known
            if found.action == "attach":
                return await self._fetch(found, call)
        # An image is sent again only until as many of its answers as allowed are lost, those of earlier runs included.
        # Where the vendor keeps books, they are asked first.
        may_resend = self.on_unknown == "retry" and not self.unclear.can_ask
        resend = self.limits.max_lost_calls - 1 - entry.lost_answers if may_resend else 0
        policy = replace(self.vendor_calls.policy, resend_unknown=max(0, resend))
        calls = replace(self.vendor_calls, policy=policy)
        return await self.client.arun(calls.describe(request.spec, prepared.picture, upload=prepared.upload), call)

    async def _fetch(self, entry: PlannedImage, call: ImageCall, *, reserved: bool = False) -> Description:
        """Fetch the result of a request that an earlier try has submitted.

        :param reserved: whether the budget has its cost already.
        """
        assert entry.open_call is not None
        call_id, opened = entry.open_call
        if not reserved:
            self.admission.budget.attach(call_id)
        running = call.attach(call_id, opened)
        return await self.client.arun(self.vendor_calls.fetch(entry.first.request.spec, running), call)

    def _leave_to(self, found: PlannedImage, entry: PlannedImage, call: ImageCall) -> None:
        """Leave the image to the entry that has its outcome or gets it."""
        call.write_same()
        if call.changed:
            self._record_others(entry, call, "pending")
        others = () if call.changed else entry.others
        if found.first is call.image:
            self.known_after_all.append(replace(found, others=others))
        else:
            self.copies += [(found, image) for image in (call.image, *others)]

    def _judge(self, error: DescriberError, entry: PlannedImage) -> Status:
        """Return what has become of the image, and stop the run where the error concerns more than the image."""
        match error:
            case RejectedImage():
                return "rejected"
            case UnexpectedAnswer(billed="no"):
                self._count_in_a_row(error)
                return "rejected"
            case UnexpectedAnswer() | AmbiguousCall():
                # Calls that were under way together may have lost their answers together.
                together = self.limits.concurrency if isinstance(error, AmbiguousCall) else 0
                # A request of an earlier run that has expired meanwhile says nothing about calls that are made now.
                if not (isinstance(error, RequestExpired) and entry.action == "attach"):
                    self._count_in_a_row(error, GIVE_UP_AFTER + together)
                if self.on_unknown == "fail":
                    message = f"{error} With on_unknown='fail' nothing more is sent."
                    self.admission.stop(UnknownOutcome(message, billed="unknown"))
                return "unknown"
            case VendorUnavailable():
                self._count_in_a_row(error)
            case UnreadableImage():
                pass
            case _:
                self.admission.stop(error)
        return "pending"

    def _count_in_a_row(self, error: DescriberError, most: int = GIVE_UP_AFTER) -> None:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= most:
            self.admission.stop(error)

    async def _record(
        self,
        entry: PlannedImage,
        call: ImageCall,
        status: Status,
        result: Description | DescriberError | None = None,
    ) -> None:
        """Make the outcome durable, then record and count it for every image of this content."""
        row = self.recorder.row(call.image, status, result, lost=entry.lost + call.lost, known=entry.known)
        if status == "pending" and call.running:
            row = replace(row, request_id=call.running.request_id, billed="unknown")
        # An answer that is not the vendor's, and cost nothing, says nothing about the image to later runs. A limit of
        # size may be that of a proxy, and may be raised.
        is_too_large = isinstance(result, RejectedImage) and result.kind == "too_large"
        is_of_this_run = status == "rejected" and (isinstance(result, UnexpectedAnswer) or is_too_large)
        await call.write_end(row, final=status != "pending" and not is_of_this_run)
        self.admission.note_progress()
        if status == "unknown" and entry.lost_answers + call.lost + 1 >= self.limits.max_lost_calls:
            self.recorder.totals.held += len(entry.all)
        self.recorder.record(call.image, row, result, was_asked=call.was_admitted)
        self._record_others(entry, call, status, result)
        if status == "rejected" and (
            too_many := too_many_rejected(self.recorder.totals, self.limits.max_failure_ratio)
        ):
            self.admission.stop(too_many)

    def _record_others(
        self,
        entry: PlannedImage,
        call: ImageCall,
        status: Status,
        result: Description | DescriberError | None = None,
    ) -> None:
        """Record the other images of this content; if the image has changed they are no copies of it any more."""
        for other in entry.others:
            if call.changed:
                self.recorder.record_without_call(other, "pending", CHANGED)
            else:
                as_copy: Status = "reused" if status == "described" else status
                self.recorder.record_without_call(other, as_copy, result, was_asked=call.was_admitted)

    def _report(self) -> None:
        per_minute = self.vendor_calls.account.requests_per_minute if self.admission.waits_for_rate else None
        paused_until = self.admission.paused_until
        self.admission.meter.count(self.recorder.totals)
        self.report(progress_line(self.recorder.totals, time.monotonic(), paused_until, waits_for_rate=per_minute))

    async def _report_often(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self._report()
