"""Parses values that users, templates and vendors write as text: paths, numbers, times, lists.

Jinja renders a template as text unless its DAG has ``render_template_as_native_obj``. So what parses an argument takes
the value itself or its text, and returns the same for both. Its errors name the argument.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from airflow_provider_describer.errors import BadInput

LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", re.ASCII)
"""A language tag such as en or pt-BR, as BCP 47 writes one."""
_PROTOCOLS = {"s3a": "s3", "gcs": "gs"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"(?:(-?\d+) days?(?:, |$))?(?:(\d+):(\d\d):(\d\d(?:\.\d+)?))?", re.ASCII)
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_FIRST_EPOCH = 1e8
"""A text below it is no epoch second, but perhaps a year; 1e8 is in 1973."""


def is_template(value: object) -> bool:
    """Return whether Airflow has yet to render or resolve the value, or a part of it."""
    value = as_path(value)
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return any(map(is_template, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(is_template, value))
    # The output of another task, a DAG's parameter, a mapped argument; Airflow 3.3 calls functions.
    return hasattr(type(value), "iter_references") or callable(value)


def is_undefined(value: object) -> bool:
    """Return whether it is what Jinja renders natively of a name that it does not know; it raises at every look."""
    return any(kind.__module__ == "jinja2.runtime" for kind in type(value).__mro__)


def is_none(value: object) -> bool:
    """Return whether the value is None, a blank text, or ``None`` as templates write it."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "None"))


def shown(value: object) -> str:
    """Return a value for a message, shortened; of a collection only its type, as it may hold a presigned address."""
    if value is None or isinstance(value, str | Real | Decimal):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:80]}…"
    return f"a {type(value).__name__}"


def as_path(value: object) -> object:
    """Return the path or address of a path object as text; any other value unchanged.

    The text of Airflow's ObjectStoragePath names the connection before the bucket; it is left out.
    """
    if isinstance(value, str) or is_undefined(value):
        return value
    protocol, path = getattr(value, "protocol", None), getattr(value, "path", None)
    if isinstance(protocol, str) and isinstance(path, str):
        local = protocol in ("", "file", "local")
        return path if local or "://" in path.partition("/")[0] else f"{_PROTOCOLS.get(protocol, protocol)}://{path}"
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def parse_text(name: str, value: object, such_as: str = "") -> str:
    """Return a text without blanks around it.

    :param such_as: an example, for the message.
    :raises BadInput: for another value, a blank text, and ``None`` as templates write it.
    """
    if not isinstance(value, str) or is_none(value):
        raise BadInput(f"{name} is {shown(value)}, expected a text{such_as and f' such as {such_as!r}'}.")
    return value.strip()


