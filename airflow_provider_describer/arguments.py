"""Reads arguments that people and templates write as text: paths, whole numbers, times."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow_provider_describer.errors import BadInput

_SHORT = {"s3a": "s3", "gcs": "gs"}


def as_path(value: object) -> object:
    """Return the path or address that a path object stands for; anything else as it is.

    Of Airflow's ObjectStoragePath this leaves out the connection, which its text has before the bucket's name.
    """
    if isinstance(value, str):
        return value
    protocol, path = getattr(value, "protocol", None), getattr(value, "path", None)
    if isinstance(protocol, str) and isinstance(path, str):
        local = protocol in ("", "file", "local")
        return path if local or "://" in path.partition("/")[0] else f"{_SHORT.get(protocol, protocol)}://{path}"
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def parse_int(name: str, number: object, least: int = 0) -> int | None:
    """Return the whole number that an argument means; None where it means none, as blank and ``None`` in templates do.

    :raises BadInput: naming the argument.
    """
    text = str(number).strip()
    if text in ("", "None"):
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise BadInput(f"{name} is {number!r}, expected a whole number of {least} or more.")
    return int(text)


def parse_time(name: str, when: object, now: float) -> float | None:
    """Return the epoch second that an argument means; None where it means none.

    :param when: a datetime; an ISO 8601 text, also blank or ``None`` as templates write what is missing; a timedelta
        before ``now``; or an epoch second. A time without a zone is in UTC.
    :raises BadInput: naming the argument.
    """
    if isinstance(when, str):
        text = when.strip()
        if text in ("", "None"):
            return None
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            raise BadInput(
                f"{name} is {when!r}, expected a time such as '2026-01-31T06:00:00Z', a datetime or a timedelta."
            ) from None
    if isinstance(when, timedelta):
        return now - when.total_seconds()
    if isinstance(when, datetime):
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if when is None or (isinstance(when, int | float) and not isinstance(when, bool)):
        return when
    raise BadInput(f"{name} is a {type(when).__name__}, expected a datetime, an ISO 8601 text or a timedelta.")
