"""How many calls one process is about to make, from how many wait and how many it has made of late."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
