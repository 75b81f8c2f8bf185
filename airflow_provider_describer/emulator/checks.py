"""Strict readers for the values of a fault setting: each returns the value or says what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping


class FaultError(ValueError):
    """A fault setting that is not understood; the message names the field."""


def mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise FaultError(f"{where} must be an object, not {value!r}")
    return value


def number(value: object, where: str) -> float:
    # JSON's true is an int to Python.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FaultError(f"{where} must be a number, not {value!r}")
    if value < 0:
        raise FaultError(f"{where} must not be negative, but is {value!r}")
    return float(value)


def seconds(value: object, where: str) -> float:
    return number(value, where)


def share(value: object, where: str) -> float:
    """Return a share of all calls, from 0 to 1."""
    given = number(value, where)
    if given > 1:
        raise FaultError(f"{where} is a share from 0 to 1, not {value!r}")
    return given


def price(value: object, where: str) -> float:
    """Return an amount in USD that is a whole number of micro-dollars."""
    given = number(value, where)
    if abs(round(given * 1e6) - given * 1e6) > 1e-3:
        raise FaultError(f"{where} has more than six decimals: {value!r}")
    return given


def balance(value: object, where: str) -> float | None:
    """Return an amount in USD, or None for an account without any balance record."""
    return None if value is None else price(value, where)


def whole(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FaultError(f"{where} must be a whole number from 0 on, not {value!r}")
    return value


def limit(value: object, where: str) -> int | None:
    """Return a limit from 1 on, or None for no limit."""
    if value is None:
        return None
    if whole(value, where) == 0:
        raise FaultError(f"{where} must be at least 1, or null for no limit")
    return whole(value, where)


def retry_after(value: object, where: str) -> str | None:
    """Return the value of a Retry-After header: seconds, or text such as an HTTP date."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isprintable() and value:
        return value
    return f"{number(value, where):g}"


def choice(*allowed: str) -> Callable[[object, str], str]:
    """Return a reader that takes only the words listed."""

    def read(value: object, where: str) -> str:
        if value not in allowed or not isinstance(value, str):
            raise FaultError(f"{where} must be one of {', '.join(allowed)}, not {value!r}")
        return value

    return read
