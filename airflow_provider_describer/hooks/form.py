"""The connection form, once: Airflow 3.2 and later read it from the provider info, 3.1 asks the hook for widgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Field:
    """One extra field of the form. ``kind`` is a JSON schema type; ``choices`` make it a dropdown."""

    name: str
    label: str
    help: str
    kind: str = "string"
    choices: tuple[str, ...] = ()
    default: str | float | None = None


_LIMITS = (
    Field(
        "requests_per_minute",
        "Requests per minute",
        "Calls a minute that the account may make. Every task that uses this connection keeps to it.",
        "number",
    ),
    Field(
        "max_cost_per_day",
        "Spend limit per day (USD)",
        "Calls stop once this much has been spent in a UTC day.",
        "number",
    ),
    Field(
        "limits_path",
        "Shared limits folder",
        "Folder (local, s3://, gs://) in which all users of this connection share the rate and the spend limit; "
        "without it each task counts for itself.",
    ),
    Field("timeout", "Timeout (seconds)", "How long one answer may take.", "number", default=120),
)


def _price(default: float | None, help: str) -> Field:
    return Field("price_per_call", "Price per call (USD)", help, "number", default=default)


def _transport(*choices: str) -> Field:
    return Field(
        "image_transport",
        "Image transport",
        "How images reach the vendor. auto: web addresses as they are, other images as bytes.",
        choices=("auto", "url", *choices),
        default="auto",
    )


FORMS: dict[str, tuple[Field, ...]] = {
    "image_describer": (
        _transport("file", "inline"),
        _price(None, "What your plan charges for a description; needed for cost reports and limits in USD."),
        *_LIMITS,
    ),
    "segmind": (
        Field(
            "api_version",
            "API version",
            "v1 waits for each answer; v2 submits and polls, which suits slow or cold models.",
            choices=("v1", "v2"),
            default="v1",
        ),
        _transport("upload", "inline"),
        Field(
            "storage_host",
            "Upload host",
            "Where images are uploaded to; empty for the vendor's own, or the host above.",
        ),
        _price(0.015, "Used where an answer does not say what it cost."),
        *_LIMITS,
    ),
}


def conn_fields(conn_type: str) -> dict[str, Any]:
    """Return the form as Airflow 3.2 and later read it from the provider info."""
    return {
        field.name: {
            "label": field.label,
            "description": field.help,
            "schema": {
                "type": [field.kind, "null"],
                **({"enum": list(field.choices)} if field.choices else {}),
                **({"default": field.default} if field.default is not None else {}),
            },
        }
        for field in FORMS[conn_type]
    }


def ui_behaviour(base_url: str) -> dict[str, Any]:
    """Return which standard fields are hidden, what the others are called and what they show while empty."""
    return {
        "hidden-fields": ["login", "port", "schema"],
        "relabeling": {"password": "API key", "host": "Base URL"},
        "placeholders": {"host": base_url, "password": "the vendor's API key"},
    }


def widgets(conn_type: str) -> dict[str, Any]:
    """Return the form as Airflow 3.1 reads it from the hook."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import FloatField, StringField
    from wtforms.validators import AnyOf, Optional

    form = {}
    for field in FORMS[conn_type]:
        kind = FloatField if field.kind == "number" else StringField
        checks = [Optional(), AnyOf(field.choices)] if field.choices else [Optional()]
        form[field.name] = kind(
            lazy_gettext(field.label),
            description=field.help,
            widget=BS3TextFieldWidget(),
            validators=checks,
            default=field.default,
        )
    return form
