"""Reads a connection's extra field by field. Every error names the connection, the field and the fix."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_describer.account.fields import COMMON, Field
from airflow_provider_describer.arguments import as_float
from airflow_provider_describer.errors import BadConnection

CORRECT_IT = "Correct it under Admin > Connections."


def bad_connection(conn_id: str, message: str) -> BadConnection:
    """Return the error for a connection that cannot work."""
    return BadConnection(f"Connection {conn_id!r}: {message}")


@dataclass(frozen=True, slots=True)
class Extra:
    """A connection's extra."""

    conn_id: str
    values: Mapping[str, Any]

    def error(self, name: str, found: object, expected: str) -> BadConnection:
        """Return the error for a value that is not as expected."""
        # Only a number is shown: a text may be a secret that was pasted into the wrong field.
        kind = "a text" if isinstance(found, str) else f"a {type(found).__name__}"
        shown = repr(found) if isinstance(found, int | float) and abs(found) < 1e9 else kind
        return bad_connection(self.conn_id, f"{name} is {shown}, expected {expected}. {CORRECT_IT}")

    def check_names(self, own: Iterable[Field]) -> None:
        """Refuse misspelt fields, because a misspelt limit would silently be no limit. Other fields are ignored.

        :param own: the fields that this vendor's connection has besides the common ones.
        """
        known = (*COMMON, *(field.name for field in own))
        for name in self.values:
            if name not in known and (meant := difflib.get_close_matches(name, known, 1, cutoff=0.85)):
                raise bad_connection(
                    self.conn_id, f"extra: {name} is not a known field; did you mean {meant[0]}? {CORRECT_IT}"
                )

    def value(self, field: Field) -> Any:
        """Return the checked value of a field, or its default."""
        value: Any
        match field.kind:
            case "number":
                value = self.positive(field.name)
            case "integer":
                value = self.whole(field.name)
            case "boolean":
                value = self.flag(field.name)
            case "object":
                value = self.json_object(field.name)
            case _:
                value = self.choice(field.name, field.choices) if field.choices else self.text(field.name)
        if value is None and field.required:
            expected = field.help[:1].lower() + field.help[1:]
            raise bad_connection(self.conn_id, f"{field.name} is empty, expected {expected} {CORRECT_IT}")
        return field.default if value is None else value

    def text(self, name: str) -> str | None:
        """Return a text; None for an empty one."""
        value = self.values.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if not isinstance(value, str):
            raise self.error(name, value, "a text")
        return value.strip()

    def positive(self, name: str) -> float | None:
        """Return a number above 0; None for an empty field."""
        value = self.values.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        number = as_float(value)
        if number is None or number <= 0:
            raise self.error(name, value, "a number above 0")
        return number

    def whole(self, name: str) -> int | None:
        """Return a whole number above 0."""
        number = self.positive(name)
        if number is not None and not number.is_integer():
            raise self.error(name, self.values[name], "a whole number above 0")
        return None if number is None else int(number)

    def json_object(self, name: str) -> Mapping[str, Any] | None:
        """Return an object, which a form may hold as its JSON text."""
        value = self.values.get(name)
        if isinstance(value, str) and value.strip():
            try:
                value = json.loads(value)
            except ValueError:
                raise self.error(name, value, "a JSON object") from None
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if not isinstance(value, Mapping):
            raise self.error(name, value, "a JSON object")
        return value or None

    def flag(self, name: str) -> bool:
        """Return a switch; an empty field is off."""
        value = self.values.get(name)
        if isinstance(value, bool):
            return value
        # The form of Airflow 3.1 only has text fields.
        word = value.strip().lower() if isinstance(value, str) else value
        if word in (None, "", "false"):
            return False
        if word != "true":
            raise self.error(name, value, "true or false")
        return True

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """Return one of these texts; None for an empty field."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise self.error(name, value, "one of " + ", ".join(choices))
        return value


def parse_extra(conn_id: str, extra: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a connection's extra, which Airflow keeps as JSON text.

    :raises BadConnection: if it is no JSON object.
    """
    if isinstance(extra, str):
        try:
            extra = json.loads(extra) if extra.strip() else None
        except ValueError:
            extra = "?"
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        # The text itself is not shown: people put secrets into extras.
        raise bad_connection(
            conn_id,
            f'extra is not a JSON object. Expected something like {{"requests_per_minute": 50}}. {CORRECT_IT}',
        )
    return extra
