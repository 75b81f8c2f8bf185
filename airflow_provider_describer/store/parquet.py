"""Rows as a Parquet file: a typed column for each field, a group of rows at a time in memory."""

from __future__ import annotations

import json
from datetime import datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

GROUP = 2000
"""Rows of one row group, about 4 MB of JSON."""


def require_pyarrow() -> None:
    """Make sure that Parquet can be written, before a run and not at its end.

    :raises BadInput: naming what to install.
    """
    if find_spec("pyarrow") is None:
        raise BadInput(
            "results_format='parquet' needs pyarrow: pip install 'airflow-provider-describer[parquet]' on the workers, "
            "or leave results_format out."
        )


def write_parquet(lines: Path, target: Path) -> None:
    """Write the rows that a file holds as lines of JSON to a Parquet file.

    :raises OSError: where one cannot be read or the other not be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = row_schema()
    with lines.open("rb") as rows, parquet.ParquetWriter(target, schema) as writer:
        while group := [_typed(line) for line in islice(rows, GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema))


def row_schema() -> pa.Schema:
    """Return the columns, in the order of `Row`'s fields."""
    import pyarrow as pa

    text, number, whole = pa.string(), pa.float64(), pa.int64()
    return pa.schema(
        {
            "uri": text,
            "version": text,
            "sha256": text,
            "vendor": text,
            "model": text,
            "prompt": text,
            "lang": text,
            "status": text,
            "text": text,
            "cost_usd": number,
            "request_id": text,
            "billed": text,
            "error": pa.struct({"kind": text, "message": text, "answer": text}),
            "described_at": pa.timestamp("ms", "UTC"),
            "elapsed_s": number,
            "dag_id": text,
            "run_id": text,
            "task_id": text,
            "map_index": whole,
            "try_number": whole,
            "id": text,
            "lost_calls": whole,
        }
    )


def _typed(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)
    row["described_at"] = datetime.fromisoformat(row["described_at"])
    if error := row["error"]:
        # A broken character of an image's name, which JSON can hold and Parquet cannot.
        row["error"] = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in error.items()}
    return row
