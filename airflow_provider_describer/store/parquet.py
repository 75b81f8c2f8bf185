"""Rows as a Parquet file: one typed column for each field. One row group at a time is in memory."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from airflow_provider_describer.store.rows import Row

GROUP_ROWS = 2000
"""Rows in one row group, about 4 MB of JSON."""


def write_parquet(lines: Path, target: Path) -> None:
    """Write rows, given as a file of JSON lines, to a Parquet file; its columns are in the order of `Row`'s fields.

    :raises OSError: if one file cannot be read or the other cannot be written.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    text = pa.string()
    types = {
        "cost_usd": pa.float64(),
        "error": pa.struct({"kind": text, "message": text, "answer": text}),
        "described_at": pa.timestamp("ms", "UTC"),
        "elapsed_s": pa.float64(),
        "map_index": pa.int64(),
        "try_number": pa.int64(),
        "lost_calls": pa.int64(),
    }
    schema = pa.schema({field.name: types.get(field.name, text) for field in fields(Row)})
    with lines.open("rb") as rows, parquet.ParquetWriter(target, schema) as writer:
        while group := [_typed(line) for line in islice(rows, GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(group, schema))


def _typed(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)
    row["described_at"] = datetime.fromisoformat(row["described_at"])
    if error := row["error"]:
        # A lone surrogate in an image's name: JSON can hold it, Parquet cannot.
        row["error"] = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in error.items()}
    return row
