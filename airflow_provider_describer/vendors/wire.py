"""HTTP as plain values: what a vendor file builds and what it is given to read.

No HTTP library is involved; `http/client.py` turns these into real traffic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_provider_describer.errors import SHOWN


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. ``body`` is a tuple of byte strings sent one after the other, never joined or copied.

    ``billable`` says that an answer lost after sending may have cost money. Headers and body are in no repr,
    as they hold the key and the image. ``secrets`` are masked wherever the answer quotes them; ``max_answer`` limits
    the answer's bytes, where the client's own limit does not fit.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    body: tuple[bytes, ...] = field(repr=False, default=())
    billable: bool = False
    secrets: tuple[str, ...] = field(repr=False, default=())
    max_answer: int | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer. Header names are lower-case; ``received_at`` is in epoch seconds."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    received_at: float = 0.0
    elapsed_s: float = 0.0

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are shown as U+FFFD."""
        return self.content.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body as JSON, or None where it is none (HTML, nothing, cut in the middle, nested without end)."""
        try:
            return _storable(json.loads(self.content))
        except (ValueError, RecursionError):
            return None

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object, or an empty one where it is anything else."""
        value = self.json()
        return value if isinstance(value, dict) else {}


def json_request(method: str, url: str, headers: Mapping[str, str], *body: bytes, **about: Any) -> Request:
    """Return a request with a JSON body given as ready bytes."""
    return Request(method, url, {**headers, "content-type": "application/json"}, body, **about)


def _storable(value: Any) -> Any:
    """The value with halves of surrogate pairs, which no UTF-8 file takes, replaced by U+FFFD."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return value


def one_line(*parts: object) -> str:
    """Return what of a vendor's own words an error shows: the texts among the parts, in one line, cut short."""
    texts = [part.get("message") if isinstance(part, dict) else part for part in parts]
    words = " ".join(": ".join(text for text in texts if isinstance(text, str) and text.strip()).split())
    return words[:SHOWN] + ("…" if len(words) > SHOWN else "")


def as_float(value: object) -> float | None:
    """Return a finite number from a header or a JSON value in any form, or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def retry_at(response: Response) -> float | None:
    """Return the epoch second from which the vendor takes calls again, or None where it does not say.

    Reads ``Retry-After`` (seconds or an HTTP date) and Segmind's ``x-rate-limit-reset-at-utc`` (ISO 8601, an HTTP
    date or epoch seconds or milliseconds); the later of the two where both are there.
    """
    moments = [
        _moment(response.headers.get("retry-after"), relative_to=response.received_at),
        _moment(response.headers.get("x-rate-limit-reset-at-utc"), relative_to=None),
    ]
    known = [moment for moment in moments if moment is not None]
    return max(known) if known else None


def _moment(value: str | None, *, relative_to: float | None) -> float | None:
    if not value or not (value := value.strip()):
        return None
    number = as_float(value)
    if number is not None:
        if relative_to is not None and number < 1e9:
            return relative_to + max(0.0, number)
        return number / 1000 if number > 1e11 else number
    return _date(value)


def _date(value: str) -> float | None:
    try:
        moment = datetime.fromisoformat(value.replace(" UTC", "+00:00").replace(" GMT", "+00:00"))
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
    # "at-utc": a time without a zone is UTC, whatever this machine's own zone is.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
