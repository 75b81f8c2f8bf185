"""Parses values that users, templates and vendors write as text: paths, numbers, times."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow_provider_describer.errors import BadInput

_PROTOCOLS = {"s3a": "s3", "gcs": "gs"}


def as_path(value: object) -> object:
    """Return the path or address of a path object as text; any other value unchanged.

    The text of Airflow's ObjectStoragePath names the connection before the bucket; it is left out.
    """
    if isinstance(value, str):
        return value
    protocol, path = getattr(value, "protocol", None), getattr(value, "path", None)
    if isinstance(protocol, str) and isinstance(path, str):
        local = protocol in ("", "file", "local")
        return path if local or "://" in path.partition("/")[0] else f"{_PROTOCOLS.get(protocol, protocol)}://{path}"
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def parse_int(name: str, value: object, least: int = 0) -> int | None:
    """Return an argument as a whole number; None for None, for a blank text and for ``None`` as templates write it.

    :raises BadInput: naming the argument.
    """
    text = str(value).strip()
    if text in ("", "None"):
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise BadInput(f"{name} is {value!r}, expected a whole number of {least} or more.")
    return int(text)


def as_float(value: object) -> float | None:
    """Return the finite number that a header or a JSON value holds, as number or text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def check_seconds(name: str, value: object, least: float = 0.0) -> None:
    """Raise `BadInput`, naming the argument, unless it is a finite number of seconds."""
    if not isinstance(value, int | float) or not least <= value < float("inf"):
        raise BadInput(f"{name} is {value!r}, expected seconds of {least:g} or more.")


def parse_time(name: str, value: object, now: float) -> float | None:
    """Return an argument as epoch seconds; None for None, for a blank text and for ``None`` as templates write it.

    :param value: a datetime; an ISO 8601 text; a timedelta before ``now``; or epoch seconds. UTC is the default zone.
    :raises BadInput: naming the argument.
    """
    if isinstance(value, str):
        text = value.strip()
        if text in ("", "None"):
            return None
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            raise BadInput(
                f"{name} is {value!r}, expected a time such as '2026-01-31T06:00:00Z', a datetime or a timedelta."
            ) from None
    if isinstance(value, timedelta):
        return now - value.total_seconds()
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise BadInput(f"{name} is a {type(value).__name__}, expected a datetime, an ISO 8601 text or a timedelta.")
