"""What a task allows itself; what its account allows is set on the connection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.models import format_usd
from airflow_provider_describer.quota.days_money import DaysCalls
from airflow_provider_describer.store.index import JournalIndex, Spending


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """What a task allows itself.

    :param concurrency: calls under way at a time.
    :param max_calls: billable calls, or None.
    :param max_cost: USD, or None.
    :param max_failure_ratio: share of the images that may be rejected; beyond it the run stops.
    :param max_lost_calls: calls for one image, over all runs, whose answers may be lost; then the image is held.
    :param slice_size: calls of this run alone, or None; ``max_calls`` and ``max_cost`` count the whole task instance.
    :param max_wait: seconds; a run that must wait longer ends with a `ResumeCondition`. None waits as long as it takes.
        With it calls are made in bursts of a minute's worth: one long wait instead of many short ones.
    """

    concurrency: int = 32
    max_calls: int | None = None
    max_cost: float | None = None
    max_failure_ratio: float = 0.1
    max_wait: float | None = None
    max_lost_calls: int = 2
    slice_size: int | None = None


def check_limits(limits: TaskLimits, account: Account) -> None:
    """Find limits that cannot work.

    :raises BadInput: naming the argument, or the connection's field that it needs.
    """
    if not 1 <= limits.concurrency <= 1024:
        raise BadInput(f"concurrency is {limits.concurrency!r}, expected a whole number from 1 to 1024.")
    if not 0 <= limits.max_failure_ratio <= 1:
        raise BadInput(f"max_failure_ratio is {limits.max_failure_ratio!r}, expected a share from 0 to 1.")
    if limits.max_lost_calls < 1:
        raise BadInput(f"max_lost_calls is {limits.max_lost_calls!r}, expected a whole number of 1 or more.")
    for name, limit in (("max_calls", limits.max_calls), ("max_cost", limits.max_cost)):
        if limit is not None and limit < 0:
            raise BadInput(f"{name} is {limit!r}, expected 0 or more, or None for no limit.")
    for name, limit in (("max_cost", limits.max_cost), ("max_cost_per_day", account.max_cost_per_day)):
        if limit is not None and account.price_per_call is None:
            raise BadInput(
                f"{name} needs to know what a call costs: set price_per_call (USD) on connection {account.conn_id!r} "
                "under Admin > Connections, as your plan charges it; or use max_calls, which needs no price."
            )


@dataclass(slots=True)
class Budget:
    """A task's calls and money, never exceeded by a single call: a call under way counts as spent.

    :param max_calls: billable calls, or None.
    :param max_cost: USD, or None.
    :param price: what a call is expected to cost at most, in USD; needed with ``max_cost``.
    :param slice_left: calls that this run may still make, or None.
    :param open_calls: ids of calls of earlier tries whose end is not known. ``calls`` has them; each counts as spent
        at ``open_price``, or else at the price.
    """

    max_calls: int | None = None
    max_cost: float | None = None
    price: float | None = None
    calls: int = field(default=0, kw_only=True)
    spent: float = field(default=0.0, kw_only=True)
    slice_left: int | None = field(default=None, kw_only=True)
    open_calls: set[str] = field(default_factory=set, kw_only=True)
    open_price: float | None = field(default=None, kw_only=True)
    under_way: int = field(default=0, init=False)

    @classmethod
    def of_task(
        cls,
        limits: TaskLimits,
        price: float | None,
        spending: Spending,
        attached: Iterable[str],
        highest_price: float | None = None,
    ) -> Self:
        """Return what is left to a task instance that has spent so much, in this try and in earlier ones.

        :param highest_price: of the connections that earlier calls may have been sent with; by default ``price``.
        :param attached: ids of running calls that this run is going to fetch, whoever has sent them.
        """
        budget = cls(
            limits.max_calls,
            limits.max_cost,
            price,
            calls=spending.calls + len(spending.open_calls),
            spent=spending.cost_usd + spending.unpriced * (highest_price or price or 0.0),
            open_price=highest_price,
            slice_left=limits.slice_size,
            open_calls=set(spending.open_calls),
        )
        for call in attached:
            budget.attach(call)
        return budget

    @property
    def committed(self) -> float:
        """USD that is spent, if each call that has not ended costs its price."""
        price = self.price or 0.0
        return self.spent + len(self.open_calls) * (self.open_price or price) + self.under_way * price

    def count_at_least(self, calls: int, spent: float) -> None:
        """Count so many calls and USD, if fewer are known."""
        self.calls, self.spent = max(self.calls, calls), max(self.spent, spent)

    def attach(self, call: str) -> None:
        """Reserve the cost of a call that was sent before and is fetched in this run."""
        if call in self.open_calls:
            self.open_calls.remove(call)
        else:
            self.calls += 1
        self.under_way += 1

    def learn(self, call: str, cost: float) -> None:
        """An open call of an earlier try has ended and has cost that much (USD)."""
        if call in self.open_calls:
            self.open_calls.remove(call)
            self.spent += cost
            self.calls -= not cost

    def take(self) -> bool:
        """Reserve one call; False where it might exceed a limit."""
        if self.is_used_up:
            return False
        self.calls += 1
        self.under_way += 1
        if self.slice_left is not None:
            self.slice_left -= 1
        return True

    @property
    def is_used_up(self) -> bool:
        """Whether one more call might exceed a limit, if each call under way costs its price."""
        return self.slice_left == 0 or self.is_task_used_up

    @property
    def is_task_used_up(self) -> bool:
        """The same without the limit of this run alone: no later slice of the task could make one more call."""
        return not (self._has_calls() and self._has_money(self.committed))

    def may_allow_later(self) -> bool:
        """Whether a call that is refused now may be allowed when calls under way turn out to be free."""
        return bool(self.under_way) and self.slice_left != 0 and self._has_calls() and self._has_money(self.spent)

    def give_back(self) -> None:
        """A reserved call was not made."""
        self.calls -= 1
        self.under_way -= 1
        if self.slice_left is not None:
            self.slice_left += 1

    def settle(self, cost: float) -> None:
        """A reserved call has ended and cost (or may have cost) that much. A higher price raises later reservations."""
        self.under_way -= 1
        self.spent += cost
        self.price = max(self.price or 0.0, cost) or self.price

    def _has_calls(self) -> bool:
        return self.max_calls is None or self.calls < self.max_calls

    def _has_money(self, committed: float) -> bool:
        """Whether one more call fits beside so much."""
        price = self.price or 0.0
        # A thousandth of a call: sums of 0.015 must not lose one to binary fractions.
        return self.max_cost is None or committed + price <= self.max_cost + price / 1000


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many further calls a limit allows, the limit with its value, and what it says of more, for people."""

    calls: int
    limit: str
    more: str = "allows no more"


