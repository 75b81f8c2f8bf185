"""The result files of one task instance: a row for every image it was asked about, and the failed ones once more."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO, Self

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.images.reading import local_path
from airflow_provider_describer.images.reference import Ask
from airflow_provider_describer.store.rows import Row, Run


def store_folder(store: str | os.PathLike[str]) -> Path:
    """Return the local folder that ``store`` names.

    :raises BadInput: for a blank or unsupported one.
    """
    name = os.fspath(store)
    if not name.strip():
        raise BadInput("store is blank, expected a folder; leave it out to have results inline in XCom.")
    path = local_path(name) if name.startswith("file://") or "://" not in name else None
    if path is None:
        raise BadInput(f"store is {name!r}; this version stores descriptions in local folders and file:// only.")
    if path.exists() and not path.is_dir():
        raise BadInput(f"store is {name!r}, which is a file; expected a folder, or a name for a new one.")
    return path


class ResultFiles:
    """``results/<dag_id>/<run_id>/<task_id>[-<map_index>].jsonl`` and ``….failures.jsonl`` below the store.

    Every row is handed to the operating system as soon as it is known, so that a killed process loses none. What an
    earlier try has left is kept beside, as ``….try1.jsonl`` and so on.
    """

    def __init__(self, store: str | os.PathLike[str], run: Run) -> None:
        folder = store_folder(store) / "results" / _part(run.dag_id or "no_dag") / _part(run.run_id or "no_run")
        name = _part(run.task_id or "no_task") + (f"-{run.map_index}" if run.map_index >= 0 else "")
        self.results = folder / f"{name}.jsonl"
        self.failures = folder / f"{name}.failures.jsonl"
        self._files: list[IO[str]] = []

    def __enter__(self) -> Self:
        try:
            self.results.parent.mkdir(parents=True, exist_ok=True)
            for path in (self.results, self.failures):
                _keep_earlier(path)
                self._files.append(path.open("x", encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"store cannot be written: {error}. Nothing has been called.") from None
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def write(self, _: Ask, row: Row) -> None:
        """Add a row, and to the failures too where the image has no description."""
        line = row.to_line()
        for file in self._files if row.status not in ("described", "reused") else self._files[:1]:
            file.write(line)
            file.flush()


def _keep_earlier(path: Path) -> None:
    if path.exists():
        number = 1
        while (kept := path.with_name(f"{path.name.removesuffix('.jsonl')}.try{number}.jsonl")).exists():
            number += 1
        path.rename(kept)


def _part(name: str) -> str:
    """A path's part that is always one folder below: no slash, and neither '.' nor '..'."""
    return re.sub(r"[/\\\0]", "_", name) if name.strip(".") else name.replace(".", "_")
