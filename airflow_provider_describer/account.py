"""An account at a vendor, as an Airflow connection describes it: parsed and checked once.

Knows nothing of Airflow; it takes the connection's fields as plain values.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from airflow_provider_describer.arguments import as_float
from airflow_provider_describer.errors import BadConnection

ImageTransport = Literal["auto", "url", "inline", "upload", "file"]
ApiVersion = Literal["v1", "v2"]
EXTRAS = (
    "timeout",
    "requests_per_minute",
    "max_cost_per_day",
    "limits_path",
    "price_per_call",
    "api_version",
    "image_transport",
    "storage_host",
    "allow_private_hosts",
)
"""The fields that a connection's extra may have; the form shows each of them."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays, where, and within which limits: everything that a connection says.

    ``timeout`` is in seconds, from when a request has been sent until its answer has been read whole;
    ``price_per_call`` and ``max_cost_per_day`` are in USD; ``requests_per_minute`` counts billable calls.
    ``allow_private_hosts`` lets images be read from web servers in a private network. The key is in no repr.
    """

    vendor: str
    conn_id: str
    api_key: str = field(repr=False)
    base_url: str
    storage_url: str
    timeout: float = 120.0
    requests_per_minute: float | None = None
    max_cost_per_day: float | None = None
    limits_path: str | None = None
    price_per_call: float | None = None
    api_version: ApiVersion = "v1"
    image_transport: ImageTransport = "auto"
    allow_private_hosts: bool = False


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a vendor's connection means if its fields are empty.

    ``endpoints`` are the paths of the vendor's API, which a host must not hold: calls would go to them twice.
    """

    vendor: str
    base_url: str
    storage_url: str
    price_per_call: float | None = None
    endpoints: tuple[str, ...] = ()


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
    fields = _Extra(conn_id, _parse_extra(conn_id, extra))
    fields.check_names()
    base_url = _base_url(fields, "host", host, schema, port)
    storage_url = _base_url(fields, "storage_host", fields.text("storage_host"))
    for name, url in (("host", base_url), ("storage_host", storage_url)):
        _check_path(fields, name, url, defaults)
    return Account(
        vendor=defaults.vendor,
        conn_id=conn_id,
        api_key=_parse_key(conn_id, password),
        base_url=base_url or defaults.base_url,
        storage_url=storage_url or base_url or defaults.storage_url,
        timeout=fields.positive("timeout") or 120.0,
        requests_per_minute=fields.positive("requests_per_minute"),
        max_cost_per_day=fields.positive("max_cost_per_day"),
        limits_path=fields.text("limits_path"),
        price_per_call=fields.positive("price_per_call") or defaults.price_per_call,
        api_version=fields.choice("api_version", get_args(ApiVersion)) or "v1",  # type: ignore[arg-type]  # checked
        image_transport=fields.choice("image_transport", get_args(ImageTransport)) or "auto",  # type: ignore[arg-type]
        allow_private_hosts=fields.flag("allow_private_hosts"),
    )


@dataclass(frozen=True, slots=True)
class _Extra:
    """A connection's extra, read field by field. Every error names the connection and the field."""

    conn_id: str
    values: Mapping[str, Any]

    def error(self, name: str, found: object, expected: str) -> BadConnection:
        # Only a number is shown: a text may be a secret that was pasted into the wrong field.
        kind = "a text" if isinstance(found, str) else f"a {type(found).__name__}"
        shown = repr(found) if isinstance(found, int | float) and abs(found) < 1e9 else kind
        return _bad(self.conn_id, f"{name} is {shown}, expected {expected}. {_CORRECT_IT}")

    def check_names(self) -> None:
        """Refuse misspelt fields, because a misspelt limit would silently be no limit. Other fields are ignored."""
        for name in self.values:
            if name not in EXTRAS and (meant := difflib.get_close_matches(name, EXTRAS, 1, cutoff=0.85)):
                raise _bad(self.conn_id, f"extra: {name} is not a known field; did you mean {meant[0]}? {_CORRECT_IT}")

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if not isinstance(value, str):
            raise self.error(name, value, "a text")
        return value.strip()

    def positive(self, name: str) -> float | None:
        value = self.values.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        number = as_float(value)
        if number is None or number <= 0:
            raise self.error(name, value, "a number above 0")
        return number

    def flag(self, name: str) -> bool:
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
        value = self.text(name)
        if value is not None and value not in choices:
            raise self.error(name, value, "one of " + ", ".join(choices))
        return value


