"""The calls for one image: what each attempt costs, and what the journal says of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from airflow_provider_describer.engine.admission import Admission, CallPermit
from airflow_provider_describer.engine.identify import identified_image
from airflow_provider_describer.engine.meter import EndedCall
from airflow_provider_describer.engine.plan import IdentifiedImage
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.errors import DescriberError, RateLimited, StoreError, UnreadableImage
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.prepare import PreparedImage
from airflow_provider_describer.models import Description, Picture, Running
from airflow_provider_describer.storage.address import masked
from airflow_provider_describer.store.index import OpenCall
from airflow_provider_describer.store.journal import Journal, new_call_id
from airflow_provider_describer.store.rows import Row


class ImageCall:
    """Implements `CallHooks` for one image.

    ``image`` is the image as it was read, or as it was planned until it is read; ``lost`` counts the attempts whose
    answer was lost; ``running`` is the request that runs at the vendor for it, if any.

    :param instance: id of the task instance that makes the calls.
    """

    def __init__(
        self,
        planned: IdentifiedImage,
        admission: Admission,
        totals: Totals,
        journal: Journal | None,
        vendor_calls: VendorCalls,
        instance: str = "",
    ) -> None:
        self._planned = self.image = planned
        self._instance = self._by = instance
        self._admission, self._totals, self._journal = admission, totals, journal
        self._clock, self._price = vendor_calls.clock, vendor_calls.account.price_per_call
        self._vendor, self._conn_id = vendor_calls.vendor, vendor_calls.account.conn_id
        self._id: str | None = None
        """Call id of the attempt whose end is not in the journal yet, or None."""
        self._shown: list[str] = []
        """How the vendor's books would show the attempt's image; empty where it keeps none."""
        self._sent_at = 0.0
        self._permit: CallPermit | None = None
        self._intent_s = 0.0
        self.began = time.monotonic()
        """When reading the image began."""
        self.lost = 0
        self.running: Running | None = None
        self._is_attached = False
        """Whether the budget has reserved a call of an earlier try that is not settled yet."""
        self.in_journal = False
        """Whether a later run would find the running request."""

    def show(self, prepared: PreparedImage) -> None:
        """Take over what reading the image has found: its calls send this content."""
        self.image = identified_image(self._planned.request, prepared.sha256, prepared.version, prepared.size)

    @property
    def was_admitted(self) -> bool:
        """Whether a call was about to be sent, or is fetched: what has ended it is no check of our own."""
        return self._permit is not None or self.running is not None

    @property
    def learned(self) -> bool:
        """Whether reading the image has shown other identities than planned."""
        return self.image.keys != self._planned.keys

    @property
    def changed(self) -> bool:
        """Whether the image is no longer the one that was planned."""
        return set(self._planned.keys).isdisjoint(self.image.keys)

    def attach(self, call: str, opened: OpenCall) -> Running:
        """The call was sent in an earlier try and runs at the vendor: it is only fetched, and may be billed."""
        self.running = Running(opened.request_id or "", opened.accepted_at)
        self._id, self._by, self.in_journal, self._is_attached = call, opened.by, True, True
        return self.running

    def leave_unclear(self, error: DescriberError) -> tuple[str, OpenCall]:
        """The attempt's answer was lost, and the vendor's books will be asked about it; return id and call.

        Until then it counts as one that may have been paid for.
        """
        self.settle(error)
        call, now = self._id or "", self._clock()
        self._close(error.kind, "lost")
        uri, shown = masked(self.image.request.image.uri), frozenset(self._shown)
        return call, OpenCall(self.image.keys, self._by, uri, self._sent_at, shown=shown, lost_at=now)

    def take_up(self, call: str, opened: OpenCall) -> None:
        """The call was sent before, and the vendor's books, or ``on_unknown``, have decided how it has ended."""
        self._id, self._by = call, opened.by
        # The call may know more identities of its image than this run.
        self.image = replace(self.image, keys=tuple(dict.fromkeys((*self.image.keys, *opened.keys))))

    # CallHooks

    async def before_call(self, picture: Picture) -> None:
        """Wait until the call is admitted; its intent is durable then, with what it takes to recognise the call."""
        self._shown = await self._seen_by_vendor(picture)
        ready_s = None if self._permit else time.monotonic() - self.began
        self._permit = await self._admission.acquire(self._write_intent, self._close)
        if ready_s is not None:
            self._admission.read_ahead.ready_after(ready_s + self._intent_s)

    async def signed_again(self, picture: Picture) -> None:
        """The image goes by another address than the intent says: add that one, before the call is sent."""
        self._shown += await self._seen_by_vendor(picture)
        if self._journal is not None and self._shown:
            await self._journal.commit(self._intent())

    async def accepted(self, running: Running) -> None:
        """The vendor runs the request and may bill it: its id is durable before the first poll."""
        self.running = running
        if self._journal is None:
            return
        event = {"event": "accepted", "call": self._id, "request_id": running.request_id, **self._about()}
        try:
            await self._journal.commit(event)
        except StoreError as error:
            # No further call; but this one is being paid for, and its result is fetched for the result files.
            self._admission.stop(error)
        else:
            self.in_journal = True

    def attempt_failed(self, error: DescriberError, seconds: float) -> None:
        """Settle the attempt and write down how it ended. After a 429, pause or slow down the other calls too."""
        if self.running is not None:
            # Only a poll has failed: the call itself goes on at the vendor.
            return
        self.settle(error)
        if error.billed == "no":
            self._close(error.kind)
        else:
            self.lost += 1
            self._close(error.kind, "lost")
        if isinstance(error, RateLimited):
            self._admission.back_off(self._permit, error, seconds)

    async def sleep(self, seconds: float) -> None:
        """Sleep between attempts or polls, unless the run stops."""
        if self.in_journal:
            await self._admission.wait_to_poll(seconds)
        elif self.running is not None:
            # It is being paid for, and no other run would find it: only its result ends the wait.
            await asyncio.sleep(seconds)
        else:
            await self._admission.wait_to_retry(seconds)

    # The end

    def settle(self, end: Description | DescriberError, *, pending: bool = False) -> None:
        """Count what the attempt that has ended has cost, or may have.

        :param pending: the image is left for a later run. That run fetches the result if the request still runs.
        """
        permit = self._permit if self._permit and self._permit.is_open else None
        if permit is None and self.running is None:
            return
        cost = self._price
        if isinstance(end, UnreadableImage):
            # The call was admitted, but the image's address could not be signed: nothing was sent.
            self._totals.calls -= 1
        if isinstance(end, Description):
            cost = end.cost_usd
            self._totals.count_paid(cost)
            self._admission.speed_up()
        elif end.billed == "no":
            cost = 0.0
        elif not (pending and self.in_journal):
            self._totals.count_failed_call(end.billed, cost)
        if permit is not None:
            self._admission.settle(permit, cost or 0.0)
            if not (isinstance(end, UnreadableImage) or (pending and self.in_journal)):
                self._admission.meter.call(self._ended(permit, end, cost))
        elif self._is_attached:
            self._is_attached = False
            self._admission.settle_attached(cost or 0.0)

    def _ended(self, permit: CallPermit, end: Description | DescriberError, cost: float | None) -> EndedCall:
        error = None if isinstance(end, Description) else end.kind
        uri, seconds = masked(self.image.request.image.uri), time.monotonic() - permit.sent_at
        return EndedCall(uri, seconds, cost, end.billed, end.request_id, error)

    async def write_end(self, row: Row, *, final: bool) -> None:
        """Make the row durable as the outcome of the last attempt.

        An attempt whose row is not ``final`` is closed instead, unless its request still runs at the vendor: a later
        run tries again. If the journal cannot be written, the run stops. The row may be a paid answer; it still goes
        into the result files.
        """
        if self._journal is None or self._id is None:
            return
        if final:
            event = {"event": "outcome", "call": self._id, "keys": list(self.image.keys), **row.to_dict()}
            if self._by != self._instance:
                event["by"] = self._by
            try:
                await self._journal.commit(event)
            except StoreError as error:
                self._admission.stop(error)
        elif not self.running:
            why = row.error["kind"] if row.error else "stopped"
            self._journal.append({"event": "closed", "call": self._id, "why": why})

    def write_same(self) -> None:
        """Tell later runs that all identities of the image name one content."""
        if self._journal is not None:
            self._journal.append({"event": "same", "call": new_call_id(), **self._about()})

    async def _write_intent(self) -> None:
        self._id, self._sent_at = new_call_id(), round(self._clock(), 3)
        if self._journal is not None:
            began = time.monotonic()
            await self._journal.commit(self._intent())
            self._intent_s = time.monotonic() - began

    def _intent(self) -> dict[str, object]:
        shown = {"shown": " ".join(self._shown)} if self._shown else {}
        return {"event": "sent", "call": self._id, **self._about(), "at": self._sent_at, **shown}

    async def _seen_by_vendor(self, picture: Picture) -> list[str]:
        if not self._vendor.keeps_history:
            return []
        if picture.content is None:
            return [self._vendor.shown(picture)]
        # The digest of a large image takes a while.
        return [await asyncio.to_thread(self._vendor.shown, picture)]

    def _close(self, why: str, event: str = "closed") -> None:
        """Write down how the last attempt ended, before another one."""
        if self._id is not None and self._journal is not None:
            about = self._about()
            if event == "lost" and self._shown:
                # What it takes to recognise the call in the vendor's books.
                about |= {"shown": " ".join(self._shown), "sent_at": self._sent_at}
            self._journal.append({"event": event, "call": self._id, "why": why, **about})
        self._id = None

    def _about(self) -> dict[str, object]:
        """What an event says of the image, and of the task instance whose budget the call counts against."""
        uri = masked(self.image.request.image.uri)
        about = {"keys": list(self.image.keys), "uri": uri, "at": round(self._clock(), 3)}
        if self.image.request.chain:
            about["conn_id"] = self._conn_id
        return about | {"by": self._by} if self._by else about