def tightest(budget: Budget, limits: TaskLimits, days: Allowance | None = None) -> Allowance | None:
    """Return the limit that allows the fewest further calls, the one first that a run meets first; None without limits.

    Calls under way and requests that are fetched count at their price.

    :param days: what the account's day allows, if it has a limit.
    """
    found = []
    if budget.slice_left is not None:
        found.append(Allowance(budget.slice_left, f"slice_size ({limits.slice_size})"))
    if budget.max_calls is not None:
        found.append(Allowance(max(0, budget.max_calls - budget.calls), f"max_calls ({budget.max_calls})"))
    if budget.max_cost is not None and budget.price:
        # A thousandth of a call, as in `Budget`.
        left = max(0, int((budget.max_cost - budget.committed) / budget.price + 0.001))
        more = "allows no more if those still running are billed" if budget.under_way else "allows no more"
        found.append(Allowance(left, f"max_cost ({format_usd(budget.max_cost)})", more))
    if days is not None:
        found.append(days)
    return min(found, key=lambda allowance: allowance.calls, default=None)


def days_allowance(account: Account, left: DaysCalls | None) -> Allowance | None:
    """Return what the account's day allows, for people; None without a ``max_cost_per_day``."""
    if left is None:
        return None
    more = "allows no more today"
    if left.is_set_aside:
        more += " if other tasks spend what they have set aside"
    return Allowance(left.calls, name_of_days_limit(account), more)


def name_of_days_limit(account: Account) -> str:
    """Return the account's ``max_cost_per_day`` with its value and its connection."""
    return f"max_cost_per_day ({format_usd(account.max_cost_per_day)}) of connection {account.conn_id!r}"


def spent_today(index: JournalIndex, price: float | None, now: float, *, vendor: str = "", conn_id: str = "") -> float:
    """Return what a task instance has spent on this UTC day, in USD; an open call counts at its price.

    :param now: epoch seconds.
    :param vendor: count only its calls, of a chain of connections; as `JournalIndex.spending`, like ``conn_id``.
    """
    spending = index.spending(now - now % 86400, vendor, conn_id)
    return spending.cost_usd + (spending.unpriced + len(spending.open_calls)) * (price or 0.0)


def used_up(budget: Budget, limits: TaskLimits) -> str:
    """Return the task's limit, with its value, that allows no further call."""
    reached = tightest(budget, limits)
    return reached.limit if reached else "The task's budget"
