"""A store for people: the current description of each image, and all that an image ever had, as Arrow tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.storage.address import masked
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import bucket_from_environment
from airflow_provider_describer.store import columns
from airflow_provider_describer.store.shard import FOLDER
from airflow_provider_describer.store.table import NAME, SettledTable
from airflow_provider_describer.store.unsettled import only, open_tables, read_tables

if TYPE_CHECKING:
    import pyarrow as pa

    from airflow_provider_describer.store.unsettled import Truths

IMAGE = ("uri", "lang")
"""Of each of these, one description is the current one."""
DATED = (*IMAGE, "key_1", "described_at", "call_key")
"""What is read to find it."""


def existing_folder(path: str) -> Folder:
    """Return the folder of the existing store at a path; a bucket is opened with the environment's credentials.

    :raises BadInput: if there is neither a journal nor a table.
    """
    # Relative to where the command is typed; a task's store is not.
    typed = Path(path).absolute() if path.strip() and "://" not in path else path
    return check_store(open_folder(typed, bucket_from_environment), path)


def check_store(folder: Folder, path: str) -> Folder:
    """Return the folder of a store that exists.

    :param path: what was given for it, for the message.
    :raises BadInput: if there is neither a journal nor a table.
    """
    if not folder.names(FOLDER) and not folder.names(f"{NAME}/_versions"):
        is_journal = os.path.basename(path.rstrip("/")) == FOLDER  # noqa: PTH119  # may be an address
        hint = "give the folder above it" if is_journal else "give the folder that the task names as its store"
        raise BadInput(f"{path!r} is no description store: there is nothing in {folder.where(FOLDER)}; {hint}.")
    return folder


class DescriptionStore:
    """What a store knows of its images: what was settled, and what is still in the journal. It changes nothing.

    Blocking. Every failure is a `StoreError` that names what cannot be read. See docs/store.md for the columns.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"DescriptionStore({self._folder.where()!r})"

    def current(
        self, *, prompt: str | None = None, lang: str | None = None, vendor: str | None = None, model: str | None = None
    ) -> pa.Table:
        """Return the current description of each image: for each uri and language, the one that was made last.

        Where several prompts, vendors or models are in use at once, name the one that is meant; otherwise the newest
        of all of them is returned. An image of which a newer version was rejected keeps the description that it has. An
        image that was reused under another name is listed under the name under which it was described. A text that a
        reviewer has edited takes the place of the vendor's; one that a reviewer has rejected is left out. The rows come
        in no particular order. `current_batches` returns the same in bounded memory.
        """
        import pyarrow as pa

        return pa.Table.from_batches(
            self.current_batches(prompt=prompt, lang=lang, vendor=vendor, model=model), shown_schema()
        )

    def current_batches(
        self, *, prompt: str | None = None, lang: str | None = None, vendor: str | None = None, model: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield what `current` returns, in batches. Only the names of the images are in memory at once."""
        wanted = {"status": "described", "prompt": prompt, "lang": lang, "vendor": vendor, "model": model}
        condition = " AND ".join(one_of(name, [value]) for name, value in wanted.items() if value is not None)
        with open_tables(self._folder) as tables:
            withdrawn = Withdrawn(read_tables(tables, DATED, "status = 'withdrawn'"))
            newest = newest_of_each(read_tables(tables, DATED, condition), withdrawn.spares)
            yield from only(read_tables(tables, columns.SHOWN, condition), newest)

    def history(self, uri: str) -> pa.Table:
        """Return all calls that have ended for an image, the newest last: each with its text, its prompt and its cost.

        These are the calls for this uri, and those for the same content under any other name. A row with the status
        ``lost`` is a call without an answer, which may have been paid for; another one has followed it. For an image
        that the store does not know the table is empty. It reads no texts but those that it returns.

        :param uri: of the image, as tasks list it; the query of a web address makes no difference.
        """
        import pyarrow as pa

        with open_tables(self._folder) as tables:
            return pa.Table.from_pylist(history_in(tables, uri), shown_schema())


def history_in(tables: Sequence[SettledTable], uri: str) -> list[dict[str, Any]]:
    """Return the rows of `DescriptionStore.history`, with some further columns."""
    names = [*columns.SHOWN, columns.ROW_ID, "identities"]
    rows: dict[str, dict[str, Any]] = {}

    def find(condition: str) -> None:
        for batch in read_tables(tables, names, condition) if condition else ():
            rows.update((row[columns.ROW_ID], row) for row in batch.to_pylist())

    find(one_of("uri", [columns.plain(masked(uri))]))
    keys = {columns.key_of(identity) for row in rows.values() for identity in row["identities"]}
    for column in columns.KEY_COLUMNS:
        find(one_of(column, keys))
    find(one_of("sha256", {row["sha256"] for row in rows.values() if row["sha256"]}))
    shown = [row for row in rows.values() if row["status"] != "same"]
    return sorted(shown, key=lambda row: (row["described_at"], row["call"], row["status"]))


def shown_schema() -> pa.Schema:
    """Return the schema of what people are shown; imports pyarrow."""
    import pyarrow as pa

    schema = columns.schema()
    return pa.schema([schema.field(name) for name in columns.SHOWN])


class Withdrawn:
    """The descriptions that reviewers have rejected, from rows of `DATED`."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._until: dict[int | tuple[str, str], datetime] = {}
        for batch in batches:
            for row in batch.to_pylist():
                name = name_of(row)
                self._until[name] = max(row["described_at"], self._until.get(name, row["described_at"]))

    def spares(self, rows: pa.Table) -> Truths:
        """Return for each row of `DATED` whether it was described after the last rejection of its image's text."""
        import numpy as np
        import pyarrow as pa
        from pyarrow import compute

        spared = np.ones(len(rows), dtype=bool)
        if self._until:
            keys = pa.array([name for name in self._until if isinstance(name, int)], pa.int64())
            named = compute.or_(compute.is_in(rows["key_1"], value_set=keys), compute.is_null(rows["key_1"]))
            for position, row in zip(np.flatnonzero(named.to_numpy()), rows.filter(named).to_pylist(), strict=True):
                until = self._until.get(name_of(row))
                spared[position] = until is None or row["described_at"] > until
        return spared


def name_of(row: dict[str, Any]) -> int | tuple[str, str]:
    """Return what a description is known by; an image that only its vendor has seen has no identity."""
    name: int | None = row["key_1"]
    return (row["uri"], row["lang"]) if name is None else name


def newest_of_each(batches: Iterable[pa.RecordBatch], spares: Callable[[pa.Table], Truths] | None = None) -> Truths:
    """Return for each row of `DATED` whether it is the newest of its image, of those that are spared."""
    import numpy as np
    import pyarrow as pa

    parts = list(batches)
    if not parts:
        return np.zeros(0, bool)
    table = pa.Table.from_batches(parts)
    newest = np.zeros(len(table), dtype=bool)
    order = table.select(["described_at", "call_key"]).append_column("position", pa.array(np.arange(len(table))))
    if spares is not None:
        order = order.filter(pa.array(spares(table)))
    order = order.sort_by([("described_at", "ascending"), ("call_key", "ascending"), ("position", "ascending")])
    positions = order["position"]
    images = table.select(IMAGE).take(positions).append_column("position", positions)
    # "last" is the last of the order only without threads.
    last = images.group_by(list(IMAGE), use_threads=False).aggregate([("position", "last")])
    newest[last["position_last"].to_numpy()] = True
    return newest


def one_of(column: str, values: Iterable[str | int]) -> str:
    """Return the condition of SQL that a column has one of these values; empty without a value."""
    texts = ", ".join(map(literal, values))
    return f"{column} IN ({texts})" if texts else ""


def literal(value: str | int) -> str:
    """Return a value as SQL has it; of a text, every character stands for itself."""
    return "'{}'".format(value.replace("'", "''")) if isinstance(value, str) else str(value)
