"""The shared state of one connection's limits, and how one exchange with a client changes it.

Pure functions of the state and the clock. Two rules keep the limits when a client dies, an answer is lost or clocks
differ a little:

- A slot, the time at which one call may start, is granted to one client only, so calls never exceed the rate.
- A client writes absolute sums, and only into its own lease, so writing them twice changes nothing. What a lease holds
  counts as spent until its holder says otherwise, and for good once the lease has expired.

Times are epoch seconds. Money is in micro-dollars by the UTC day on which a call is sent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

LEASE_S = 60.0
"""Seconds after which a lease that is not renewed expires; more where many holders share few writes."""
RATE_SHARE = 0.98
"""Share of the vendor's rate that is granted: a call that starts a little late must not exceed the next minute."""
LATENESS = 0.01
"""How late a slot may be used, as a share of the vendor's minute: half of what `RATE_SHARE` leaves free."""
DAYS_KEPT = 3

Money = Mapping[str, int]
"""Micro-dollars by day (``2025-11-21``)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``calls`` in ``seconds``, which the vendor may count from any moment.

    :param in_bursts: all calls may start at once, and each one's slot comes again when it is ``seconds`` old. Such
        slots are one client's own and never shared.
    """

    calls: float
    seconds: float = 60.0
    in_bursts: bool = False

    @classmethod
    def of_minute(cls, calls: float, *, in_bursts: bool = False) -> Rate:
        """Return the rate of whole calls in any minute; of one call in several minutes where ``calls`` is below 1."""
        return cls(math.floor(calls), 60.0, in_bursts) if calls >= 1 else cls(1, 60.0 / calls, in_bursts)

    @property
    def gap(self) -> float:
        """Seconds from one slot to the next."""
        return self.seconds / (self.calls * RATE_SHARE)

    @property
    def again_after(self) -> float:
        """Seconds from the start of a call in a burst until its slot comes again."""
        return self.seconds / RATE_SHARE

    @property
    def lateness(self) -> float:
        """Seconds for which a slot that has passed may still be used, unless it is one of a burst."""
        return self.seconds * LATENESS


@dataclass(frozen=True, slots=True)
class Lease:
    """One holder's entry, valid ``until``; up to ``sharing_until`` the holder counts among those that want slots.

    ``spent`` is what its calls have cost; ``held`` what calls under way and calls to come may cost.
    """

    until: float
    sharing_until: float = 0.0
    spent: Money = field(default_factory=dict)
    held: Money = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leases:
    """The whole state. ``free`` slots lie before ``next_at``; ``spent`` is the total of leases that have ended."""

    next_at: float = 0.0
    free: tuple[float, ...] = ()
    paused_until: float = 0.0
    spent: Money = field(default_factory=dict)
    holders: Mapping[str, Lease] = field(default_factory=dict)

    def spent_on(self, day: str) -> int:
        """Return what the day has cost for certain."""
        return self.spent.get(day, 0) + sum(lease.spent.get(day, 0) for lease in self.holders.values())

    def committed_on(self, day: str) -> int:
        """Return the most that the day may cost: spent and held."""
        return self.spent_on(day) + sum(lease.held.get(day, 0) for lease in self.holders.values())

    def sharers(self, now: float) -> int:
        """Return how many holders share the rate at this moment; at least 1."""
        return max(1, sum(lease.sharing_until > now for lease in self.holders.values()))


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a client reports and wants in one exchange.

    :param renews: the client has a lease; where the state has none for it, the lease has expired.
    :param spent, held: the client's sums; ``prepaid`` is how many calls of ``held`` no permit has taken yet.
    :param returned: slots that the client will not use; ``slots_held`` is how many others it has.
    :param calls: calls that the client expects to start within ``horizon`` seconds.
    :param latency: seconds that an exchange takes: an earlier slot would have passed when the grant arrives.
    :param price, cap: of one call, and of all calls of a day; None for no cap.
    :param interval: seconds between the client's exchanges.
    """

    holder: str
    renews: bool = False
    spent: Money = field(default_factory=dict)
    held: Money = field(default_factory=dict)
    prepaid: int = 0
    returned: tuple[float, ...] = ()
    paused_until: float = 0.0
    rate: Rate | None = None
    slots_held: int = 0
    calls: int = 0
    horizon: float = 1.5
    latency: float = 0.0
    price: int = 1
    cap: int | None = None
    interval: float = 0.5


@dataclass(frozen=True, slots=True)
class Grant:
    """The result of an exchange.

    ``money`` is for calls sent on ``day``; ``exhausted`` means that no call may be sent on it any more, even if others
    return what they hold. ``expired`` means that the lease had expired: its money counts as spent, nothing is granted.
    """

    slots: tuple[float, ...] = ()
    money: int = 0
    day: str = ""
    exhausted: bool = False
    paused_until: float = 0.0
    sharers: int = 1
    expired: bool = False


def day_of(now: float) -> str:
    """Return the UTC day of a time, as ``2025-11-21``."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")


