"""The columns of the settled table, and how the journal's events become its rows and rows become events again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from zlib import crc32

from airflow_provider_describer.errors import UnexpectedAnswer
from airflow_provider_describer.store.rows import TaskInstanceKey, row_fields
from airflow_provider_describer.store.shard import Event, json_line

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 3
ADDED_IN: Mapping[int, Sequence[str]] = {2: ("failed_rules", "review", "reviewed_by"), 3: ("fields", "fallback")}
"""The columns that came with a version. A table of an older one is read too, and the next writer adds them."""
ADDED = tuple(name for names in ADDED_IN.values() for name in names)
JSON_COLUMNS = ("fields", "fallback")
"""Objects, which the table has as JSON texts: their keys differ from row to row."""
VERSION_NAME = b"airflow-provider-describer table"
"""The name of the table's version in the metadata of its schema."""
KEY_COLUMNS = ("key_1", "key_2", "key_3")
ROW_ID = "row_id"
"""Call and status: a call whose answer was lost may be found later."""
INDEXED = (*KEY_COLUMNS, "call_key", "instance_key", "sender_key")
"""Columns of 64-bit digests, which lookups ask. An identity is in any one of the first three."""
FOUND = (*KEY_COLUMNS, "call_key", "status", "described_at")
"""What a lookup of identities reads: narrow columns only."""
SPENT = ("call_key", "status", "billed", "cost_usd", "described_at", "try_number")
"""What is read of the calls of one task instance."""
FOUND_CRC, SPENT_CRC, ROW_CRC = "found_crc", "spent_crc", "row_crc"
"""Columns with the CRC-32 of `FOUND`, of `SPENT` and of the whole row: in Lance's files nothing else shows damage."""
FACTS = ("lost", "same")
"""The statuses of rows that are no outcome: a call without an answer that another one followed, and the identities of
one content."""
_ROW_FIELDS = row_fields()
SHOWN = (*_ROW_FIELDS, "call")
"""What people are shown: the columns of a row, and the id of its call."""
MADE_FROM = ("call", "status", "identities", "sent_by", "dag_id", "run_id", "task_id", "map_index")
"""The columns that `derived` reads."""
OWN_FIELDS = ("call", "sent_by", "shown", "identities")
"""Columns of the table that are no part of the row of a result."""
_ERROR_FIELDS = ("kind", "message", "answer")
_COMPRESSED = {
    "uri": {"lance-encoding:compression": "zstd"},
    # Many texts are compressed together, to three quarters of what each of them alone would take.
    "text": {"lance-encoding:compression": "zstd", "lance-encoding:structural-encoding": "miniblock"},
}
_NEVER = "1970-01-01T00:00:00+00:00"


def schema() -> pa.Schema:
    """Return the table's schema; imports pyarrow."""
    import pyarrow as pa

    text, types = pa.string(), column_types()
    fields = [pa.field(name, types.get(name, text), metadata=_COMPRESSED.get(name)) for name in _ROW_FIELDS]
    # The primary key: of two writers that add the same row at once, Lance lets one wait for the other.
    row_id = pa.field(ROW_ID, text, nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"})
    fields += [row_id, *(pa.field(name, text) for name in OWN_FIELDS[:-1])]
    fields.append(pa.field("identities", pa.list_(text)))
    fields += [pa.field(name, pa.int64()) for name in INDEXED]
    fields += [pa.field(name, pa.uint32()) for name in (FOUND_CRC, SPENT_CRC, ROW_CRC)]
    # Columns that lookups read lie side by side in a file, so that one request has them.
    fields.sort(key=lambda field: field.name in (*FOUND, FOUND_CRC))
    return pa.schema(fields, {VERSION_NAME: str(VERSION).encode()})


def column_types() -> dict[str, Any]:
    """Return the types of the row's columns that are no text."""
    import pyarrow as pa

    text = pa.string()
    return {
        "cost_usd": pa.float64(),
        "error": pa.struct(dict.fromkeys(_ERROR_FIELDS, text)),
        "described_at": pa.timestamp("ms", "UTC"),
        "elapsed_s": pa.float64(),
        "map_index": pa.int64(),
        "try_number": pa.int64(),
        "lost_calls": pa.int64(),
        "failed_rules": pa.list_(text),
    }


def key_of(identity: str) -> int:
    """Return the 64 bits of an identity that lookups ask for."""
    try:
        return int.from_bytes(bytes.fromhex(identity[:16].rjust(16, "0")), signed=True)
    except ValueError:
        return _digest(identity)


def call_key(call: str) -> int:
    """Return the 64 bits of a call id."""
    return _digest(call)


def instance_key(instance: str) -> int | None:
    """Return the 64 bits of a task instance's id; None outside Airflow."""
    return key_of(instance) if instance else None


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True)


