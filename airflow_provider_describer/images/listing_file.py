"""Reads lists of images from files, on a disk or in a bucket: JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, Self

from airflow_provider_describer.errors import BadInput, RejectedImage, UnreadableImage
from airflow_provider_describer.images.encoding import unpack_object
from airflow_provider_describer.models import plural
from airflow_provider_describer.storage.address import LocalFile, ObjectKey, parse_uri

if TYPE_CHECKING:
    from airflow_provider_describer.storage.open_bucket import OpenBucket

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
KNOWN = ("uri", "version", "size", "prompt", "lang", "id")
"""Columns that are an item's keys; the value of any other column ``name`` fills ``{name}`` in a prompt."""
LARGEST = 1 << 31
"""Bytes of the largest listing that is unpacked, of one that is stored with a Content-Encoding."""

Item = tuple[str, str | dict[str, Any] | BadInput]
"""An image's place in its file, for errors, and the image: a uri or a dict, or why the line is neither."""


def is_listing_file(name: object) -> bool:
    """Whether this is the name of a listing file; no image's name ends like one."""
    return isinstance(name, str) and name.lower().endswith(SUFFIXES)


def read_listing(path: str, open_bucket: OpenBucket | None = None) -> Iterator[Item]:
    """Yield the images that a file lists, each with its place in the file. A line that is no image is yielded as error.

    ``.jsonl`` and ``.ndjson``: one image a line, a uri in quotes or a dict as `parse_images` takes it. ``.csv`` (UTF-8
    with a header row) and ``.parquet``: one image a row. The column ``uri`` is required; ``version``, ``size``,
    ``prompt``, ``lang`` and ``id`` are the dict's keys, and every other column is one of its ``fields``.

    :param path: a local path, ``file://``, or, with ``open_bucket``, ``s3://`` or ``gs://``.
    :raises BadInput: for a file that does not exist or is no such listing: without the column ``uri``, not Parquet, or
        with no line that can be read, of which the first is named.
    :raises UnreadableImage, BucketError: for a file that cannot be read now.
    """
    with _open(path, open_bucket) as file:
        match path.lower().rpartition(".")[2]:
            case "csv":
                yield from _some_good(_csv(path, file))
            case "parquet":
                yield from _some_good(_parquet(path, file))
            case _:
                yield from _some_good(_json_lines(path, file))


