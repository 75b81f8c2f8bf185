"""The address at which a vendor is called: a connection's host, checked."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from airflow_provider_describer.account.extra import CORRECT_IT, Extra, bad_connection


def parse_base_url(
    fields: Extra, name: str, host: str | None, schema: str | None = None, port: int | None = None
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
        raise bad_connection(
            fields.conn_id, f"{name} holds a user name or a password. The key belongs in the password field."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise bad_address
    if any(c.isspace() or not c.isprintable() for c in url):
        raise bad_address
    if "://" not in host and not scheme:
        parts = parts._replace(scheme=_scheme_of(fields, name, parts.hostname, named_port or port))
    address = f"{parts.netloc}:{port}" if port and not named_port else parts.netloc
    return f"{parts.scheme}://{address}{parts.path.rstrip('/')}"


def check_path(fields: Extra, name: str, url: str | None, known: tuple[str, ...], endpoints: tuple[str, ...]) -> None:
    """Refuse an address that goes on with a path of the API, because calls put that path behind it.

    :param known: the vendor's own addresses.
    :param endpoints: the paths of its API behind them.
    """
    if url is None:
        return
    path = urlsplit(url).path
    own = [urlsplit(address).path for address in known if urlsplit(address).hostname == urlsplit(url).hostname]
    # A proxy may stand at any path, but the vendor's own server does not.
    ends = [end for end in endpoints if path.lower().endswith(end)] or ([path] if own and path not in own else [])
    if ends:
        expected = url[: -len(ends[0])]
        raise bad_connection(
            fields.conn_id,
            f"{name} is the whole endpoint ({ends[0]}), expected {expected} alone, or empty for the vendor's own. "
            f"{CORRECT_IT}",
        )


def _scheme_of(fields: Extra, name: str, host: str, port: int | None) -> str:
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
    raise bad_connection(fields.conn_id, f"{name} has no scheme: write http:// or https:// before it. {CORRECT_IT}")
