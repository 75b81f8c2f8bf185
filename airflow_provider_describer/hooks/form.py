"""The connection forms, made of what each vendor declares.

Airflow 3.2 and later read them from the provider info, 3.1 asks the hooks.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_describer.vendors import get_vendor


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
        for field in get_vendor(conn_type).form()
    }


def ui_behaviour(conn_type: str) -> dict[str, Any]:
    """Return which standard fields the form hides, what it calls the others, and what they show while empty."""
    vendor = get_vendor(conn_type)
    return {
        "hidden-fields": ["login", "port", "schema"],
        "relabeling": {"password": "API key", "host": "Base URL"},
        "placeholders": {"host": vendor.base_url, "password": f"your {vendor.title} API key"},
    }


def form_of_3_1(conn_type: str) -> dict[str, staticmethod[[], dict[str, Any]]]:
    """Return the methods ``get_connection_form_widgets`` and ``get_ui_field_behaviour`` of a hook's class.

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
            for field in get_vendor(conn_type).form()
        }

    def behaviour() -> dict[str, Any]:
        return {name.replace("-", "_"): value for name, value in ui_behaviour(conn_type).items()}

    return {"get_connection_form_widgets": staticmethod(widgets), "get_ui_field_behaviour": staticmethod(behaviour)}
