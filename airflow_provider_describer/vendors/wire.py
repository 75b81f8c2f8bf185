"""HTTP requests and responses as plain values, and how to read what vendors put into them.

``http/client.py`` sends the requests; no HTTP library is imported here.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_provider_describer.arguments import as_float
from airflow_provider_describer.errors import EXCERPT_CHARS


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. ``body`` is a tuple of byte strings that are sent in turn, never joined or copied.

    A ``billable`` request may have cost money if its response is lost. ``secrets`` are masked wherever the response
    quotes them (`vendors/secrets.py`). ``max_answer`` limits the response's bytes in place of the client's own limit.
    Headers and body hold the key and the image, so they are in no repr.
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
    """One HTTP response. Header names are lower-case; ``received_at`` is in epoch seconds."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    received_at: float = 0.0
    elapsed_s: float = 0.0

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case; empty if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def text(self) -> str:
        """The body as text, in the charset that its first bytes or its content type name, else in UTF-8.

        Bytes that the charset does not have become U+FFFD: the rest may have been paid for.
        """
        named = _CHARSET.search(self.headers.get("content-type", ""))
        charset = _charset_of(self.content) or (named[1] if named else "utf-8")
        try:
            text = self.content.decode(charset, errors="replace")
        except (LookupError, ValueError):
            text = self.content.decode("utf-8", errors="replace")
        return _LONE_SURROGATE.sub("\ufffd", text).removeprefix("\ufeff")

    def json(self) -> Any:
        """Return the body as JSON, or None for anything else (HTML, nothing, cut off, nested too deeply).

        Line breaks and other control characters within a text are taken as they are.
        """
        try:
            text = json.dumps(json.loads(self.text, strict=False), ensure_ascii=False)
            # Lone surrogates become U+FFFD, because UTF-8 files cannot hold them.
            return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        except (ValueError, RecursionError):
            return None

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object, or an empty one for anything else."""
        value = self.json()
        return value if isinstance(value, dict) else {}


_CHARSET = re.compile(r"charset\s*=\s*\"?\s*([A-Za-z0-9._:-]+)", re.IGNORECASE)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def _charset_of(content: bytes) -> str | None:
    """Return the charset that the first bytes show: by a byte order mark, or by the zeros of UTF-16 and UTF-32."""
    for mark, charset in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return charset
    if 0 in content[:4] and any(content[:4]):
        return json.detect_encoding(content)
    return None


def one_line(*parts: object) -> str:
    """Return the texts among the parts (also in ``{"message": …}``) as one line, cut short for an error message."""
    texts = [part.get("message") if isinstance(part, dict) else part for part in parts]
    line = " ".join(": ".join(text for text in texts if isinstance(text, str) and text.strip()).split())
    return line[:EXCERPT_CHARS] + ("…" if len(line) > EXCERPT_CHARS else "")


def retry_at(response: Response) -> float | None:
    """Return the epoch second from which the vendor takes calls again, or None if it does not say.

    Reads ``Retry-After`` (seconds or an HTTP date) and Segmind's ``x-rate-limit-reset-at-utc`` (ISO 8601, an HTTP
    date, or epoch seconds or milliseconds), and returns the later of the two.
    """
    times = (
        _parse_time(response.headers.get("retry-after"), relative_to=response.received_at),
        _parse_time(response.headers.get("x-rate-limit-reset-at-utc"), relative_to=None),
    )
    return max((time for time in times if time is not None), default=None)


def moment(value: object) -> float | None:
    """Return the epoch second that a JSON value names (ISO 8601, an HTTP date, epoch seconds or milliseconds)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return _parse_time(str(value), relative_to=None)


def _parse_time(value: str | None, *, relative_to: float | None) -> float | None:
    if not value or not (value := value.strip()):
        return None
    number = as_float(value)
    if number is not None:
        if relative_to is not None and number < 1e9:
            return relative_to + max(0.0, number)
        return number / 1000 if number > 1e11 else number
    try:
        time = datetime.fromisoformat(value.replace(" UTC", "+00:00").replace(" GMT", "+00:00"))
    except ValueError:
        try:
            time = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
    # A time without a zone is in UTC, whatever this machine's zone is.
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
