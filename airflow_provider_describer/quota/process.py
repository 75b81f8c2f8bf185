"""The limits of single calls that no task counts: a connection's hooks in this process share them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from airflow_provider_describer.account import Account
from airflow_provider_describer.quota.shared import SharedLimits, limits_over, open_quota
from airflow_provider_describer.storage.cas_document import MemoryDocument
from airflow_provider_describer.storage.open_bucket import OpenBucket

_documents: dict[Hashable, MemoryDocument] = {}
_documents_lock = threading.Lock()


def open_process_quota(
    account: Account, open_bucket: OpenBucket | None = None, *, clock: Callable[[], float] = time.time
) -> SharedLimits:
    """Return the account's limits for one call: shared as `open_quota` says, or else by all such calls of this process.

    :raises BadConnection: where processes cannot share its ``limits_path``.
    """
    if account.limits_path or not (account.requests_per_minute or account.max_cost_per_day):
        return open_quota(account, open_bucket, clock=clock)
    who = (account.vendor, account.conn_id, account.base_url, account.api_key)
    with _documents_lock:
        document = _documents.setdefault(
            (*who, account.requests_per_minute, account.max_cost_per_day), MemoryDocument()
        )
    return limits_over(account, document, in_process=True, clock=clock)
