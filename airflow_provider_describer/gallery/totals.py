"""Sums of a store's outcomes by status and by day, and what they can be filtered by.

A fragment of a table never changes, so its sums are kept: after a run, only what is new is read.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.gallery.chunks import chunks, iso_of
from airflow_provider_describer.gallery.filter import Filter
from airflow_provider_describer.gallery.snapshot import Snapshot
from airflow_provider_describer.store.newest_first import AT, Rows, milliseconds

if TYPE_CHECKING:
    import pyarrow as pa

    from airflow_provider_describer.store.newest_first import Numbers as Places

SUMMED = ("status", AT, "cost_usd", "review")
DAY_MS = 86_400_000
MOST_CHOICES = 100
"""Choices of each kind."""
_MOST_KEPT = 1000
"""Of each fragment at most so many are kept, the most frequent or newest: as many prompts as images are no choice."""
_LONGEST = 1000
"""Characters of a prompt that is a choice."""
MOST_DAYS = 1000
KEPT_FILTERS = 16
"""Filters whose sums are kept."""
SEARCH_S = 3.0
"""Seconds after which the sums of a search end."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a filter wants, summed up.

    :param calls: rows of calls to a vendor; the others are reviews.
    :param cost_usd: the known cost in USD.
    :param by_day: ``{"day": "2026-01-31", "calls", "cost_usd"}`` in UTC, the oldest first, at most 1000 days.
    :param vendors: of all rows of the filter's ``dag_ids``, whatever else it wants; the most frequent first, as
        ``prompts`` (None: without one) are.
    :param runs: likewise, the newest first: ``{"dag_id", "run_id", "newest"}``. At most 100 of each.
    :param searched_to: of a search that took too long: only rows since then (ISO 8601) are in the sums; otherwise None.
    """

    count: int
    by_status: dict[str, int]
    calls: int
    cost_usd: float
    by_day: list[dict[str, Any]]
    vendors: list[str]
    prompts: list[str | None]
    runs: list[dict[str, str]]
    searched_to: str | None = None


@dataclass(slots=True)
class _Sums:
    by_status: Counter[str] = field(default_factory=Counter)
    calls: Counter[int] = field(default_factory=Counter)
    """By day."""
    cost: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))

    def count(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Add rows with the columns `SUMMED`."""
        import numpy as np
        from pyarrow import compute

        for one in compute.value_counts(rows["status"]).to_pylist():
            self.by_status[one["values"]] += one["counts"]
        # A review is no call.
        rows = rows.filter(compute.is_null(rows["review"]))
        days, number = np.unique(milliseconds(rows[AT]) // DAY_MS, return_inverse=True)
        cost = compute.fill_null(rows["cost_usd"], 0.0).to_numpy(zero_copy_only=False)
        calls, costs = np.bincount(number, minlength=len(days)), np.bincount(number, np.nan_to_num(cost), len(days))
        for day, count, usd in zip(days.tolist(), calls.tolist(), costs.tolist(), strict=True):
            self.calls[day] += count
            self.cost[day] += usd

    def add(self, other: _Sums) -> None:
        self.by_status.update(other.by_status)
        self.calls.update(other.calls)
        for day, usd in other.cost.items():
            self.cost[day] += usd


@dataclass(slots=True)
class _Choices:
    vendors: Counter[str | None] = field(default_factory=Counter)
    prompts: Counter[str | None] = field(default_factory=Counter)
    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The newest row of each run, in epoch ms."""

    def count(self, rows: pa.RecordBatch) -> None:
        """Add rows with the columns `_CHOSEN`."""
        import pyarrow as pa
        from pyarrow import compute

        for name, counts in (("vendor", self.vendors), ("prompt", self.prompts)):
            for one in compute.value_counts(rows[name]).to_pylist():
                counts[one["values"]] += one["counts"]
        newest = pa.table({name: rows[name] for name in ("dag_id", "run_id")} | {AT: milliseconds(rows[AT])})
        for run in newest.group_by(["dag_id", "run_id"]).aggregate([(AT, "max")]).to_pylist():
            self._see(run["dag_id"] or "", run["run_id"] or "", run[f"{AT}_max"])
        self._forget()

    def add(self, other: _Choices) -> None:
        self.vendors.update(other.vendors)
        self.prompts.update(other.prompts)
        for (dag_id, run_id), at in other.runs.items():
            self._see(dag_id, run_id, at)

    def _see(self, dag_id: str, run_id: str, at: int) -> None:
        if dag_id or run_id:
            self.runs[dag_id, run_id] = max(at, self.runs.get((dag_id, run_id), at))

    def _forget(self) -> None:
        for name in ("vendors", "prompts", "runs"):
            counts: Counter[Any] = getattr(self, name)
            if len(counts) > _MOST_KEPT:
                setattr(self, name, Counter(dict(counts.most_common(_MOST_KEPT // 2))))


_CHOSEN = ("vendor", "prompt", "dag_id", "run_id", AT)


class TotalsOfStore:
    """Sums up snapshots of one store. Thread-safe: one at a time, as each uses all processors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: OrderedDict[Filter, dict[str, _Sums]] = OrderedDict()
        """Of each fragment."""
        self._choices: OrderedDict[Filter, dict[str, _Choices]] = OrderedDict()
        # A lock of its own: every request of a page asks for it, and sums of a search take seconds.
        self._dag_lock = threading.Lock()
        self._dag_ids: dict[str, frozenset[str]] = {}
        self._searched: OrderedDict[Filter, tuple[Snapshot, _Sums, int | None]] = OrderedDict()

    def of(self, snapshot: Snapshot, filter: Filter) -> Totals:  # noqa: A002
        """Return the totals of what a filter wants.

        :raises StoreError: naming what cannot be read.
        """
        with self._lock:
            sums, searched_to = self._search(snapshot, filter) if filter.text else (self._sum(snapshot, filter), None)
            choices = self._choices_of(snapshot, Filter(dag_ids=filter.dag_ids))
        days = sorted(sums.calls)[-MOST_DAYS:]
        return Totals(
            count=sum(sums.by_status.values()),
            by_status=dict(sums.by_status.most_common()),
            calls=sum(sums.calls.values()),
            cost_usd=round(sum(sums.cost.values()), 6),
            by_day=[
                {"day": iso_of(day * DAY_MS)[:10], "calls": sums.calls[day], "cost_usd": round(sums.cost[day], 6)}
                for day in days
            ],
            vendors=[name for name, _ in _most_common(choices.vendors) if name],
            prompts=[text for text, _ in _most_common(choices.prompts) if len(text or "") <= _LONGEST],
            runs=[
                {"dag_id": dag_id, "run_id": run_id, "newest": iso_of(at)}
                for (dag_id, run_id), at in _most_common(choices.runs)
            ],
            searched_to=None if searched_to is None else iso_of(searched_to),
        )

    def _sum(self, snapshot: Snapshot, filter: Filter) -> _Sums:  # noqa: A002
        known, found, total = self._sums.get(filter, {}), dict[str, _Sums](), _Sums()
        condition = filter.condition()
        for number, fragment in enumerate(snapshot.rows.fragments):
            if not fragment.has(filter.added_columns):
                continue
            copies = snapshot.copies.get(number)
            sums = known.get(fragment.key) if copies is None else None
            if sums is None:
                sums = _Sums()
                for places, batch in fragment.scan(SUMMED, condition):
                    sums.count(batch if copies is None else batch.filter(_others(places, copies)))
            if copies is None:
                found[fragment.key] = sums
            total.add(sums)
        _keep(self._sums, filter, found)
        return total

    def _search(self, snapshot: Snapshot, filter: Filter) -> tuple[_Sums, int | None]:  # noqa: A002
        known, sums, searched_to = self._searched.get(filter, (None, _Sums(), None))
        if known is snapshot:
            return sums, searched_to
        sums, searched_to, deadline = _Sums(), None, time.monotonic() + SEARCH_S
        for chunk in chunks(snapshot.rows, filter, SUMMED):
            sums.count(chunk.columns.filter(_is_first(chunk.rows, snapshot.copies)))
            if time.monotonic() > deadline and chunk.looked_to is not None:
                searched_to = chunk.looked_to
                break
        _keep(self._searched, filter, (snapshot, sums, searched_to))
        return sums, searched_to

    def _choices_of(self, snapshot: Snapshot, of: Filter) -> _Choices:
        known, found, total = self._choices.get(of, {}), dict[str, _Choices](), _Choices()
        for fragment in snapshot.rows.fragments:
            choices = known.get(fragment.key)
            if choices is None:
                choices = _Choices()
                for _, batch in fragment.scan(_CHOSEN, of.condition()):
                    choices.count(batch)
            found[fragment.key] = choices
            total.add(choices)
        _keep(self._choices, of, found)
        return total

    def dag_ids(self, snapshot: Snapshot) -> frozenset[str]:
        """Return the ids of all DAGs that have rows; an empty one where rows were made by none."""
        with self._dag_lock:
            known, self._dag_ids = self._dag_ids, {}
            for fragment in snapshot.rows.fragments:
                found = known.get(fragment.key)
                if found is None:
                    found = frozenset(
                        name or "" for _, batch in fragment.scan(("dag_id",)) for name in _unique(batch["dag_id"])
                    )
                self._dag_ids[fragment.key] = found
            return frozenset().union(*self._dag_ids.values())


def _unique(column: pa.Array) -> list[str | None]:
    from pyarrow import compute

    found: list[str | None] = compute.unique(column).to_pylist()
    return found


def _most_common(counts: Counter[Any]) -> list[tuple[Any, int]]:
    """Return the first choices, always in the same order."""
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:MOST_CHOICES]


def _others(places: Places, copies: Places) -> Any:
    """Return for each place whether it is not among the copies."""
    import numpy as np

    return np.isin(places, copies, invert=True)


def _is_first(rows: Rows, copies: Mapping[int, Places]) -> Any:
    """Return for each row whether it is no copy of another one."""
    import numpy as np

    is_first = np.ones(len(rows), bool)
    for number, places in copies.items():
        is_first &= (rows.fragment != number) | _others(rows.place, places)
    return is_first


def _keep(cache: OrderedDict[Filter, Any], filter: Filter, value: Any) -> None:  # noqa: A002
    cache[filter] = value
    cache.move_to_end(filter)
    if len(cache) > KEPT_FILTERS:
        cache.popitem(last=False)
