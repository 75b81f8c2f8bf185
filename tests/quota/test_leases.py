"""The rules of leases, with the clock passed in: rate and cap hold whatever happens to the holders."""

from __future__ import annotations

import random
from bisect import bisect_left
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_describer.quota.document import decode_leases, encode_leases
from airflow_provider_describer.quota.lease_client import LeaseClient, Permit
from airflow_provider_describer.quota.leases import LEASE_S, LeaseRequest, Leases, Rate, day_of, end_lease, exchange

NOW = 1_763_708_820.0
DAY = "2025-11-21"
MIDNIGHT = 1_763_769_600.0
PRICE = 15_000


def request_slots(holder="a", calls=100, **options):
    return LeaseRequest(holder, calls=calls, **options)


def test_a_single_holder_gets_every_slot_evenly_spaced():
    leases, grant = exchange(request_slots(rate=Rate(60), horizon=3.0), Leases(), NOW)
    assert grant.slots[0] == NOW and len(grant.slots) == 3, "at 0, 1.02 and 2.04 s"
    assert all(1.0 < later - earlier < 1.03 for earlier, later in pairwise(grant.slots))
    _, again = exchange(request_slots(rate=Rate(60), horizon=3.0, slots_held=3, renews=True), leases, NOW)
    assert again.slots == ()


def test_unused_time_is_not_saved_up():
    leases, _ = exchange(request_slots(rate=Rate(60), horizon=3.0), Leases(), NOW)
    _, grant = exchange(request_slots("b", rate=Rate(60), horizon=3.0), leases, NOW + 3600)
    assert len(grant.slots) == 3 and grant.slots[0] >= NOW + 3600


def test_sharers_get_equal_shares_spread_over_the_horizon():
    leases = Leases()
    for name in "abcd":
        leases, _ = exchange(request_slots(name, rate=Rate(600), horizon=0.01), leases, NOW)
    counts = {}
    for name in "abcd":
        leases, grant = exchange(request_slots(name, rate=Rate(600), horizon=8.0, renews=True), leases, NOW + 1)
        assert grant.sharers == 4
        counts[name] = len(grant.slots)
    assert set(counts.values()) == {19}
    assert grant.slots[-1] - grant.slots[0] > 4


def test_a_holder_that_needs_little_leaves_the_rest_to_others():
    leases, _ = exchange(request_slots("busy", rate=Rate(600), horizon=0.01), Leases(), NOW)
    leases, grant = exchange(request_slots("idle", calls=2, rate=Rate(600), horizon=8.0), leases, NOW + 1)
    assert len(grant.slots) == 2
    leases, grant = exchange(request_slots("busy", rate=Rate(600), horizon=8.0, renews=True), leases, NOW + 1)
    assert len(grant.slots) == 39, "half of the slots: the other holder may come back for its own"


def test_no_slot_is_earlier_than_the_grant_arrives():
    _, grant = exchange(request_slots(rate=Rate(600), horizon=3.0, latency=1.0), Leases(), NOW)
    assert grant.slots[0] == NOW + 1


def test_returned_slots_are_granted_again_and_unknown_ones_are_not():
    leases, grant = exchange(request_slots(rate=Rate(60), horizon=3.0), Leases(), NOW)
    leases, _ = end_lease(LeaseRequest("a", renews=True, returned=(*grant.slots[1:], NOW + 99)), leases, NOW + 0.5)
    assert leases.free == grant.slots[1:] and leases.holders == {}
    _, other = exchange(request_slots("b", rate=Rate(60), horizon=2.0), leases, NOW + 0.5)
    assert other.slots == grant.slots[1:]


def test_the_share_of_a_dead_holder_passes_on_long_before_its_lease_expires():
    leases, _ = exchange(request_slots("dead", rate=Rate(600)), Leases(), NOW)
    leases, grant = exchange(request_slots("alive", rate=Rate(600)), leases, NOW)
    assert grant.sharers == 2
    leases, grant = exchange(request_slots("alive", rate=Rate(600), renews=True), leases, NOW + 2)
    assert grant.sharers == 1 and len(grant.slots) == 15
    assert "dead" in leases.holders


def test_a_pause_by_one_holder_applies_to_all_and_is_never_shortened():
    leases, _ = exchange(request_slots("a", calls=0, paused_until=NOW + 30), Leases(), NOW)
    leases, grant = exchange(request_slots("b", rate=Rate(600), horizon=3.0, paused_until=NOW + 10), leases, NOW)
    assert (grant.slots, grant.paused_until) == ((), NOW + 30)
    _, grant = exchange(request_slots("b", rate=Rate(600), horizon=3.0, renews=True), leases, NOW + 29)
    assert grant.slots[0] >= NOW + 30 and len(grant.slots) > 10


