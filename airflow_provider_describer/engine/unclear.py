"""Images with calls whose outcome is not known: what the vendor's own books say of them is carried out here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_describer.engine.admission import Admission, RunStopping
from airflow_provider_describer.engine.call import ImageCall
from airflow_provider_describer.engine.outcomes import OutcomeRecorder, unknown_outcome
from airflow_provider_describer.engine.plan import OnUnknown, PlannedImage, is_held
from airflow_provider_describer.engine.vendor_history import (
    Finding,
    VendorHistory,
    failed,
    judge,
    paid_without_text,
    settled_at,
)
from airflow_provider_describer.errors import DescriberError, StoreError, Unfinished, UnknownOutcome
from airflow_provider_describer.models import HistoryRecord
from airflow_provider_describer.store.index import OpenCall
from airflow_provider_describer.store.journal import Journal

LONGEST_PAUSE_S = 30.0
"""Between two lookups."""
UNSETTLED = Unfinished(
    "An earlier call for it was never answered, and the vendor's own history does not show yet what became of it. The "
    "next run asks again.",
    kind="unsettled",
)


@dataclass(slots=True)
class UnclearImage:
    """An image and its calls without an answer. ``call`` and ``error`` are of a call that this run has made.

    ``is_counted``: the run counts that call as one that may have been paid for. ``ended`` are calls that have failed.
    """

    entry: PlannedImage
    calls: Mapping[str, OpenCall]
    call: ImageCall | None = None
    error: DescriberError | None = None
    finding: Finding = field(default_factory=lambda: Finding("unsettled"))
    is_counted: bool = False
    ended: Mapping[str, OpenCall] = field(default_factory=dict)

    def learn(self, found: Mapping[str, HistoryRecord], now: float) -> None:
        """Take over what the books say; calls that have failed count no longer as lost ones."""
        self.finding = judge(self.calls, found, now)
        self.ended = {call: opened for call, opened in self.calls.items() if call in self.finding.ended}
        self.calls = {call: opened for call, opened in self.calls.items() if call not in self.ended}
        if self.call is None:
            self.entry.lost -= len(self.ended)
            self.entry.lost_answers -= sum(opened.lost_at > 0 for opened in self.ended.values())

    def accepted(self) -> tuple[str, OpenCall]:
        """Return id and content of the call that runs at the vendor, with what it takes to fetch its result."""
        call, record = self.finding.call, self.finding.record
        assert record is not None, "the verdict is about a record"
        return call, replace(self.calls[call], request_id=record.request_id, accepted_at=record.created_at)


async def ask(images: Sequence[UnclearImage], history: VendorHistory) -> None:
    """Ask the vendor's books about all calls of the images, with one lookup.

    :raises StoreError: the store cannot be read.
    """
    found = await history.find({call: opened for image in images for call, opened in image.calls.items()})
    for image in images:
        image.learn(found, history.now)


async def ask_about(
    entries: Sequence[PlannedImage], history: VendorHistory, on_unknown: OnUnknown, max_lost_calls: int
) -> list[UnclearImage]:
    """Ask about all calls of earlier runs that would be sent again, or left alone.

    Entries that the books tell about are planned anew. What is returned is still to be carried out.

    :raises StoreError: the store cannot be read.
    """
    lost = [entry for entry in entries if entry.lost and entry.action in ("call", "unknown")]
    calls = await history.unclear_calls([entry.first.keys for entry in lost])
    images = [UnclearImage(entry, known) for entry, known in zip(lost, calls, strict=True) if known]
    await ask(images, history)
    for image in images:
        entry, verdict = image.entry, image.finding.verdict
        if verdict == "running" and history.can_fetch:
            entry.action, entry.open_call = "attach", image.accepted()
        elif verdict in ("described", "running", "unsettled"):
            entry.action = "ask"
        else:
            held = is_held(entry.lost, entry.lost_answers, on_unknown, max_lost_calls)
            entry.action = "unknown" if held else "call"
    return images


@dataclass(slots=True)
class UnclearImages:
    """The unclear images of one run. Each is recorded here, or returned to be called, or fetched, by the run.

    :param waiting: those of earlier runs, as `ask_about` has returned them.
    """

    history: VendorHistory
    admission: Admission
    recorder: OutcomeRecorder
    journal: Journal | None
    on_unknown: OnUnknown
    max_lost_calls: int
    waiting: list[UnclearImage] = field(default_factory=list)

    @property
    def can_ask(self) -> bool:
        """Whether the vendor's books can be asked, as far as is known."""
        return self.history.is_readable

    async def ask_about(self, entries: Sequence[PlannedImage]) -> None:
        """Ask about further entries, as `ask_about` does; `begin` carries it out."""
        self.waiting += await ask_about(entries, self.history, self.on_unknown, self.max_lost_calls)

    async def begin(self) -> None:
        """Carry out what the books have said before the run; entries to be called or fetched are in the plan."""
        images, self.waiting = self.waiting, []
        for image in images:
            if image.entry.action == "ask":
                await self._carry_out(image)
            else:
                await self._write_ends(image)
                if image.entry.action == "attach":
                    await self._write_accepted(image)

    def add(self, entry: PlannedImage, call: ImageCall, error: DescriberError) -> None:
        """A call of this run has lost its answer: nothing more is sent for the image until the books were asked."""
        call_id, opened = call.leave_unclear(error)
        self.waiting.append(UnclearImage(entry, {call_id: opened}, call, error, is_counted=True))

    async def settle(self) -> list[PlannedImage]:
        """Ask about all that wait, as long as that can change something; return the entries to be called or fetched.

        Where none is returned, all are recorded.
        """
        pause, until = 1.0, self.history.next_settled
        while self.waiting and not self.admission.is_leaving:
            try:
                await ask(self.waiting, self.history)
                images, self.waiting = self.waiting, []
                again = [image.entry for image in images if await self._carry_out(image)]
            except StoreError as error:
                self.admission.stop(error)
                break
            if again:
                return again
            if not await self._wait(pause, max(until, *(settled_at(image.calls) for image in self.waiting), 0.0)):
                break
            pause = min(2 * pause, LONGEST_PAUSE_S)
        await self._leave()
        return []

    async def _wait(self, seconds: float, until: float) -> bool:
        """Wait before the next lookup; False where there is none."""
        left = until - self.history.now
        if not self.waiting or self.admission.stopping or left < 0:
            return False
        try:
            await self.admission.wait_to_retry(min(seconds, left + 0.01))
        except RunStopping:
            return False
        return True

    async def _carry_out(self, image: UnclearImage) -> bool:
        """Record what is known, or let the image wait; return whether it is to be called, or fetched."""
        entry, verdict = image.entry, image.finding.verdict
        await self._write_ends(image)
        if verdict == "described":
            await self._record_described(image)
            return False
        if verdict == "running" and self.history.can_fetch:
            entry.action, entry.open_call = "attach", image.accepted()
            await self._write_accepted(image)
            return True
        if verdict in ("running", "unsettled"):
            self.waiting.append(image)
            return False
        return await self._decide_own(image) if image.call else self._decide_earlier(entry)

    async def _record_described(self, image: UnclearImage) -> None:
        entry, found = image.entry, image.finding
        assert found.record is not None, "the verdict is about a record"
        description = self.history.description(entry.first.request.spec, found.record)
        self._uncount(image)
        self.admission.budget.learn(found.call, description.cost_usd or 0.0)
        self.recorder.totals.count_paid(description.cost_usd)
        call = self._call_of(image, found.call)
        lost = entry.lost - (image.call is None)
        row = self.recorder.row(call.image, "described", description, lost=lost, known=entry.known)
        await call.write_end(row, final=True)
        self.admission.note_progress()
        self.recorder.record(call.image, row, description)
        for other in entry.others:
            self.recorder.record_without_call(other, "reused", description)

    def _decide_earlier(self, entry: PlannedImage) -> bool:
        """Let ``on_unknown`` decide about calls of earlier runs; return whether the image is called again."""
        if not is_held(entry.lost, entry.lost_answers, self.on_unknown, self.max_lost_calls):
            entry.action = "call"
            return True
        entry.action = "unknown"
        self.recorder.record_held(entry, self.on_unknown)
        if self.on_unknown == "fail":
            self.admission.stop(unknown_outcome(entry.lost, self.on_unknown))
        return False

    async def _decide_own(self, image: UnclearImage) -> bool:
        """Let ``on_unknown`` decide about a call of this run; return whether the image is called again."""
        entry, verdict = image.entry, image.finding.verdict
        lost = entry.lost_answers + (verdict != "failed")
        if verdict == "failed" or (self.on_unknown == "retry" and lost < self.max_lost_calls):
            entry.lost += verdict != "failed"
            entry.lost_answers, entry.action = lost, "call"
            return True
        await self._record_lost(image, held=lost >= self.max_lost_calls)
        if self.on_unknown == "fail":
            message = f"{image.error} With on_unknown='fail' nothing more is sent."
            self.admission.stop(UnknownOutcome(message, billed="unknown"))
        return False

    async def _record_lost(self, image: UnclearImage, *, held: bool = False) -> None:
        """Record an image by a call of this run that has lost its answer."""
        entry, error, cost = image.entry, image.error, None
        (call_id, _), *_ = image.calls.items()
        call = self._call_of(image, call_id)
        if record := image.finding.paid.get(call_id):
            error, cost = self._paid(record), self.history.cost(record)
        row = replace(self.recorder.row(call.image, "unknown", error, lost=entry.lost), cost_usd=cost)
        await call.write_end(row, final=True)
        self.admission.note_progress()
        self.recorder.totals.held += len(entry.all) if held else 0
        self.recorder.record(call.image, row, error)
        for other in entry.others:
            self.recorder.record_without_call(other, "unknown", error)

    async def _leave(self) -> None:
        """Record all that are left for a later run, which asks again."""
        images, self.waiting = self.waiting, []
        for image in images:
            if image.call is None:
                why = self.admission.why_left() if self.admission.admits_no_more else UNSETTLED
                self.recorder.record_pending([image.entry], why)
            else:
                await self._record_lost(image)

    # The journal

    async def _write_accepted(self, image: UnclearImage) -> None:
        """The call runs at the vendor: a later run would find it by its request id."""
        self._uncount(image)
        if self.journal is not None:
            call, opened = image.accepted()
            about = {"keys": list(opened.keys), "uri": opened.uri, "at": round(opened.accepted_at, 3)}
            about |= {"by": opened.by} if opened.by else {}
            await self.journal.commit({"event": "accepted", "call": call, "request_id": opened.request_id, **about})

    async def _write_ends(self, image: UnclearImage) -> None:
        """Write down what calls have come to that brought no description."""
        for call_id, record in image.finding.ended.items():
            self._uncount(image)
            self.admission.budget.learn(call_id, 0.0)
            call = self._call_of(image, call_id)
            # With the id, so that no other call is ever taken for this one.
            error = failed(record, self.history.vendor_calls.vendor.title)
            await call.write_end(self.recorder.row(call.image, "failed", error), final=True)
        for paid, record in image.finding.paid.items():
            cost = self.history.cost(record)
            self._uncount(image)
            self.admission.budget.learn(paid, cost or 0.0)
            self.recorder.totals.count_failed_call("yes", cost)
            call = self._call_of(image, paid)
            row = self.recorder.row(call.image, "unknown", self._paid(record))
            await call.write_end(replace(row, cost_usd=cost), final=True)

    def _paid(self, record: HistoryRecord) -> DescriberError:
        return paid_without_text(record, self.history.vendor_calls.vendor.title)

    def _uncount(self, image: UnclearImage) -> None:
        if image.is_counted:
            image.is_counted = False
            self.recorder.totals.unknown_calls -= 1
            self.recorder.totals.unknown_cost_usd -= self.history.vendor_calls.account.price_per_call or 0.0

    def _call_of(self, image: UnclearImage, call_id: str) -> ImageCall:
        """Return the call of that id, whose end can be written."""
        instance, calls = self.recorder.task_instance.instance, self.history.vendor_calls
        call = image.call or ImageCall(
            image.entry.first, self.admission, self.recorder.totals, self.journal, calls, instance
        )
        call.take_up(call_id, {**image.ended, **image.calls}[call_id])
        return call
