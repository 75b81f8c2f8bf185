"""What one process has been granted and what it says of it: moments, money, pauses. Decides; waits nowhere."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from airflow_provider_describer.quota.day_budget import DayBudget, micro
from airflow_provider_describer.quota.leases import Grant, LeaseRequest, Rate, day_of


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """Leave to make one call. Ends with one `settle` or one `give_back`.

    ``money`` (micro-dollars) is set aside for it on ``day``; without a cap there is none, on no day.
    """

    day: str
    money: int
    purse: DayBudget = field(repr=False)


class LeaseClient:
    """Holds a lease. ``spent_day`` is the day, if any, on which nobody may send a call any more.

    :param price: what a call costs at most, and ``max_cost_per_day``: USD.
    """

    def __init__(self, rate: Rate | None, max_cost_per_day: float | None, price: float | None) -> None:
        self.rate = rate
        self.cap = None if max_cost_per_day is None else math.floor(round(max_cost_per_day * 1e6, 3))
        self.purse = DayBudget(micro(price or 0.0))
        self.moments: list[float] = []
        self.paused_until = self._told = 0.0
        self.spent_day = ""
        self.sharers = 1
        self.dirty = False
        """Whether the document does not know yet what calls have cost."""
        self._id = secrets.token_hex(6)
        self._joined = False

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to be granted; pauses are told in any case."""
        return self.rate is not None or self.cap is not None

    @property
    def has_news(self) -> bool:
        """Whether others do not know yet of a pause."""
        return self._told < self.paused_until

    def is_spent(self, now: float) -> bool:
        """Whether no call may be sent any more today."""
        return bool(self.spent_day) and self.spent_day == day_of(now) and not self.purse.affords(self.spent_day)

    def wait(self, now: float) -> float | None:
        """Return the seconds until a turn can be taken; None while there is no moment, or no money, for one."""
        if self.paused_until > now:
            return self.paused_until - now
        if self.cap is not None and not self.purse.affords(day_of(now)):
            return None
        if self.rate is None:
            return 0.0
        while self.moments and self.moments[0] < now - self.rate.late:
            self.moments.pop(0)
        return max(0.0, self.moments[0] - now) if self.moments else None

    def take(self, now: float) -> Permit:
        """Take a turn; only right after `wait` has said 0."""
        if self.rate is not None:
            self.moments.pop(0)
        if self.cap is None:
            return Permit("", 0, self.purse)
        self.dirty = True
        return Permit(self.purse.day, self.purse.take(), self.purse)

    def is_valid(self, permit: Permit, now: float) -> bool:
        """Whether a call may still start on this turn: no pause was told meanwhile, and it is the same day."""
        return self.paused_until <= now and (self.cap is None or permit.day == day_of(now))

    def settle(self, permit: Permit, cost: float) -> None:
        """The call has ended and cost that much (USD), or may have."""
        if self.cap is not None:
            permit.purse.settle(permit.day, permit.money, micro(cost))
            self.dirty = True

    def pause(self, moment: float, *, told: bool) -> None:
        """No call may start before that moment. ``told``: the document says so."""
        self.paused_until = max(self.paused_until, moment)
        self.moments = [at for at in self.moments if at >= self.paused_until]
        if told:
            self._told = max(self._told, moment)

    def ask(self, now: float, calls: int, *, ahead: float = 0.0, lead: float = 0.0, every: float = 0.5) -> LeaseRequest:
        """Return what is to be said and wanted; what is not wanted any more is out of our hands from here on."""
        self.purse.trim(day_of(now), min(calls, self.purse.pool // max(1, self.purse.price)))
        returned: Sequence[float] = ()
        if not calls:
            returned, self.moments = self.moments, []
        self.dirty = False
        return LeaseRequest(
            self._id,
            joined=self._joined,
            spent=dict(self.purse.spent),
            held=self.purse.held(),
            pool=self.purse.pool,
            returned=tuple(returned),
            paused_until=self.paused_until,
            rate=self.rate,
            turns_held=len(self.moments),
            turns=calls,
            ahead=ahead,
            lead=lead,
            price=self.purse.price,
            cap=self.cap,
            every=every,
        )

    def adopt(self, grant: Grant, ask: LeaseRequest) -> None:
        """The document has been changed as was asked: this is what came of it."""
        self.pause(ask.paused_until, told=True)
        if grant.expired:
            # All that the lease held counts as spent, with the calls under way: whatever they cost is said already.
            self._id, self._joined = secrets.token_hex(6), False
            self.purse = DayBudget(self.purse.price)
        else:
            self._joined = True
            self.purse.add(grant.day, grant.money)
            self.spent_day = grant.day if grant.reached else ""
            self.sharers = grant.sharers
            self.moments = sorted({*self.moments, *grant.turns})
        self.pause(grant.paused_until, told=True)
