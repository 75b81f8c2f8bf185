"""The version of a table's format: which ones are read, and how a table of an older one is brought up to date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_describer.errors import CorruptShard
from airflow_provider_describer.store import columns

if TYPE_CHECKING:
    import pyarrow as pa
    from lance import LanceDataset


def check_version(where: str, schema: pa.Schema) -> None:
    """Make sure that this release can read a table with this schema.

    :raises CorruptShard: naming the table and its version.
    """
    version = _version(schema)
    if version not in map(str, range(1, columns.VERSION + 1)):
        raise CorruptShard(
            f"{where} was written in version {version!r} of the table's format; this release reads versions up to "
            f"{columns.VERSION}. Upgrade airflow-provider-describer. No call was made."
        )


def is_old(schema: pa.Schema) -> bool:
    """Return whether the table is of an older version, and so lacks columns."""
    return _version(schema) != str(columns.VERSION)


def present(schema: pa.Schema, names: Sequence[str] | None = None) -> list[str]:
    """Return those of these columns, by default of all, that a table of this version has if it is whole."""
    version = int(_version(schema))
    lacking = {name for added, columns_of in columns.ADDED_IN.items() if added > version for name in columns_of}
    return [name for name in names or columns.schema().names if name not in lacking]


def upgrade(dataset: LanceDataset) -> None:
    """Add the columns that a table of an older version lacks; no row is written again. It can be done twice."""
    lacking = [field for field in columns.schema() if field.name not in dataset.schema.names]
    if lacking:
        dataset.add_columns(lacking)
    # Last, so that a table of this version has all columns whenever the process ends.
    dataset.update_schema_metadata({columns.VERSION_NAME.decode(): str(columns.VERSION)})


def with_columns(batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """Return a batch with these columns, in this order; those that the table lacks are null."""
    import pyarrow as pa

    schema = columns.schema()
    arrays = [
        batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows, schema.field(name).type)
        for name in names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([schema.field(name) for name in names]))


def _version(schema: pa.Schema) -> str:
    version: bytes = (schema.metadata or {}).get(columns.VERSION_NAME, b"?")
    return version.decode(errors="replace")
