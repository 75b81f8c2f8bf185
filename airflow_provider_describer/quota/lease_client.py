"""What one process holds of the shared limits: slots, money, pauses. Pure: it reads no clock and waits nowhere."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from dataclasses import dataclass

from airflow_provider_describer.quota.leases import Grant, LeaseRequest, Rate, day_of


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """Permission to start one call. Ends with exactly one `settle` or `cancel`.

    ``money`` (micro-dollars) is held by ``lease`` for the call on ``day``; without a cap it is 0.
    """

    lease: str
    day: str
    money: int


class LeaseClient:
    """The holder of one lease. Its money never exceeds what the lease holds, and goes by the day of the call.

    :param max_cost_per_day, price: USD; the price is the most that a call is expected to cost.
    """

    def __init__(self, rate: Rate | None, max_cost_per_day: float | None, price: float | None) -> None:
        self.rate = rate
        # Binary fractions err by less than a thousandth of a micro-dollar.
        self.cap = None if max_cost_per_day is None else math.floor(round(max_cost_per_day * 1e6, 3))
        self.slots: list[float] = []
        self.paused_until = 0.0
        self.sharers = 1
        self._price = max(1, _micro_dollars(price or 0.0))
        self._day = self._exhausted_day = ""
        """The day for which money is prepaid, and the one on which no holder may send another call."""
        self._start_lease()

    def _start_lease(self) -> None:
        self._id, self._has_lease = secrets.token_hex(6), False
        self._prepaid = 0
        self._under_way: Counter[str] = Counter()
        self._spent: Counter[str] = Counter()

    def is_exhausted(self, now: float) -> bool:
        """Whether no call may be sent any more today."""
        return self._exhausted_day == day_of(now) and not self._can_pay(now)

    def wait(self, now: float) -> float | None:
        """Return the seconds until a call may start; None while it lacks a slot or money."""
        if self.paused_until > now:
            return self.paused_until - now
        if not self._can_pay(now):
            return None
        if self.rate is None:
            return 0.0
        while self.slots and self.slots[0] < now - self.rate.lateness:
            self.slots.pop(0)
        return max(0.0, self.slots[0] - now) if self.slots else None

    def _can_pay(self, now: float) -> bool:
        return self.cap is None or (self._day == day_of(now) and self._prepaid >= self._price)

    def take_permit(self) -> Permit:
        """Take the slot and the money of one call; only right after `wait` has returned 0."""
        if self.rate is not None:
            self.slots.pop(0)
        money = 0 if self.cap is None else self._price
        self._prepaid -= money
        self._under_way[self._day] += money
        return Permit(self._id, self._day, money)

    def is_valid(self, permit: Permit, now: float) -> bool:
        """Whether the call may still start: no pause began meanwhile, and the day is the same."""
        return self.paused_until <= now and (self.cap is None or permit.day == day_of(now))

    def settle(self, permit: Permit, cost: float) -> None:
        """Count what the call has cost, or may have (USD). A cost above the price raises the price of later calls."""
        if self.cap is None:
            return
        amount = _micro_dollars(cost)
        self._price = max(self._price, amount)
        if permit.lease != self._id:
            # That lease has expired, and all that it held counts as spent.
            return
        self._under_way[permit.day] -= permit.money
        self._spent[permit.day] += amount
        if permit.day == self._day:
            self._prepaid += max(0, permit.money - amount)

    def pause(self, until: float) -> None:
        """Let no call start before that time."""
        self.paused_until = max(self.paused_until, until)
        self.slots = [slot for slot in self.slots if slot >= self.paused_until]

    def request(self, now: float, calls: int, **timing: float) -> LeaseRequest:
        """Return the request for that many calls. Slots and money beyond them are given up here and now.

        :param timing: the request's ``horizon``, ``latency`` and ``interval``.
        """
        today = day_of(now)
        prepaid = min(calls, self._prepaid // self._price) if self._day == today else 0
        self._day, self._prepaid = today, prepaid * self._price
        returned: tuple[float, ...] = ()
        if not calls:
            returned, self.slots = tuple(self.slots), []
        return LeaseRequest(
            self._id,
            renews=self._has_lease,
            spent=dict(+self._spent),
            held=dict(self._under_way + Counter({today: self._prepaid})),
            prepaid=prepaid,
            returned=returned,
            paused_until=self.paused_until,
            rate=self.rate,
            slots_held=len(self.slots),
            calls=calls,
            price=self._price,
            cap=self.cap,
            **timing,
        )

    def apply(self, grant: Grant) -> None:
        """Take over what the exchange has granted."""
        if grant.expired:
            self._start_lease()
        else:
            self._has_lease = True
            self._prepaid = grant.money + (self._prepaid if grant.day == self._day else 0)
            self._day = grant.day
            self._exhausted_day = grant.day if grant.exhausted else ""
            self.sharers = grant.sharers
            self.slots = sorted({*self.slots, *grant.slots})
        self.pause(grant.paused_until)


def _micro_dollars(usd: float) -> int:
    """Round up, but not for less than a thousandth of a micro-dollar, which is an error of binary fractions."""
    return math.ceil(round(usd * 1e6, 3))
