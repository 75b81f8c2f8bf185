"""The settled table: what the calls of a store have led to, one row for each call that has ended, found by identity.

It is a Lance table, ``descriptions.lance`` in the store. This is the only file that imports Lance: where a store is
opened, never before a task has its own process, as Lance does not survive a fork.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.errors import CorruptShard, StoreError
from airflow_provider_describer.storage.folder import Folder, Location
from airflow_provider_describer.store import columns
from airflow_provider_describer.store.checksums import Checksums
from airflow_provider_describer.store.table_version import check_version, is_old, present, upgrade, with_columns

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from lance import LanceDataset, LanceFragment

    Places = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

NAME = "descriptions.lance"
BLOCK_BYTES = 4 * 1024 * 1024
"""Reads that are closer together than this are one request: an object store's requests cost more than its bytes."""
INDEX_CACHE_BYTES = METADATA_CACHE_BYTES = 8 * 1024 * 1024
OPEN_FOR_S = 300.0
"""A table is opened anew after this time, with fresh credentials."""
MOST_ASKED = 8_000
"""Keys in one query. A query reads most of the index, so many keys are asked together; each takes memory."""
SCAN_KEYS, SCAN_ROWS = 10_000, 10
"""A lookup of so many keys reads the narrow columns of all rows once, if there are at most so many rows for a key."""
SCAN_BATCH = 65_536
"""Rows of narrow columns that are read at a time."""
MAX_READ = 1000
"""Whole rows that are read at a time, of about 2 KB each."""

# Maintenance, by whoever has added rows.
INDEX_AFTER_ROWS, INDEX_AFTER_SHARE = 10_000, 0.02
"""The indexes take in new rows when they lack this many, or this share of all: lookups scan those that they lack."""
MERGES = ((50_000, 32), (250_000, 8))
"""Fragments with fewer rows are merged into one of so many, once there are this many of them that the merge before has
left: few fragments are few requests, and each row is written three times in all."""
CLEAN_EVERY = 50
"""Versions after which old ones are removed."""
KEEP_VERSIONS_FOR = timedelta(days=7)
MAX_CONFLICTS = 5
"""How often a process gives way to others that maintain the table."""


