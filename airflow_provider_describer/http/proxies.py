"""Proxies that the environment names, and the process's SSL context."""

from __future__ import annotations

import ssl
from functools import cache, lru_cache
from urllib.request import getproxies, proxy_bypass

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.storage.address import mask_query


@cache
def ssl_context() -> ssl.SSLContext:
    """Return the process's SSL context; making one takes 35 ms."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def proxy_for(url: httpx.URL) -> str | None:
    """Return the proxy that the usual environment variables name for this address."""
    return _proxy_for(url.scheme, url.netloc.decode("ascii"))


@lru_cache(maxsize=1024)
def _proxy_for(scheme: str, host: str) -> str | None:
    # Looked up once, as every call needs it.
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def transport_through(proxy: str, keep_alive_s: float) -> httpx.AsyncBaseTransport:
    """Return a transport through the proxy, of one connection.

    :raises BadInput: the proxy cannot be used.
    """
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=keep_alive_s)
    try:
        return httpx.AsyncHTTPTransport(verify=ssl_context(), limits=limits, proxy=proxy)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        # The text of the error may hold the proxy's password.
        raise BadInput(
            f"the proxy {mask_query(proxy)!r} of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) cannot be "
            f"used ({type(error).__name__}). Expected something like http://proxy:3128; socks5:// needs the package "
            "socksio."
        ) from None
