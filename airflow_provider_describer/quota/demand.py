"""How many calls a holder is about to make, from how many it has made. Decides; asks nobody."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Demand:
    """What is wanted ahead of need: twice what was used lately, and whoever waits.

    ``waiting`` is how many stand in line, ``taken`` how many turns were taken since the last estimate.
    """

    waiting: int = 0
    taken: int = 0
    _pace: float = 0.0

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.waiting or self.taken or self._pace)

    def estimate(self, ahead: float, since: float, memory: float) -> int:
        """Return the calls to expect within ``ahead`` seconds, and begin to count anew.

        :param since: seconds since the last estimate.
        :param memory: seconds for which a pace is remembered that is kept no longer. What is fetched for calls that do
            not come is lost to others, so it should be long only where fetching takes long.
        """
        if not (self.taken or self._pace):
            # Nothing is known yet: as if each of them would make a call a second.
            return math.ceil(self.waiting * max(1.0, ahead))
        faded = self._pace * math.exp(-since / memory)
        self._pace = max(self.taken / since, faded)
        self.taken = 0
        if self._pace * since < 0.01:
            self._pace = 0.0
        return self.waiting + math.ceil(2 * self._pace * ahead)
