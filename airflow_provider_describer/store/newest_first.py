"""The rows of tables newest first, without an index: each fragment's first and last moment say where to look.

Memory: 16 bytes for each row of the fragments whose times overlap with the ones that are being read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_describer.store.known_calls import row_numbers
from airflow_provider_describer.store.table import Fragment, SettledTable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Numbers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

AT = "described_at"


class Span(NamedTuple):
    """First and last moment of a fragment's rows, in epoch milliseconds."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows: when they were described (epoch ms), in which of the fragments each is, and where in there."""

    at: Numbers
    fragment: Numbers
    place: Numbers

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, wanted: Any) -> Rows:
        return Rows(self.at[wanted], self.fragment[wanted], self.place[wanted])


class TimedFragments:
    """The fragments of some tables, the one with the newest row first.

    :param spans: of fragments by their keys, as far as they are known; the others are read and added.
    :raises StoreError: naming what cannot be read.
    """

    def __init__(self, tables: Iterable[SettledTable], spans: MutableMapping[str, Span]) -> None:
        found = [fragment for table in tables for fragment in table.fragments()]
        for fragment in found:
            if fragment.key not in spans:
                spans[fragment.key] = _span(fragment)
        # Without rows it has no span to speak of.
        self._spans = sorted(((spans[one.key], one) for one in found), key=lambda pair: -pair[0].last)
        self.fragments: Sequence[Fragment] = [one for _, one in self._spans]

    def newest_first(self, condition: str, until: int | None = None, asked: Iterable[str] = ()) -> Iterator[Rows]:
        """Yield the rows that meet a condition of SQL in groups, newest first.

        Rows of one moment are in one group, in no order.

        :param until: the last moment, in epoch ms; later rows are left out.
        :param asked: columns in the condition that tables of older versions lack; none of their rows meets it.
        """
        import numpy as np

        if until is not None:
            condition = f"({condition}) AND {AT} <= to_timestamp_millis({until})"
        pool = _none()
        wanted = [
            (number, span)
            for number, (span, fragment) in enumerate(self._spans)
            if (until is None or span.first <= until) and fragment.has(asked)
        ]
        for number, (index, _) in enumerate(wanted):
            found = self._scan(index, condition)
            pool = found if not len(pool) else joined([pool, found])
            # What is newer than all fragments that are still to be read.
            next_last = wanted[number + 1][1].last if number + 1 < len(wanted) else None
            is_ready = pool.at > next_last if next_last is not None else np.ones(len(pool), bool)
            ready, pool = pool[is_ready], pool[~is_ready]
            if len(ready):
                yield ready[np.argsort(-ready.at)]

    def _scan(self, number: int, condition: str) -> Rows:
        import numpy as np

        parts = [
            Rows(milliseconds(batch.column(AT)), np.full(len(places), number, np.int64), places)
            for places, batch in self.fragments[number].scan((AT,), condition)
        ]
        return joined(parts) if parts else _none()

    def copies(self) -> dict[int, Numbers]:
        """Return which rows are copies of others, by fragment: as kills, and settling at this moment, leave them.

        Memory while it works: 16 bytes a row.
        """
        import numpy as np

        def numbers() -> Iterator[tuple[int, Numbers, Numbers]]:
            for number, fragment in enumerate(self.fragments):
                for places, batch in fragment.scan(("call_key", "status")):
                    yield number, places, row_numbers(batch)

        parts = [found for _, _, found in numbers()]
        ordered = np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        seen: set[int] = set()
        copies: dict[int, list[int]] = {}
        for number, places, found in numbers() if len(twice) else ():
            for index in np.flatnonzero(np.isin(found, twice)).tolist():
                if (one := int(found[index])) in seen:
                    copies.setdefault(number, []).append(int(places[index]))
                seen.add(one)
        return {number: np.array(places, np.int64) for number, places in copies.items()}

    def take(self, rows: Rows, names: Sequence[str]) -> pa.Table:
        """Return these columns of the rows, in their order."""
        return self._taken(rows, names)

    def whole(self, rows: Rows) -> list[dict[str, Any]]:
        """Return the whole rows, in their order; each is compared with its checksum."""
        found: list[dict[str, Any]] = self._taken(rows, None).to_pylist()
        for number, row in zip(rows.fragment.tolist(), found, strict=True):
            self.fragments[number].table.check_rows([row])
        return found

    def _taken(self, rows: Rows, names: Sequence[str] | None) -> pa.Table:
        import numpy as np
        import pyarrow as pa

        parts, order = [], []
        for number in np.unique(rows.fragment).tolist():
            indexes = np.flatnonzero(rows.fragment == number)
            indexes = indexes[np.argsort(rows.place[indexes])]
            parts.append(self.fragments[number].take(rows.place[indexes].tolist(), names))
            order.append(indexes)
        return pa.concat_tables(parts).take(np.argsort(np.concatenate(order)))


def _span(fragment: Fragment) -> Span:
    moments = [milliseconds(batch.column(AT)) for _, batch in fragment.scan((AT,))]
    found = [(int(one.min()), int(one.max())) for one in moments if len(one)]
    return Span(min((first for first, _ in found), default=0), max((last for _, last in found), default=0))


def milliseconds(column: pa.Array) -> Numbers:
    """Return moments as epoch milliseconds."""
    import numpy as np

    found: Numbers = column.to_numpy(zero_copy_only=False).astype("datetime64[ms]").astype(np.int64)
    return found


def joined(parts: Sequence[Rows]) -> Rows:
    """Return all of these rows, in their order."""
    import numpy as np

    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("at", "fragment", "place")))


def _none() -> Rows:
    import numpy as np

    return Rows(*(np.zeros(0, np.int64) for _ in range(3)))
