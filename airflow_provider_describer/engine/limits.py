"""What a task allows itself; what its account allows stands on the connection."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import BadInput


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """What a task allows itself.

    :param concurrency: calls under way at a time.
    :param max_calls: billable calls, or None.
    :param max_cost: USD, or None.
    :param max_failure_ratio: share of the images that may be rejected; past it the run stops.
    :param max_wait: seconds; a run that must wait longer ends with a `Wait`, for whoever resumes it. None waits as
        long as it takes. With it calls are made in bursts of a minute's worth: one long wait for many short ones.
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
                f"{name} needs to know what a call costs: set price_per_call (USD) on connection {account.conn_id!r}."
            )
