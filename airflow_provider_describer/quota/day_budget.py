"""What one holder has of the day's money: set aside, under way, spent. Decides; asks nobody."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


def micro(usd: float) -> int:
    """Return micro-dollars, rounded up; a thousandth of one is what binary fractions add and no money."""
    return math.ceil(round(usd * 1e6, 3))


@dataclass(slots=True)
class DayBudget:
    """Money of one lease, in micro-dollars. At any moment its sums are no more than what the lease says.

    ``pool`` is set aside for calls to be sent on ``day`` and taken by none yet; ``under_way`` and ``spent`` are by the
    day on which the calls were sent. ``price`` is what a call is expected to cost at most.
    """

    price: int
    day: str = ""
    pool: int = 0
    under_way: dict[str, int] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)

    def affords(self, day: str) -> bool:
        """Whether a call may be sent on that day."""
        return self.day == day and self.pool >= self.price

    def take(self) -> int:
        """Take what one call costs out of the pool, and return it."""
        self.pool -= self.price
        self.under_way[self.day] = self.under_way.get(self.day, 0) + self.price
        return self.price

    def settle(self, day: str, taken: int, cost: int) -> None:
        """A call has ended and cost that much. A dearer call raises what later ones take."""
        self.under_way[day] -= taken
        if cost:
            self.spent[day] = self.spent.get(day, 0) + cost
        if day == self.day:
            self.pool += max(0, taken - cost)
        self.price = max(self.price, cost)

    def add(self, day: str, money: int) -> None:
        """Money was set aside for calls of that day."""
        self.pool = money + (self.pool if day == self.day else 0)
        self.day = day

    def trim(self, day: str, calls: int) -> None:
        """Keep what so many calls need, and nothing of another day: the rest is for others."""
        if day != self.day:
            self.day, self.pool = day, 0
        self.pool = min(self.pool, calls * self.price)

    def held(self) -> dict[str, int]:
        """What calls under way and calls to come may cost, by day."""
        held = {day: sum_ for day, sum_ in self.under_way.items() if sum_}
        if self.pool:
            held[self.day] = held.get(self.day, 0) + self.pool
        return held
