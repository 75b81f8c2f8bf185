"""Rows newest first in chunks, with some of their columns; of a search, those whose texts match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_describer.gallery.filter import SEARCHED, Filter
from airflow_provider_describer.store.columns import iso
from airflow_provider_describer.store.newest_first import Rows, TimedFragments

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_ROWS, MOST_ROWS = 64, 2048
"""Rows whose texts are read at a time, at first and at most."""
CHUNK_BYTES = 4 * 1024 * 1024
"""Bytes of texts that are read at a time, as far as the texts before tell."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are wanted, with their columns.

    :param looked_to: down to this moment (epoch ms), all rows were looked at; None where some of it are to come.
    """

    rows: Rows
    columns: pa.Table
    looked_to: int | None


def chunks(
    rows: TimedFragments,
    filter: Filter,  # noqa: A002
    names: Sequence[str],
    *,
    until: int | None = None,
    size: int = FIRST_ROWS,
) -> Iterator[Chunk]:
    """Yield the rows that a filter wants, newest first.

    :param names: the columns to read.
    :param until: the moment to begin at, in epoch ms.
    :param size: rows of a chunk; a search starts with few and adapts to the length of the texts.
    """
    import numpy as np

    read = tuple(dict.fromkeys((*names, *SEARCHED))) if filter.text else names
    size = FIRST_ROWS if filter.text else size
    for group in rows.newest_first(filter.condition(), until, filter.added_columns):
        start, count = 0, len(group)
        while start < count:
            end = min(start + size, count)
            part, moment = group[start:end], int(group.at[end - 1])
            is_whole = end == count or int(group.at[end]) != moment
            found = rows.take(part, read)
            if filter.text:
                size = _next_size(size, found.nbytes)
                wanted = filter.matches([found[name] for name in SEARCHED])
                part, found = part[np.asarray(wanted)], found.filter(wanted).select(list(names))
            elif not is_whole:
                # So many rows of one moment are read more at a time.
                size = min(2 * size, MOST_ROWS)
            yield Chunk(part, found, moment if is_whole else None)
            start = end


def _next_size(size: int, read_bytes: int) -> int:
    return max(1, min(2 * size, MOST_ROWS, size * CHUNK_BYTES // max(read_bytes, 1)))


def iso_of(moment: int) -> str:
    """Return epoch milliseconds as ISO 8601 in UTC."""
    return iso(_EPOCH + timedelta(milliseconds=moment))
