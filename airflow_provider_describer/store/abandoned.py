"""Shards of runs that have ended or died without settling them: the next run that opens the store does."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.cas_document import CasDocument, Changed
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.settling import has_ended_calls, settle_shards, shard_names
from airflow_provider_describer.store.shard import writer_of
from airflow_provider_describer.store.table import SettledTable

LOCK = "settling.json"
"""The lock's name, beside the claims."""
LOCKED_S = 60.0
"""A process that has locked the store for so long, in seconds, without a word is taken for dead."""


def settle_abandoned(
    folder: Folder,
    live_runs: Callable[[], Collection[str]],
    lock: CasDocument,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Settle the shards whose writers are not at work any more; return how many there were.

    One process at a time does it, and others wait for it, as a plan needs what it settles. The lock only saves work:
    two that settle the same shards do no harm.

    :param live_runs: returns the ids of the runs that may be at work; read after the shards were listed.
    :raises StoreError: naming what cannot be read or written.
    """
    table, settled = SettledTable(folder), 0
    while _abandoned(folder, live_runs):
        with contextlib.suppress(Changed), _locked(lock, clock) as renew:
            if renew is not None:
                settled += settle_shards(folder, table, lambda: _abandoned(folder, live_runs), renew, clock=clock)
                # What could not be maintained is maintained by a later run.
                with contextlib.suppress(StoreError):
                    table.maintain()
                return settled
        sleep(max(lock.poll_interval, 0.5))
    return settled


def _abandoned(folder: Folder, live_runs: Callable[[], Collection[str]]) -> list[str]:
    """Return the names of abandoned shards that are worth settling: several, or one with calls that have ended."""
    names = shard_names(folder)
    live = live_runs() if names else ()
    abandoned = [name for name in names if writer_of(name) not in live]
    return abandoned if len(abandoned) > 1 or has_ended_calls(folder, abandoned) else []


@contextmanager
def _locked(lock: CasDocument, clock: Callable[[], float]) -> Iterator[Callable[[], None] | None]:
    """Yield what renews the lock, or None where another process has it."""
    own, token = secrets.token_hex(6), None

    def renew(until: float | None = None) -> None:
        nonlocal token
        until = clock() + LOCKED_S if until is None else until
        token = lock.swap(json.dumps({"by": own, "until": until}).encode(), token)

    try:
        content, token = lock.load()
        if _until(content) > clock():
            yield None
            return
        renew()
    except Changed:
        yield None
        return
    try:
        yield renew
    finally:
        # A process that has taken the lock meanwhile keeps it.
        with contextlib.suppress(Changed, StoreError):
            renew(0.0)


def _until(content: bytes | None) -> float:
    try:
        return float(json.loads(content or b"{}").get("until", 0.0))
    except (ValueError, TypeError, AttributeError):
        return 0.0
