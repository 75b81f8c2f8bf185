"""What stands between one image's flow and the run: turns, pauses, intents, and what each call costs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from airflow_provider_describer.engine.plan import IdentifiedImage, PlannedImage
from airflow_provider_describer.errors import DescriberError, RateLimited, StoreError, UnreadableImage
from airflow_provider_describer.http.flow import Sleep
from airflow_provider_describer.images.prepare import PreparedImage
from airflow_provider_describer.models import Description, Running
from airflow_provider_describer.quota.lease_client import Permit
from airflow_provider_describer.quota.shared import DayBudgetSpent, QuotaClosed, SharedLimits
from airflow_provider_describer.storage.address import masked
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.store.journal import new_call_id

if TYPE_CHECKING:
    from airflow_provider_describer.engine.runner import Runner


class RunStopping(Exception):  # no error: this image's turn will not come in this run
    """The run is stopping, and this image's call has not been sent, or is left to run at the vendor."""


class ImageCall:
    """Watches the calls for one image.

    ``call`` is the id of the call that was last sent and not closed; ``lost`` counts those whose answer was lost;
    ``running`` is the request that runs at the vendor for it, as far as anybody knows.
    """

    def __init__(self, batch: Runner, entry: PlannedImage) -> None:
        self._batch = batch
        self._planned = entry.first
        self._ask = entry.first.request
        self._open = False
        self._round = 0
        self._shown: IdentifiedImage | None = None
        self.running: Running | None = None
        self.in_journal = False
        """Whether a later run would find the running request."""
        self.call: str | None = None
        self.lost = 0
        self.began = time.monotonic()
        """When the image began to be read."""
        self._sent = 0.0
        self._has_room = False
        self._journal_s = 0.0
        self._ticket: Permit | None = None
        """Leave of those who share the account's limits to make the call; with it comes room for it."""

    def shows(self, shown: PreparedImage) -> None:
        """The image has been read: this is what its calls will show."""
        keys = identity_keys(self._ask.spec, self._ask.image.uri, shown.sha256, shown.version, shown.size)
        self._shown = IdentifiedImage(self._ask, keys, shown.sha256, shown.version)

    @property
    def image(self) -> IdentifiedImage:
        """The image as it was shown; as it was planned where it has not been shown."""
        return self._shown or self._planned

    @property
    def changed(self) -> bool:
        """Whether the image is no longer the one that was planned."""
        return set(self._planned.keys).isdisjoint(self.image.keys)

    @property
    def learned(self) -> bool:
        """Whether more is known of the image than when it was planned."""
        return self.image.keys != self._planned.keys

    def attach(self, call: str, running: Running) -> None:
        """The call was sent in an earlier try and runs at the vendor: it is only fetched."""
        self.call, self.running, self.in_journal = call, running, True

    async def before_call(self) -> None:
        """Wait for the call's turn and make its intent durable; after this it is sent."""
        batch = self._batch
        ready_s = None if self._sent else time.monotonic() - self.began
        await self._reserve()
        try:
            await self._take_ticket()
            while not await self._intend():
                # Everybody has been told to pause meanwhile, which may take long: the intent is withdrawn until then.
                self._close("paused")
                self._hand_back()
                await self._keep_pace()
                await self._take_ticket()
        except BaseException:
            self._hand_back()
            batch.budget.give_back()
            batch.notify()
            raise
        self._open, self._round = True, batch.slowdowns
        batch.totals.calls += 1
        self._sent = time.monotonic()
        batch.defer_policy.moved(self._sent)
        if ready_s is not None:
            batch.ahead.ready_after(ready_s + self._journal_s)

    async def accepted(self, running: Running) -> None:
        """The vendor runs the request and may bill it: its id is durable before the first poll."""
        self.running = running
        if self._batch.journal is None:
            return
        event = {"event": "accepted", "call": self.call, "request_id": running.request_id, **self.subject()}
        try:
            await self._batch.journal.commit(event)
        except StoreError as error:
            # No further call; but this one is being paid for, and its result is fetched for the result files.
            self._batch.stop(error)
        else:
            self.in_journal = True

    async def sleep(self, sleep: Sleep) -> None:
        """Pause between attempts or polls."""
        batch, error = self._batch, sleep.because
        if self.in_journal:
            batch.only_polls()
            await _rest(batch.leaving, sleep.seconds)
        elif self.running is not None:
            # It is being paid for, and no other run would find it: only its result ends the wait.
            await asyncio.sleep(sleep.seconds)
        else:
            if error is not None:
                self._failed(error, sleep.seconds)
            if batch.too_long(sleep.seconds):
                raise RunStopping
            await _rest(batch.stopping, sleep.seconds)

    def ended(self, end: Description | DescriberError, *, pending: bool = False) -> None:
        """The open call, if there is one, has ended so: count what it has cost, or may have.

        :param pending: the image is left for a later run, which fetches the request's result if it runs on.
        """
        if not self._open and self.running is None:
            return
        batch = self._batch
        cost = batch.vendor_calls.account.price_per_call
        if isinstance(end, UnreadableImage):
            # Its address could not be signed when its turn had come: nothing was sent.
            batch.totals.calls -= 1
        if isinstance(end, Description):
            cost = end.cost_usd
            batch.totals.count_paid(cost)
            batch.throttle.faster()
        elif end.billed == "no":
            cost = 0.0
        elif not (pending and self.in_journal):
            batch.totals.count_failed_call(end.billed, cost)
        if self._open:
            self._open = False
            batch.ahead.called_for(time.monotonic() - self._sent)
            batch.budget.settle(cost or 0.0)
            self._leave_room()
            if self._ticket is not None and batch.shared is not None:
                batch.shared.settle(self._ticket, cost or 0.0)
                self._ticket = None
            batch.notify()

    async def _reserve(self) -> None:
        """Wait until a call may start and is within the task's limits, and reserve it."""
        batch = self._batch
        while True:
            await self._keep_pace()
            if batch.budget.take():
                break
            if not batch.budget.may_allow_later():
                # What is under way goes on; it is within the limits.
                batch.totals.budget_reached = True
                batch.notify()
                raise RunStopping
            await self._settled()

    async def _settled(self) -> None:
        """Wait until a call has ended."""
        batch = self._batch
        if batch.stopping.is_set():
            raise RunStopping
        batch.settled.clear()
        await batch.settled.wait()

    async def _room(self) -> None:
        """Wait until one more call may be under way, and take the room."""
        if not self._has_room:
            await self._batch.calling.enter()
            self._has_room = True
        if self._batch.stopping.is_set():
            raise RunStopping

    def _leave_room(self) -> None:
        if self._has_room:
            self._has_room = False
            self._batch.calling.leave()

    async def _take_ticket(self) -> None:
        """Where the account's limits are shared: wait for leave to make the call, once there is room for it.

        Room comes first, as a moment that is granted has to be used at once.
        """
        batch = self._batch
        if batch.shared is None:
            return
        async with batch.line:
            await self._room()
            self._ticket = await self._granted(batch.shared)

    async def _granted(self, shared: SharedLimits) -> Permit:
        """Wait for a turn; a run without the patience for that leaves."""
        batch = self._batch
        try:
            while True:
                if batch.too_long(shared.paused_until - batch.vendor_calls.clock()):
                    raise RunStopping
                try:
                    async with asyncio.timeout(batch.limits.max_wait):
                        return await shared.acquire()
                except TimeoutError:
                    if batch.too_long(2 * (batch.limits.max_wait or 0.0)):
                        raise RunStopping from None
        except DayBudgetSpent:
            batch.totals.budget_reached = True
            batch.notify()
            raise RunStopping from None
        except QuotaClosed:
            raise RunStopping from None

    def _hand_back(self) -> None:
        """The call that there was leave or room for is not made."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self._batch.shared is not None:
            self._batch.shared.cancel(ticket)
        self._leave_room()

    async def _keep_pace(self) -> None:
        """Wait until a call may start, without taking the moment."""
        batch = self._batch
        while (wait := batch.pace.waits(batch.vendor_calls.clock())) > 0:
            if batch.too_long(wait):
                raise RunStopping
            await _rest(batch.stopping, wait)
        if batch.stopping.is_set():
            raise RunStopping

    async def _intend(self) -> bool:
        """Make the intent durable and wait until the call may be sent; False where it may not any more."""
        batch = self._batch
        batch.pace.reserve(batch.vendor_calls.clock())
        self.call = new_call_id()
        if batch.journal is not None:
            began = time.monotonic()
            await batch.journal.commit({"event": "sent", "call": self.call, **self.subject()})
            self._journal_s = time.monotonic() - began
        await self._room()
        granted = self._ticket is None or batch.shared is None or batch.shared.is_valid(self._ticket)
        return granted and batch.paused_until <= batch.vendor_calls.clock()

    def _failed(self, error: DescriberError, seconds: float) -> None:
        """The attempt has failed and is to be repeated: say so in the journal, and to others whom it concerns."""
        batch = self._batch
        self.ended(error)
        if error.billed == "no":
            self._close(error.kind)
        else:
            self.lost += 1
            self._close(error.kind, "lost")
        if not isinstance(error, RateLimited):
            return
        now = batch.vendor_calls.clock()
        if error.retry_at is not None and error.retry_at > now:
            batch.paused_until = max(batch.paused_until, now + seconds)
            batch.pace.pause_until(batch.paused_until)
            if batch.shared is not None:
                batch.shared.pause_until(batch.paused_until)
        elif self._round == batch.slowdowns:
            # Calls that were under way together are told "too many" together: one reason to slow down, not many.
            batch.slowdowns += 1
            batch.throttle.slower()

    def _close(self, why: str, event: str = "closed") -> None:
        """Say in the journal how the last call ended, which is to be tried again, so that it is not open any more."""
        if self.call is not None and self._batch.journal is not None:
            self._batch.journal.append({"event": event, "call": self.call, "why": why, **self.subject()})
        self.call = None

    def subject(self) -> dict[str, object]:
        """Return what an event says of the image."""
        uri, now = masked(self._ask.image.uri), self._batch.vendor_calls.clock()
        return {"keys": list(self.image.keys), "uri": uri, "at": round(now, 3)}


async def _rest(ended: asyncio.Event, seconds: float) -> None:
    """Sleep, unless the run has no time for it: then this image's turn is over."""
    try:
        await asyncio.wait_for(ended.wait(), seconds)
    except TimeoutError:
        return
    raise RunStopping
