"""Listings in files, for lists that do not fit XCom: JSON lines, CSV or Parquet, on a disk or in a bucket."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_describer.errors import BadInput, UnreadableImage
from airflow_provider_describer.storage.address import bucket_address, local_path, masked

if TYPE_CHECKING:
    from _csv import Reader as Rows

    from airflow_provider_describer.storage.open_bucket import OpenBucket

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
KNOWN = ("uri", "version", "size", "prompt", "lang", "id")
"""Columns with a meaning of their own; the value of any other fills ``{name}`` in a prompt."""

Item = tuple[str, str | dict[str, Any]]
"""Where an image stands in its file, for errors, and the image: a uri or a dict."""


def is_listing_file(name: object) -> bool:
    """Whether the name is one of a file with a list of images: no image's name ends so."""
    return isinstance(name, str) and name.lower().endswith(SUFFIXES)


def read_listing(path: str, open_bucket: OpenBucket | None = None) -> Iterator[Item]:
    """Yield the images that a file lists, each with where it stands in it.

    ``.jsonl``/``.ndjson``: a line each, a uri in quotes or a dict as `asks_of` takes them. ``.csv`` (with a header row,
    in UTF-8) and ``.parquet``: a row each; the column ``uri`` is needed, ``version``, ``size``, ``prompt``, ``lang``
    and ``id`` mean what they do in a dict, and every other column becomes one of its ``fields``.

    :param path: a local path, ``file://``, or ``s3://`` and ``gs://`` where there is ``open_bucket``.
    :raises BadInput: for a file that is not there, or with the line and column that is not as expected.
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
    address = bucket_address(path)
    if address is None:
        return _open_local(path)
    if open_bucket is None:
        raise BadInput(f"images is {path!r}, but no bucket can be opened here; expected a listing on a local disk.")
    content = open_bucket(address.scheme, address.bucket).read(address.key)
    if content is None:
        raise _missing(path)
    return io.BytesIO(content.data)


def _open_local(path: str) -> IO[bytes]:
    file = local_path(path)
    if file is None:
        raise BadInput(f"images is {masked(path)!r}: a listing is read from a disk, s3:// or gs://, not from the web.")
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise UnreadableImage(
            f"The listing {path!r} cannot be read: {type(error).__name__}: {error.strerror}."
        ) from None


def _missing(path: str) -> BadInput:
    return BadInput(f"images is {path!r}, but there is no such file; expected one with a list of images.")


def _json_lines(path: str, file: IO[bytes]) -> Iterator[Item]:
    for number, line in enumerate(file, 1):
        where = f"{path} line {number}"
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            what = "no UTF-8" if isinstance(error, UnicodeDecodeError) else f"no JSON ({error})"
            raise BadInput(f'{where} is {what}; expected a uri in quotes or a dict such as {{"uri": "…"}}.') from None
        if not isinstance(item, str | dict):
            raise BadInput(f'{where} is a {type(item).__name__}; expected a uri in quotes or a dict with "uri".')
        yield where, item


def _csv(path: str, file: IO[bytes]) -> Iterator[Item]:
    # With the mark that Excel writes before UTF-8, or without.
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        rows = csv.reader(text, strict=True)
        try:
            yield from _table(path, rows)
        except UnicodeDecodeError:
            raise BadInput(f"{path} after line {rows.line_num} is no UTF-8; save the file as CSV in UTF-8.") from None
        except csv.Error as error:
            raise BadInput(f"{path} line {rows.line_num} is no CSV: {error}.") from None


def _table(path: str, rows: Rows) -> Iterator[Item]:
    columns: list[str] = []
    for row in rows:
        where = f"{path} line {rows.line_num}"
        if not columns:
            columns = _checked_columns(where, row)
        elif len(row) not in (0, len(columns)):
            raise BadInput(
                f"{where} has {len(row)} cells, expected {len(columns)} as in the header; a text with a comma is "
                "written in quotes."
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
                # A null is no value: a prompt that asks for it is refused, and not filled with "None".
                yield where, _row(where, {name: value for name, value in values.items() if value is not None})
    except (arrow.ArrowException, OSError) as error:
        raise BadInput(f"{path} is no Parquet file that can be read: {type(error).__name__}: {error}.") from None


def _checked_columns(where: str, names: list[str]) -> list[str]:
    if "uri" not in names:
        found = ", ".join(map(repr, names))[:200] or "none"
        raise BadInput(f"{where} has the columns {found}; expected one named 'uri', and commas between columns of CSV.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"{where} has the column {twice[0]!r} twice; expected each once.")
    return names


def _row(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's row as the dict that a list of images has; an empty cell is none, but for a field."""
    item = {name: value for name in KNOWN if (value := values.get(name)) not in (None, "")}
    if fields := {name: value for name, value in values.items() if name not in KNOWN}:
        item["fields"] = fields
    size = item.get("size", 0)
    if isinstance(size, str):
        if not size.strip().isascii() or not size.strip().isdigit():
            raise BadInput(f"{where}, column 'size', is {size!r}; expected a number of bytes.")
        item["size"] = int(size)
    return item
