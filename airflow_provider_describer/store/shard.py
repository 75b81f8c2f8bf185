"""One shard of the journal: a header line with a checksum, then one line of JSON for each event.

A shard is written whole and never changed, so a missing or different byte is damage and is reported as damage.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from airflow_provider_describer.errors import CorruptShard

VERSION = 1
VERSION_WITH_TABLE = 2
"""The version of the mark `SETTLED`: releases that read version 1 only do not know the table."""
FOLDER = "journal"
SUFFIX = ".jsonl"
SETTLED = f"{FOLDER}/0-settled{SUFFIX}"
"""A shard without events that says that there is a table beside the journal."""
_FORMAT = "airflow-provider-describer journal"
_NOT_PLAIN = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ASCII = json.JSONEncoder(separators=(",", ":"))
_EVENT_START = re.compile(rb'\{"event":"(\w+)","call":"([^"\\]*)"')
"""How the engine's lines start. Other lines are valid too, and are parsed in full."""

Event = dict[str, Any]


def shard_name(now: float, writer: str) -> str:
    """Return the name of a shard that ``writer`` writes at ``now`` (epoch seconds). Names sort by time."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    return f"{FOLDER}/{stamp}.{int(now * 1000) % 1000:03d}-{writer}{SUFFIX}"


def shard_namer(clock: Callable[[], float], writer: str | None = None) -> Callable[[], str]:
    """Return a function that names one writer's shards.

    :param writer: its id, of letters and digits, which no other one has; by default a new one.
    """
    writer, numbers = writer or secrets.token_hex(6), itertools.count(1)
    return lambda: shard_name(clock(), f"{writer}-{next(numbers):06d}")


def writer_of(name: str) -> str:
    """Return the id of the writer of the shard that has this name; empty for a name of another form."""
    found = re.fullmatch(rf"{FOLDER}/[^-]+-(\w+)-\d+{re.escape(SUFFIX)}", name)
    return found[1] if found else ""


def json_line(values: Event) -> bytes:
    """Return the values as one line of JSON in valid UTF-8, for every reader; parsing it gives the same values."""
    text = _JSON.encode(values)
    # What some readers take for the end of a line, and a lone surrogate, as in a file name that is not UTF-8: JSON can
    # write them as escapes.
    is_plain = text.isascii() or not _NOT_PLAIN.search(text)
    return (text if is_plain else _ASCII.encode(values)).encode() + b"\n"


def settled_mark() -> bytes:
    """Return the content of `SETTLED`."""
    return encode_shard((), VERSION_WITH_TABLE)


def encode_shard(lines: Iterable[bytes], version: int = VERSION) -> bytes:
    """Return a whole shard made of lines from `json_line`."""
    parts = list(lines)
    # Hashed line by line, so that a large shard is in memory once and not twice.
    checksum = hashlib.sha256()
    for line in parts:
        checksum.update(line)
    header = {"format": _FORMAT, "version": version, "bytes": sum(map(len, parts)), "sha256": checksum.hexdigest()}
    return b"".join([json.dumps(header).encode(), b"\n", *parts])


def shard_lines(name: str, content: bytes) -> Iterator[tuple[int, bytes]]:
    """Check the whole shard, then yield ``(offset, line)`` of each line with its line break.

    :param name: the shard's address, for errors.
    :raises CorruptShard: naming the shard and the damage.
    """
    head, newline, _ = content.partition(b"\n")
    start = len(head) + 1
    header = _parse_header(name, head, complete=bool(newline))
    body = memoryview(content)[start:]
    if len(body) != header.get("bytes"):
        raise _damaged(name, f"it holds {len(body)} bytes of {header.get('bytes')!r}")
    if hashlib.sha256(body).hexdigest() != header.get("sha256"):
        raise _damaged(name, "its checksum does not match its content")
    while start < len(content):
        end = content.index(b"\n", start) + 1
        yield start, content[start:end]
        start = end


def peek(line: bytes) -> tuple[str, str]:
    """Return an event's kind and call id, in a tenth of the time that parsing the line takes."""
    found = _EVENT_START.match(line)
    if found:
        return found[1].decode(), found[2].decode()
    event: Event = json.loads(line)
    return event["event"], event.get("call", "")


def _parse_header(name: str, head: bytes, *, complete: bool) -> dict[str, Any]:
    try:
        header = json.loads(head)
    except ValueError:
        header = None
    if not complete or not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise _damaged(name, "its first line is not the header of a journal shard")
    if header.get("version") not in (VERSION, VERSION_WITH_TABLE):
        raise CorruptShard(
            f"{name} was written in version {header.get('version')!r} of the journal's format; this release reads "
            f"versions {VERSION} and {VERSION_WITH_TABLE}. Upgrade airflow-provider-describer. No call was made."
        )
    return header


def _damaged(name: str, what: str) -> CorruptShard:
    return CorruptShard(
        f"{name} is damaged: {what}. It may record calls that were paid for, so no call is made. Restore it from a "
        "backup, or move it out of the journal; the calls that it records may then be paid for again."
    )
