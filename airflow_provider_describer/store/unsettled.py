"""A store as tables: what the journal has not settled yet, as a table of its own, and the settled table.

So people's questions are asked of both in the same way. Plans ask a `StoreIndex`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder, LocalFolder
from airflow_provider_describer.store.journal import read_events
from airflow_provider_describer.store.settling import SETTLED_EVENTS
from airflow_provider_describer.store.shard import SETTLED, Event
from airflow_provider_describer.store.table import SettledTable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Truths = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

GROUP_EVENTS = 5000
"""Events of the journal that are in memory at a time, about 10 MB."""


@contextmanager
def open_tables(
    folder: Folder, see: Callable[[Event], object] = lambda event: None, damaged: list[StoreError] | None = None
) -> Iterator[list[SettledTable]]:
    """Yield the tables that hold all rows of a store, each as it was when it was read first; none of an empty store.

    A row that is being settled meanwhile may be in both. The journal's table is in a temporary folder.

    :param see: is called with each event of the journal, also with those of open calls.
    :param damaged: collects what cannot be read, and the rest is read. For diagnosis only.
    :raises StoreError: naming what cannot be read.
    """
    with TemporaryDirectory(prefix="describer-") as spool:
        # An event leaves the journal when the table has it, so the journal is read first.
        unsettled = SettledTable(LocalFolder(Path(spool)))
        add_unsettled(unsettled, read_events(folder, damaged), see)
        tables = [unsettled] if unsettled.exists else []
        try:
            if (settled := settled_table(folder)) is not None:
                tables.append(settled)
        except StoreError as error:
            if damaged is None:
                raise
            damaged.append(error)
        yield tables


def add_unsettled(
    table: SettledTable,
    events: Iterable[tuple[str, int, int, Event]],
    see: Callable[[Event], object] = lambda event: None,
) -> None:
    """Add the rows of what was read from the journal to a table of its own; ``see`` is called with each event."""
    group: list[Event] = []
    for _, _, _, event in events:
        see(event)
        if event["event"] in SETTLED_EVENTS:
            group.append(event)
        if len(group) == GROUP_EVENTS:
            table.add(group, is_new=True)
            group = []
    table.add(group, is_new=True)


def settled_table(folder: Folder) -> SettledTable | None:
    """Return a store's table, as it is now; None where nothing was settled yet.

    :raises StoreError: if it cannot be opened, or is gone.
    """
    # Before the table: another process may make both meanwhile.
    must_exist = folder.read(SETTLED) is not None
    table = SettledTable(folder, keeps_version=True)
    if table.exists:
        return table
    if must_exist:
        raise table.missing()
    return None


def read_tables(
    tables: Sequence[SettledTable], names: Sequence[str], condition: str | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield these columns of the rows that meet a condition of SQL, in batches: each time in the same order."""
    for table in tables:
        yield from table.batches(names, condition)


def only(batches: Iterable[pa.RecordBatch], wanted: Truths) -> Iterator[pa.RecordBatch]:
    """Yield those rows of the batches that are wanted, given one truth value for each row."""
    import pyarrow as pa

    start = 0
    for batch in batches:
        yield batch.filter(pa.array(wanted[start : start + batch.num_rows], pa.bool_()))
        start += batch.num_rows