def to_records(event: Event) -> Iterable[dict[str, Any]]:
    """Yield the table's row of an event, and further ones that link its identities where it has more than three."""
    identities = event["keys"]
    yield _with_crcs(_record(event, identities[:3]))
    for start in range(3, len(identities), 2):
        linked = [identities[0], *identities[start : start + 2]]
        same = {
            "event": "same",
            "call": f"{event['call']}-{start}",
            "uri": event.get("uri"),
            "at": event.get("at", 0.0),
        }
        yield _with_crcs(_record(same, linked))


def is_intact(record: Mapping[str, Any], crc: str) -> bool:
    """Return whether a row has the values that it was written with: those that this column of checksums covers."""
    return bool(record[crc] == _crc(record, _covered()[crc]))


def _with_crcs(record: dict[str, Any]) -> dict[str, Any]:
    return record | {crc: _crc(record, names) for crc, names in _covered().items()}


@cache
def _covered() -> Mapping[str, Sequence[str]]:
    whole = sorted({*_ROW_FIELDS, ROW_ID, *OWN_FIELDS, *INDEXED})
    return {FOUND_CRC: FOUND, SPENT_CRC: SPENT, ROW_CRC: whole}


def _crc(record: Mapping[str, Any], names: Iterable[str]) -> int:
    # The rows of older versions were written without the columns that were added.
    values = [record.get(name) for name in names if name not in ADDED or record.get(name) is not None]
    return crc32(_ASCII.encode(values).encode())


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


_ASCII = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_milliseconds)


def _record(event: Event, identities: list[str]) -> dict[str, Any]:
    kind = event["event"]
    if kind == "outcome":
        record = {name: plain(event.get(name)) for name in _ROW_FIELDS}
        if (failed_rules := event.get("failed_rules")) is not None:
            record["failed_rules"] = [plain(name) for name in failed_rules]
        record |= json_texts(event)
        record["described_at"] = _moment(event.get("described_at") or _NEVER)
        if is_unread_answer(event):
            record["status"] = "unknown"
        if error := event.get("error"):
            record["error"] = {name: plain(error.get(name)) for name in _ERROR_FIELDS}
        record |= {name: float(record[name]) for name in ("cost_usd", "elapsed_s") if record[name] is not None}
    else:
        record = {"uri": plain(event.get("uri")), "status": kind}
        record["described_at"] = _whole_ms(datetime.fromtimestamp(event.get("at", 0.0), UTC))
        if why := event.get("why"):
            record["error"] = {"kind": why, "message": "", "answer": None}
    own = {"call": event["call"], "identities": identities, "sent_by": event.get("by"), "shown": event.get("shown")}
    return record | own | derived(record | own)


def derived(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row that are made from others: what lookups ask, and the primary key."""
    keys = dict.fromkeys(KEY_COLUMNS) | dict(zip(KEY_COLUMNS, map(key_of, record["identities"]), strict=False))
    dag_id, run_id, task_id = (record.get(name) or "" for name in ("dag_id", "run_id", "task_id"))
    map_index = record.get("map_index")
    return {
        ROW_ID: f"{record['call']}.{record['status']}",
        **keys,
        "call_key": call_key(record["call"]),
        "instance_key": instance_key(_instance(dag_id, run_id, task_id, -1 if map_index is None else map_index)),
        "sender_key": instance_key(record["sent_by"] or ""),
    }


@lru_cache(maxsize=1000)
def _instance(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    return TaskInstanceKey(dag_id, run_id, task_id, map_index).instance


def to_event(record: Mapping[str, Any]) -> Event:
    """Return the event that a whole row of the table was made from."""
    event: Event = {"call": record["call"], "keys": list(record["identities"])}
    if record["status"] in FACTS:
        event |= {"event": record["status"], "uri": record["uri"], "at": record["described_at"].timestamp()}
        if record["error"]:
            event["why"] = record["error"]["kind"]
    else:
        event |= {"event": "outcome", **{name: record.get(name) for name in _ROW_FIELDS}}
        event |= {name: json.loads(text) for name in JSON_COLUMNS if (text := record.get(name))}
        event["described_at"] = iso(record["described_at"])
        if error := record["error"]:
            event["error"] = {name: value for name, value in error.items() if value is not None}
    return event | {name: record[column] for name, column in (("by", "sent_by"), ("shown", "shown")) if record[column]}


def json_texts(row: Mapping[str, Any]) -> dict[str, str]:
    """Return those objects of a row that have a column of JSON text, as the table has them."""
    return {name: json_line(row[name]).decode().rstrip("\n") for name in JSON_COLUMNS if row.get(name) is not None}


def iso(moment: datetime) -> str:
    """Return a moment as the journal writes it."""
    return moment.isoformat(timespec="milliseconds")


def is_unread_answer(event: Event) -> bool:
    """Whether the row says "rejected" for an answer that was paid for and not understood, as older versions wrote."""
    return event.get("status") == "rejected" and (event.get("error") or {}).get("kind") == UnexpectedAnswer.kind


def _moment(text: str) -> datetime:
    return _whole_ms(datetime.fromisoformat(text).astimezone(UTC))


def _whole_ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def plain(value: Any) -> Any:
    """Return the value as the table has it."""
    # A lone surrogate in an image's name: JSON can hold it, Arrow cannot.
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
