"""What a store knows of the images that a run asks about: the journal's unsettled rest, and a lookup in the table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store import columns
from airflow_provider_describer.store.folding import JournalIndex, OpenCall, Spending, StoredOutcome
from airflow_provider_describer.store.journal import JournalReader, read_events
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.settling import MAX_ATTEMPTS
from airflow_provider_describer.store.shard import SETTLED, Event
from airflow_provider_describer.store.table import NAME, SettledTable

__all__ = ["JournalIndex", "OpenCall", "Spending", "StoreIndex", "StoredOutcome", "load_index", "open_index"]

MAX_ROWS = 1000
"""Rows that are in memory at a time."""
Found = tuple[Mapping[int, str], Sequence[Mapping[str, Any]]]
"""What was asked, by its 64 bits, and the rows that were found."""


@dataclass(slots=True)
class StoreIndex(JournalIndex):
    """A `JournalIndex` of a store: the whole journal, and of the table what was looked up.

    An event is never overlooked: it leaves the journal when the table has it, and the journal is read first.

    :param folder: the store, or None for a run without one.
    """

    folder: Folder | None = None
    table: SettledTable | None = None
    _asked: dict[int, str] = field(default_factory=dict)
    """Every identity that was looked up, by its 64 bits."""
    _version: int | None = None
    """The table's version at the last `refresh`; all that was looked up was asked of it, or of a newer one."""
    _journal: JournalReader | None = None
    _shard: tuple[str, bytes] = ("", b"")
    """Name and content of the shard that was read last."""

    def refresh(self, damaged: list[StoreError] | None = None) -> None:
        """Read what is new in the journal, then ask the newest table again for all that was looked up so far.

        :param damaged: as for `read_events`.
        :raises StoreError: naming what cannot be read.
        """
        if self.folder is None:
            return
        journal = self._journal = self._journal or JournalReader(self.folder)
        for shard, offset, length, event in journal.events(damaged):
            self.apply(shard, offset, length, event)
        self.forget_open_calls(journal.listed)
        if SETTLED not in journal.listed and not self.folder.names(f"{NAME}/_versions"):
            # No shard was removed yet. The mark alone may be gone, as any file may.
            self.finish()
            return
        self.table = self.table or SettledTable(self.folder)
        self.table.refresh()
        if not self.table.exists:
            raise self.table.missing()
        if self.table.version == self._version:
            # The journal may have linked other identities to them.
            self.look_up(list(self._asked.values()))
            return
        self._version = self.table.version
        for row in self.table.spent_by(self.task_instance.instance):
            if row["status"] in columns.FACTS or row["billed"] != "no":
                at = row["described_at"].timestamp()
                self.count_own(row["call_key"], row["cost_usd"], at, row["vendor"] or "")
        asked, self._asked = self._asked, {}
        self.look_up(asked.values())

    def copy(self) -> StoreIndex:
        """Return an index that knows as much. What either of them looks up or reads later, the other does not know."""
        copies: dict[int, Any] = {id(one): one for one in (self.folder, self.table)}
        # They may be long, and nothing in them changes.
        copies |= {id(one): one.copy() for one in (self.outcomes, self._ended, self._answered, self._asked)}
        return deepcopy(self, copies)

    def look_up(self, identities: Iterable[str]) -> None:
        """Ask the table for these identities, and for those that it links to them; each is asked for once.

        :raises StoreError: naming what cannot be read.
        """
        # In their order: a row is found once where the identities of its image are asked for together.
        wanted = list(dict.fromkeys(identities))
        if self.table is None:
            # There may be one at the next `refresh`.
            self._asked.update((columns.key_of(key), key) for key in wanted)
        while self.table is not None and (new := self._not_asked(wanted)):
            # As they come: their rows are many.
            for row in self.table.find(new):
                self.apply_row(row, new)
            self._asked |= new
            wanted = list(new.values())
        self.finish()

    def _not_asked(self, identities: Iterable[str]) -> dict[int, str]:
        """Return these identities and all of the same images, by their 64 bits, without those asked before."""
        asked = ((columns.key_of(other), other) for key in identities for other in self.aliases((key,)))
        return {number: key for number, key in asked if number not in self._asked}

    def find(self, identities: Iterable[str]) -> Found | None:
        """Return what the table has of these identities and of those that are known to be of the same images.

        It changes nothing here, and so may run in another thread. None where all of them were asked for before.
        """
        new = self._not_asked(identities)
        if self.table is None or not new:
            return None
        return new, list(self.table.find(new))

    def take(self, found: Found) -> None:
        """Fold in what `find` has found; `finish` comes afterwards."""
        self._asked |= found[0]
        for row in found[1]:
            self.apply_row(row, self._asked)

    def read_lost(self, images: Iterable[tuple[str, ...]]) -> None:
        """Read what `unclear_calls` says of these images' lost calls, where the table has them; blocking.

        :raises StoreError: naming what cannot be read.
        """
        calls = {call for keys in images for call in self._unanswered(keys)}
        missing = {call for call in calls if call in self.lost and call not in self.lost_calls_known}
        for event in self.table.events(missing) if self.table is not None and missing else ():
            self.note_lost(event)

    def known_requests(self, wanted: AbstractSet[str], but: AbstractSet[str]) -> set[str]:
        """Return which of the vendor's request ids the store has for calls other than ``but``; blocking.

        :raises StoreError: naming what cannot be read.
        """
        if self.folder is None:
            return set()
        events = (event for _, _, _, event in read_events(self.folder))
        found = {
            event["request_id"] for event in events if event.get("request_id") in wanted and event["call"] not in but
        }
        if self.table is not None:
            self.table.refresh()
            found |= {row["request_id"] for row in self.table.with_requests(wanted) if row["call"] not in but}
        return found

    def row(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """Return the stored row of an outcome, as `rows` does."""
        return next(iter(self.rows([keys])))

    def rows(self, images: Iterable[tuple[str, ...]], attempts: int = MAX_ATTEMPTS) -> Iterator[dict[str, Any]]:
        """Yield the stored row of each image's outcome, given its identities.

        To read each shard once, ask in the order of `StoredOutcome`.

        :param attempts: how often a row is looked for again that is being settled meanwhile.
        :raises StoreError: if a row can no longer be read.
        """
        images = list(images)
        for start in range(0, len(images), MAX_ROWS):
            group = images[start : start + MAX_ROWS]
            settled = self._settled_rows(group)
            for keys in group:
                yield settled.get(keys) or self._row_in_shard(keys) or self._moved_row(keys, attempts)

    def _settled_rows(self, images: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], dict[str, Any]]:
        """Return the rows that are in the table, by the identities that were asked for."""
        outcomes = {keys: found for keys in images if (found := self.outcome(keys)) and not found.shard}
        if self.table is None or not outcomes:
            return {}
        rows: dict[tuple[int, str | None], Event] = {}
        for event in self.table.events({found.call for found in outcomes.values()}):
            rows[columns.call_key(event["call"]), event.get("status")] = event
        found_rows = {}
        for keys, found in outcomes.items():
            row = rows.get((found.call, found.status))
            if row is None:
                continue
            if set(row["keys"]).isdisjoint(self.aliases(keys)):
                raise StoreError(f"{self.table.where}: the identities {keys[0]} and {row['keys'][0]} begin alike.")
            found_rows[keys] = row
        return found_rows

    def _row_in_shard(self, keys: tuple[str, ...]) -> dict[str, Any] | None:
        found, folder = self.outcome(keys), self.folder
        if found is None or not found.shard or folder is None:
            return None
        if self._shard[0] != found.shard:
            content = folder.read(found.shard)
            if content is None:
                # It has been settled meanwhile.
                return None
            self._shard = (found.shard, content)
        row: dict[str, Any] = json.loads(self._shard[1][found.offset : found.offset + found.length])
        return row

    def _moved_row(self, keys: tuple[str, ...], attempts: int) -> dict[str, Any]:
        """Return a row that is no longer where it was when the store was read."""
        assert self.folder is not None
        newest = open_index(self.folder, keys)
        if newest.outcome(keys) is None:
            raise StoreError(f"{self.folder.where()}: a stored description vanished while it was read.")
        if not attempts:
            raise StoreError(f"{self.folder.where()} is being settled faster than it can be read; try again.")
        return next(newest.rows([keys], attempts - 1))


