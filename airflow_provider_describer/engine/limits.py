"""What a task allows itself; what its account allows is set on the connection."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.models import format_usd


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """What a task allows itself.

    :param concurrency: calls under way at a time.
    :param max_calls: billable calls, or None.
    :param max_cost: USD, or None.
    :param max_failure_ratio: share of the images that may be rejected; beyond it the run stops.
    :param max_wait: seconds; a run that must wait longer ends with a `ResumeCondition`. None waits as long as it takes.
        With it calls are made in bursts of a minute's worth: one long wait instead of many short ones.
    """

    concurrency: int = 32
    max_calls: int | None = None
    max_cost: float | None = None
    max_failure_ratio: float = 0.1
    max_wait: float | None = None


def check_limits(limits: TaskLimits, account: Account) -> None:
    """Find limits that cannot work.

    :raises BadInput: naming the argument, or the connection's field that it needs.
    """
    if not 1 <= limits.concurrency <= 1024:
        raise BadInput(f"concurrency is {limits.concurrency!r}, expected a whole number from 1 to 1024.")
    if not 0 <= limits.max_failure_ratio <= 1:
        raise BadInput(f"max_failure_ratio is {limits.max_failure_ratio!r}, expected a share from 0 to 1.")
    for name, limit in (("max_calls", limits.max_calls), ("max_cost", limits.max_cost)):
        if limit is not None and limit < 0:
            raise BadInput(f"{name} is {limit!r}, expected 0 or more, or None for no limit.")
    for name, limit in (("max_cost", limits.max_cost), ("max_cost_per_day", account.max_cost_per_day)):
        if limit is not None and account.price_per_call is None:
            raise BadInput(
                f"{name} needs to know what a call costs: set price_per_call (USD) on connection {account.conn_id!r} "
                "under Admin > Connections, as your plan charges it; or use max_calls, which needs no price."
            )


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many calls a limit still allows, and the limit with its value, for people."""

    calls: int
    limit: str


def tightest(limits: TaskLimits, account: Account, calls: int = 0, spent: float = 0.0) -> Allowance | None:
    """Return the limit of the task or its account that allows the fewest further calls; None if there is no limit.

    :param calls: made so far.
    :param spent: USD so far.
    """
    found = []
    if limits.max_calls is not None:
        found.append(Allowance(max(0, limits.max_calls - calls), f"max_calls ({limits.max_calls})"))
    for cost, limit in ((limits.max_cost, "max_cost"), (account.max_cost_per_day, "max_cost_per_day")):
        if cost is not None and account.price_per_call:
            # A thousandth of a call, as in `Budget`.
            left = max(0, int((cost - spent) / account.price_per_call + 0.001))
            where = f" of connection {account.conn_id!r}" if limit == "max_cost_per_day" else ""
            found.append(Allowance(left, f"{limit} ({format_usd(cost)}){where}"))
    return min(found, key=lambda allowance: allowance.calls, default=None)


@dataclass(slots=True)
class Budget:
    """A task's calls and money, never exceeded by a single call: a call under way counts as spent.

    :param max_calls: billable calls, or None.
    :param max_cost: USD, or None.
    :param price: what a call is expected to cost at most, in USD; needed with ``max_cost``.
    """

    max_calls: int | None = None
    max_cost: float | None = None
    price: float | None = None
    calls: int = field(default=0, kw_only=True)
    spent: float = field(default=0.0, kw_only=True)
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
        """Whether a call that is refused now may be allowed when calls under way turn out to be free."""
        if not self.under_way or (self.max_calls is not None and self.calls >= self.max_calls):
            return False
        return self.max_cost is None or self.spent < self.max_cost

    def give_back(self) -> None:
        """A reserved call was not made."""
        self.calls -= 1
        self.under_way -= 1

    def settle(self, cost: float) -> None:
        """A reserved call has ended and cost (or may have cost) that much. A higher price raises later reservations."""
        self.under_way -= 1
        self.spent += cost
        self.price = max(self.price or 0.0, cost) or self.price
