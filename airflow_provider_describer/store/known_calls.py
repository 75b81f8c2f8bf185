"""The calls that have ended in a store and the identities of their images, in about 40 bytes each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.store import columns
from airflow_provider_describer.store.folding import link
from airflow_provider_describer.store.table import SettledTable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Numbers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

Keys = tuple[int, ...]
"""The identities of one call's image, each as `columns.key_of` it."""
_READ = ("call_key", "status", "review", *columns.KEY_COLUMNS)
_DESCRIBED, _LOST, _UNKNOWN, _SAME, _WITHDRAWN, _REVIEWED, _OTHER = range(7)
_STATUSES = ("described", "lost", "unknown", "same", "withdrawn")
_SPREAD = 0x1F3D_5B79_1357_9BDF
"""Any large odd number: makes one number of a call and a status."""


class KnownCalls:
    """All rows of these tables, without their texts.

    :param damaged: collects what cannot be read, and the rest is read.
    :raises StoreError: naming what cannot be read.
    """

    def __init__(self, tables: Iterable[SettledTable], damaged: list[StoreError] | None = None) -> None:
        import numpy as np

        parts = list(_parts(tables, damaged))
        rows = np.concatenate(parts) if parts else np.empty((0, 5), np.int64)
        _, first = np.unique(_one_number(rows[:, 0], rows[:, 1]), return_index=True)
        is_first = np.zeros(len(rows), bool)
        is_first[first] = True
        self.is_first = is_first
        """For each row, in the order of reading, whether it is no copy of an earlier one."""
        rows = rows[is_first]
        self._calls, status, self._keys = rows[:, 0], rows[:, 1], rows[:, 2:]
        self._is_described, self._is_same = status == _DESCRIBED, status == _SAME
        self._is_lost = (status == _LOST) | (status == _UNKNOWN)
        self._aliases: dict[int, list[int]] = {}
        for keys in self._keys[self._is_same].tolist():
            link(self._aliases, [key for key in keys if key])

    @property
    def copies(self) -> int:
        """How many rows are copies of others."""
        return len(self.is_first) - len(self._calls)

    def ended(self, calls: Iterable[int]) -> set[int]:
        """Return which of these calls (`columns.call_key`) have ended."""
        return _among(calls, self._calls[~self._is_same])

    def unanswered(self, open_calls: Mapping[int, Keys]) -> list[Keys]:
        """Return the keys of each call without an answer: those that were lost, and ``open_calls``."""
        found: dict[int, Keys] = {}
        lost = zip(self._calls[self._is_lost].tolist(), self._keys[self._is_lost].tolist(), strict=True)
        for call, keys in lost:
            # Two runs may report the end of one call, each with the keys that it knows.
            found[call] = tuple(dict.fromkeys((*found.get(call, ()), *filter(None, keys))))
        answered = _among(found, self._calls[~(self._is_lost | self._is_same)])
        return [keys for call, keys in (found | dict(open_calls)).items() if call not in answered]

    def described(self, calls: Iterable[Keys]) -> list[bool]:
        """Return for each call's keys whether the image has a description."""
        wanted = [self._all_aliases(keys) for keys in calls]
        known = _among({key for keys in wanted for key in keys}, self._keys[self._is_described].ravel())
        return [not known.isdisjoint(keys) for keys in wanted]

    def described_again(self) -> int:
        """Return how many descriptions are of images that have another one."""
        import numpy as np

        # An image that its vendor has fetched, from a server that names no version, has no identity.
        first = self._keys[self._is_described, 0]
        first = first[first != 0]
        if self._aliases:
            names = np.array(sorted(self._aliases), np.int64)
            least = np.array([min(self._aliases[name]) for name in names.tolist()], np.int64)
            places = np.searchsorted(names, first).clip(max=len(names) - 1)
            first = np.where(names[places] == first, least[places], first)
        return len(first) - len(np.unique(first))

    def count_images(self, calls: Iterable[Keys]) -> int:
        """Return how many images the calls' keys stand for; all identities of an image count once, each without one
        too."""
        found = [min(self._all_aliases(keys[:1]), default=None) for keys in calls]
        return len(set(found) - {None}) + found.count(None)

    def _all_aliases(self, keys: Keys) -> AbstractSet[int]:
        return {other for key in keys for other in self._aliases.get(key, (key,))}


def row_numbers(batch: pa.RecordBatch) -> Numbers:
    """Return a number for each row, from its ``call_key`` and ``status``; only copies of a row have the same."""
    return _one_number(batch.column("call_key").to_numpy(), _status_numbers(batch))


def _one_number(call: Numbers, status: Numbers) -> Numbers:
    return call ^ status * _SPREAD


def _status_numbers(batch: pa.RecordBatch) -> Numbers:
    import numpy as np
    import pyarrow as pa
    from pyarrow import compute

    status = compute.index_in(batch.column("status"), value_set=pa.array(_STATUSES))
    found: Numbers = compute.fill_null(status, _OTHER).to_numpy().astype(np.int64)
    return found


def _parts(tables: Iterable[SettledTable], damaged: list[StoreError] | None) -> Iterator[Numbers]:
    for table in tables:
        try:
            yield from map(_numbers, table.batches(_READ))
        except StoreError as error:
            if damaged is None:
                raise
            damaged.append(error)


def _numbers(batch: pa.RecordBatch) -> Numbers:
    """Return a row of numbers for each row: call, status, keys; 0 for no key. A review describes no image again."""
    import numpy as np
    from pyarrow import compute

    cells = [compute.fill_null(batch.column(name), 0).to_numpy() for name in ("call_key", *columns.KEY_COLUMNS)]
    call, *keys = (cell.astype(np.int64) for cell in cells)
    status, is_review = _status_numbers(batch), compute.is_valid(batch.column("review"))
    status[(status == _DESCRIBED) & is_review.to_numpy(zero_copy_only=False)] = _REVIEWED
    return np.stack([call, status, *keys], axis=1)


def _among(wanted: Iterable[int], numbers: Numbers) -> set[int]:
    import numpy as np

    # Not numpy.isin: it sorts the larger one.
    asked = np.unique(np.fromiter(wanted, np.int64))
    if not len(asked):
        return set()
    places = np.searchsorted(asked, numbers).clip(max=len(asked) - 1)
    return set(numbers[asked[places] == numbers].tolist())
