"""Segmind's own books: the request history that its SDK reads (``generations.history()``). Pure.

Known from the SDK are the address, the parameters and the fields of a row. The envelope of a page, the form of the
times and whether a text answer is kept are not documented, so every usual form is read and any other one is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

from airflow_provider_describer.arguments import as_float
from airflow_provider_describer.models import HistoryPage, HistoryRecord
from airflow_provider_describer.vendors.answers import says_error
from airflow_provider_describer.vendors.segmind_text import text_in
from airflow_provider_describer.vendors.wire import Response, moment

HISTORY_URL = "https://api.spotprod.segmind.com"
PATH = "/inference-request/request-history"
PER_PAGE = 100
"""The most rows that a page may have."""
MAX_PAGE = 64 * 1024 * 1024
"""Bytes of a page that are read: its rows hold the inputs as sent, which may be data URIs."""

_STATUSES: Mapping[str, Literal["completed", "failed", "running"]] = {
    **dict.fromkeys(("COMPLETED", "SUCCESS", "SUCCEEDED"), "completed"),
    **dict.fromkeys(("FAILED", "ERROR"), "failed"),
    **dict.fromkeys(("PENDING", "QUEUED", "PROCESSING", "RUNNING"), "running"),
}
_TIMES = ("model_created", "created_at", "created", "created_time", "request_created", "timestamp")
_TEXTS = ("output", "outputs", "response", "response_body", "result", "results", "descriptions", "text", "description")
_LISTS = ("data", "results", "items", "requests", "history", "request_history", "generations", "rows", "records")
_LAST = ("total_pages", "last_page", "pages", "page_count")


def query(model: str, since: float, page: int) -> str:
    """Return the parameters of one page, the latest calls first.

    The dates are in a zone that nobody documents, so the window begins a day early and ends today, as by default.
    """
    from_date = datetime.fromtimestamp(since, UTC).date() - timedelta(days=1)
    return urlencode(
        {
            "page": page,
            "per_page": PER_PAGE,
            "from_date": from_date.isoformat(),
            "model_name": model,
            "sort_by": "model_created",
            "sort_order": "desc",
        }
    )


def digest(*parts: bytes) -> str:
    """Return the SHA-256 (hex) of an ``image_file`` that is given in parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def read_page(model: str, answer: object, page: int) -> HistoryPage | None:
    """Return the page in a JSON value, or None if it, or a row in it, is in no known form."""
    rows = _rows(answer)
    if rows is None:
        return None
    records = []
    for row in rows:
        if not isinstance(row, dict):
            return None
        name = row.get("model_name")
        # The vendor filters by any part of the name.
        if isinstance(name, str) and model not in name.lower():
            continue
        record = _record(row)
        if record is None:
            return None
        records.append(record)
    named = [number for number in _numbers(answer) if number > 0]
    return HistoryPage(tuple(records), is_last=not rows or (bool(named) and page >= max(named)))


def _rows(answer: object, depth: int = 0, name: str = "data") -> list[Any] | None:
    """Return the one list of rows in an answer; None where there is none, or more than one.

    A list without rows counts only under a usual name: an error may hold one too.
    """
    if isinstance(answer, list):
        return answer if answer or name in _LISTS else None
    if not isinstance(answer, dict) or depth > 2:
        return None
    if says_error({name: value for name, value in answer.items() if not isinstance(value, list | dict)}):
        return None
    found = [rows for name, value in answer.items() if (rows := _rows(value, depth + 1, name)) is not None]
    full = [rows for rows in found if rows] or found[:1]
    return full[0] if len(full) == 1 else None


def _numbers(answer: object, depth: int = 0) -> Iterator[int]:
    """Yield what an answer says of the number of its pages, in its envelope or beside it."""
    if not isinstance(answer, dict) or depth > 2:
        return
    for name, value in answer.items():
        if name in _LAST and isinstance(value, int) and not isinstance(value, bool):
            yield value
        yield from _numbers(value, depth + 1)


def _record(row: Mapping[str, Any]) -> HistoryRecord | None:
    request_id, word = row.get("request_id"), str(row.get("model_status")).strip().upper()
    created = next((at for name in _TIMES if (at := moment(row.get(name))) is not None), None)
    status = _STATUSES.get(word)
    is_known, inputs = _inputs(row.get("request_body"))
    if not isinstance(request_id, str) or not request_id.strip() or created is None or not status or not is_known:
        return None
    cost = as_float(row.get("credits_deduction"))
    if status == "failed" and (cost or 0.0) > 0:
        # No documented failure is billed; one that was must not be sent again as if it were free.
        status = "completed"
    image = inputs.get("image_file")
    texts = (text_in(row.get(name)) for name in _TEXTS if _STATUSES[word] == "completed")
    return HistoryRecord(
        request_id=request_id,
        created_at=created,
        status=status,
        shown=digest(image.encode("utf-8", "surrogatepass")) if isinstance(image, str) else None,
        cost_usd=cost if cost is not None and cost >= 0 else None,
        text=next((text for text in texts if text is not None), None),
        elapsed_s=max(0.0, as_float(row.get("latency_ms")) or 0.0) / 1000,
    )


def _inputs(body: object) -> tuple[bool, Mapping[str, Any]]:
    """Return whether the inputs are in a known form, and the inputs; none where the record has none yet."""
    if isinstance(body, str) and body.strip():
        body = Response(200, {}, body.encode("utf-8", "surrogatepass")).json()
    elif body is None or isinstance(body, str):
        return True, {}
    return (True, body) if isinstance(body, dict) else (False, {})
