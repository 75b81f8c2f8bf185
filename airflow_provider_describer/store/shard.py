"""One shard of the journal: its name, and its bytes: a header line with a checksum, then a line of JSON for each event.

A shard is written whole and never changed, so any byte that is missing or different is damage and is reported as such.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

from airflow_provider_describer.errors import CorruptShard

VERSION = 1
FOLDER = "journal"
SUFFIX = ".jsonl"
_FORMAT = "airflow-provider-describer journal"

Event = dict[str, Any]


def shard_name(now: float, writer: str) -> str:
    """Return a shard's name: sorted by time, its writer's own."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    return f"{FOLDER}/{stamp}.{int(now * 1000) % 1000:03d}-{writer}{SUFFIX}"


def json_line(values: Event) -> bytes:
    """Return the values as one line of JSON in valid UTF-8, from which each of them can be read again."""
    try:
        return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:
        # A broken character, as in a file name that is no UTF-8: JSON can write it as an escape.
        return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def encode_shard(lines: Iterable[bytes]) -> bytes:
    """Return a whole shard of lines that `json_line` made."""
    body = b"".join(lines)
    header = {
        "format": _FORMAT,
        "version": VERSION,
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return json.dumps(header).encode() + b"\n" + body


def decode_shard(name: str, content: bytes) -> Iterator[tuple[int, int, Event]]:
    """Yield ``(offset, length, event)`` of each line, once all of the shard has been checked.

    :param name: where the shard lies, for errors.
    :raises CorruptShard: naming the shard and what is wrong with it.
    """
    head, found, _ = content.partition(b"\n")
    start = len(head) + 1
    header = _header(name, head, complete=bool(found))
    body = memoryview(content)[start:]
    if len(body) != header.get("bytes"):
        raise _damaged(name, f"it holds {len(body)} bytes of {header.get('bytes')!r}")
    if hashlib.sha256(body).hexdigest() != header.get("sha256"):
        raise _damaged(name, "its checksum does not fit its content")
    while start < len(content):
        end = content.index(b"\n", start) + 1
        yield start, end - start, json.loads(content[start:end])
        start = end


def _header(name: str, head: bytes, *, complete: bool) -> dict[str, Any]:
    try:
        header = json.loads(head)
    except ValueError:
        header = None
    if not complete or not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise _damaged(name, "its first line is no header of a journal shard")
    if header.get("version") != VERSION:
        raise CorruptShard(
            f"{name} was written in version {header.get('version')!r} of the journal's format; this release reads "
            f"version {VERSION}. Upgrade airflow-provider-describer; nothing has been called."
        )
    return header


def _damaged(name: str, what: str) -> CorruptShard:
    return CorruptShard(
        f"{name} is damaged: {what}. It may record calls that were paid for, so nothing is called. Restore it from a "
        "backup; or move it out of the journal, which means that what it records may be paid for again."
    )
