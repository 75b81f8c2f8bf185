"""Permits to call within the limits that a connection's tasks share: one process's queue, supplied ahead of need."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.quota.demand import DemandEstimate
from airflow_provider_describer.quota.document import LeaseDocument, encode_leases, open_limits_document
from airflow_provider_describer.quota.lease_client import LeaseClient, Permit, micro_dollars
from airflow_provider_describer.quota.leases import Leases, Rate, day_of, end_lease, exchange
from airflow_provider_describer.storage.cas_document import CasDocument, MemoryDocument, is_transient
from airflow_provider_describer.storage.open_bucket import OpenBucket

log = logging.getLogger(__name__)

EXCHANGE_S = 0.5
"""Seconds between exchanges; more where many holders share a document that takes few writes."""
SENT_WITHIN_S, LONGEST_LAG_S = 0.2, 0.3
"""Seconds in which a call that starts is sent, and by which the event loop may lag: less than the slots leave free."""
IN_PROCESS_INTERVAL_S = 900.0
"""Seconds between exchanges as a document in memory is told: its leases end with their process, and expire late."""
MAX_OUTAGE_S = 120.0
"""Seconds for which the document may be out of reach before the run stops. Until then, what was granted is used."""


class QuotaClosed(Exception):  # no error: no further call may start in this run
    """The limits were stopped while the call waited."""


class DayBudgetSpent(QuotaClosed):
    """The day's money is spent, and what others may still return is not enough for one more call."""


