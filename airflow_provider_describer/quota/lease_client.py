"""What one process holds of the shared limits: slots, money, pauses. Pure: it reads no clock and waits nowhere."""

from __future__ import annotations

import math
import secrets
from bisect import insort
from collections import Counter
from dataclasses import dataclass

from airflow_provider_describer.quota.leases import Grant, LeaseRequest, Rate, day_of


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """Permission to start one call in ``slot``. Ends with exactly one `settle`.

    ``money`` (micro-dollars) is held by ``lease`` for the call on ``day``; without a cap it is 0.
    """

    lease: str
    day: str
    money: int
    slot: float = 0.0


class LeaseClient:
    """The holder of one lease. Its money never exceeds what the lease holds, and goes by the day of the call.

    :param max_cost_per_day, price: USD; the price is the most that a call is expected to cost.
    :param not_before: epoch seconds of the first burst.
    """

    def __init__(
        self, rate: Rate | None, max_cost_per_day: float | None, price: float | None, not_before: float = 0.0
    ) -> None:
        self.rate = rate
        self._bursts = rate if rate and rate.in_bursts else None
        self.leased_rate = None if self._bursts else rate
        """The rate whose slots are granted by exchanges."""
        self.cap = None if max_cost_per_day is None else cap_of_day(max_cost_per_day)
        self.slots: list[float] = [not_before] * math.floor(self._bursts.calls) if self._bursts else []
        self._late = 0
        """Slots to come that late calls have used up."""
        self._not_started: set[Permit] = set()
        """Permits that have taken a slot of a burst."""
        self.idle_at = not_before
        """Epoch seconds from which a whole burst may start, wherever it is made."""
        self.paused_until = 0.0
        self.sharers = 1
        self._price = max(1, micro_dollars(price or 0.0))
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
        self._forget_passed(now)
        return max(0.0, self.slots[0] - now) if self.slots else None

    def lacks_slot(self, now: float) -> bool:
        """Whether the rate alone keeps the next call: no slot is due, and the vendor has asked for no pause."""
        return self.rate is not None and self.paused_until <= now and not (self.slots and self.slots[0] <= now)

    def resume_at(self, start_at: float) -> float:
        """Return when a run that is left should go on: for a whole burst, or else when its next call may start."""
        return max(self.paused_until, self.idle_at) if self._bursts else start_at

    def _can_pay(self, now: float) -> bool:
        return self.cap is None or (self._day == day_of(now) and self._prepaid >= self._price)

    def take_permit(self) -> Permit:
        """Take the slot and the money of one call; only right after `wait` has returned 0."""
        slot = self.slots.pop(0) if self.rate else 0.0
        money = 0 if self.cap is None else self._price
        self._prepaid -= money
        self._under_way[self._day] += money
        permit = Permit(self._id, self._day, money, slot)
        if self._bursts:
            self._not_started.add(permit)
        return permit

    def is_valid(self, permit: Permit, now: float) -> bool:
        """Whether the call may still start: its slot has not passed, no pause began, and the day is the same."""
        if self.leased_rate and now > permit.slot + self.leased_rate.lateness:
            return False
        return self.paused_until <= now and (self.cap is None or permit.day == day_of(now))

    def start(self, permit: Permit, now: float) -> None:
        """The call starts: its slot of a burst comes again when the call is old enough."""
        if self._bursts and permit in self._not_started:
            self._not_started.discard(permit)
            insort(self.slots, now + self._bursts.again_after)
            self.idle_at = now + self._bursts.seconds

    def start_late(self, started: float, now: float) -> None:
        """A call that was to start at ``started`` may have been sent as late as ``now``: it counts from then."""
        if self._bursts:
            if (again := started + self._bursts.again_after) in self.slots:
                self.slots.remove(again)
                insort(self.slots, now + self._bursts.again_after)
            self.idle_at = max(self.idle_at, now + self._bursts.seconds)
        elif self.leased_rate:
            # It stands in for a call of a later slot.
            self._forget_passed(now)
            self._late += 1
            self._drop_slots()

    def _forget_passed(self, now: float) -> None:
        while self.leased_rate and self.slots and self.slots[0] < now - self.leased_rate.lateness:
            self.slots.pop(0)

    def _drop_slots(self) -> None:
        while self._late and self.slots:
            self._late -= 1
            self.slots.pop(0)

    def settle(self, permit: Permit, cost: float) -> None:
        """Count what the call has cost, or may have (USD). A cost above the price raises the price of later calls."""
        if permit in self._not_started:
            self._not_started.discard(permit)
            insort(self.slots, permit.slot)
        if self.cap is None:
            return
        amount = micro_dollars(cost)
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
        if self.leased_rate:
            self.slots = [slot for slot in self.slots if slot >= self.paused_until]

    def request(self, now: float, calls: int, **timing: float) -> LeaseRequest:
        """Return the request for that many calls. Slots and money beyond them are given up here and now.

        :param timing: the request's ``horizon``, ``latency`` and ``interval``.
        """
        today = day_of(now)
        prepaid = min(calls, self._prepaid // self._price) if self._day == today else 0
        self._day, self._prepaid = today, prepaid * self._price
        returned: tuple[float, ...] = ()
        if self.leased_rate and not calls:
            returned, self.slots = tuple(self.slots), []
        return LeaseRequest(
            self._id,
            renews=self._has_lease,
            spent=dict(+self._spent),
            held=dict(self._under_way + Counter({today: self._prepaid})),
            prepaid=prepaid,
            returned=returned,
            paused_until=self.paused_until,
            rate=self.leased_rate,
            slots_held=len(self.slots) if self.leased_rate else 0,
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
            if self.leased_rate:
                self.slots = sorted({*self.slots, *grant.slots})
                self._drop_slots()
        self.pause(grant.paused_until)


def cap_of_day(max_cost_per_day: float) -> int:
    """Return a day's limit (USD) in micro-dollars, rounded down."""
    # Binary fractions err by less than a thousandth of a micro-dollar.
    return math.floor(round(max_cost_per_day * 1e6, 3))


def micro_dollars(usd: float) -> int:
    """Round up, but not for less than a thousandth of a micro-dollar, which is an error of binary fractions."""
    return math.ceil(round(usd * 1e6, 3))