def parse_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return one of the choices; raises `BadInput` for anything else."""
    text = value.strip() if isinstance(value, str) else value
    if not isinstance(text, str) or text not in choices:
        raise BadInput(f"{name} is {shown(value)}, expected one of {', '.join(choices)}.")
    return text


def parse_bool(name: str, value: object) -> bool:
    """Return a truth value: a bool, 1 or 0, or ``true``, ``yes``, ``on``, ``false``, ``no``, ``off`` in any case.

    :raises BadInput: for anything else, such as a blank text.
    """
    # The bools of numpy are no numbers.
    is_word = isinstance(value, str | Integral) or type(value).__module__ == "numpy"
    found = _BOOLEANS.get(str(value).strip().lower()) if is_word else None
    if found is None:
        raise BadInput(f"{name} is {shown(value)}, expected true or false (or yes, no, on, off, 1, 0).")
    return found


def parse_whole(name: str, value: object, least: int = 0, most: int | None = None) -> int:
    """Return a whole number from ``least`` to ``most``, written in digits; raises `BadInput` for anything else."""
    text = str(value).strip() if isinstance(value, str | Integral | Decimal) else ""
    # Nothing here is counted beyond 18 digits, and Python refuses texts of thousands.
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
    if number < least or (most is not None and number > most):
        expected = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise BadInput(f"{name} is {shown(value)}, expected a whole number {expected}.")
    return number


def parse_int(name: str, value: object, least: int = 0) -> int | None:
    """Return an argument as a whole number; None for None, for a blank text and for ``None`` as templates write it.

    :raises BadInput: naming the argument.
    """
    return None if is_none(value) else parse_whole(name, value, least)


def parse_number(name: str, value: object, expected: str, least: float = 0.0, most: float = math.inf) -> float:
    """Return a finite number from ``least`` to ``most``.

    :param expected: what the message says; a text such as ``$5`` or ``10%`` is no number.
    :raises BadInput: naming the argument.
    """
    number = _number(value)
    if number is None or not least <= number <= most:
        raise BadInput(f"{name} is {shown(value)}, expected {expected}.")
    return number


def parse_seconds(name: str, value: object, least: float = 0.0) -> float:
    """Return a finite number of seconds; of a timedelta, its length. Raises `BadInput`, naming the argument."""
    duration = _duration(value)
    seconds = value if duration is None else duration.total_seconds()
    return parse_number(name, seconds, f"seconds of {least:g} or more", least)


def check_seconds(name: str, value: object, least: float = 0.0) -> None:
    """Raise `BadInput`, naming the argument, unless it is a finite number of seconds; a text is none."""
    number = None if isinstance(value, str) else _number(value)
    if number is None or number < least:
        raise BadInput(f"{name} is {shown(value)}, expected seconds of {least:g} or more.")


def parse_time(name: str, value: object, now: float) -> float | None:
    """Return an argument as epoch seconds; None for None, for a blank text and for ``None`` as templates write it.

    :param value: a datetime or date; an ISO 8601 text; a timedelta before ``now``; or epoch seconds. UTC is the default
        zone. Eight digits are a date.
    :raises BadInput: naming the argument.
    """
    if is_none(value):
        return None
    if (duration := _duration(value)) is not None:
        return now - duration.total_seconds()
    number = _number(value)
    if number is not None and number >= _FIRST_EPOCH:
        return number
    moment = value if isinstance(value, date) else _iso_date(value)
    if moment is not None:
        day = moment if isinstance(moment, datetime) else datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001
        # pandas' NaT is a datetime without a time.
        with contextlib.suppress(ValueError, OverflowError):
            number = _number((day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp())
    elif isinstance(value, str):
        number = None
    if number is None:
        raise BadInput(
            f"{name} is {shown(value)}, expected a time such as '2026-01-31T06:00:00Z', a datetime or a timedelta."
        )
    return number


def parse_list(name: str, value: object, expected: str) -> list[Any]:
    """Return the items of a list, or of a text that is one, as JSON or as Python writes it.

    :param expected: what the message says.
    :raises BadInput: for another text, a dict, and what cannot be gone through.
    """
    found = list_in(value) if isinstance(value, str) else value
    if not isinstance(found, Iterable) or isinstance(found, str | bytes | Mapping):
        raise BadInput(f"{name} is {shown(value)}, expected {expected}.")
    return list(found)


def list_in(text: str) -> list[Any] | None:
    """Return the list that a text is, as JSON or as Python writes it, or None."""
    found = value_in(text) if text.strip().startswith(("[", "(")) else None
    return list(found) if isinstance(found, list | tuple) else None


def value_in(text: str) -> object:
    """Return what a text of JSON or of Python's plain values says, or None."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def as_float(value: object) -> float | None:
    """Return the finite number that a header or a JSON value holds, as number or text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def _number(value: object) -> float | None:
    """Return a finite number, or the one that a text of digits says; a bool is none."""
    if isinstance(value, str):
        value = value.strip() if _NUMBER.fullmatch(value.strip()) else None
    elif isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # None raises a TypeError
    except (ValueError, OverflowError, TypeError):
        return None
    return number if math.isfinite(number) else None


def _duration(value: object) -> timedelta | None:
    """Return a timedelta, or the one that a text says as Python writes it (``1 day, 0:30:00``)."""
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) and not is_none(value) else None
    if found is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        return None


def _iso_date(value: object) -> date | None:
    """Return what an ISO 8601 text says; also of 20260131 as a number, which native rendering makes of the text."""
    text = str(value).strip() if isinstance(value, str | Integral) else ""
    if not isinstance(value, str) and len(text) != 8:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