class SettledTable:
    """The table of one store. Blocking; every failure is a `StoreError` that names the table.

    :param keeps_version: whether it stays at the version that it has read first, for several readings of one content.
    """

    def __init__(self, folder: Folder, *, keeps_version: bool = False) -> None:
        self._keeps_version = keeps_version
        self._folder = folder
        self.where = folder.where(NAME)
        self._opened: LanceDataset | None = None
        self._opened_at = float("-inf")
        self._checksums = Checksums()

    # Reading

    @property
    def exists(self) -> bool:
        """Whether there is a table."""
        return self.dataset() is not None

    def missing(self) -> CorruptShard:
        """Return the error of a store whose journal says that there is a table, and that has none."""
        return CorruptShard(
            f"{self.where} is not there, though the journal says that outcomes were settled into it. It records calls "
            "that were paid for, so no call is made. Restore it from a backup."
        )

    @property
    def version(self) -> int | None:
        """The version that reads see; None where there is no table."""
        dataset = self.dataset()
        return None if dataset is None else int(dataset.version)

    @property
    def newest_version(self) -> int | None:
        """The newest version, which reads may not see yet; None where there was no table when it was opened."""
        dataset = self.dataset()
        if dataset is None:
            return None
        with self.errors("read"):
            return int(dataset.latest_version)

    def refresh(self) -> None:
        """Let the next read see the newest version."""
        self._opened_at = float("-inf")

    def find(self, keys: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the rows that have one of these identities, each once or more: `columns.FOUND`, and ``identities`` of
        those that link identities."""
        wanted, dataset = list(dict.fromkeys(keys)), self.dataset()
        if dataset is None or not wanted:
            return
        is_scan = len(wanted) >= SCAN_KEYS and len(wanted) * SCAN_ROWS >= dataset.count_rows()
        for found in self._scan(dataset, wanted) if is_scan else self._look_up(wanted):
            yield from (row for row in found if row["status"] != "same")
            yield from self._rows(sorted({row["call_key"] for row in found if row["status"] == "same"}))

    def _look_up(self, wanted: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        self._check_lookup(columns.KEY_COLUMNS)
        for start in range(0, len(wanted), MOST_ASKED):
            group = wanted[start : start + MOST_ASKED]
            # One query: each reads the columns of its rows anew.
            asked = " OR ".join(_is_in(column, group) for column in columns.KEY_COLUMNS)
            yield self._query(columns.FOUND, asked, columns.FOUND_CRC)

    def _scan(self, dataset: LanceDataset, wanted: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows that have a wanted key from one reading of the narrow columns of all rows."""
        import pyarrow as pa
        from pyarrow import compute

        with self.errors("read"):
            # Without an index to compare with, only whole files show that no row is overlooked.
            self._checksums.check_fragments(dataset, (one.fragment_id for one in dataset.get_fragments()))
        values = pa.array(wanted, pa.int64())
        for batch in self.batches(columns.FOUND):
            masks = [compute.is_in(batch.column(name), value_set=values) for name in columns.KEY_COLUMNS]
            yield batch.filter(compute.or_(compute.or_(masks[0], masks[1]), masks[2])).to_pylist()

    def spent_by(self, instance: str) -> list[dict[str, Any]]:
        """Return `columns.SPENT` and the vendor of what a task instance has sent, or whose results it has fetched."""
        key = columns.instance_key(instance)
        if key is None:
            return []
        self._check_lookup(("instance_key", "sender_key"))
        return self._query((*columns.SPENT, "vendor"), f"instance_key = {key} OR sender_key = {key}", columns.SPENT_CRC)

    def with_requests(self, request_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Return ``request_id`` and ``call`` of the calls with these ids of the vendor; it reads one whole column."""
        quoted = ",".join("'" + one.replace("'", "''") + "'" for one in request_ids)
        return self._query(("request_id", "call"), f"request_id IN ({quoted})" if quoted else "")

    def events(self, calls: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield what the whole rows of these calls (`columns.call_key`) were made from, in any order."""
        wanted = list(calls)
        for start in range(0, len(wanted), MAX_READ):
            yield from map(columns.to_event, self._rows(wanted[start : start + MAX_READ]))

    def row(self, row_id: str) -> dict[str, Any] | None:
        """Return the whole row with this id; None where there is none."""
        call = row_id.rpartition(".")[0]
        rows = self._query(None, f"call_key = {columns.call_key(call)}", columns.ROW_CRC) if self.exists else []
        if not rows:
            self._check_lookup(("call_key",))
        return next((row for row in rows if row[columns.ROW_ID] == row_id), None)

    def batches(self, names: Sequence[str] | None = None, condition: str | None = None) -> Iterator[pa.RecordBatch]:
        """Yield these columns of the whole table, or of the rows that meet a condition, in batches."""
        dataset = self.dataset()
        if dataset is None:
            return
        wanted = list(names or columns.schema().names)
        with self.errors("read"):
            has = present(dataset.schema, wanted)
            for batch in dataset.scanner(columns=has, filter=condition, batch_size=8192).to_batches():
                yield with_columns(batch, wanted)

    def fragments(self) -> list[Fragment]:
        """Return the parts that the table consists of; what is in one of them never changes."""
        dataset = self.dataset()
        if dataset is None:
            return []
        with self.errors("read"):
            return [Fragment(self, one, dataset.schema) for one in dataset.get_fragments()]

    def check_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Raise `StoreError` unless these whole rows are as they were written."""
        if not all(columns.is_intact(row, columns.ROW_CRC) for row in rows):
            raise self._damaged("a row does not match its checksum")

    def _query(self, names: Sequence[str] | None, condition: str, crc: str = "") -> list[dict[str, Any]]:
        dataset = self.dataset()
        if dataset is None or not condition:
            return []
        with self.errors("read"):
            wanted = present(dataset.schema) if names is None else [*names, *([crc] if crc else ())]
            rows: list[dict[str, Any]] = dataset.scanner(columns=wanted, filter=condition).to_table().to_pylist()
        if crc and not all(columns.is_intact(row, crc) for row in rows):
            raise self._damaged("a row does not match its checksum")
        return rows

    def _rows(self, calls: Sequence[int]) -> list[dict[str, Any]]:
        """Return the whole rows of these calls, which a lookup has found."""
        rows = self._query(None, _is_in("call_key", calls), columns.ROW_CRC)
        if not {row["call_key"] for row in rows}.issuperset(calls):
            self._check_lookup(("call_key",))
            raise self._damaged("it lacks a row that it has in its indexes")
        return rows

    def _check_lookup(self, names: Iterable[str]) -> None:
        dataset = self.dataset()
        if dataset is not None:
            with self.errors("read"):
                self._checksums.check_lookup(dataset, names)

    def damaged_files(self) -> list[StoreError]:
        """Read all files of the table and return which of them are damaged or missing; none in a bucket."""
        try:
            dataset = self.dataset()
            with self.errors("read"):
                return [] if dataset is None else self._checksums.check_all(dataset)
        except StoreError as error:
            return [error]

    def dataset(self) -> LanceDataset | None:
        """Return Lance's table as it was when it was opened last; None where there is none."""
        now = time.monotonic()
        is_old = now > self._opened_at + OPEN_FOR_S and not self._keeps_version
        if self._opened is None or is_old:
            self._opened = self._open(self._folder.location(NAME))
            self._opened_at = now
        return self._opened

    def _open(self, location: Location, *, again: bool = True) -> LanceDataset | None:
        self._checksums.load("" if location.options else location.uri)
        lance = _lance()
        try:
            with self.errors("opened", location):
                opened: LanceDataset = lance.dataset(
                    location.uri,
                    storage_options=dict(location.options),
                    block_size=BLOCK_BYTES if location.options else None,
                    index_cache_size_bytes=INDEX_CACHE_BYTES,
                    metadata_cache_size_bytes=METADATA_CACHE_BYTES,
                )
        except _NotFound:
            if self._folder.names(f"{NAME}/_versions"):
                if again:
                    # Another process has made it this very moment.
                    return self._open(location, again=False)
                raise self._damaged("it cannot be found, though it has versions") from None
            self._checksums.check_version(0)
            return None
        self._checksums.check_version(opened.version)
        check_version(self.where, opened.schema)
        return opened

    # Writing

    def add(self, events: Iterable[Mapping[str, Any]], *, is_new: bool) -> None:
        """Add the rows of events, durably.

        :param is_new: nobody else can have added these calls. Otherwise a call that the table has is left as it is,
            which costs a scan of all call ids.
        """
        import pyarrow as pa

        lance = _lance()
        records = {record[columns.ROW_ID]: record for event in events for record in columns.to_records(dict(event))}
        if not records:
            return
        rows = pa.Table.from_pylist(list(records.values()), columns.schema())
        self.refresh()
        dataset, location = self.dataset(), self._folder.location(NAME)
        with self.errors("written", location):
            options = dict(location.options)
            if dataset is None:
                try:
                    # Empty, so that another process that does the same does no harm.
                    lance.write_dataset(rows.slice(0, 0), location.uri, mode="create", storage_options=options)
                except OSError as error:
                    if "already exists" not in str(error):
                        raise
                self.refresh()
                dataset = self.dataset()
                assert dataset is not None
            elif is_old(dataset.schema):
                upgrade(dataset)
                self.refresh()
                dataset = self.dataset()
                assert dataset is not None
            if is_new:
                lance.write_dataset(rows, dataset, mode="append", storage_options=options)
            else:
                # Through the index of the key, Lance would not notice that another process adds the same call.
                merge = dataset.merge_insert(columns.ROW_ID).when_not_matched_insert_all().use_index(False)
                merge.conflict_retries(20).execute(rows)
        self.refresh()
        self._make_durable()

    def calls_in(self, calls: Iterable[str]) -> set[str]:
        """Return those of the calls that the table has."""
        asked = {columns.call_key(call): call for call in calls}
        if not asked:
            return set()
        return {asked[row["call_key"]] for row in self._query(("call_key",), _is_in("call_key", list(asked)))}

    def maintain(self, *, at_once: bool = False) -> None:
        """Bring the indexes up to date, merge small fragments and remove old versions.

        Other processes may do the same at the same time; one of them has done it then.

        :param at_once: also where it is not yet worth while.
        """
        if not self.exists:
            return
        location = self._folder.location(NAME)
        for attempt in range(MAX_CONFLICTS):
            self.refresh()
            try:
                with self.errors("maintained", location):
                    self._maintain(at_once=at_once)
                break
            except StoreError as error:
                if "conflict" not in str(error).lower():
                    raise
                # Some of it may be done.
                self.refresh()
                self._make_durable()
                if attempt == MAX_CONFLICTS - 1:
                    raise
        self.refresh()
        self._make_durable()

    def _maintain(self, *, at_once: bool) -> None:
        dataset = self.dataset()
        assert dataset is not None
        least = 0
        for most, count in MERGES[-1:] if at_once else MERGES:
            rows = {one.fragment_id: one.metadata.physical_rows for one in dataset.get_fragments()}
            if sum(least <= number < most for number in rows.values()) >= (2 if at_once else count):
                self._check_lookup(columns.INDEXED)
                self._checksums.check_fragments(dataset, [one for one, number in rows.items() if number < most])
                dataset.optimize.compact_files(target_rows_per_fragment=most, num_threads=1, batch_size=1024)
            least = most
        self._index(dataset, at_once=at_once)
        if at_once or dataset.version % CLEAN_EVERY == 0:
            dataset.cleanup_old_versions(older_than=KEEP_VERSIONS_FOR)

    def _index(self, dataset: LanceDataset, *, at_once: bool) -> None:
        indexed = {index.field_names[0]: index.num_rows_indexed for index in dataset.describe_indices()}
        total = dataset.count_rows()
        lacking = total - min((indexed.get(column, 0) for column in columns.INDEXED), default=0)
        if lacking < (1 if at_once else max(INDEX_AFTER_ROWS, INDEX_AFTER_SHARE * total)):
            return
        # Damage must not get into files whose checksums are taken anew.
        self._check_lookup(columns.INDEXED)
        for column in columns.INDEXED:
            if column not in indexed:
                dataset.create_scalar_index(column, "BTREE")
        if indexed:
            dataset.optimize.optimize_indices()

    def _make_durable(self) -> None:
        """Make the newest version survive a loss of power, and write its checksums."""
        dataset = self.dataset()
        if dataset is not None:
            with self.errors("written"):
                self._checksums.write(dataset)

    # Errors

    @contextmanager
    def errors(self, doing: str, location: Location | None = None) -> Iterator[None]:
        """Raise what Lance raises as `StoreError`, without credentials; `_NotFound` where there is no table."""
        try:
            yield
        except StoreError:
            raise
        except BaseException as error:  # a panic of Lance is no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            text = " ".join(str(error).split())[:400]
            for secret in (location or self._folder.location(NAME)).options.values():
                text = text.replace(secret, "***") if len(secret) > 8 else text
            if doing == "opened" and text.startswith("Dataset at path") and "was not found" in text:
                raise _NotFound from None
            if doing in ("read", "opened"):
                raise self._damaged(f"it cannot be {doing} ({type(error).__name__}: {text})") from None
            raise StoreError(f"{self.where} cannot be {doing} ({type(error).__name__}: {text}).") from None

    def _damaged(self, what: str) -> StoreError:
        return StoreError(
            f"{self.where}: {what}. It records calls that were paid for, so no call is made. If it is damaged, restore "
            "it from a backup."
        )


class Fragment:
    """A part of a table's version, with up to some 100 000 rows. Rows are named by their places in it, from 0."""

    def __init__(self, table: SettledTable, fragment: LanceFragment, schema: pa.Schema) -> None:
        self.table, self._fragment, self._schema = table, fragment, schema
        self.key = ",".join(file.path for file in fragment.metadata.files)
        """The names of its files, which no other fragment has."""

    def has(self, names: Iterable[str]) -> bool:
        """Whether it has these columns; one of an older version may lack some, which are null."""
        return set(names) <= set(self._schema.names)

    def scan(self, names: Sequence[str], condition: str | None = None) -> Iterator[tuple[Places, pa.RecordBatch]]:
        """Yield narrow columns of the rows that meet a condition of SQL, with their places, in batches."""
        with self.table.errors("read"):
            scanner = self._fragment.scanner(
                columns=present(self._schema, names), filter=condition, batch_size=SCAN_BATCH, with_row_address=True
            )
            for batch in scanner.to_batches():
                addresses = batch.column("_rowaddr").to_numpy()
                yield (addresses & 0xFFFFFFFF).astype("int64"), with_columns(batch, names)

    def take(self, places: Iterable[int], names: Sequence[str] | None = None) -> pa.Table:
        """Return these columns, or all, of the rows at these places, which rise."""
        import pyarrow as pa

        wanted = list(names or columns.schema().names)
        with self.table.errors("read"):
            taken = self._fragment.take(list(places), columns=present(self._schema, wanted))
            return pa.Table.from_batches([with_columns(one, wanted) for one in taken.to_batches()])


def _lance() -> Any:
    """Return the module, set up for texts before it is used for the first time."""
    # Only writing depends on it: so many bytes are compressed together, instead of 4 KB.
    os.environ.setdefault("LANCE_BINARY_MINIBLOCK_CHUNK_SIZE", "65536")
    import lance

    return lance


class _NotFound(Exception):  # no error: there is no table yet
    pass


def _is_in(column: str, values: Sequence[int]) -> str:
    return f"{column} IN ({','.join(map(str, values))})" if values else ""
