"""Descriptions as one file, for other programs: Parquet, CSV or JSON lines."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.storage.folder import sync_folder
from airflow_provider_describer.store.columns import iso
from airflow_provider_describer.store.description_store import shown_schema
from airflow_provider_describer.store.shard import json_line

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 4096
"""Rows that are written at a time, about 8 MB."""
NESTED = ("error",)
"""The columns that CSV leaves out; a description has none of them."""


class _Writer(Protocol):
    def write_batch(self, batch: pa.RecordBatch) -> object: ...

    def close(self) -> object: ...


def check_target(target: Path) -> None:
    """Make sure that a file of this name can be written, before anything is read.

    :raises BadInput: saying what is wrong with it.
    """
    if target.suffix not in _WRITERS:
        raise BadInput(
            f"{str(target)!r} does not say the format of the file; its name may end in {', '.join(_WRITERS)}."
        )
    if not target.parent.is_dir() or target.is_dir():
        what = "is a folder" if target.is_dir() else "is in no folder that exists on this machine"
        raise BadInput(f"{str(target)!r} {what}; give the name of a file in an existing folder.")


def export(batches: Iterable[pa.RecordBatch], target: Path) -> int:
    """Write rows as people are shown them to a file, in the format of its suffix; return their number.

    The file is there whole or not at all, and replaces what is there. Some thousand rows at a time are in memory.

    :raises StoreError: if it cannot be written.
    """
    hidden, count = target.with_name(f".{target.name}.{secrets.token_hex(4)}"), 0
    try:
        with _file_errors(target), hidden.open("xb") as file:
            with closing(_WRITERS[target.suffix](file)) as writer:
                for batch in _gathered(batches):
                    writer.write_batch(batch)
                    count += batch.num_rows
            file.flush()
            os.fsync(file.fileno())
        with _file_errors(target):
            hidden.rename(target)
            sync_folder(target.parent)
    finally:
        hidden.unlink(missing_ok=True)
    return count


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches that make good row groups of a Parquet file."""
    import pyarrow as pa

    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(one.num_rows for one in group) >= GROUP_ROWS:
            yield pa.concat_batches(group)
            group = []
    if group:
        yield pa.concat_batches(group)


@contextmanager
def _file_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error}.") from None


class _JsonLines:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write_batch(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            self._file.write(json_line(row | {"described_at": iso(row["described_at"])}))

    def close(self) -> None:
        """The file is closed by whoever has opened it."""


class _Csv:
    def __init__(self, file: IO[bytes]) -> None:
        import pyarrow as pa
        from pyarrow import csv

        schema = shown_schema()
        for name in NESTED:
            schema = schema.remove(schema.get_field_index(name))
        # CSV has no lists: the names of failed rules are one text.
        self._rules = schema.get_field_index("failed_rules")
        self._schema = schema.set(self._rules, schema.field(self._rules).with_type(pa.string()))
        self._writer = csv.CSVWriter(file, self._schema)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        from pyarrow import compute

        rules = compute.binary_join(batch.column("failed_rules"), "; ")
        chosen = batch.select(self._schema.names).set_column(self._rules, self._schema.field(self._rules), rules)
        self._writer.write_batch(chosen)

    def close(self) -> None:
        self._writer.close()


def _parquet(file: IO[bytes]) -> _Writer:
    from pyarrow import parquet

    writer: _Writer = parquet.ParquetWriter(file, shown_schema())
    return writer


_WRITERS = {".parquet": _parquet, ".csv": _Csv, ".jsonl": _JsonLines}
