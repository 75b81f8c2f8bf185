"""Who may call when, and what the day has cost: what all holders know together, and how one exchange changes it.

Pure: every function takes the document and the clock, and returns the next document. Two rules keep it safe when
holders die, answers are lost and clocks differ by a little:

- Every moment is given to one holder only, so calls cannot come faster than the rate, whoever dies.
- A holder writes absolute sums into its own lease and nowhere else, so saying them twice changes nothing. What a lease
  holds counts as spent until its holder says otherwise, and for good once the lease has run out.

Moments are epoch seconds; money is in whole micro-dollars by the UTC day on which a call is sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

LEASE_S = 60.0
"""A holder that has said nothing for so long is dead; or longer, where many holders must take turns at writing."""
PACE = 0.98
"""Share of the vendor's rate that is given out: a call that is a little late must not be one too many in its minute."""
LATE = 0.01
"""Share of the vendor's minute by which a moment may be used late; half of what `PACE` leaves free."""
DAYS_KEPT = 3

Money = Mapping[str, int]
"""Micro-dollars by day (``2025-11-21``)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls in so many seconds, counted by the vendor from any moment it likes."""

    calls: float
    seconds: float = 60.0

    @property
    def gap(self) -> float:
        """Seconds from one moment to the next."""
        return self.seconds / (self.calls * PACE)

    @property
    def late(self) -> float:
        """Seconds for which a moment that has passed is still good."""
        return self.seconds * LATE


@dataclass(frozen=True, slots=True)
class Lease:
    """What one holder has said of itself.

    ``until`` it counts as alive, and ``sharing_until`` among those that want moments. ``spent`` is what its calls have
    cost; ``held`` what those under way and those to come may cost.
    """

    until: float
    sharing_until: float = 0.0
    spent: Money = field(default_factory=dict)
    held: Money = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leases:
    """The whole document. ``free`` moments lie before ``next_at``; ``spent`` is by holders that are gone."""

    next_at: float = 0.0
    free: tuple[float, ...] = ()
    paused_until: float = 0.0
    spent: Money = field(default_factory=dict)
    holders: Mapping[str, Lease] = field(default_factory=dict)

    def settled(self, day: str) -> int:
        """What that day has cost for certain, whatever becomes of the calls under way."""
        return self.spent.get(day, 0) + sum(lease.spent.get(day, 0) for lease in self.holders.values())

    def taken(self, day: str) -> int:
        """What that day may have cost in the end: settled and held."""
        return self.settled(day) + sum(lease.held.get(day, 0) for lease in self.holders.values())

    def sharers(self, now: float) -> int:
        """How many holders share the rate just now."""
        return sum(lease.sharing_until > now for lease in self.holders.values())


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a holder says and wants in one exchange.

    :param joined: it has a lease already: where that is gone, it has run out.
    :param spent, held: its absolute sums; ``held`` with ``pool``, the part of it that no call has taken yet.
    :param returned: moments it will not use; :param turns_held: how many others it has.
    :param turns: calls it expects to make within ``ahead`` seconds.
    :param lead: seconds that an exchange takes: an earlier moment would have passed when the answer is there.
    :param price, cap: of one call, and of all calls of a day; None for no cap.
    :param every: seconds between its exchanges.
    """

    holder: str
    joined: bool = False
    spent: Money = field(default_factory=dict)
    held: Money = field(default_factory=dict)
    pool: int = 0
    returned: tuple[float, ...] = ()
    paused_until: float = 0.0
    rate: Rate | None = None
    turns_held: int = 0
    turns: int = 0
    ahead: float = 1.5
    lead: float = 0.0
    price: int = 0
    cap: int | None = None
    every: float = 0.5


@dataclass(frozen=True, slots=True)
class Grant:
    """What an exchange has brought.

    ``money`` is for calls sent on ``day``; ``reached`` says that no call may be sent on it any more, whatever others
    give back. ``expired``: the lease had run out, and all that it held counts as spent; nothing was granted.
    """

    turns: tuple[float, ...] = ()
    money: int = 0
    day: str = ""
    reached: bool = False
    paused_until: float = 0.0
    sharers: int = 1
    expired: bool = False


def day_of(now: float) -> str:
    """Return the UTC day of a moment, as ``2025-11-21``."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")


def exchange(ask: LeaseRequest, leases: Leases, now: float) -> tuple[Leases, Grant]:
    """Say what the holder has to say, and grant it what it wants as far as others leave it."""
    leases = expire_leases(leases, now)
    if ask.joined and ask.holder not in leases.holders:
        return leases, Grant(expired=True, paused_until=leases.paused_until)
    leases = pause(leases, ask.paused_until)
    leases = return_turns(leases, now, ask.returned)
    leases = renew(leases, ask, now)
    leases, turns = take_turns(leases, ask, now)
    leases, money, reached = reserve(leases, ask, day_of(now), turns_held=ask.turns_held + len(turns))
    sharers = max(1, leases.sharers(now))
    return leases, Grant(turns, money, day_of(now), reached, leases.paused_until, sharers)


