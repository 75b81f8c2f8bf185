"""Turns within an account's limits, for one process: in line, kept supplied in the background, ahead of need."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.quota.demand import Demand
from airflow_provider_describer.quota.document import LeaseDocument
from airflow_provider_describer.quota.lease_client import LeaseClient, Permit
from airflow_provider_describer.quota.leases import Rate, exchange, leave
from airflow_provider_describer.storage.cas_document import CasDocument, MemoryDocument, is_transient

log = logging.getLogger(__name__)
T = TypeVar("T")

EVERY_S = 0.5
"""Seconds between exchanges; more where many holders share a cell that takes few writes."""
PATIENCE_S = 120.0
"""So long the document may be out of reach before the run stops; what has been granted is used meanwhile."""


class QuotaClosed(Exception):  # no error: calls may not start any more in this run
    """The limits have been stopped: this call's turn will not come."""


class DayBudgetSpent(QuotaClosed):
    """The day's money is spent, and nothing that anybody may give back is enough for one more call."""


class SharedLimits:
    """Gives out turns within an account's rate, pauses and money of the day. A context manager, for one event loop.

    :param cell: the document that is shared; None where this process counts for itself alone.
    :param rate: of billable calls, or None.
    :param max_cost_per_day: USD by UTC day, or None; needs ``price``, what a call costs at most, in USD.
    :param clock: epoch seconds. Machines that share a cell should agree within a second or so: the rate and the money
        hold whatever their clocks say, but a clock that is behind finds the next moments taken.

    A day's money is counted from when the first holder with a ``max_cost_per_day`` writes it down. A holder that dies
    has what it held counted as spent: what was under way, and money for the next second or two.
    """

    def __init__(
        self,
        cell: CasDocument | None = None,
        *,
        rate: Rate | None = None,
        max_cost_per_day: float | None = None,
        price: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_cost_per_day is not None and not price:
            raise ValueError("max_cost_per_day needs a price")
        self._holder = LeaseClient(rate, max_cost_per_day, price)
        self._alone = cell is None and not self._holder.is_limited
        self._cell: CasDocument = cell or MemoryDocument()
        self._clock = clock
        self.document = LeaseDocument(self._cell, clock)
        self._demand = Demand()
        self._line = asyncio.Lock()
        self._news, self._wake = asyncio.Event(), asyncio.Event()
        self._ended = self._closing = False
        self._failed: StoreError | None = None
        self._starving, self._eager = False, True
        self._lead = 0.0
        self._exchanged_at = self._looked_at = -math.inf
        self._task: asyncio.Task[None] | None = None
        # Of its own: the loop's threads may all be reading images, and calls wait for this.
        self._thread = ThreadPoolExecutor(1, "limits")

    @property
    def paused_until(self) -> float:
        """The epoch second before which no call may start, as far as is known here."""
        return self._holder.paused_until

    async def acquire(self) -> Permit:
        """Wait, in line with others, until one call may start and is paid for.

        :raises DayIsSpent: where no call may be made today any more.
        :raises NoMoreTurns: after `stop`.
        :raises StoreError: where the document cannot be read or written.
        """
        self._demand.waiting += 1
        try:
            async with self._line:
                while True:
                    now = self._clock()
                    self._refuse(now)
                    wait = self._holder.wait(now)
                    if wait == 0:
                        self._demand.taken += 1
                        return self._holder.take(now)
                    self._starve(starving=wait is None)
                    await _within(self._news, wait)
        finally:
            self._demand.waiting -= 1

    def is_valid(self, permit: Permit) -> bool:
        """Whether a call may still start on this permit; False since a pause was told, or the day has changed."""
        return self._holder.is_valid(permit, self._clock())

    def settle(self, permit: Permit, cost: float) -> None:
        """The call has ended and cost that much (USD), or may have."""
        self._holder.settle(permit, cost)
        self._news.set()

    def cancel(self, permit: Permit) -> None:
        """The call was not made after all. Its moment has passed; its money is free again."""
        self.settle(permit, 0.0)

    def pause_until(self, moment: float) -> None:
        """Let no call start before that epoch second, here at once and everywhere as soon as it is read."""
        if moment > self._holder.paused_until:
            self._holder.pause(moment, told=False)
            self._news.set()
            self._wake.set()

    def stop(self) -> None:
        """Give out no further turn: whoever waits for one gets `QuotaClosed`."""
        self._ended = True
        self._news.set()

    async def __aenter__(self) -> Self:
        """Read the document, so that one that cannot be read is found before anything is called.

        :raises StoreError: naming it.
        """
        if not self._alone:
            await self._look()
            self._task = asyncio.create_task(self._keep_supplied())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give back what is left. Where that fails the lease runs out by itself."""
        self.stop()
        if self._task is None:
            return
        self._closing = True
        self._wake.set()
        # To its end: an exchange that is still under way would write the lease again after it has ended.
        await asyncio.shield(self._task)
        ask = self._holder.ask(self._clock(), 0)
        try:
            await self._apart(partial(self.document.change, partial(leave, ask)))
        except StoreError as error:
            log.warning("What was set aside for this task counts as spent today: %s", error)
        finally:
            self._thread.shutdown(wait=False)

    def _refuse(self, now: float) -> None:
        if self._failed is not None:
            raise type(self._failed)(self._failed.message, kind=self._failed.kind)
        if self._ended:
            raise QuotaClosed
        if self._holder.is_spent(now):
            raise DayBudgetSpent

    def _starve(self, *, starving: bool) -> None:
        self._news.clear()
        if starving and not self._starving:
            self._wake.set()
        self._starving = starving

    # In the background, from here on

    @property
    def _every(self) -> float:
        return max(EVERY_S, self._holder.sharers * self._cell.rest)

    def _exchange_in(self, now: float) -> float:
        """Return the seconds until the next exchange is due; infinite while there is nothing to say and to want."""
        holder = self._holder
        if holder.has_news:
            return 0.0
        if not holder.is_limited or not (self._demand or holder.dirty or holder.purse.pool):
            return math.inf
        # Sooner than planned where the last one brought something, and it is used up.
        hungry = self._demand.waiting and self._starving and self._eager
        return self._exchanged_at + (holder.sharers * self._cell.rest if hungry else self._every) - now

    async def _keep_supplied(self) -> None:
        try:
            await self._supply()
        except StoreError as error:
            self._failed = error
        except BaseException:
            self._failed = StoreError(f"{self._cell.where}: the limits are no longer kept.", kind="limits")
            raise
        finally:
            self._news.set()

    async def _supply(self) -> None:
        reached_at = self._clock()
        while not self._closing:
            now = self._clock()
            pause = min(self._exchange_in(now), self._looked_at + self._cell.look - now)
            if pause > 0:
                await _within(self._wake, pause)
                self._wake.clear()
                continue
            try:
                await (self._exchange() if self._exchange_in(now) <= 0 else self._look())
                reached_at = self._clock()
            except StoreError as error:
                if not is_transient(error) or self._clock() - reached_at > PATIENCE_S:
                    raise
                await _within(self._wake, self._every * (1 + random.random()))  # noqa: S311  no secret
                self._wake.clear()

    async def _exchange(self) -> None:
        now, holder = self._clock(), self._holder
        since = max(now - self._exchanged_at, self._every / 2)
        ahead = max(3 * self._every, 4 * self._lead)
        calls = self._demand.estimate(ahead, min(since, 60.0), memory=max(self._every / 4, 20 * self._lead))
        ask = holder.ask(now, calls, ahead=ahead, lead=self._lead, every=self._every)
        self._exchanged_at = self._looked_at = now
        began = time.monotonic()
        grant = await self._apart(partial(self.document.change, partial(exchange, ask)))
        self._lead = min(max(time.monotonic() - began, 0.8 * self._lead), ahead / 2)
        self._eager = bool(grant.turns or grant.money or grant.expired) or not calls
        holder.adopt(grant, ask)
        self._news.set()

    async def _look(self) -> None:
        self._looked_at = self._clock()
        leases = await self._apart(self.document.read)
        self._holder.sharers = max(1, leases.sharers(self._looked_at))
        if leases.paused_until > self._holder.paused_until:
            self._holder.pause(leases.paused_until, told=True)
            self._news.set()

    async def _apart(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def _within(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for the event, for so long at most."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