_CORRECT_IT = "Correct it under Admin > Connections."


def _bad(conn_id: str, message: str) -> BadConnection:
    return BadConnection(f"Connection {conn_id!r}: {message}")


def _parse_extra(conn_id: str, extra: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if isinstance(extra, str):
        try:
            extra = json.loads(extra) if extra.strip() else None
        except ValueError:
            extra = "?"
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        # The text itself is not shown: people put secrets into extras.
        raise _bad(
            conn_id,
            f'extra is not a JSON object. Expected something like {{"requests_per_minute": 50}}. {_CORRECT_IT}',
        )
    return extra


def _parse_key(conn_id: str, password: str | None) -> str:
    key = (password or "").strip()
    if not key:
        raise _bad(
            conn_id, "password is empty. Put the vendor's API key into the password field under Admin > Connections."
        )
    if not key.isascii() or not key.isprintable() or any(c in " \"'" for c in key):
        raise _bad(
            conn_id,
            "password holds a space, a quote, a line break or a character that no API key has. Paste the API key "
            "alone, without 'Bearer' or quotes.",
        )
    return key


def _base_url(
    fields: _Extra, name: str, host: str | None, schema: str | None = None, port: int | None = None
) -> str | None:
    """Return ``scheme://host[:port][/path]`` without a trailing slash, or None for an empty host.

    The scheme is the host's own, or that of ``schema``, where Airflow's URI form puts it. Without either, it is http
    for this machine itself and https for a public name, because a key is sent. For any other host nobody can know.
    """
    if not host or not host.strip():
        return None
    host = host.strip().removeprefix("//")
    scheme = (schema or "").strip().lower()
    if "://" not in host and scheme not in ("http", "https", ""):
        raise fields.error("schema", schema, "http, https or empty")
    if port and not 0 < port < 65536:
        raise fields.error("port", port, "a number from 1 to 65535")
    url = host if "://" in host else f"{scheme or 'https'}://{host}"
    bad_address = fields.error(name, host, "an address such as https://api.example.com, or empty for the vendor's own")
    try:
        parts = urlsplit(url)
        named_port = parts.port
    except ValueError:
        raise bad_address from None
    if "@" in parts.netloc:
        raise _bad(fields.conn_id, f"{name} holds a user name or a password. The key belongs in the password field.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise bad_address
    if any(c.isspace() or not c.isprintable() for c in url):
        raise bad_address
    if "://" not in host and not scheme:
        parts = parts._replace(scheme=_scheme_of(fields, name, parts.hostname, named_port or port))
    address = f"{parts.netloc}:{port}" if port and not named_port else parts.netloc
    return f"{parts.scheme}://{address}{parts.path.rstrip('/')}"


def _check_path(fields: _Extra, name: str, url: str | None, defaults: Defaults) -> None:
    """Refuse an address that goes on with a path of the API, because calls put that path behind it."""
    if url is None:
        return
    path = urlsplit(url).path
    own = urlsplit(url).hostname in {urlsplit(known).hostname for known in (defaults.base_url, defaults.storage_url)}
    # A proxy may stand at any path, but the vendor's own server does not.
    ends = [end for end in defaults.endpoints if path.lower().endswith(end)] or ([path] if own and path else [])
    if ends:
        expected = url[: -len(ends[0])]
        raise _bad(
            fields.conn_id,
            f"{name} is the whole endpoint ({ends[0]}), expected {expected} alone, or empty for the vendor's own. "
            f"{_CORRECT_IT}",
        )


def _scheme_of(fields: _Extra, name: str, host: str, port: int | None) -> str:
    """Return the scheme of a host that names none."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        is_own, is_public = host == "localhost", "." in host.strip(".")
    else:
        is_own, is_public = ip.is_loopback, ip.is_global
    if is_own:
        return "http"
    if is_public and port != 80:
        return "https"
    raise _bad(fields.conn_id, f"{name} has no scheme: write http:// or https:// before it. {_CORRECT_IT}")
