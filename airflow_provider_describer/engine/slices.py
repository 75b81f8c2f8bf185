"""A long job in slices: what one of them may do, and whether another one could do more. Decides; waits nowhere."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_describer.account import Account
from airflow_provider_describer.arguments import parse_int
from airflow_provider_describer.engine.deferral import FETCH_WITHIN_S, CarriedTotals
from airflow_provider_describer.engine.job import Outcome
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.pacing import Budget
from airflow_provider_describer.errors import BadInput, DescriberError, RateLimited, Unfinished, VendorUnavailable

PATIENCE_S = 15.0
"""A slice sits out waits of so many seconds; a longer one ends it."""


def check_slices(slice_size: int, longest_pause: float, account: Account) -> None:
    """Find slices that cannot work.

    :param longest_pause: seconds between two of them at most.
    :raises BadInput: naming the argument.
    """
    if parse_int("slice_size", slice_size, 1) is None:
        raise BadInput(f"slice_size is {slice_size!r}, expected a whole number of 1 or more.")
    if account.api_version == "v2" and longest_pause > FETCH_WITHIN_S:
        raise BadInput(
            f"Up to {longest_pause:.0f} s may lie between two pokes, but the vendor's v2 forgets what a request has "
            f"brought, and cost, within an hour: expected a poke_interval (with exponential_backoff, a max_wait) of "
            f"{FETCH_WITHIN_S:.0f} s at most, or api_version v1 on connection {account.conn_id!r}."
        )


def slice_of(limits: TaskLimits, slice_size: int, carried: CarriedTotals | None) -> TaskLimits:
    """Return the limits of the next slice of a job that has ``limits``.

    :param slice_size: calls that the slice may make.
    """
    calls = slice_size + (carried.calls if carried else 0)
    if limits.max_calls is not None:
        calls = min(calls, limits.max_calls)
    return replace(limits, max_calls=calls, max_wait=PATIENCE_S)


def is_transient(error: DescriberError) -> bool:
    """Whether a slice that has ended so says nothing against the next one."""
    return isinstance(error, RateLimited | VendorUnavailable | Unfinished)


def goes_on(outcome: Outcome, limits: TaskLimits, part: TaskLimits, account: Account) -> bool:
    """Return whether a further slice could describe more.

    :param limits: of the whole job, which are not exceeded; where they are used up, the job is done.
    :param part: of the slice that has brought this outcome.
    """
    if outcome.wait is not None or outcome.error is not None:
        return True
    if not outcome.manifest["counts"]["pending"]:
        return False
    budget = Budget(limits.max_calls, limits.max_cost, account.price_per_call)
    budget.calls = outcome.carried.calls
    budget.spent = (outcome.manifest["cost_usd"] or 0.0) + outcome.manifest["unknown_cost_usd"]
    if not budget.take():
        return False
    # Otherwise it was the day's budget: one that is shared is a new one tomorrow.
    return outcome.carried.calls >= (part.max_calls or 0) or account.limits_path is not None
