"""Whether and when a call may start: budgets, throttle, the account's limits, pauses and stops, all in one place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import NoReturn

from airflow_provider_describer.account import Account
from airflow_provider_describer.engine.deferral import DeferPolicy, ResumeCondition
from airflow_provider_describer.engine.limits import Budget, TaskLimits, name_of_days_limit, used_up
from airflow_provider_describer.engine.meter import Meter, Meters
from airflow_provider_describer.engine.pacing import Gate, ReadAhead, Throttle
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.errors import DescriberError, RateLimited, Unfinished
from airflow_provider_describer.models import Running
from airflow_provider_describer.quota.lease_client import Permit
from airflow_provider_describer.quota.refusals import day_is_spent, must_wait
from airflow_provider_describer.quota.shared import DayBudgetSpent, QuotaClosed, SharedLimits, WaitTooLong, open_quota

LEAST_WAIT_S = 0.01
"""A call that was held back for less did not wait."""
OWNS_AGAIN_S = 0.2
"""Seconds between two looks whether the run owns again what it has claimed; a look costs nothing."""


class RunStopping(Exception):  # no error: the image is left for a later run
    """The run makes no call for this image any more, or leaves its request running at the vendor."""


@dataclass(slots=True)
class CallPermit:
    """Permission to send one call, from `Admission.acquire` to `Admission.settle`."""

    is_open: bool = True
    sent_at: float = 0.0
    slowdowns: int = 0
    """How often the run had slowed down when the call was sent."""
    has_room: bool = False
    quota: Permit | None = None


class Admission:
    """Admits the calls of one run, each within all limits. Bound to one event loop.

    :param budget: what is left to the task instance.
    :param clock: epoch seconds.
    :param quota: the account's limits, entered; by default those of this run alone.
    :param owns: whether the run still owns what it has claimed in its store.
    """

    def __init__(
        self,
        account: Account,
        limits: TaskLimits,
        budget: Budget,
        totals: Totals,
        clock: Callable[[], float],
        quota: SharedLimits | None = None,
        owns: Callable[[], bool] = lambda: True,
    ) -> None:
        self.budget = budget
        self._owns = owns
        self._quota = quota or open_quota(account, in_bursts=limits.max_wait is not None, clock=clock)
        self._max_wait, self._limits, self._account = limits.max_wait, limits, account
        self._totals, self._clock = totals, clock
        self._throttle = Throttle(limits.concurrency)
        self._calls_under_way = Gate(lambda: int(self._throttle.allowed))
        self._defer_policy = DeferPolicy(limits.max_wait)
        self._stopping, self._leaving, self._call_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._slowdowns = self._sent = 0
        self.stopped_by: DescriberError | None = None
        self.meter: Meter = Meters()
        """Is told how long calls are held back, and of each call that has ended."""
        self.only_known = False
        """Whether the run sends no call: it only fetches and asks for what earlier runs have sent."""
        self.read_ahead = ReadAhead(limits.concurrency)
        self.in_memory = Gate(self.read_ahead.images)
        """Entered around each image, from before it is read until its call has ended."""

    # Stops

    def stop(self, reason: DescriberError | None = None, *, leave_running: bool = False) -> None:
        """Start no further call; calls under way are awaited. To be called from the event loop's thread.

        :param leave_running: do not wait for requests that run at the vendor and stand in the journal: a later run
            fetches their results.
        """
        if leave_running:
            self._leaving.set()
        self.stopped_by = self.stopped_by or reason
        if not self._stopping.is_set():
            self._stopping.set()
            self._quota.stop()
            self._calls_under_way.open()
            self._wake()

    @property
    def stopping(self) -> bool:
        """Whether the run has been stopped."""
        return self._stopping.is_set()

    @property
    def is_leaving(self) -> bool:
        """Whether requests that run at the vendor are left to a later run: the task is being ended."""
        return self._leaving.is_set()

    @property
    def idle_at(self) -> float:
        """The epoch second from which a resumed run may make a burst of calls; 0 where calls are evenly spaced."""
        return self._quota.idle_at

    @property
    def paused_until(self) -> float | None:
        """The epoch second before which the vendor takes no call, as far as is known here; None if it takes calls."""
        moment = self._quota.paused_until
        return moment if moment > self._clock() else None

    @property
    def waits_for_rate(self) -> bool:
        """Whether no call is under way, as the next one waits for the account's rate."""
        return not self._sent and self._quota.waits_for_rate

    @property
    def is_cut_short(self) -> bool:
        """Whether the run ends before its work is done, for another reason than a limit that allows no further call."""
        return self.stopped_by is not None or self._leaving.is_set() or self._defer_policy.is_leaving

    @property
    def admits_no_more(self) -> bool:
        """Whether no further call will be admitted: the run is stopping, its budget is spent, or it must wait."""
        return self.stopping or self.only_known or self._totals.budget_reached or self._defer_policy.is_leaving

    def resume_condition(self, running: Iterable[Running]) -> ResumeCondition | None:
        """Return what the run waits for, with the requests it has left running; None where it ended otherwise."""
        condition = None if self.stopped_by else self._defer_policy.resume_condition(running)
        if condition is None or condition.until is None:
            return condition
        # Calls of the burst may have started after the run was left.
        return replace(condition, until=max(condition.until, self.idle_at))

    def why_left(self) -> Unfinished:
        """Return why an image that was not begun, or not finished, is left for a later run."""
        if self.stopped_by is not None:
            return Unfinished(f"The run was stopped before this image's call: {self.stopped_by}", kind="stopped")
        if limit := self._totals.limit_reached:
            message = f"{limit} allows no further call. A later DAG run goes on with the image."
            return Unfinished(message, kind="budget")
        if self._defer_policy.is_leaving:
            return Unfinished("The task waits outside its worker and then goes on with the image.", kind="waiting")
        return Unfinished(
            "The task was stopped before this image's call. The next run goes on with it.", kind="stopped"
        )

    # Calls

    async def acquire(
        self, write_intent: Callable[[], Awaitable[None]], withdraw_intent: Callable[[str], None]
    ) -> CallPermit:
        """Wait until one call may be sent, with its intent durable, and count it.

        Where the account has a rate, a permit is for a moment: room comes first, then the permit, then the intent, and
        the call starts in its moment or takes another one. Elsewhere room comes last, so that the intent goes to disk
        while the calls before it are under way.

        :param write_intent: makes the intent durable.
        :param withdraw_intent: called with the reason if a pause has begun meanwhile; a new intent follows the pause.
        :raises RunStopping: if the call is not made in this run. An intent may have been written.
        """
        await self._reserve()
        permit, has_intent, waited = CallPermit(), False, 0.0
        try:
            while True:
                if self._quota.is_paced:
                    await self._take_room(permit)
                asked_at = time.monotonic()
                quota_permit = await self._take_permit(permit)
                waited += time.monotonic() - asked_at
                if not has_intent:
                    await write_intent()
                    has_intent = True
                await self._take_room(permit)
                owns = self._owns()
                if owns and self._quota.is_valid(quota_permit):
                    break
                self._give_back(permit)
                if has_intent and (not owns or self._quota.paused_until > self._clock()):
                    withdraw_intent("paused")
                    has_intent = False
                await self._own_again()
        except BaseException:
            self._give_back(permit)
            self.budget.give_back()
            self._wake()
            raise
        self._quota.start(quota_permit)
        self._totals.calls += 1
        self._sent += 1
        permit.slowdowns, permit.sent_at = self._slowdowns, time.monotonic()
        self.note_progress()
        if waited >= LEAST_WAIT_S:
            self.meter.waited(waited)
        return permit

    def settle(self, permit: CallPermit, cost: float) -> None:
        """The call has ended and has cost, or may have cost, that much (USD)."""
        permit.is_open = False
        self._sent -= 1
        self.read_ahead.called_for(time.monotonic() - permit.sent_at)
        self.budget.settle(cost)
        self._leave_room(permit)
        if permit.quota is not None:
            self._quota.settle(permit.quota, cost)
        self._wake()

    def settle_attached(self, cost: float) -> None:
        """The call that was attached has ended and has cost, or may have cost, that much (USD)."""
        self.budget.settle(cost)
        self._wake()

    def note_progress(self) -> None:
        """A call was sent or an image was recorded: the run does more than wait."""
        self._defer_policy.note_progress(time.monotonic())

    def speed_up(self) -> None:
        """The vendor has answered with a description: more calls may be under way again."""
        self._throttle.faster()

    def back_off(self, permit: CallPermit | None, error: RateLimited, seconds: float) -> None:
        """The vendor has answered "too many": pause all calls until the time it names, or else allow fewer at once."""
        now = self._clock()
        if error.retry_at is not None and error.retry_at > now:
            self._quota.pause_until(now + seconds)
        elif (permit.slowdowns if permit else 0) == self._slowdowns:
            # Calls that were under way together are refused together: one reason to slow down, not many.
            self._slowdowns += 1
            self._throttle.slower()

    async def wait_to_retry(self, seconds: float) -> None:
        """Sleep before the next attempt.

        :raises RunStopping: if the run stops, or the wait is longer than it may sit out.
        """
        if self._too_long(seconds):
            raise RunStopping
        await _sleep(seconds, self._stopping)
        self.meter.waited(seconds)

    async def wait_to_poll(self, seconds: float) -> None:
        """Sleep before the next poll of a request that a later run could fetch.

        :raises RunStopping: if the run leaves such requests; it does when it has only polled for too long.
        """
        if self._defer_policy.polls_too_long(time.monotonic(), seconds):
            self.stop(leave_running=True)
        await _sleep(seconds, self._leaving)

    async def wait_for_others(self, seconds: float, resume_after: float) -> None:
        """Sleep before the next look at images that other runs are paying for.

        :param resume_after: seconds until the run is resumed, if it is left as it has only waited for too long.
        :raises RunStopping: if the run is left or stopped.
        """
        if self._defer_policy.polls_too_long(time.monotonic(), seconds):
            self._defer_policy.leave(self._clock() + resume_after)
            self.stop(leave_running=True)
        await _sleep(seconds, self._leaving)

    # Steps of `acquire`

    async def _reserve(self) -> None:
        """Wait until a call is within the task's budget, and reserve it."""
        while True:
            self._raise_if_stopping()
            if self.budget.take():
                return
            if not self.budget.may_allow_later():
                self._end_budget(used_up(self.budget, self._limits))
            self._call_ended.clear()
            await self._call_ended.wait()

    async def _take_room(self, permit: CallPermit) -> None:
        """Wait for room, unless the permit has it already."""
        if not permit.has_room:
            await self._calls_under_way.enter()
            permit.has_room = True
        self._raise_if_stopping()

    async def _own_again(self) -> None:
        """Wait until the run owns again what it has claimed, where it was too late to say that it lives."""
        while not self._owns():
            await _sleep(OWNS_AGAIN_S, self._stopping)

    async def _take_permit(self, permit: CallPermit) -> Permit:
        """Wait for the account's permit."""
        try:
            permit.quota = await self._quota.acquire(self._max_wait)
        except DayBudgetSpent:
            self._totals.refusal = day_is_spent(self._account, self._clock())
            self._end_budget(name_of_days_limit(self._account))
        except WaitTooLong as wait:
            self._defer_policy.leave(wait.until)
            self._totals.refusal = must_wait(self._account, wait.until, self._quota.paused_until)
            raise RunStopping from None
        except QuotaClosed:
            raise RunStopping from None
        return permit.quota

    def _leave_room(self, permit: CallPermit) -> None:
        if permit.has_room:
            permit.has_room = False
            self._calls_under_way.leave()

    def _give_back(self, permit: CallPermit) -> None:
        """The call is not made now: others may have its room and its permit."""
        if permit.quota is not None:
            self._quota.cancel(permit.quota)
            permit.quota = None
        self._leave_room(permit)

    def _end_budget(self, limit: str) -> NoReturn:
        # Calls under way go on; they are within the budget.
        self._totals.limit_reached = limit
        self._wake()
        raise RunStopping

    def _raise_if_stopping(self) -> None:
        if self.stopping:
            raise RunStopping

    def _too_long(self, seconds: float) -> bool:
        """Whether no call can be made for longer than the run may sit out; it admits no more calls then."""
        return self._defer_policy.is_too_long(seconds, max(self._clock() + seconds, self._quota.idle_at))

    def _wake(self) -> None:
        """A call has ended or is not made: another one may start, or none any more."""
        if self._totals.budget_reached and not self.budget.under_way:
            self.stop()
        self._call_ended.set()


async def _sleep(seconds: float, ended: asyncio.Event) -> None:
    """Sleep.

    :raises RunStopping: as soon as the event is set.
    """
    try:
        await asyncio.wait_for(ended.wait(), seconds)
    except TimeoutError:
        return
    raise RunStopping
