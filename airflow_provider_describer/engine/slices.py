"""A long job in slices: what the next one may do, whether it could do more, and what it must know of earlier ones."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from airflow_provider_describer.account import Account
from airflow_provider_describer.arguments import parse_whole
from airflow_provider_describer.engine.deferral import FETCH_WITHIN_S, CarriedTotals
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.progress import Outcome
from airflow_provider_describer.errors import (
    BadInput,
    DescriberError,
    RetryLater,
    StoreError,
    Unfinished,
)
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.columns import call_key
from airflow_provider_describer.store.journal import read_events
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.table import SettledTable
from airflow_provider_describer.vendors import get_vendor

MAX_WAIT_S = 15.0
"""A longer wait ends the slice."""


def check_slices(slice_size: int, longest_pause: float, account: Account) -> None:
    """Find slices that cannot work.

    :param longest_pause: seconds between two pokes at most.
    :raises BadInput: naming the argument.
    """
    parse_whole("slice_size", slice_size, 1)
    if get_vendor(account.vendor).runs_in_background(account) and longest_pause > FETCH_WITHIN_S:
        raise BadInput(
            f"Up to {longest_pause:.0f} s may lie between two pokes, but the vendor's v2 forgets the result and the "
            f"cost of a request within an hour: expected a poke_interval (with exponential_backoff, a max_wait) of "
            f"{FETCH_WITHIN_S:.0f} s at most, or api_version v1 on connection {account.conn_id!r}."
        )


def slice_of(limits: TaskLimits, slice_size: int) -> TaskLimits:
    """Return the limits of the next slice, of at most ``slice_size`` calls, of a job that has ``limits``."""
    return replace(limits, slice_size=slice_size, max_wait=MAX_WAIT_S)


def is_transient(error: DescriberError) -> bool:
    """Whether the next slice may succeed where one has ended with this error."""
    return isinstance(error, RetryLater | Unfinished)


def goes_on(outcome: Outcome, account: Account) -> bool:
    """Return whether a further slice could describe more; the job is done when its own limits are used up."""
    if outcome.resume_condition is not None or outcome.error is not None:
        return True
    left = outcome.manifest["counts"]["pending"] - outcome.skipped + outcome.second_tries_left
    if left <= 0 or outcome.budget.is_task_used_up:
        return False
    # Otherwise the slice ended on the day's budget: a shared one is renewed tomorrow.
    return outcome.budget.slice_left == 0 or account.limits_path is not None


def save_totals(folder: Folder, run: TaskInstanceKey, carried: CarriedTotals) -> None:
    """Write down what this try has done, for its next poke.

    :raises StoreError: where it cannot be written.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as spool:
        json.dump({"try_number": run.try_number, "carried": carried.to_dict()}, spool)
        spool.flush()
        folder.publish(Path(spool.name), _name(run))


def load_totals(folder: Folder, run: TaskInstanceKey) -> CarriedTotals | None:
    """Return what earlier pokes of this try have done; None at the first one.

    :raises StoreError: where it cannot be read: without it a task could spend more than it may.
    """
    name = _name(run)
    content = folder.read(name)
    if content is None:
        return None
    try:
        kept = json.loads(content)
        return CarriedTotals.from_dict(kept["carried"]) if kept["try_number"] == run.try_number else None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{folder.where(name)} is damaged ({type(error).__name__}: {error}). Remove it: the task then counts its "
            "calls from there on."
        ) from None


def clear_totals(folder: Folder, run: TaskInstanceKey) -> None:
    """Remove what the pokes of a finished task instance have written down."""
    folder.delete(_name(run))


def described_before(folder: Folder, run: TaskInstanceKey) -> int:
    """Return how many images earlier tries of this task instance have had described; reads the journal.

    :raises StoreError: where it cannot be read.
    """
    instance = (run.dag_id, run.run_id, run.task_id, run.map_index)
    unsettled = {
        call_key(event["call"]): event["try_number"]
        for _, _, _, event in read_events(folder)
        if event["event"] == "outcome"
        and event["status"] == "described"
        and (event["dag_id"], event["run_id"], event["task_id"], event["map_index"]) == instance
    }
    rows = SettledTable(folder).spent_by(run.instance)
    settled = {row["call_key"]: row["try_number"] for row in rows if row["status"] == "described"}
    return sum(try_number < run.try_number for try_number in (unsettled | settled).values())


def _name(run: TaskInstanceKey) -> str:
    return f"{run.path('slices')}.json"
