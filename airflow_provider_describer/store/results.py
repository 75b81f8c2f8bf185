"""The result files of one task instance: a row for every image it was asked about, and the failed ones once more."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, get_args

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.parquet import require_pyarrow, write_parquet
from airflow_provider_describer.store.rows import Row, TaskInstanceKey

ResultsFormat = Literal["jsonl", "parquet"]


def check_results_format(form: object) -> None:
    """Make sure that result files can be written so, before a run and not at its end.

    :raises BadInput: for a format that there is not, or one whose library is missing.
    """
    if form not in get_args(ResultsFormat):
        raise BadInput(f"results_format is {form!r}, expected one of {', '.join(get_args(ResultsFormat))}.")
    if form == "parquet":
        require_pyarrow()


class ResultFiles:
    """``results/<dag_id>/<run_id>/<task_id>[-<map_index>].jsonl`` and ``….failures.jsonl`` below the store.

    Rows are gathered in a temporary file of this machine and published whole when the run ends, however it ends; the
    journal is what survives a kill. A later try of the same task instance replaces the files.

    :param form: ``parquet`` for ``….parquet`` and ``….failures.parquet``.
    """

    def __init__(self, folder: Folder, run: TaskInstanceKey, form: ResultsFormat = "jsonl") -> None:
        self._folder = folder
        self._form = form
        path = run.path("results")
        self._names = (f"{path}.{form}", f"{path}.failures.{form}")
        self._open = ExitStack()
        self._spools: list[IO[str]] = []

    @property
    def results(self) -> str:
        """Where every row will be."""
        return self._folder.where(self._names[0])

    @property
    def failures(self) -> str:
        """Where the rows of images without a description will be."""
        return self._folder.where(self._names[1])

    def __enter__(self) -> Self:
        for _ in self._names:
            spool = tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".jsonl")  # closed by the stack
            self._spools.append(self._open.enter_context(spool))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            for spool, name in zip(self._spools, self._names, strict=True):
                with _named(spool):
                    spool.flush()
                self._publish(Path(spool.name), name)

    def _publish(self, lines: Path, name: str) -> None:
        if self._form == "jsonl":
            self._folder.publish(lines, name)
            return
        with tempfile.NamedTemporaryFile(suffix=".parquet") as table:
            with _named(table):
                write_parquet(lines, Path(table.name))
            self._folder.publish(Path(table.name), name)

    def write(self, row: Row) -> None:
        """Add a row, and to the failures too where the image has no description.

        :raises StoreError: where the temporary file cannot be written.
        """
        line = row.to_line()
        for spool in self._spools if row.status not in ("described", "reused") else self._spools[:1]:
            with _named(spool):
                spool.write(line)

    def write_all(self, rows: Iterable[Row]) -> None:
        """Add many rows."""
        for row in rows:
            self.write(row)


@contextmanager
def _named(spool: IO[Any]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"The temporary file {spool.name} of the results cannot be written: {error}.") from None