def exchange(request: LeaseRequest, leases: Leases, now: float) -> tuple[Leases, Grant]:
    """Record the client's report, renew its lease, and grant slots and money as far as others leave them."""
    leases = expire_leases(leases, now)
    if request.renews and request.holder not in leases.holders:
        return leases, Grant(expired=True, paused_until=leases.paused_until)
    leases = _renew(_record(leases, request, now), request, now)
    leases, slots = _grant_slots(leases, request, now)
    day = day_of(now)
    leases, money = _reserve(leases, request, day, slots_held=request.slots_held + len(slots))
    exhausted = request.cap is not None and leases.spent_on(day) + request.price > request.cap
    return leases, Grant(slots, money, day, exhausted, leases.paused_until, leases.sharers(now))


def end_lease(request: LeaseRequest, leases: Leases, now: float) -> tuple[Leases, Grant]:
    """End the client's lease. What it still holds is for calls under way, and counts as spent."""
    leases = _record(expire_leases(leases, now), request, now)
    if request.holder in leases.holders:
        others = {name: lease for name, lease in leases.holders.items() if name != request.holder}
        leases = replace(leases, spent=_sum(leases.spent, request.spent, request.held), holders=others)
    return leases, Grant(paused_until=leases.paused_until)


def expire_leases(leases: Leases, now: float) -> Leases:
    """End expired leases: all that they held counts as spent. Forget days to which no call can belong any more."""
    oldest = day_of(now - DAYS_KEPT * 86400)
    expired = [lease for lease in leases.holders.values() if lease.until <= now]
    if not expired and all(day >= oldest for day in leases.spent):
        return leases
    spent = _sum(leases.spent, *(money for lease in expired for money in (lease.spent, lease.held)))
    return replace(
        leases,
        spent={day: amount for day, amount in spent.items() if day >= oldest},
        holders={name: lease for name, lease in leases.holders.items() if lease.until > now},
    )


def _record(leases: Leases, request: LeaseRequest, now: float) -> Leases:
    """Begin the pause that the client reports, unless a longer one is known, and take back the slots it returns."""
    paused_until = max(leases.paused_until, request.paused_until)
    # A slot at or after `next_at` was never granted by this state.
    returned = {slot for slot in request.returned if now <= slot < leases.next_at}
    free = tuple(sorted(slot for slot in {*leases.free, *returned} if slot >= paused_until))
    return replace(leases, paused_until=paused_until, next_at=max(leases.next_at, paused_until), free=free)


def _renew(leases: Leases, request: LeaseRequest, now: float) -> Leases:
    old = leases.holders.get(request.holder, Lease(0.0))

    def extend(until: float, seconds: float) -> float:
        # Only when half has passed: an exchange without news then changes nothing, and is not written.
        return until if until - now > seconds / 2 else now + seconds

    lease = Lease(
        until=extend(old.until, max(LEASE_S, 4 * request.interval)),
        sharing_until=extend(old.sharing_until, 3 * request.interval) if request.calls else old.sharing_until,
        spent=dict(request.spent),
        held=dict(request.held),
    )
    return replace(leases, holders={**leases.holders, request.holder: lease})


def _grant_slots(leases: Leases, request: LeaseRequest, now: float) -> tuple[Leases, tuple[float, ...]]:
    """Grant the client its share of the slots ahead, spread evenly between those of others.

    A client that shares the rate gets no more than it expects to use; a client alone gets every slot.
    """
    if request.rate is None or request.calls <= 0:
        return leases, ()
    gap, sharers = request.rate.gap, leases.sharers(now)
    # Far enough ahead for one slot each.
    horizon = max(request.horizon, gap * sharers)
    first, last = max(now + request.latency, leases.paused_until), now + horizon
    open_slots = [slot for slot in leases.free if first <= slot <= last]
    slot, next_at = max(leases.next_at, first), leases.next_at
    while slot <= last:
        open_slots.append(slot)
        # To the microsecond, which keeps the document small.
        slot = next_at = math.ceil((slot + gap) * 1e6) / 1e6
    count = len(open_slots)
    if sharers > 1:
        share = max(1, math.floor(horizon / gap / sharers))
        count = max(0, min(count, share - request.slots_held, request.calls - request.slots_held))
    if not count:
        return leases, ()
    granted = tuple(open_slots[number * len(open_slots) // count] for number in range(count))
    left = {*open_slots, *(slot for slot in leases.free if slot >= now)}.difference(granted)
    return replace(leases, free=tuple(sorted(left)), next_at=next_at), granted


def _reserve(leases: Leases, request: LeaseRequest, day: str, *, slots_held: int) -> tuple[Leases, int]:
    """Set money aside for whole calls that the client expects to start; under a rate, only for those with a slot."""
    if request.cap is None:
        return leases, 0
    calls = min(request.calls, slots_held) if request.rate else request.calls
    affordable = max(0, request.cap - leases.committed_on(day)) // request.price
    money = request.price * min(max(0, calls - request.prepaid), affordable)
    lease = leases.holders[request.holder]
    lease = replace(lease, held=_sum(lease.held, {day: money}))
    return replace(leases, holders={**leases.holders, request.holder: lease}), money


def _sum(*sums: Money) -> dict[str, int]:
    return dict(sum(map(Counter, sums), Counter()))