class WaitTooLong(QuotaClosed):
    """No call may start before ``until`` (epoch seconds), which is longer than the caller may wait."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until


class SharedLimits:
    """Permits within an account's rate, pauses and money of the day. A context manager, for one event loop.

    :param document: what is shared; None for limits of this object alone.
    :param in_process: the document is in memory: it is read and written where a call needs it, without a thread.
    :param rate: of billable calls, or None.
    :param max_cost_per_day: USD by UTC day, or None; needs ``price``, the most that a call is expected to cost (USD).
    :param not_before: epoch seconds of the first burst, for a rate in bursts.
    :param clock: epoch seconds. Clocks of machines that share a document should agree within about a second: the rate
        and the money hold in any case, but a clock that is behind finds the next slots taken.

    A day's money is counted from the first lease with a ``max_cost_per_day``. All that a dead holder held counts as
    spent: calls under way, and money for the next second or two.
    """

    def __init__(
        self,
        document: CasDocument | None = None,
        *,
        rate: Rate | None = None,
        max_cost_per_day: float | None = None,
        price: float | None = None,
        not_before: float = 0.0,
        in_process: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_cost_per_day is not None and not price:
            raise ValueError("max_cost_per_day needs a price")
        self._client = LeaseClient(rate, max_cost_per_day, price, not_before)
        self._in_process = in_process or document is None
        self._document: CasDocument = document or MemoryDocument()
        self._leases = LeaseDocument(self._document, clock)
        self._clock = clock
        self._demand = DemandEstimate()
        self._queue = asyncio.Lock()
        self._changed, self._wake = asyncio.Event(), asyncio.Event()
        self._stopped = self._closing = False
        self._lacks_grant = False
        self._latency = 0.0
        self._exchanged_at = self._read_at = -math.inf
        # Without limits there is nothing to fetch: only pauses are exchanged.
        self._is_limited = self._client.leased_rate is not None or max_cost_per_day is not None
        self._exchange_due_at = math.inf
        self._task: asyncio.Task[None] | None = None
        # A thread of its own, started at its first use: those of the loop may all be reading images, and calls wait.
        self._thread = ThreadPoolExecutor(1, "limits")

    @property
    def paused_until(self) -> float:
        """The epoch second before which no call may start, as far as this process knows."""
        return self._client.paused_until

    @property
    def idle_at(self) -> float:
        """The epoch second from which a whole burst may start, wherever it is made; 0 for a rate without bursts."""
        return self._client.idle_at

    @property
    def is_paced(self) -> bool:
        """Whether a permit is for a moment, as the account has a rate."""
        return self._client.rate is not None

    @property
    def waits_for_rate(self) -> bool:
        """Whether a call waits for a slot of the account's rate."""
        return self._demand.waiting > 0 and self._client.lacks_slot(self._clock())

    async def acquire(self, max_wait: float | None = None) -> Permit:
        """Wait, first come first served, until one call may start and its money is set aside.

        :param max_wait: seconds; None for any.
        :raises DayBudgetSpent: where no call may be made today any more.
        :raises WaitTooLong: where no call may start within ``max_wait``.
        :raises QuotaClosed: after `stop`.
        :raises StoreError: where the document cannot be read or written.
        """
        self._demand.waiting += 1
        try:
            async with self._queue:
                first_at = time.monotonic()
                while True:
                    wait = self._wait_for_permit()
                    if wait == 0:
                        self._demand.taken += 1
                        return self._client.take_permit()
                    if max_wait is not None:
                        if wait is None and time.monotonic() - first_at >= max_wait:
                            # Others have what it lacks, and nobody knows for how long.
                            raise WaitTooLong(self._clock() + 2 * max_wait)
                        if (wait or 0.0) > max_wait:
                            raise WaitTooLong(self._client.resume_at(self._clock() + (wait or 0.0)))
                    self._changed.clear()
                    if wait is None:
                        wait = self._document.poll_interval if self._in_process else max_wait
                    await _wait(self._changed, wait)
        finally:
            self._demand.waiting -= 1

    def _wait_for_permit(self) -> float | None:
        """Return the seconds until a call may start; None where it lacks a slot or money, which are then asked for."""
        if self._in_process:
            self._exchange_at_once()
        self._check_open()
        wait = self._client.wait(self._clock())
        if wait is None and not self._lacks_grant:
            # The last grant is used up: exchange as soon as the document takes another write.
            self._exchange_by(self._exchanged_at + self._fair_interval)
        self._lacks_grant = wait is None
        return wait

    def is_valid(self, permit: Permit) -> bool:
        """Whether the call may still start; False where its slot has passed, or a pause or another day has begun."""
        return self._client.is_valid(permit, self._clock())

    def start(self, permit: Permit) -> None:
        """The call starts now: it is about to be sent."""
        now = self._clock()
        self._client.start(permit, now)
        self._changed.set()
        if self._client.rate is not None:
            asyncio.get_running_loop().call_later(SENT_WITHIN_S, self._check_start, now)

    def _check_start(self, started: float) -> None:
        """Find a call that was sent late as something has blocked the event loop."""
        now = self._clock()
        if now - started > SENT_WITHIN_S + LONGEST_LAG_S:
            self._client.start_late(started, now)

    def settle(self, permit: Permit, cost: float) -> None:
        """Count what the call has cost, or may have (USD)."""
        self._client.settle(permit, cost)
        self._changed.set()

    def cancel(self, permit: Permit) -> None:
        """Return the money of a call that was not made, and its slot where it was one of a burst."""
        self.settle(permit, 0.0)

    def pause_until(self, moment: float) -> None:
        """Let no call start before that epoch second: here at once, elsewhere as soon as it is read."""
        if moment > self._client.paused_until:
            self._client.pause(moment)
            self._changed.set()
            self._exchange_by(-math.inf)
            if self._in_process:
                self._exchange_at_once(has_news=True)

    def stop(self) -> None:
        """Grant no further permit: calls that wait for one get `QuotaClosed`."""
        self._stopped = True
        self._changed.set()

    async def __aenter__(self) -> Self:
        """Read the document. One that cannot be read is a `StoreError` that names it, before any call."""
        if self._in_process:
            return self
        await self._read()
        self._task = asyncio.create_task(self._keep_supplied())
        self._task.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Return what is left. Where that fails, the lease expires by itself."""
        self.stop()
        if self._task is not None:
            self._closing = True
            self._wake.set()
            # To its end: an exchange still under way would write the lease again after it was ended.
            await asyncio.wait([self._task])
            if (failure := self._task.exception()) and not isinstance(failure, StoreError):
                raise failure
        elif not self._in_process:
            return
        end = partial(self._leases.change, partial(end_lease, self._client.request(self._clock(), 0)))
        try:
            if self._in_process:
                end()
            else:
                await asyncio.wrap_future(self._thread.submit(end))
        except StoreError as error:
            log.warning("What was set aside for this task counts as spent today: %s", error)
        finally:
            if not self._in_process:
                self._thread.submit(self._document.close)
            self._thread.shutdown(wait=False)

    def _check_open(self) -> None:
        if self._task is not None and self._task.done() and (error := self._task.exception()):
            if isinstance(error, StoreError):
                raise error
            # An error of our own: the run stops as it does for a document out of reach, and finishes its open calls.
            raise StoreError(f"{self._document.where}: the limits are no longer kept.", kind="limits") from error
        if self._stopped:
            raise QuotaClosed
        if self._client.is_exhausted(self._clock()):
            raise DayBudgetSpent

    async def _keep_supplied(self) -> None:
        """In the background: exchange leases and read pauses until closed. Too long an outage is a `StoreError`."""
        reached_at = self._clock()
        while not self._closing:
            now = self._clock()
            delay = min(self._exchange_due_at, self._read_at + self._document.poll_interval) - now
            if delay <= 0:
                try:
                    await (self._exchange() if self._exchange_due_at <= now else self._read())
                    reached_at = self._clock()
                    continue
                except StoreError as error:
                    if not is_transient(error) or self._clock() - reached_at > MAX_OUTAGE_S:
                        raise
                    self._exchange_due_at = -math.inf
                    delay = self._interval * (1 + random.random())  # noqa: S311  # no secret
            await _wait(self._wake, delay)
            self._wake.clear()

    def _exchange_by(self, moment: float) -> None:
        self._exchange_due_at = min(self._exchange_due_at, moment)
        self._wake.set()

    @property
    def _fair_interval(self) -> float:
        """The shortest interval at which all sharers can write to the document."""
        return self._client.sharers * self._document.write_interval

    @property
    def _interval(self) -> float:
        return max(EXCHANGE_S, self._fair_interval)

    async def _exchange(self) -> None:
        now, interval = self._clock(), self._interval
        elapsed = min(max(now - self._exchanged_at, interval / 2), 60.0)
        horizon = max(3 * interval, 4 * self._latency)
        calls = self._demand.estimate(horizon, elapsed, decay=max(interval / 4, 20 * self._latency))
        request = self._client.request(
            now, calls if self._is_limited else 0, horizon=horizon, latency=self._latency, interval=interval
        )
        self._exchanged_at = self._read_at = now
        self._exchange_due_at = now + interval if self._is_limited else math.inf
        began = time.monotonic()
        grant = await asyncio.wrap_future(self._thread.submit(self._leases.change, partial(exchange, request)))
        self._latency = min(max(time.monotonic() - began, 0.8 * self._latency), horizon / 2)
        self._client.apply(grant)
        self._changed.set()

    def _exchange_at_once(self, *, has_news: bool = False) -> None:
        """Exchange leases where the client has news or lacks a grant, and else read pauses from time to time."""
        now = self._clock()
        if has_news or (self._is_limited and self._client.wait(now) is None):
            calls = self._demand.waiting if self._is_limited else 0
            request = self._client.request(now, calls, interval=IN_PROCESS_INTERVAL_S)
            self._client.apply(self._leases.change(partial(exchange, request)))
        elif 0 <= now - self._read_at < self._document.poll_interval:
            return
        else:
            self._take_over(self._leases.read())
        self._read_at = now

    async def _read(self) -> None:
        self._read_at = self._clock()
        self._take_over(await asyncio.wrap_future(self._thread.submit(self._leases.read)))

    def _take_over(self, leases: Leases) -> None:
        self._client.sharers = leases.sharers(self._read_at)
        if leases.paused_until > self._client.paused_until:
            self._client.pause(leases.paused_until)
            self._changed.set()


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for the event, or for that long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def open_quota(
    account: Account,
    open_bucket: OpenBucket | None = None,
    *,
    in_bursts: bool = False,
    spent: float = 0.0,
    not_before: float = 0.0,
    clock: Callable[[], float] = time.time,
) -> SharedLimits:
    """Return the account's limits for one task, not yet entered: shared where it has a ``limits_path``.

    The other arguments are for a task that counts for itself.

    :param in_bursts: make a minute's calls at once instead of evenly spaced.
    :param spent: USD that the task has spent today.
    :param not_before: epoch seconds of the first burst.
    :raises BadConnection: where processes cannot share its ``limits_path``.
    """
    if account.limits_path:
        return limits_over(account, open_limits_document(account, open_bucket), clock=clock)
    own = MemoryDocument()
    if spent:
        own.swap(encode_leases(Leases(spent={day_of(clock()): micro_dollars(spent)})), None)
    return limits_over(account, own, in_process=True, in_bursts=in_bursts, not_before=not_before, clock=clock)


def limits_over(account: Account, document: CasDocument, *, in_bursts: bool = False, **options: Any) -> SharedLimits:
    """Return the account's limits over a document, with `SharedLimits`' own options."""
    per_minute = account.requests_per_minute
    return SharedLimits(
        document,
        rate=Rate.of_minute(per_minute, in_bursts=in_bursts) if per_minute else None,
        max_cost_per_day=account.max_cost_per_day,
        price=account.price_per_call,
        **options,
    )
