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
from dataclasses import dataclass
from functools import partial
from typing import Self

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.quota.document import LeaseDocument, open_limits_document
from airflow_provider_describer.quota.lease_client import LeaseClient, Permit
from airflow_provider_describer.quota.leases import Rate, end_lease, exchange
from airflow_provider_describer.storage.cas_document import CasDocument, MemoryDocument, is_transient
from airflow_provider_describer.storage.open_bucket import OpenBucket

log = logging.getLogger(__name__)

EXCHANGE_S = 0.5
"""Seconds between exchanges; more where many holders share a document that takes few writes."""
MAX_OUTAGE_S = 120.0
"""Seconds for which the document may be out of reach before the run stops. Until then, what was granted is used."""


class QuotaClosed(Exception):  # no error: no further call may start in this run
    """The limits were stopped while the call waited."""


class DayBudgetSpent(QuotaClosed):
    """The day's money is spent, and what others may still return is not enough for one more call."""


@dataclass(slots=True)
class DemandEstimate:
    """How many calls to expect. ``waiting`` calls wait for a permit; ``taken`` have got one since the last estimate."""

    waiting: int = 0
    taken: int = 0
    _calls_per_s: float = 0.0

    def estimate(self, horizon: float, elapsed: float, decay: float) -> int:
        """Return the calls to expect within ``horizon`` seconds: those that wait, and twice the recent pace.

        :param elapsed: seconds since the last estimate.
        :param decay: seconds in which a pace that is not kept up fades. What is fetched for calls that do not come is
            lost to others, so it should be long only where an exchange takes long.
        """
        if not (self.taken or self._calls_per_s):
            # No pace is known yet: assume one call a second for each that waits.
            return math.ceil(self.waiting * max(1.0, horizon))
        self._calls_per_s = max(self.taken / elapsed, self._calls_per_s * math.exp(-elapsed / decay))
        self.taken = 0
        if self._calls_per_s * elapsed < 0.01:
            self._calls_per_s = 0.0
        return self.waiting + math.ceil(2 * self._calls_per_s * horizon)


class SharedLimits:
    """Permits within an account's rate, pauses and money of the day. A context manager, for one event loop.

    :param document: what is shared; None where this process counts for itself alone.
    :param rate: of billable calls, or None.
    :param max_cost_per_day: USD by UTC day, or None; needs ``price``, the most that a call is expected to cost (USD).
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_cost_per_day is not None and not price:
            raise ValueError("max_cost_per_day needs a price")
        self._client = LeaseClient(rate, max_cost_per_day, price)
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
        self._is_limited = rate is not None or max_cost_per_day is not None
        self._exchange_due_at = math.inf
        self._task: asyncio.Task[None] | None = None
        # A thread of its own: those of the loop may all be reading images, and calls wait for this.
        self._thread = ThreadPoolExecutor(1, "limits")

    @property
    def paused_until(self) -> float:
        """The epoch second before which no call may start, as far as this process knows."""
        return self._client.paused_until

    async def acquire(self) -> Permit:
        """Wait, first come first served, until one call may start and its money is set aside.

        :raises DayBudgetSpent: where no call may be made today any more.
        :raises QuotaClosed: after `stop`.
        :raises StoreError: where the document cannot be read or written.
        """
        self._demand.waiting += 1
        try:
            async with self._queue:
                while True:
                    self._check_open()
                    wait = self._client.wait(self._clock())
                    if wait is None and not self._lacks_grant:
                        # The last grant is used up: exchange as soon as the document takes another write.
                        self._exchange_by(self._exchanged_at + self._fair_interval)
                    self._lacks_grant = wait is None
                    if wait == 0:
                        self._demand.taken += 1
                        return self._client.take_permit()
                    self._changed.clear()
                    await _wait(self._changed, wait)
        finally:
            self._demand.waiting -= 1

    def is_valid(self, permit: Permit) -> bool:
        """Whether the call may still start; False where a pause began meanwhile, or another day."""
        return self._client.is_valid(permit, self._clock())

    def settle(self, permit: Permit, cost: float) -> None:
        """Count what the call has cost, or may have (USD)."""
        self._client.settle(permit, cost)
        self._changed.set()

    def cancel(self, permit: Permit) -> None:
        """Return the money of a call that was not made. Its slot has passed."""
        self.settle(permit, 0.0)

    def pause_until(self, moment: float) -> None:
        """Let no call start before that epoch second: here at once, elsewhere as soon as it is read."""
        if moment > self._client.paused_until:
            self._client.pause(moment)
            self._changed.set()
            self._exchange_by(-math.inf)

    def stop(self) -> None:
        """Grant no further permit: calls that wait for one get `QuotaClosed`."""
        self._stopped = True
        self._changed.set()

    async def __aenter__(self) -> Self:
        """Read the document. One that cannot be read is a `StoreError` that names it, before any call."""
        await self._read()
        self._task = asyncio.create_task(self._keep_supplied())
        self._task.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Return what is left. Where that fails, the lease expires by itself."""
        self.stop()
        if self._task is None:
            return
        self._closing = True
        self._wake.set()
        # To its end: an exchange still under way would write the lease again after it was ended.
        await asyncio.wait([self._task])
        if (failure := self._task.exception()) and not isinstance(failure, StoreError):
            raise failure
        request = self._client.request(self._clock(), 0)
        try:
            await asyncio.wrap_future(self._thread.submit(self._leases.change, partial(end_lease, request)))
        except StoreError as error:
            log.warning("What was set aside for this task counts as spent today: %s", error)
        finally:
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

    async def _read(self) -> None:
        self._read_at = self._clock()
        leases = await asyncio.wrap_future(self._thread.submit(self._leases.read))
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
    account: Account, open_bucket: OpenBucket | None = None, *, clock: Callable[[], float] = time.time
) -> SharedLimits:
    """Return the account's limits, not yet entered: shared where it has a ``limits_path``, else of this task alone.

    :raises BadConnection: where processes cannot share its ``limits_path``.
    """
    return SharedLimits(
        open_limits_document(account, open_bucket) if account.limits_path else None,
        rate=Rate(account.requests_per_minute) if account.requests_per_minute else None,
        max_cost_per_day=account.max_cost_per_day,
        price=account.price_per_call,
        clock=clock,
    )
