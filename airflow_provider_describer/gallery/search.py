"""The rows of a store for a page: filtered, searched, newest first, a page at a time. Blocking, and thread-safe."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.gallery.chunks import chunks, iso_of
from airflow_provider_describer.gallery.filter import Filter
from airflow_provider_describer.gallery.snapshot import Snapshots
from airflow_provider_describer.gallery.totals import Totals, TotalsOfStore
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store import columns
from airflow_provider_describer.store.description_store import history_in
from airflow_provider_describer.store.newest_first import Rows, joined

__all__ = ["Filter", "Page", "StoreGallery", "Totals"]

MOST_ROWS = 500
"""Rows of one page, and of one image's history."""
MOST_TEXT = 20_000
"""Characters of a text in a page."""
SEARCH_S = 1.5
"""Seconds after which a search ends its page, with the rows that it has found so far."""
_AFTER = re.compile(r"(-?[0-9]{1,14})\.(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, newest first. ``next`` is the ``after`` of the next page; None behind the last row.

    A search for a rare text may end a page before it is full, even without a row: go on with ``next``. ``searched_to``
    is then the time (ISO 8601) down to which all rows were searched.
    """

    rows: list[dict[str, Any]]
    next: str | None
    searched_to: str | None = None


class StoreGallery:
    """One store. It keeps what it has opened and summed up as long as the store does not change: keep the object.

    A row is a dict of JSON values: the fields of a result row (see docs/results.md), ``call`` and ``row_id``. Memory: a
    few MB, and about 16 bytes a row while it works. All methods raise `StoreError`, naming what cannot be read.
    """

    def __init__(self, folder: Folder) -> None:
        self._snapshots = Snapshots(folder)
        self._totals = TotalsOfStore()

    def page(self, filter: Filter, *, after: str | None = None, limit: int = 60) -> Page:  # noqa: A002
        """Return the outcomes that a filter wants, newest first: one page of them.

        A page begins behind a row and not at a number, so rows that are added meanwhile move nothing. A text of more
        than 20 000 characters is cut, and its row has ``text_is_cut``; `row` returns it whole.

        :param after: the ``next`` of the page before.
        :param limit: rows of a page, at most 500.
        :raises BadInput: for an ``after`` that no page has given, and for values that are too long.
        """
        limit = max(1, min(limit, MOST_ROWS))
        start = _parse_after(after) if after else None
        # Without a row's id, all rows of that moment were looked at.
        until = (start[0] if start[1] else start[0] - 1) if start else None
        rows, deadline = self._snapshots.newest().rows, time.monotonic() + SEARCH_S
        found: dict[str, tuple[int, Rows, int]] = {}
        looked_to: int | None = None
        for chunk in chunks(rows, filter, (columns.ROW_ID,), until=until, size=limit + 1):
            row_ids = chunk.columns[columns.ROW_ID].to_pylist()
            for index, (row_id, at) in enumerate(zip(row_ids, chunk.rows.at.tolist(), strict=True)):
                # A row that is being settled, or was when a process was killed, may be there twice.
                if start is None or (at, row_id) < start:
                    found.setdefault(row_id, (at, chunk.rows, index))
            is_enough = len(found) > limit or (filter.text and time.monotonic() > deadline)
            if is_enough and chunk.looked_to is not None:
                looked_to = chunk.looked_to
                break
        wanted = sorted(found, key=lambda row_id: (found[row_id][0], row_id), reverse=True)
        shown = [found[row_id] for row_id in wanted[:limit]]
        whole = rows.whole(joined([group[index : index + 1] for _, group, index in shown])) if shown else []
        page = [_shortened(_shown(row)) for row in whole]
        if len(wanted) > limit:
            return Page(page, f"{shown[-1][0]}.{wanted[limit - 1]}")
        if looked_to is None:
            return Page(page, None)
        return Page(page, f"{looked_to}.", iso_of(looked_to))

    def totals(self, filter: Filter) -> Totals:  # noqa: A002
        """Return the sums of all outcomes that a filter wants, and what may be filtered by.

        :raises BadInput: for values that are too long.
        """
        return self._totals.of(self._snapshots.newest(), filter)

    def dag_ids(self) -> frozenset[str]:
        """Return the ids of all DAGs that have rows here; an empty one where some rows were made by no DAG."""
        return self._totals.dag_ids(self._snapshots.newest())

    def row(self, row_id: str) -> dict[str, Any] | None:
        """Return the row with this ``row_id``; None where the store has none."""
        if row_id.rpartition(".")[2] in columns.FACTS:
            return None
        found = (table.row(row_id) for table in self._snapshots.newest().tables)
        return next((_shown(row) for row in found if row), None)

    def history(self, uri: str) -> list[dict[str, Any]]:
        """Return what `DescriptionStore.history` does: all calls for an image, the newest last; at most the 500 newest.

        There a ``row_id`` ending in ``.lost`` is a call without an answer.
        """
        return [_shown(row) for row in history_in(self._snapshots.newest().tables, uri)[-MOST_ROWS:]]


def _parse_after(after: str) -> tuple[int, str]:
    found = _AFTER.fullmatch(after)
    if not found:
        raise BadInput(f"after is {after[:80]!r}; expected the 'next' of a page.")
    return int(found[1]), found[2]


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the table as JSON values."""
    shown = {name: row.get(name) for name in (*columns.SHOWN, columns.ROW_ID)}
    # JSON of browsers has neither of these numbers.
    shown = {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in shown.items()}
    return shown | {"described_at": columns.iso(row["described_at"])}


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    text = row["text"] or ""
    return row | {"text": text[:MOST_TEXT], "text_is_cut": True} if len(text) > MOST_TEXT else row
