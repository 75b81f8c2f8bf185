"""How many calls an account's day still pays for, as it stands before a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from airflow_provider_describer.account import Account
from airflow_provider_describer.quota.document import LeaseDocument, open_limits_document
from airflow_provider_describer.quota.lease_client import cap_of_day, micro_dollars
from airflow_provider_describer.quota.leases import Leases, day_of, expire_leases
from airflow_provider_describer.storage.open_bucket import OpenBucket


@dataclass(frozen=True, slots=True)
class DaysCalls:
    """How many calls the rest of the day's money pays for.

    ``is_set_aside`` tells that other tasks hold money for calls under way or to come. It counts as spent, though they
    may return some of it.
    """

    calls: int
    is_set_aside: bool = False


def calls_left_today(
    account: Account,
    open_bucket: OpenBucket | None = None,
    *,
    spent: float = 0.0,
    clock: Callable[[], float] = time.time,
) -> DaysCalls | None:
    """Return what the account's ``max_cost_per_day`` leaves; None where it has none.

    Blocking: where the account has a ``limits_path``, the shared document is read once. Nothing is written.

    :param spent: USD that the task has spent today; it counts where the task counts for itself.
    :raises BadConnection: where processes cannot share the ``limits_path``.
    :raises StoreError: where the document cannot be read.
    """
    if account.max_cost_per_day is None or account.price_per_call is None:
        return None
    now = clock()
    day = day_of(now)
    if account.limits_path:
        with closing(open_limits_document(account, open_bucket)) as document:
            leases = LeaseDocument(document, clock).read()
    else:
        leases = Leases(spent={day: micro_dollars(spent)})
    committed = leases.committed_on(day)
    left = max(0, cap_of_day(account.max_cost_per_day) - committed)
    is_set_aside = committed > expire_leases(leases, now).spent_on(day)
    return DaysCalls(left // max(1, micro_dollars(account.price_per_call)), is_set_aside)
