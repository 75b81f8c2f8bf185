"""Reads Airflow connections: one that is missing is said to be, with the command that creates it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.vendors import get_vendor, vendors

_CLOUDS = {
    "aws": "--conn-login YOUR_ACCESS_KEY_ID --conn-password YOUR_SECRET_ACCESS_KEY",
    "google_cloud_platform": """--conn-extra '{"key_path": "/path/of/key.json"}'""",
}
_MASKERS = ("airflow.sdk._shared.secrets_masker.secrets_masker", "airflow._shared.secrets_masker.secrets_masker")
_TOO_SHORT = "Skipping masking for a secret as it's too short"


def read_connection(conn_id: str, why: str, conn_type: str) -> Any:
    """Return an Airflow connection. Blocking.

    :param why: what names or needs it, for the error.
    :param conn_type: the type that it would have, for the error.
    :raises BadInput: if there is none, with the way to create it.
    """
    try:
        with quiet_masker():
            return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise missing_connection(conn_id, why, conn_type) from None


async def aread_connection(conn_id: str, why: str, conn_type: str) -> Any:
    """Return a connection as `read_connection` does, in a running event loop."""
    try:
        with quiet_masker():
            return await get_async_connection(conn_id)
    except AirflowNotFoundException:
        raise missing_connection(conn_id, why, conn_type) from None


def missing_connection(conn_id: str, why: str, conn_type: str) -> BadInput:
    """Return the error for a connection that Airflow does not have, or cannot read.

    A vendor's has the kind ``no_connection``, which is worth another try of the task.
    """
    return BadInput(
        f"{why}, but there is no such connection. Create it under Admin > Connections, or with: "
        f"airflow connections add {conn_id} --conn-type {conn_type} {_arguments(conn_type)}",
        kind="no_connection" if conn_type in vendors() else None,
    )


def _arguments(conn_type: str) -> str:
    """Return what such a connection cannot do without, as arguments of Airflow's command."""
    if conn_type in _CLOUDS:
        return _CLOUDS[conn_type]
    vendor = get_vendor(conn_type)
    needed = {field.name: f"YOUR_{field.name.upper()}" for field in vendor.fields if field.required}
    key = ["--conn-password YOUR_API_KEY"] if vendor.needs_key else []
    return " ".join([*key, *([f"--conn-extra '{json.dumps(needed)}'"] if needed else [])])


@contextmanager
def quiet_masker() -> Iterator[None]:
    """Keep Airflow from warning of secrets that are none.

    It takes every text in a connection's extra for a secret, and calls `v2`, `auto` or an extra of `{}` too short.
    """
    loggers = [logging.getLogger(name) for name in _MASKERS]
    for logger in loggers:
        logger.addFilter(_is_of_interest)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_of_interest)


def _is_of_interest(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_TOO_SHORT)
