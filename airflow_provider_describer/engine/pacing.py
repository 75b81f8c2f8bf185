"""How fast calls may start and how many there may be. Decides; sleeps nowhere."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Pace:
    """When the next call may start. A vendor may count its minute from any moment.

    :param per_minute: calls a minute, or None for as many as come.
    :param in_bursts: a minute's worth of calls as fast as they come, and none until the first of them is a minute old;
        otherwise they are spaced evenly.
    """

    per_minute: float | None = None
    in_bursts: bool = False
    _next_at: float = field(default=0.0, init=False)
    _burst: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        self._burst = deque(maxlen=max(1, int(self.per_minute or 1)))

    def reserve(self, now: float) -> float:
        """Take the next free moment for one call and return the seconds until then."""
        moment = now + self.waits(now)
        if self.per_minute and self.in_bursts:
            self._burst.append(moment)
        elif self.per_minute:
            self._next_at = moment + 60.0 / self.per_minute
        return moment - now

    def pause_until(self, moment: float) -> None:
        """Let no call start before that moment, whoever asks."""
        self._next_at = max(self._next_at, moment)

    def waits(self, now: float) -> float:
        """Return the seconds until a call may start, without taking the moment."""
        full = len(self._burst) == self._burst.maxlen
        return max(0.0, self._next_at - now, self._burst[0] + self._window - now if full else 0.0)

    def idle_at(self) -> float:
        """Return the moment from which on a whole burst may start, as a run that is resumed then will."""
        return self._burst[-1] + self._window if self._burst else 0.0

    @property
    def _window(self) -> float:
        """The seconds in which a burst is allowed."""
        return max(1, int(self.per_minute or 1)) * 60.0 / (self.per_minute or 1.0)


@dataclass(slots=True)
class Throttle:
    """How many calls may be under way where the vendor says "too many" and not until when.

    Halves at each such answer and grows back by one call for every full round of answers.
    """

    most: int
    allowed: float = field(init=False)
    """Of which the whole calls count."""

    def __post_init__(self) -> None:
        self.allowed = float(self.most)

    def slower(self) -> None:
        """The vendor has had too many."""
        self.allowed = max(1.0, self.allowed / 2)

    def faster(self) -> None:
        """The vendor has answered."""
        self.allowed = min(float(self.most), self.allowed + 1.0 / self.allowed)


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

    def may_allow_later(self) -> bool:
        """Whether a call that is not allowed now may be when others, which are under way, have cost nothing."""
        if not self.under_way or (self.max_calls is not None and self.calls >= self.max_calls):
            return False
        return self.max_cost is None or self.spent < self.max_cost

    def give_back(self) -> None:
        """A reserved call was not made after all."""
        self.calls -= 1
        self.under_way -= 1

    def settle(self, cost: float) -> None:
        """A reserved call has ended and cost that much, or may have. A dearer call raises what later ones reserve."""
        self.under_way -= 1
        self.spent += cost
        self.price = max(self.price or 0.0, cost) or self.price
