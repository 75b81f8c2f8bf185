"""How fast calls may start and how many there may be. Decides; sleeps nowhere."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Pace:
    """Spaces calls evenly, as a vendor may count its minute from any moment.

    :param per_minute: calls a minute, or None for as many as come.
    """

    per_minute: float | None = None
    _next_at: float = field(default=0.0, init=False)

    def reserve(self, now: float) -> float:
        """Take the next free moment for one call and return the seconds until then."""
        moment = max(now, self._next_at)
        if self.per_minute:
            self._next_at = moment + 60.0 / self.per_minute
        return moment - now

    def pause_until(self, moment: float) -> None:
        """Let no call start before that moment, whoever asks."""
        self._next_at = max(self._next_at, moment)

    def waits(self, now: float) -> float:
        """Return the seconds until a call may start, without taking the moment."""
        return max(0.0, self._next_at - now)


@dataclass(slots=True)
class Budget:
    """A task's own limits, never exceeded by a single call: what is under way counts as spent.

    :param max_calls: billable calls, or None.
    :param max_cost: USD, or None.
    :param price: what a call is expected to cost at most, in USD; needed with ``max_cost``.
    """

    max_calls: int | None = None
    max_cost: float | None = None
    price: float | None = None
    calls: int = field(default=0, init=False)
    spent: float = field(default=0.0, init=False)
    under_way: int = field(default=0, init=False)

    def take(self) -> bool:
        """Reserve one call; False where it might exceed a limit."""
        if self.max_calls is not None and self.calls >= self.max_calls:
            return False
        # A thousandth of a cent: sums of 0.015 must not lose a call to binary fractions.
        if self.max_cost is not None and self.spent + (self.under_way + 1) * (self.price or 0.0) > self.max_cost + 1e-5:
            return False
        self.calls += 1
        self.under_way += 1
        return True

    def settle(self, cost: float) -> None:
        """A reserved call has ended and cost that much, or may have. A dearer call raises what later ones reserve."""
        self.under_way -= 1
        self.spent += cost
        self.price = max(self.price or 0.0, cost) or self.price
