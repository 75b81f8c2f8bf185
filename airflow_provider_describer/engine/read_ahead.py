"""How many images are in memory: those of the calls under way, and a few more that are got ready for the next ones."""

from __future__ import annotations

from math import ceil

MARGIN = 3.0
"""As disks are not always as fast as usually."""
LEAST, MOST = 0.25, 0.5
"""So large a share of the calls, as those that began together end together."""


class ReadAhead:
    """Allows as many images in memory as there may be calls under way, and as many more as are called while one is got
    ready: a quarter as many where calls take seconds, half as many at most.

    :param concurrency: calls under way at a time.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._ready_s = self._call_s = 0.0

    def images(self) -> int:
        """Return how many images may be in memory now."""
        needed = MARGIN * self._ready_s / self._call_s if self._call_s else LEAST
        share = min(MOST, max(LEAST, needed))
        return self._concurrency + ceil(share * self._concurrency) + 1

    def ready_after(self, seconds: float) -> None:
        """An image was read and its call announced in that time, waits for its turn left aside."""
        self._ready_s = _learned(self._ready_s, seconds)

    def called_for(self, seconds: float) -> None:
        """A call has ended after that time."""
        self._call_s = _learned(self._call_s, seconds)


def _learned(known: float, seen: float) -> float:
    return seen if not known else (7 * known + seen) / 8
