"""An account at a vendor, as an Airflow connection describes it: parsed and checked once.

Knows nothing of Airflow; it takes the connection's fields as plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from airflow_provider_describer.account.base_url import check_path, parse_base_url
from airflow_provider_describer.account.extra import Extra, bad_connection, parse_extra
from airflow_provider_describer.account.fields import Field

ImageTransport = Literal["auto", "url", "inline", "upload", "file"]


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays, where, and within which limits: everything that a connection says.

    ``timeout`` is in seconds, from when a request has been sent until its answer has been read whole;
    ``price_per_call`` and ``max_cost_per_day`` are in USD; ``requests_per_minute`` counts billable calls.
    ``allow_private_hosts`` lets images be read from web servers in a private network. ``options`` are the fields that
    only this vendor's connection has, by name. The key is in no repr, and neither is ``limits_path``, which may hold a
    password.
    """

    vendor: str
    conn_id: str
    api_key: str = field(repr=False)
    base_url: str
    storage_url: str
    timeout: float = 120.0
    requests_per_minute: float | None = None
    max_cost_per_day: float | None = None
    limits_path: str | None = field(default=None, repr=False)
    price_per_call: float | None = None
    image_transport: ImageTransport = "auto"
    allow_private_hosts: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a vendor's connection means if its fields are empty.

    ``endpoints`` are the paths of the vendor's API, which a host must not hold: calls would go to them twice.
    ``fields`` are those that only this vendor's connection has. ``complete`` returns the account with what follows from
    them.
    """

    vendor: str
    base_url: str
    storage_url: str
    price_per_call: float | None = None
    endpoints: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    needs_key: bool = True
    complete: Callable[[Account], Account] = lambda account: account


def account_from_connection(
    defaults: Defaults,
    *,
    conn_id: str,
    password: str | None,
    host: str | None = None,
    schema: str | None = None,
    port: int | None = None,
    extra: str | Mapping[str, Any] | None = None,
) -> Account:
    """Return the account that a connection's fields describe.

    :raises BadConnection: naming the connection, the field and the fix.
    """
    fields = Extra(conn_id, parse_extra(conn_id, extra))
    fields.check_names(defaults.fields)
    base_url = parse_base_url(fields, "host", host, schema, port)
    storage_url = parse_base_url(fields, "storage_host", fields.text("storage_host"))
    for name, url in (("host", base_url), ("storage_host", storage_url)):
        check_path(fields, name, url, (defaults.base_url, defaults.storage_url), defaults.endpoints)
    account = Account(
        vendor=defaults.vendor,
        conn_id=conn_id,
        api_key=_parse_key(conn_id, password, is_needed=defaults.needs_key),
        base_url=base_url or defaults.base_url,
        storage_url=storage_url or base_url or defaults.storage_url,
        timeout=fields.positive("timeout") or 120.0,
        requests_per_minute=fields.positive("requests_per_minute"),
        max_cost_per_day=fields.positive("max_cost_per_day"),
        limits_path=fields.text("limits_path"),
        price_per_call=fields.positive("price_per_call") or defaults.price_per_call,
        image_transport=fields.choice("image_transport", get_args(ImageTransport)) or "auto",  # type: ignore[arg-type]
        allow_private_hosts=fields.flag("allow_private_hosts"),
        options={field.name: fields.value(field) for field in defaults.fields if field.name != "storage_host"},
    )
    return defaults.complete(account)


def _parse_key(conn_id: str, password: str | None, *, is_needed: bool) -> str:
    key = (password or "").strip()
    if not key and is_needed:
        raise bad_connection(
            conn_id, "password is empty. Put the vendor's API key into the password field under Admin > Connections."
        )
    if not key.isascii() or not key.isprintable() or any(c in " \"'" for c in key):
        raise bad_connection(
            conn_id,
            "password holds a space, a quote, a line break or a character that no API key has. Paste the API key "
            "alone, without 'Bearer' or quotes.",
        )
    return key