def test_a_pause_removes_the_free_slots_in_it():
    leases, grant = exchange(request_slots(rate=Rate(60), horizon=9.0), Leases(), NOW)
    leases, _ = exchange(LeaseRequest("a", renews=True, returned=grant.slots, paused_until=NOW + 5), leases, NOW)
    assert leases.free and min(leases.free) >= NOW + 5


def request_money(holder="a", *, calls=1, cap=10 * PRICE, price=PRICE, **options):
    return LeaseRequest(holder, calls=calls, cap=cap, price=price, **options)


def test_money_is_set_aside_for_whole_calls_up_to_the_cap():
    leases, first = exchange(request_money("a", calls=7), Leases(), NOW)
    leases, second = exchange(request_money("b", calls=7), leases, NOW)
    assert (first.money, second.money) == (7 * PRICE, 3 * PRICE)
    assert first.day == DAY and leases.committed_on(DAY) == 10 * PRICE
    _, third = exchange(request_money("c"), leases, NOW)
    assert (third.money, third.exhausted) == (0, False), "a and b may return some"


def test_under_a_rate_money_is_set_aside_only_for_calls_with_a_slot():
    _, grant = exchange(request_money(calls=9, rate=Rate(60), horizon=3.0), Leases(), NOW)
    assert len(grant.slots) == 3 and grant.money == 3 * PRICE


@pytest.mark.parametrize(("cap", "calls"), [(PRICE - 1, 0), (PRICE, 1), (2 * PRICE - 1, 1)])
def test_a_cap_is_rounded_down_to_whole_calls(cap, calls):
    _, grant = exchange(request_money(calls=5, cap=cap), Leases(), NOW)
    assert grant.money == calls * PRICE
    assert grant.exhausted is (calls == 0)


def test_only_certain_costs_exhaust_the_day():
    leases, _ = exchange(request_money("a", calls=10), Leases(), NOW)
    request = LeaseRequest("a", renews=True, cap=10 * PRICE, price=PRICE, spent={DAY: 9 * PRICE}, held={DAY: PRICE})
    leases, grant = exchange(request, leases, NOW)
    assert grant.exhausted is False
    leases, grant = exchange(
        LeaseRequest("a", renews=True, cap=10 * PRICE, price=PRICE, spent={DAY: 10 * PRICE}), leases, NOW
    )
    assert grant.exhausted is True
    assert exchange(request_money("b"), leases, NOW)[1].exhausted is True


def test_what_a_dead_holder_held_counts_as_spent():
    leases, _ = exchange(request_money("dead", calls=10), Leases(), NOW)
    assert exchange(request_money("b"), leases, NOW + LEASE_S - 1)[1].exhausted is False
    leases, grant = exchange(request_money("b"), leases, NOW + LEASE_S)
    assert (grant.money, grant.exhausted) == (0, True)
    assert leases.spent == {DAY: 10 * PRICE} and set(leases.holders) == {"b"}


def test_an_expired_lease_is_not_revived():
    leases, _ = exchange(request_money("slow", calls=4), Leases(), NOW)
    after, grant = exchange(request_money("slow", renews=True, held={DAY: PRICE}), leases, NOW + LEASE_S)
    assert grant.expired and grant.money == 0
    assert after.spent == {DAY: 4 * PRICE}
    after, _ = end_lease(request_money("slow", renews=True, spent={DAY: PRICE}), after, NOW + LEASE_S)
    assert after.spent == {DAY: 4 * PRICE}, "counted once"


def test_the_same_request_twice_changes_nothing():
    """As after a lost answer: the write was made, and is repeated."""
    request = request_money("a", calls=3, spent={DAY: PRICE}, held={DAY: PRICE})
    once, _ = exchange(request, Leases(), NOW)
    twice, grant = exchange(request, once, NOW)
    assert twice == once and grant.money == 3 * PRICE


def test_ending_a_lease_returns_what_no_call_holds():
    leases, _ = exchange(request_money("a", calls=10), Leases(), NOW)
    leases, _ = end_lease(LeaseRequest("a", renews=True, spent={DAY: PRICE}, held={DAY: 2 * PRICE}), leases, NOW)
    assert leases.spent == {DAY: 3 * PRICE} and leases.holders == {}
    assert exchange(request_money("b", calls=10), leases, NOW)[1].money == 7 * PRICE


def test_a_new_day_has_its_own_money_and_old_days_are_forgotten():
    leases, _ = exchange(request_money("a", calls=10), Leases(), MIDNIGHT - 0.001)
    leases, grant = exchange(request_money("b", calls=10), leases, MIDNIGHT)
    assert (grant.day, grant.money) == ("2025-11-22", 10 * PRICE)
    leases, _ = exchange(request_money("c"), leases, MIDNIGHT + 5 * 86400)
    assert set(leases.spent) == set()


