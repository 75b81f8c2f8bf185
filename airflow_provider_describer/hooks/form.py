"""The connection forms, one table: Airflow 3.2 and later read them from the provider info, 3.1 asks the hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_describer.vendors import get_vendor


@dataclass(frozen=True, slots=True)
class Field:
    """An extra of the connection. ``kind`` is a JSON schema type; ``choices`` make it a dropdown."""

    name: str
    label: str
    help: str
    kind: str = "string"
    choices: tuple[str, ...] = ()
    default: str | float | bool | None = None


_LIMITS = (
    Field(
        "requests_per_minute",
        "Requests per minute",
        "Billable calls per minute. Each task counts for itself, unless they share limits.",
        "number",
    ),
    Field(
        "max_cost_per_day",
        "Spend limit per day (USD)",
        "Calls stop at this sum, by UTC day. Each task counts for itself, unless they share limits.",
        "number",
    ),
    Field(
        "limits_path",
        "Shared limits",
        "A folder, local or s3://, gs://: all tasks that use this connection share its rate and its spend limit there.",
    ),
    Field(
        "timeout",
        "Timeout (seconds)",
        "From sending a request to the end of its answer.",
        "number",
        default=120,
    ),
)
_PRIVATE_HOSTS = Field(
    "allow_private_hosts",
    "Allow private hosts",
    "Whether images may be read from web servers in a private network or on the worker itself (10.x, 192.168.x, "
    "localhost). Leave it off where others write the list of images. Metadata services of clouds are never asked.",
    "boolean",
    default=False,
)


def _price(default: float | None, about: str) -> Field:
    return Field("price_per_call", "Price per call (USD)", about, "number", default=default)


def _transport(*choices: str, signed: str = "") -> Field:
    return Field(
        "image_transport",
        "Image transport",
        f"How images reach the vendor. auto: public web addresses as they are (url){signed}, others as bytes "
        f"({choices[0]}; inline: within the call, as base64).",
        choices=("auto", "url", *choices),
        default="auto",
    )


FORMS: dict[str, tuple[Field, ...]] = {
    "image_describer": (
        _transport("file", "inline"),
        _price(None, "What your plan charges for a description; needed for cost reports and limits in USD."),
        *_LIMITS,
        _PRIVATE_HOSTS,
    ),
    "segmind": (
        Field(
            "api_version",
            "API version",
            "v1 waits for each answer; v2 submits and polls, which suits slow or cold models.",
            choices=("v1", "v2"),
            default="v1",
        ),
        _transport("upload", "inline", signed=", objects by presigned URLs"),
        Field(
            "storage_host", "Upload host", "Host for uploads. Empty: the base URL if set, otherwise the vendor's own."
        ),
        _price(0.015, "Used where an answer does not say what it cost."),
        *_LIMITS,
        _PRIVATE_HOSTS,
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


def ui_behaviour(conn_type: str) -> dict[str, Any]:
    """Return which standard fields the form hides, what it calls the others, and what they show while empty."""
    vendor = get_vendor(conn_type)
    return {
        "hidden-fields": ["login", "port", "schema"],
        "relabeling": {"password": "API key", "host": "Base URL"},
        "placeholders": {"host": vendor.base_url, "password": f"your {vendor.title} API key"},
    }


def form_of_3_1(conn_type: str) -> tuple[Callable[[], dict[str, Any]], Callable[[], dict[str, Any]]]:
    """Return ``get_connection_form_widgets`` and ``get_ui_field_behaviour`` for a hook's class body.

    Airflow 3.1 reads the form from these two, and only if the class itself has them: inherited ones are ignored.
    """

    def widgets() -> dict[str, Any]:
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from flask_babel import lazy_gettext
        from wtforms import StringField
        from wtforms.validators import Optional, any_of

        # Airflow 3.1 drops a connection type with any field but text, whole number, password and checkbox, and knows
        # `any_of` but not `AnyOf`. So numbers and switches are text here; the account parses either.
        return {
            field.name: StringField(
                lazy_gettext(field.label),
                description=field.help,
                widget=BS3TextFieldWidget(),
                validators=[Optional(), *([any_of(list(field.choices))] if field.choices else [])],
                default=None if field.default is None else str(field.default).lower(),
            )
            for field in FORMS[conn_type]
        }

    def behaviour() -> dict[str, Any]:
        return {name.replace("-", "_"): value for name, value in ui_behaviour(conn_type).items()}

    return staticmethod(widgets), staticmethod(behaviour)
