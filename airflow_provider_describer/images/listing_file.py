"""Reads lists of images from files, on a disk or in a bucket: JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_describer.errors import BadInput, UnreadableImage
from airflow_provider_describer.storage.address import LocalFile, ObjectKey, parse_uri

if TYPE_CHECKING:
    from _csv import Reader as Rows

    from airflow_provider_describer.storage.open_bucket import OpenBucket

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
KNOWN = ("uri", "version", "size", "prompt", "lang", "id")
"""Columns that are an item's keys; the value of any other column ``name`` fills ``{name}`` in a prompt."""

Item = tuple[str, str | dict[str, Any]]
"""An image's place in its file, for errors, and the image: a uri or a dict."""


def is_listing_file(name: object) -> bool:
    """Whether this is the name of a listing file; no image's name ends like one."""
    return isinstance(name, str) and name.lower().endswith(SUFFIXES)


def read_listing(path: str, open_bucket: OpenBucket | None = None) -> Iterator[Item]:
    """Yield the images that a file lists, each with its place in the file.

    ``.jsonl`` and ``.ndjson``: one image a line, a uri in quotes or a dict as `parse_images` takes it. ``.csv`` (UTF-8
    with a header row) and ``.parquet``: one image a row. The column ``uri`` is required; ``version``, ``size``,
    ``prompt``, ``lang`` and ``id`` are the dict's keys, and every other column is one of its ``fields``.

    :param path: a local path, ``file://``, or, with ``open_bucket``, ``s3://`` or ``gs://``.
    :raises BadInput: for a file that does not exist, or naming the line or column that is wrong.
    :raises UnreadableImage, BucketError: for a file that cannot be read now.
    """
    with _open(path, open_bucket) as file:
        match path.lower().rpartition(".")[2]:
            case "csv":
                yield from _csv(path, file)
            case "parquet":
                yield from _parquet(path, file)
            case _:
                yield from _json_lines(path, file)


def _open(path: str, open_bucket: OpenBucket | None) -> IO[bytes]:
    missing = BadInput(f"images is {path!r}, but there is no such file; expected a file with a list of images.")
    match parse_uri(path):
        case ObjectKey(scheme, bucket, key):
            if open_bucket is None:
                raise BadInput(f"images is {path!r}, but no bucket can be opened here; expected a local listing file.")
            content = open_bucket(scheme, bucket).read(key)
            if content is None:
                raise missing
            return io.BytesIO(content.data)
        case LocalFile(_, file):
            try:
                return file.open("rb")
            except FileNotFoundError:
                raise missing from None
            except OSError as error:
                problem = f"{type(error).__name__}: {error.strerror}"
                raise UnreadableImage(f"The listing {path!r} cannot be read: {problem}.") from None
        case url:
            raise BadInput(f"images is {str(url)!r}: a listing is read from a disk, s3:// or gs://, not from the web.")


def _json_lines(path: str, file: IO[bytes]) -> Iterator[Item]:
    for number, line in enumerate(file, 1):
        where = f"{path} line {number}"
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            problem = "not UTF-8" if isinstance(error, UnicodeDecodeError) else f"not JSON ({error})"
            raise BadInput(
                f'{where} is {problem}; expected a uri in quotes or a dict such as {{"uri": "…"}}.'
            ) from None
        if not isinstance(item, str | dict):
            raise BadInput(f'{where} is a {type(item).__name__}; expected a uri in quotes or a dict with "uri".')
        yield where, item


def _csv(path: str, file: IO[bytes]) -> Iterator[Item]:
    # utf-8-sig skips the byte order mark that Excel writes.
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        rows = csv.reader(text, strict=True)
        try:
            yield from _table(path, rows)
        except UnicodeDecodeError:
            raise BadInput(f"{path} after line {rows.line_num} is not UTF-8; save the file as CSV in UTF-8.") from None
        except csv.Error as error:
            raise BadInput(f"{path} line {rows.line_num} is not CSV: {error}.") from None


def _table(path: str, rows: Rows) -> Iterator[Item]:
    columns: list[str] = []
    for row in rows:
        where = f"{path} line {rows.line_num}"
        if not columns:
            columns = _checked_columns(where, row)
        elif len(row) not in (0, len(columns)):
            raise BadInput(
                f"{where} has {len(row)} cells, expected {len(columns)} as in the header; put a text with a "
                "comma in quotes."
            )
        elif row:
            yield where, _row(where, dict(zip(columns, row, strict=True)))
    if not columns:
        raise BadInput(f"{path} is empty; expected a header row with the column 'uri'.")


def _parquet(path: str, file: IO[bytes]) -> Iterator[Item]:
    try:
        import pyarrow as arrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError:
        raise BadInput(
            f"{path} needs pyarrow: pip install 'airflow-provider-describer[parquet]', or write it as .jsonl."
        ) from None
    try:
        table = parquet.ParquetFile(file)
        _checked_columns(path, table.schema_arrow.names)
        number = 0
        for batch in table.iter_batches(batch_size=4096):
            for values in batch.to_pylist():
                number += 1
                where = f"{path} row {number}"
                # A null is left out: a prompt that names it is refused instead of filled with "None".
                yield where, _row(where, {name: value for name, value in values.items() if value is not None})
    except (arrow.ArrowException, OSError) as error:
        raise BadInput(f"{path} cannot be read as Parquet: {type(error).__name__}: {error}.") from None


def _checked_columns(where: str, names: list[str]) -> list[str]:
    if "uri" not in names:
        found = ", ".join(map(repr, names))[:200] or "none"
        raise BadInput(
            f"{where} has the columns {found}; expected one named 'uri', and commas between the columns of CSV."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"{where} has the column {twice[0]!r} twice; expected each once.")
    return names


def _row(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's row as an item of a list of images; an empty cell is left out, except in a field."""
    item = {name: value for name in KNOWN if (value := values.get(name)) not in (None, "")}
    if fields := {name: value for name, value in values.items() if name not in KNOWN}:
        item["fields"] = fields
    size = item.get("size", 0)
    if isinstance(size, str):
        if not size.strip().isascii() or not size.strip().isdigit():
            raise BadInput(f"{where}, column 'size', is {size!r}; expected a number of bytes.")
        item["size"] = int(size)
    return item
