"""What calls have led to and what they have cost, summed up by vendor, by prompt and by day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.store.columns import FACTS

if TYPE_CHECKING:
    import pyarrow as pa

TOTALED = ("vendor", "prompt", "lang", "status", "billed", "cost_usd", "described_at", "review")
"""The columns that are summed up."""
_SUMS = ("described", "rejected", "unknown", "cost_usd", "unpriced")
_NONE = "(none)"


@dataclass(slots=True)
class CallTotals:
    """Ended calls and their cost. ``unpriced`` calls were billed, or may have been, at an unknown price."""

    described: int = 0
    rejected: int = 0
    unknown: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0

    def add(self, sums: Mapping[str, Any]) -> None:
        """Add the sums of some calls."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + (sums[name] or 0))


@dataclass(slots=True)
class Totals:
    """The totals of all calls. ``highest_cost`` of one call is None where no cost is known."""

    total: CallTotals = field(default_factory=CallTotals)
    by_vendor: dict[str, CallTotals] = field(default_factory=dict)
    by_prompt: dict[str, CallTotals] = field(default_factory=dict)
    by_day: dict[str, CallTotals] = field(default_factory=dict)
    highest_cost: float | None = None


def sum_up(batches: Iterable[pa.RecordBatch]) -> Totals:
    """Return the totals of rows with the columns `TOTALED`; rows that are no outcome of a call are left out."""
    import pyarrow as pa
    from pyarrow import compute

    totals, sums = Totals(), dict.fromkeys((("vendor",), ("prompt", "lang"), ("day",)), pa.table({}))
    for batch in batches:
        rows = _measured(batch)
        if cost := compute.max(rows["cost_usd"]).as_py():
            totals.highest_cost = max(totals.highest_cost or 0.0, cost)
        for by, before in sums.items():
            added = _grouped(rows, by)
            sums[by] = _grouped(pa.concat_tables([before, added]), by) if len(before) else added
    for row in sums["vendor",].to_pylist():
        totals.by_vendor.setdefault(row["vendor"] or _NONE, CallTotals()).add(row)
        totals.total.add(row)
    for row in sums["prompt", "lang"].to_pylist():
        prompt = _NONE if row["prompt"] is None else row["prompt"]
        name = prompt + (f" [{row['lang']}]" if row["lang"] else "")
        totals.by_prompt.setdefault(name, CallTotals()).add(row)
    for row in sums["day",].to_pylist():
        totals.by_day.setdefault(row["day"].isoformat(), CallTotals()).add(row)
    return totals


def _measured(batch: pa.RecordBatch) -> pa.Table:
    """Return what the rows are grouped by, and of each what is summed up."""
    import pyarrow as pa
    from pyarrow import compute

    is_fact = compute.is_in(batch.column("status"), value_set=pa.array(FACTS))
    batch = batch.filter(compute.invert(compute.or_(is_fact, compute.is_valid(batch.column("review")))))
    status, cost = batch.column("status"), batch.column("cost_usd")
    may_be_billed = compute.fill_null(compute.not_equal(batch.column("billed"), "no"), True)
    values = {name: compute.equal(status, name).cast(pa.int64()) for name in ("described", "rejected", "unknown")}
    unpriced = compute.and_(compute.is_null(cost), may_be_billed).cast(pa.int64())
    groups = {name: batch.column(name) for name in ("vendor", "prompt", "lang")}
    day = batch.column("described_at").cast(pa.date32())
    return pa.table({**groups, "day": day, **values, "cost_usd": cost, "unpriced": unpriced})


def _grouped(rows: pa.Table, by: Sequence[str]) -> pa.Table:
    sums = rows.group_by(list(by)).aggregate([(name, "sum") for name in _SUMS])
    return sums.select([*by, *(f"{name}_sum" for name in _SUMS)]).rename_columns([*by, *_SUMS])
