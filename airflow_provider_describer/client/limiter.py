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
class Throttle:
    """How many calls may be under way where the vendor says "too many" and not until when.

    Halves at each such answer and grows back by one call for every full round of answers.
    """

    most: int
    allowed: float = field(init=False)
    under_way: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.allowed = float(self.most)

    def has_room(self) -> bool:
        """Whether one more call may start."""
        return self.under_way < int(self.allowed)

    def slower(self) -> None:
        """The vendor has had too many."""
        self.allowed = max(1.0, self.allowed / 2)

    def faster(self) -> None:
        """The vendor has answered."""
        self.allowed = min(float(self.most), self.allowed + 1.0 / self.allowed)


def as_money(usd: float) -> str:
    """Return a sum in USD as people read it: cents, and tenths of a cent where it is small."""
    return f"${usd:,.2f}" if usd >= 10 or round(usd, 2) == round(usd, 4) else f"${usd:,.3f}"


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
        price = self.price or 0.0
        # A thousandth of a call: sums of 0.015 must not lose one to binary fractions.
        if self.max_cost is not None and self.spent + (self.under_way + 1) * price > self.max_cost + price / 1000:
            return False
        self.calls += 1
        self.under_way += 1
        return True

    def give_back(self) -> None:
        """A reserved call was not made after all."""
        self.calls -= 1
        self.under_way -= 1

    def settle(self, cost: float) -> None:
        """A reserved call has ended and cost that much, or may have. A dearer call raises what later ones reserve."""
        self.under_way -= 1
        self.spent += cost
        self.price = max(self.price or 0.0, cost) or self.price