class World:
    """Clients that share a document, make calls, die and come back; and the vendor's bill, apart from the document."""

    def __init__(self, seed: int, *, rate: Rate | None, cap_calls: int, failures: bool = True) -> None:
        self.failures = failures
        self.rng = random.Random(seed)
        self.now = MIDNIGHT - (self.rng.choice([5.0, 50_000.0]) if failures else 50_000.0)
        self.rate, self.cap = rate, cap_calls * PRICE
        self.leases = Leases()
        self.holders = [self.new() for _ in range(5)]
        self.open: list[tuple[LeaseClient, Permit, int]] = []
        self.sent: list[float] = []
        self.billed: dict[str, int] = {}

    def new(self) -> LeaseClient:
        return LeaseClient(self.rate, self.cap / 1e6, PRICE / 1e6)

    def step(self) -> None:
        holder = self.rng.choice(self.holders)
        actions = [self.exchange, self.send, self.end, self.wait, self.die, self.quit]
        self.rng.choices(actions, [20, 40, 20, 20, self.failures, 2 * self.failures])[0](holder)

    def exchange(self, holder: LeaseClient) -> None:
        request = holder.request(self.now, self.rng.choice([0, 1, 5, 40]), horizon=3.0)
        # While the exchange runs, calls are sent and end.
        changed, grant = exchange(request, self.leases, self.now)
        lost = self.failures and self.rng.random() < 0.1
        if not (lost and self.rng.random() < 0.5) and not grant.expired:
            self.leases = decode_leases("here", encode_leases(changed))
        for _ in range(self.rng.randint(0, 3)):
            self.rng.choice([self.send, self.end])(holder)
        if not lost:
            holder.apply(grant)

    def send(self, holder: LeaseClient) -> None:
        if holder.is_exhausted(self.now) or holder.wait(self.now) != 0:
            return
        permit = holder.take_permit()
        if self.rng.random() < 0.1:
            self.now += self.rng.choice([0.1, 30.0])
        if not holder.is_valid(permit, self.now):
            holder.settle(permit, 0.0)
            return
        self.sent.append(self.now)
        # Billed when it is sent: nothing may depend on when, or whether, the client learns of it.
        cost = self.rng.choice([0, PRICE, PRICE])
        self.billed[day_of(self.now)] = self.billed.get(day_of(self.now), 0) + cost
        self.open.append((holder, permit, cost))

    def end(self, holder: LeaseClient) -> None:
        mine = [number for number, entry in enumerate(self.open) if entry[0] is holder]
        if mine:
            _, permit, cost = self.open.pop(self.rng.choice(mine))
            holder.settle(permit, cost / 1e6)

    def die(self, holder: LeaseClient) -> None:
        self.holders[self.holders.index(holder)] = self.new()

    def quit(self, holder: LeaseClient) -> None:
        self.leases, _ = end_lease(holder.request(self.now, 0), self.leases, self.now)
        self.holders[self.holders.index(holder)] = self.new()

    def wait(self, holder: LeaseClient) -> None:
        self.now += self.rng.choices([0.01, 0.3, 1.0, 40.0, 70.0], [30, 30, 30, self.failures, self.failures])[0]

    def check_money(self) -> None:
        assert all(billed <= self.cap for billed in self.billed.values()), self.billed

    def check_rate(self) -> None:
        assert self.rate is not None
        sent = sorted(self.sent)
        for start, moment in enumerate(sent):
            assert bisect_left(sent, moment + self.rate.seconds) - start <= self.rate.calls


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32), cap_calls=st.integers(0, 60), rate=st.sampled_from([None, 100, 1200]))
def test_no_day_ever_costs_more_than_its_cap(seed: int, cap_calls: int, rate: int | None) -> None:
    world = World(seed, rate=Rate(rate) if rate else None, cap_calls=cap_calls)
    for _ in range(300):
        world.step()
        world.check_money()


def test_without_failures_a_day_is_spent_to_the_last_call() -> None:
    """The property above must not hold only because no calls are made."""
    world = World(7, rate=None, cap_calls=20, failures=False)
    for _ in range(1000):
        world.step()
    assert world.billed == {day_of(world.now): world.cap}
    assert all(holder.is_exhausted(world.now) for holder in world.holders)


class Busy(World):
    """Clients that never run out of money, and use their slots as late as allowed."""

    def send(self, holder: LeaseClient) -> None:
        if holder.slots and self.rng.random() < 0.5:
            assert self.rate is not None
            self.now = max(self.now, holder.slots[0] + self.rng.choice([0, 0.5, 1]) * self.rate.lateness - 1e-6)
        if holder.wait(self.now) == 0:
            self.open.append((holder, holder.take_permit(), 0))
            self.sent.append(self.now)

    def wait(self, holder: LeaseClient) -> None:
        self.now += self.rng.choice([0.0, 0.01, 0.3])


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), calls=st.sampled_from([1, 7, 60, 120, 600, 1200]))
def test_no_minute_ever_holds_more_calls_than_the_rate(seed: int, calls: int) -> None:
    world = Busy(seed, rate=Rate(calls, 60.0), cap_calls=10**6)
    for _ in range(400):
        world.step()
    world.check_rate()
