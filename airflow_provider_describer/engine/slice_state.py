"""What the pokes and tries of one task instance leave in the store for those that follow."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from airflow_provider_describer.engine.deferral import CarriedTotals
from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.journal import read_events
from airflow_provider_describer.store.rows import TaskInstanceKey


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
    """Remove what the pokes of a task instance that is done have written down."""
    folder.delete(_name(run))


def described_before(folder: Folder, run: TaskInstanceKey) -> int:
    """Return how many images earlier tries of this task instance have had described; reads the journal.

    :raises StoreError: where it cannot be read.
    """
    instance = (run.dag_id, run.run_id, run.task_id, run.map_index)
    return sum(
        event["event"] == "outcome"
        and event["status"] == "described"
        and (event["dag_id"], event["run_id"], event["task_id"], event["map_index"]) == instance
        and event["try_number"] < run.try_number
        for _, _, _, event in read_events(folder)
    )


def _name(run: TaskInstanceKey) -> str:
    return f"{run.path('slices')}.json"
