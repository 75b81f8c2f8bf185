"""A description store with the rows that a test wants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store.shard import SETTLED, Event, settled_mark
from airflow_provider_describer.store.table import SettledTable

FIRST = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)


def stored_row(number: int, **values: Any) -> Event:
    """Return the outcome of a described image; a later number is a later one."""
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    row: Event = {
        "event": "outcome",
        "call": digest[:24],
        "keys": [f"key-{number}"],
        "uri": f"s3://catalog/images/{number:04d}.jpg",
        "version": digest[:32],
        "sha256": digest,
        "vendor": "image_describer",
        "model": "image-describer-v2",
        "prompt": None,
        "lang": "en",
        "status": "described",
        "text": f"A picture with the number {number}.",
        "cost_usd": 0.015,
        "request_id": None,
        "billed": "yes",
        "error": None,
        "described_at": (FIRST + timedelta(minutes=number)).isoformat(timespec="milliseconds"),
        "elapsed_s": 3.2,
        "dag_id": "enrich_catalog",
        "run_id": "scheduled__2026-03-01",
        "task_id": "describe",
        "map_index": -1,
        "try_number": 1,
        "id": None,
        "lost_calls": 0,
        "failed_rules": None,
        "review": None,
        "reviewed_by": None,
        "fields": None,
        "fallback": None,
    }
    return row | values


def make_store(path: Path, rows: Iterable[Event]) -> Path:
    """Write a store whose settled table has these rows; return its path."""
    folder = LocalFolder(path)
    table = SettledTable(folder)
    table.add(iter(rows), is_new=True)
    table.maintain(at_once=True)
    folder.create(SETTLED, settled_mark())
    return path
