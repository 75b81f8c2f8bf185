"""Is the settled table whole: can all of it be read, do its keys fit its rows, do its indexes find every row?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.store import columns
from airflow_provider_describer.store.table import SettledTable
from airflow_provider_describer.store.table_version import present

if TYPE_CHECKING:
    import pyarrow as pa
ASKED = 20_000
"""Values that an index is asked for at a time."""
READ_ROWS = 4096


@dataclass(slots=True)
class TableCheck:
    """The result of `check_table`: ``rows`` that could be read, in ``files``."""

    rows: int = 0
    files: int = 0
    damaged: list[str] = field(default_factory=list)


def check_table(table: SettledTable) -> TableCheck:
    """Read every file and every column of a table, and ask its indexes for every value; what is damaged is collected.

    :raises StoreError: if the table cannot be opened.
    """
    found = TableCheck(damaged=list(map(str, table.damaged_files())))
    dataset = table.dataset()
    assert dataset is not None
    for fragment in dataset.get_fragments():
        found.files += 1
        with _collected(table, found):
            for batch in fragment.to_batches(columns=present(dataset.schema), batch_size=READ_ROWS):
                found.rows += batch.num_rows
                _check_keys(table, batch)
    with _collected(table, found):
        for index in dataset.describe_indices():
            with _collected(table, found):
                _check_index(table, dataset, index.field_names[0])
    return found


@contextmanager
def _collected(table: SettledTable, found: TableCheck) -> Iterator[None]:
    try:
        with table.errors("read"):
            yield
    except StoreError as error:
        if str(error) not in found.damaged:
            found.damaged.append(str(error))


def _check_keys(table: SettledTable, batch: pa.RecordBatch) -> None:
    for row in batch.select([*columns.MADE_FROM, columns.ROW_ID, *columns.INDEXED]).to_pylist():
        if wrong := [name for name, value in columns.derived(row).items() if row[name] != value]:
            raise StoreError(
                f"{table.where} is damaged: the row of the call {row['call']!r} has the wrong {', '.join(wrong)}, so a "
                "run would not find it and pay again. Restore it from a backup."
            )


def _check_index(table: SettledTable, dataset: Any, column: str) -> None:
    values = _sorted(dataset, column, f"{column} IS NOT NULL")
    start = 0
    while start < len(values):
        # All rows of one value are asked for at a time.
        end = int(values.searchsorted(values[min(start + ASKED, len(values)) - 1], "right"))
        asked = ",".join(map(str, sorted(set(values[start:end].tolist()))))
        found = _sorted(dataset, column, f"{column} IN ({asked})")
        if found.tolist() != values[start:end].tolist():
            raise StoreError(
                f"{table.where} is damaged: its index of {column} finds {len(found):,} of {end - start:,} rows, so a "
                "run would not find them and pay again. Restore it from a backup."
            )
        start = end


def _sorted(dataset: Any, column: str, condition: str) -> Any:
    import numpy as np

    return np.sort(dataset.scanner(columns=[column], filter=condition).to_table()[column].to_numpy())