def open_index(
    folder: Folder | None, identities: Iterable[str] = (), task_instance: TaskInstanceKey | None = None
) -> StoreIndex:
    """Read the journal's unsettled rest and look up identities; an empty index without a store.

    :param task_instance: whose spending is summed up.
    :raises StoreError: naming what cannot be read.
    """
    index = StoreIndex(task_instance or TaskInstanceKey(), folder=folder)
    index.refresh()
    index.look_up(identities)
    return index


def load_index(
    folder: Folder | None, damaged: list[StoreError] | None = None, task_instance: TaskInstanceKey | None = None
) -> StoreIndex:
    """Return an index of all that a store has, for people: it reads the whole table, without the texts.

    :param damaged: as for `read_events`.
    :param task_instance: whose spending is summed up.
    :raises StoreError: naming what cannot be read.
    """
    index = StoreIndex(task_instance or TaskInstanceKey(), folder=folder)
    try:
        index.refresh(damaged)
        if index.table is not None:
            for batch in index.table.batches([*columns.FOUND, "identities"]):
                for row in batch.to_pylist():
                    index.apply_row(row)
    except StoreError as error:
        if damaged is None:
            raise
        damaged.append(error)
    index.finish()
    return index


def read_history(folder: Folder, damaged: list[StoreError] | None = None) -> Iterator[Event]:
    """Yield all events of the journal, then those of the table; an event that is just being settled may come twice.

    :param damaged: as for `read_events`.
    """
    for _, _, _, event in read_events(folder, damaged):
        yield event
    if folder.read(SETTLED) is None:
        return
    for batch in SettledTable(folder).batches():
        yield from map(columns.to_event, batch.to_pylist())