def leave(ask: LeaseRequest, leases: Leases, now: float) -> tuple[Leases, Grant]:
    """End the holder's lease: what it holds no longer is given back, what calls under way hold counts as spent."""
    leases = expire_leases(leases, now)
    leases = pause(leases, ask.paused_until)
    leases = return_turns(leases, now, ask.returned)
    if ask.holder in leases.holders:
        others = {name: lease for name, lease in leases.holders.items() if name != ask.holder}
        leases = replace(leases, spent=_sum((leases.spent, ask.spent, ask.held)), holders=others)
    return leases, Grant(paused_until=leases.paused_until)


def expire_leases(leases: Leases, now: float) -> Leases:
    """End the leases of the dead: what they held counts as spent. Days that no call can belong to are forgotten."""
    oldest = day_of(now - DAYS_KEPT * 86400)
    dead = [lease for lease in leases.holders.values() if lease.until <= now]
    if not dead and not any(day < oldest for day in leases.spent):
        return leases
    spent = _sum((leases.spent, *(lease.spent for lease in dead), *(lease.held for lease in dead)))
    return replace(
        leases,
        spent={day: sum_ for day, sum_ in spent.items() if day >= oldest},
        holders={name: lease for name, lease in leases.holders.items() if lease.until > now},
    )


def pause(leases: Leases, until: float) -> Leases:
    """Let no call start before that moment, whoever asks; never shortens a pause."""
    if until <= leases.paused_until:
        return leases
    free = tuple(moment for moment in leases.free if moment >= until)
    return replace(leases, paused_until=until, next_at=max(leases.next_at, until), free=free)


def return_turns(leases: Leases, now: float, moments: Iterable[float]) -> Leases:
    """Let others have moments that a holder will not use."""
    earliest = max(now, leases.paused_until)
    # What lies past the document's own horizon was not given out by it.
    returned = {moment for moment in moments if earliest <= moment < leases.next_at}
    return replace(leases, free=tuple(sorted({*leases.free, *returned}))) if returned else leases


def renew(leases: Leases, ask: LeaseRequest, now: float) -> Leases:
    """Write the holder's lease anew. Times move on when half of them has passed, so that some exchanges say nothing."""
    old = leases.holders.get(ask.holder, Lease(0.0))
    lasts, shares = max(LEASE_S, 4 * ask.every), 3 * ask.every
    lease = Lease(
        until=old.until if old.until - now > lasts / 2 else now + lasts,
        sharing_until=old.sharing_until if not ask.turns or old.sharing_until - now > shares / 2 else now + shares,
        spent=dict(ask.spent),
        held=dict(ask.held),
    )
    return replace(leases, holders={**leases.holders, ask.holder: lease})


def take_turns(leases: Leases, ask: LeaseRequest, now: float) -> tuple[Leases, tuple[float, ...]]:
    """Give the holder its share of the moments that lie ahead, spread among those of the others.

    A holder that shares the rate gets no more than it expects to use; one that is alone gets every moment, as nobody
    else would use it.
    """
    if ask.rate is None or ask.turns <= 0:
        return leases, ()
    gap = ask.rate.gap
    sharers = max(1, leases.sharers(now))
    # As far ahead as it takes to have one for everybody.
    ahead = max(ask.ahead, gap * sharers)
    first, last = max(now + ask.lead, leases.paused_until), now + ahead
    open_ = [moment for moment in leases.free if first <= moment <= last]
    moment, next_at = max(leases.next_at, first), leases.next_at
    while moment <= last:
        open_.append(moment)
        # Kept to the microsecond, so that documents stay small.
        moment = next_at = math.ceil((moment + gap) * 1e6) / 1e6
    count = len(open_)
    if sharers > 1:
        share = max(1, math.floor(ahead / gap / sharers))
        count = max(0, min(count, share - ask.turns_held, ask.turns - ask.turns_held))
    if not count:
        return leases, ()
    turns = tuple(open_[number * len(open_) // count] for number in range(count))
    left = {*open_, *(moment for moment in leases.free if moment >= now)}.difference(turns)
    return replace(leases, free=tuple(sorted(left)), next_at=next_at), turns


def reserve(leases: Leases, ask: LeaseRequest, day: str, *, turns_held: int) -> tuple[Leases, int, bool]:
    """Set aside money for the calls that the holder expects to make; return it, and whether the day's cap is reached.

    Where a rate limits the calls, only those with a moment of their own are paid for ahead.
    """
    if ask.cap is None:
        return leases, 0, False
    calls = min(ask.turns, turns_held) if ask.rate else ask.turns
    room = ask.cap - leases.taken(day)
    pool = min(max(calls * ask.price, ask.pool), max(0, ask.pool + room))
    # Whole calls only: a part of one would be of use to nobody.
    money = max(0, pool // max(1, ask.price) * ask.price - ask.pool)
    if money:
        lease = leases.holders[ask.holder]
        lease = replace(lease, held=_sum((lease.held, {day: money})))
        leases = replace(leases, holders={**leases.holders, ask.holder: lease})
    return leases, money, leases.settled(day) + ask.price > ask.cap


def _sum(sums: Iterable[Money]) -> dict[str, int]:
    total: dict[str, int] = {}
    for by_day in sums:
        for day, amount in by_day.items():
            total[day] = total.get(day, 0) + amount
    return total
