"""How many calls may be under way, and how many images may be in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Self

MARGIN = 3.0
"""A disk is not always as fast as usual."""
LEAST_AHEAD, MOST_AHEAD = 0.25, 0.5
"""Images prepared ahead, as a share of the concurrency: calls that started together end together."""


@dataclass(slots=True)
class Throttle:
    """How many calls may be under way when the vendor says "too many" without a time.

    Halves at each such answer and grows back by one call for every full round of answers.
    """

    most: int
    allowed: float = field(init=False)
    """Only whole calls count."""

    def __post_init__(self) -> None:
        self.allowed = float(self.most)

    def slower(self) -> None:
        """The vendor has answered "too many"."""
        self.allowed = max(1.0, self.allowed / 2)

    def faster(self) -> None:
        """The vendor has answered with a description."""
        self.allowed = min(float(self.most), self.allowed + 1.0 / self.allowed)


class ReadAhead:
    """How many images may be in memory: those of the calls under way, and those prepared for the next calls.

    Ahead are as many as are called while one is prepared: a quarter of the concurrency where calls take seconds, half
    of it at most.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._ready_s = self._call_s = 0.0

    def images(self) -> int:
        """Return how many images may be in memory now."""
        needed = MARGIN * self._ready_s / self._call_s if self._call_s else LEAST_AHEAD
        share = min(MOST_AHEAD, max(LEAST_AHEAD, needed))
        return self._concurrency + ceil(share * self._concurrency) + 1

    def ready_after(self, seconds: float) -> None:
        """Learn how long an image takes to be read and to have its intent written, without waiting for admission."""
        self._ready_s = _moving_average(self._ready_s, seconds)

    def called_for(self, seconds: float) -> None:
        """Learn how long a call takes."""
        self._call_s = _moving_average(self._call_s, seconds)


def _moving_average(known: float, seen: float) -> float:
    return seen if not known else (7 * known + seen) / 8


class Gate:
    """Lets in at most ``limit()`` at a time, first come, first served. An async context manager.

    Not anyio's CapacityLimiter: it gives room to tasks, costs a turn of the event loop at each entry, and would be told
    of a new limit by every place that changes it.

    :param limit: read again whenever one enters or leaves, so it may change.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_open = False
        self.inside = 0

    async def enter(self) -> None:
        """Wait for room and take it; it is held until `leave`."""
        if self._is_open or (not self._waiting and self.inside < self._limit()):
            self.inside += 1
            return
        let_in = asyncio.get_running_loop().create_future()
        self._waiting.append(let_in)
        try:
            await let_in
        except asyncio.CancelledError:
            if let_in.done() and not let_in.cancelled():
                # Let in and cancelled at the same moment.
                self.leave()
            raise

    def leave(self) -> None:
        """Give the room back."""
        self.inside -= 1
        self._let_in()

    def open(self) -> None:
        """Let in everyone from now on: a stopped run wakes all that wait."""
        self._is_open = True
        self._let_in()

    async def __aenter__(self) -> Self:
        await self.enter()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def _let_in(self) -> None:
        while self._waiting and (self._is_open or self.inside < self._limit()):
            let_in = self._waiting.popleft()
            if not let_in.done():
                self.inside += 1
                let_in.set_result(None)
