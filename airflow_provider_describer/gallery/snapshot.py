"""A store as it is at one moment, opened once and kept as long as nothing in it changes."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.newest_first import Span, TimedFragments
from airflow_provider_describer.store.shard import FOLDER
from airflow_provider_describer.store.table import NAME, OPEN_FOR_S, SettledTable
from airflow_provider_describer.store.unsettled import open_tables

if TYPE_CHECKING:
    from airflow_provider_describer.store.newest_first import Numbers


class Snapshot:
    """The tables of a store: one of the journal, and the settled one.

    It is closed when nothing refers to it any more, so that a reader in another thread may go on with an old one.
    """

    def __init__(self, folder: Folder, listed: Sequence[str], spans: dict[str, Span]) -> None:
        stack = ExitStack()
        weakref.finalize(self, stack.close)
        self.listed = listed
        self.opened_at = time.monotonic()
        self.tables = stack.enter_context(open_tables(folder))
        self.settled: SettledTable | None = next((one for one in self.tables if one.where == folder.where(NAME)), None)
        self.rows = TimedFragments(self.tables, spans)
        keys = {fragment.key for fragment in self.rows.fragments}
        for key in spans.keys() - keys:
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
        self._newest: Snapshot | None = None

    def newest(self) -> Snapshot:
        """Return the store as it is now.

        :raises StoreError: naming what cannot be read.
        """
        with self._lock:
            listed = list(self._folder.names(FOLDER))
            if self._newest is None or not self._newest.is_current(listed):
                self._newest = None
                self._newest = Snapshot(self._folder, listed, self._spans)
            return self._newest