def _some_good(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items, unless none can be read: then the file is no listing, and its first error is raised."""
    bad: list[Item] = []
    for item in items:
        if isinstance(item[1], BadInput):
            bad.append(item)
            continue
        yield from bad
        yield item
        yield from items
        return
    for _, error in bad:
        assert isinstance(error, BadInput)
        raise error


def _open(path: str, open_bucket: OpenBucket | None) -> IO[bytes]:
    missing = BadInput(f"images is {path!r}, but there is no such file; expected a file with a list of images.")
    match parse_uri(path):
        case ObjectKey(scheme, bucket, key):
            if open_bucket is None:
                raise BadInput(f"images is {path!r}, but no bucket can be opened here; expected a local listing file.")
            content = open_bucket(scheme, bucket).read(key)
            if content is None:
                raise missing
            try:
                return io.BytesIO(unpack_object(path, content.data, content.encoding, LARGEST))
            except RejectedImage as error:
                raise BadInput(f"The listing cannot be read: {error}") from None
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
        if line.strip():
            where = f"{path} line {number}"
            yield where, _json_item(where, line)


def _json_item(where: str, line: bytes) -> str | dict[str, Any] | BadInput:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        problem = "not UTF-8" if isinstance(error, UnicodeDecodeError) else f"not JSON ({error})"
        return BadInput(f'{where} is {problem}; expected a uri in quotes or a dict such as {{"uri": "…"}}.')
    if not isinstance(item, str | dict):
        return BadInput(f'{where} is a {type(item).__name__}; expected a uri in quotes or a dict with "uri".')
    return item


class _Lines:
    """The lines of a text, for a reader of CSV: the lines of a record that is none are read again, one by one."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = enumerate(lines, 1)
        self._again: deque[tuple[int, str]] = deque()
        self.record: list[tuple[int, str]] = []
        """The lines that were read for the current record, with their numbers."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.record.append(line)
        return line[1]

    def read_again(self) -> None:
        """Read all lines of the record but the first again: a quote that is not closed must not swallow them."""
        self._again.extendleft(reversed(self.record[1:]))


def _csv(path: str, file: IO[bytes]) -> Iterator[Item]:
    # utf-8-sig skips the byte order mark that Excel writes. What is not UTF-8 becomes surrogates, which UTF-8 has not.
    with io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as text:
        lines = _Lines(text)
        rows = csv.reader(lines, strict=True)
        columns: list[str] = []
        while True:
            lines.record.clear()
            try:
                row = next(rows)
            except StopIteration:
                break
            except csv.Error as error:
                number = lines.record[0][0]
                problem = BadInput(f"{path} line {number} is not CSV: {error}.")
                if not columns:
                    raise problem from None
                lines.read_again()
                yield f"{path} line {number}", problem
                continue
            where = f"{path} line {lines.record[-1][0]}"
            if not columns:
                columns = _header(where, row)
            elif row:
                yield where, _csv_item(where, columns, row)
    if not columns:
        raise BadInput(f"{path} is empty; expected a header row with the column 'uri'.")


def _header(where: str, row: list[str]) -> list[str]:
    if not_utf8 := _not_utf8(where, row):
        raise not_utf8
    return _checked_columns(where, row)


def _csv_item(where: str, columns: list[str], row: list[str]) -> dict[str, Any] | BadInput:
    if not_utf8 := _not_utf8(where, row):
        return not_utf8
    if len(row) != len(columns):
        return BadInput(
            f"{where} has {len(row)} {plural(len(row), 'cell')}, expected {len(columns)} as in the header; "
            "put a text with a comma in quotes."
        )
    return _row(dict(zip(columns, row, strict=True)))


def _not_utf8(where: str, row: list[str]) -> BadInput | None:
    broken = any(not cell.isascii() and any("\ud800" <= c <= "\udfff" for c in cell) for cell in row)
    return BadInput(f"{where} is not UTF-8; save the file as CSV in UTF-8.") if broken else None


def _parquet(path: str, file: IO[bytes]) -> Iterator[Item]:
    try:
        import pyarrow as arrow
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
            for values in _batch_rows(batch):
                number += 1
                where = f"{path} row {number}"
                if isinstance(values, Exception):
                    problem = f"{type(values).__name__}: {values}"
                    yield where, BadInput(f"{where} has a value that cannot be read: {problem}.")
                else:
                    # A null is left out: a prompt that names it is refused instead of filled with "None".
                    yield where, _row({name: value for name, value in values.items() if value is not None})
    except (arrow.ArrowException, OSError) as error:
        raise BadInput(f"{path} cannot be read as Parquet: {type(error).__name__}: {error}.") from None


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | Exception]:
    """Yield a batch's rows; one with a text that is not UTF-8, or with a time beyond Python's, as its error."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):
        pass
    for number in range(batch.num_rows):
        try:
            yield from batch.slice(number, 1).to_pylist()
        except (ValueError, OverflowError) as error:
            yield error


def _checked_columns(where: str, names: list[str]) -> list[str]:
    if "uri" not in names:
        found = ", ".join(map(repr, names))[:200] or "none"
        raise BadInput(
            f"{where} has the columns {found}; expected one named 'uri', and commas between the columns of CSV."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"{where} has the column {twice[0]!r} twice; expected each once.")
    return names


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's row as an item of a list of images; an empty cell is left out, except in a field."""
    item = {name: value for name in KNOWN if (value := values.get(name)) not in (None, "")}
    if fields := {name: value for name, value in values.items() if name not in KNOWN}:
        item["fields"] = fields
    return item
