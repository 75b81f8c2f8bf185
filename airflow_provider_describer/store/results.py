"""The result files of one task instance: all rows in one file, the rows without a description in another."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, Self, get_args

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.columns import column_types, json_texts
from airflow_provider_describer.store.rows import Row, TaskInstanceKey, row_fields

ResultsFormat = Literal["jsonl", "parquet"]
GROUP_ROWS = 2000
"""Rows in one row group of a Parquet file, about 4 MB of JSON; one group at a time is in memory."""


def check_results_format(results_format: object) -> None:
    """Make sure that result files can be written in this format, before a run and not at its end.

    :raises BadInput: for an unknown format, or one whose library is missing.
    """
    if results_format not in get_args(ResultsFormat):
        raise BadInput(f"results_format is {results_format!r}, expected one of {', '.join(get_args(ResultsFormat))}.")
    if results_format == "parquet" and find_spec("pyarrow") is None:
        raise BadInput(
            "results_format='parquet' needs pyarrow: pip install 'airflow-provider-describer[parquet]' on the workers, "
            "or leave results_format out."
        )


class ResultFiles:
    """``results/<dag_id>/<run_id>/<task_id>[-<map_index>].jsonl`` and ``….failures.jsonl`` in the store.

    Rows are collected in temporary files of this machine, which are published whole on exit, also after an error. (The
    journal is what survives a kill.) A later try of the same task instance replaces the files.

    :param results_format: ``parquet`` for ``….parquet`` and ``….failures.parquet``.
    """

    def __init__(self, folder: Folder, task: TaskInstanceKey, results_format: ResultsFormat = "jsonl") -> None:
        self._folder = folder
        self._format = results_format
        path = task.path("results")
        self._names = (f"{path}.{results_format}", f"{path}.failures.{results_format}")
        self.results, self.failures = map(folder.where, self._names)
        """The addresses of the file with every row, and of the file with the rows that have no description."""
        self._stack = ExitStack()
        self._temporary: list[IO[str]] = []

    def __enter__(self) -> Self:
        for _ in self._names:
            file = tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".jsonl")  # closed by the stack
            self._temporary.append(self._stack.enter_context(file))
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            for file, name in zip(self._temporary, self._names, strict=True):
                with _store_errors(file):
                    file.flush()
                self._publish(Path(file.name), name)

    def _publish(self, lines: Path, name: str) -> None:
        if self._format == "jsonl":
            self._folder.publish(lines, name)
            return
        with tempfile.NamedTemporaryFile(suffix=".parquet") as table:
            with _store_errors(table):
                write_parquet(lines, Path(table.name))
            self._folder.publish(Path(table.name), name)

    def write(self, row: Row) -> None:
        """Add a row to the results, and to the failures if the image has no description.

        :raises StoreError: if the temporary file cannot be written.
        """
        line = row.to_line()
        for file in self._temporary if row.status not in ("described", "reused") else self._temporary[:1]:
            with _store_errors(file):
                file.write(line)


@contextmanager
def _store_errors(file: IO[Any]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"The temporary file {file.name} of the results cannot be written: {error}.") from None


def write_parquet(lines: Path, target: Path) -> None:
    """Write rows, given as a file of JSON lines, to a Parquet file; its columns are in the order of `Row`'s fields.

    :raises OSError: if one file cannot be read or the other cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    types = column_types()
    schema = pa.schema({name: types.get(name, pa.string()) for name in row_fields()})
    with lines.open("rb") as rows, parquet.ParquetWriter(target, schema) as writer:
        while group := [_typed(line) for line in islice(rows, GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(group, schema))


def _typed(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)
    row["described_at"] = datetime.fromisoformat(row["described_at"])
    row |= json_texts(row)
    if error := row["error"]:
        # A lone surrogate in an image's name: JSON can hold it, Parquet cannot.
        row["error"] = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in error.items()}
    return row
