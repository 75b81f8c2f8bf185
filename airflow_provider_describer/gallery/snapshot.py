"""A store as it is at one moment, opened once and kept as long as nothing in it changes."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from airflow_provider_describer.storage.folder import Folder, LocalFolder
from airflow_provider_describer.store.journal import JournalReader
from airflow_provider_describer.store.newest_first import Span, TimedFragments
from airflow_provider_describer.store.shard import FOLDER
from airflow_provider_describer.store.table import OPEN_FOR_S, SettledTable
from airflow_provider_describer.store.unsettled import add_unsettled, settled_table

if TYPE_CHECKING:
    from airflow_provider_describer.store.newest_first import Numbers

MOST_STEPS = 32
"""How often the journal's table is added to before it is made anew: each time adds a fragment."""
MOST_GONE = 100
"""Likewise for shards that were settled since: their rows are there twice."""


class _Unsettled:
    """The journal as a table in a temporary folder, to which only what is new in the journal is added."""

    def __init__(self, folder: Folder) -> None:
        place = TemporaryDirectory(prefix="describer-")
        weakref.finalize(self, place.cleanup)
        self._local = LocalFolder(Path(place.name))
        self._table = SettledTable(self._local)
        self._reader = JournalReader(folder)
        self._steps = 0

    def update(self) -> SettledTable:
        """Return the table of the journal as it is now. After an error, the object is of no use any more."""
        add_unsettled(self._table, self._reader.events())
        self._steps += 1
        return SettledTable(self._local, keeps_version=True)

    @property
    def is_worn(self) -> bool:
        """Whether making it anew is better than adding to it."""
        return self._steps >= MOST_STEPS or len(self._reader.read - self._reader.listed) >= MOST_GONE


class Snapshot:
    """The tables of a store: one of the journal, and the settled one.

    A reader in another thread may go on with an old one. A row that is being settled may be in both tables.
    """

    def __init__(self, folder: Folder, listed: Sequence[str], unsettled: _Unsettled, spans: dict[str, Span]) -> None:
        self.listed = listed
        self.opened_at = time.monotonic()
        # Its temporary folder is there as long as this refers to it.
        self._unsettled = unsettled
        # An event leaves the journal when the table has it, so the journal is read first.
        in_journal = unsettled.update()
        self.settled = settled_table(folder)
        self.tables = [one for one in (in_journal, self.settled) if one is not None and one.exists]
        self.rows = TimedFragments(self.tables, spans)
        for key in spans.keys() - {fragment.key for fragment in self.rows.fragments}:
            del spans[key]

    @cached_property
    def copies(self) -> dict[int, Numbers]:
        """The rows that are copies of others and count once: see `TimedFragments.copies`."""
        return self.rows.copies()

    def is_current(self, listed: Sequence[str]) -> bool:
        """Whether the store still is as it was; it is opened anew after a while, with fresh credentials."""
        if self.listed != listed or time.monotonic() > self.opened_at + OPEN_FOR_S:
            return False
        return self.settled is None or self.settled.version == self.settled.newest_version


class Snapshots:
    """Returns the newest snapshot of one store; opens it only where the store has changed. Thread-safe."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._spans: dict[str, Span] = {}
        self._unsettled: _Unsettled | None = None
        self._newest: Snapshot | None = None

    def newest(self) -> Snapshot:
        """Return the store as it is now.

        :raises StoreError: naming what cannot be read.
        """
        with self._lock:
            listed = list(self._folder.names(FOLDER))
            if self._newest is None or not self._newest.is_current(listed):
                unsettled = self._unsettled
                if unsettled is None or unsettled.is_worn:
                    unsettled = _Unsettled(self._folder)
                self._newest = self._unsettled = None
                self._newest = Snapshot(self._folder, listed, unsettled, self._spans)
                self._unsettled = unsettled
            return self._newest
