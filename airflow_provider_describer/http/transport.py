"""The httpx transport that sends all requests. Limits how many are under way and keeps their connections.

httpx's own pool inspects all its connections at each request. With 64 or more connections, that costs
more than the request itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import cast
from urllib.request import getproxies, proxy_bypass

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.http.addresses import Guard, check_addresses, connect, literal_addresses
from airflow_provider_describer.http.exchange import HAS_TURN
from airflow_provider_describer.http.library import httpcore, httpx
from airflow_provider_describer.storage.address import mask_query

KEEP_ALIVE_S = 4.0
"""Less than the 5 s after which common servers close an idle connection, so that none closes under a paid request."""
Route = tuple[str, str, int | None, str | None]
"""Where a request goes: scheme, host and port of the server, and the proxy on the way if there is one."""


class PooledTransport(httpx.AsyncBaseTransport):
    """At most ``size`` requests at a time; the connection that was used last is used first.

    Connections are kept apart by route, so that alternating between two servers (uploads and calls) closes none.
    A connection is kept once its response was read whole and closed; a failed or cancelled request closes its own.
    """

    def __init__(self, size: int = 1, guard: Guard | None = None) -> None:
        self._guard = guard
        self._turns = asyncio.Semaphore(size)
        # Twice the size, so that a second server's connections fit too. Most of many image servers are used only once.
        self._max_idle = 2 * size
        self._idle: list[tuple[Route, httpx.AsyncBaseTransport]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request once fewer than ``size`` are under way; its trace is told of that, as `HAS_TURN`."""
        url = request.url
        proxy = _proxy_for(url.scheme, url.netloc.decode("ascii"))
        route = (url.scheme, url.raw_host.decode("ascii"), url.port, proxy)
        await self._turns.acquire()
        connection = None
        try:
            if trace := request.extensions.get("trace"):
                await trace(HAS_TURN, {})
            connection = await self._take(route)
            with _as_httpx_errors():
                response = await connection.handle_async_request(request)
        except BaseException:
            try:
                if connection:
                    await connection.aclose()
            finally:
                self._turns.release()
            raise
        body = cast("httpx.AsyncByteStream", response.stream)
        response.stream = _Body(body, partial(self._put_back, route, connection))
        return response

    async def aclose(self) -> None:
        """Close every idle connection."""
        while self._idle:
            await self._idle.pop()[1].aclose()

    async def _take(self, route: Route) -> httpx.AsyncBaseTransport:
        for index in reversed(range(len(self._idle))):
            if self._idle[index][0] == route:
                return self._idle.pop(index)[1]
        if len(self._idle) >= self._max_idle:
            await self._idle.pop(0)[1].aclose()
        _, host, _, proxy = route
        if proxy is None:
            return _Connection(self._guard)
        # The proxy resolves names itself.
        check_addresses(host, literal_addresses(host), self._guard)
        return _transport_through(proxy)

    def _put_back(self, route: Route, connection: httpx.AsyncBaseTransport) -> None:
        self._idle.append((route, connection))
        self._turns.release()


class _Connection(httpx.AsyncBaseTransport):
    """One connection to one server, opened when a request needs it."""

    def __init__(self, guard: Guard | None) -> None:
        self._guard = guard
        self._http: _Http11 | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request, over a new connection if the last one cannot be used again."""
        url, extensions = request.url, request.extensions
        core_url = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        if self._http is None or not self._http.is_reusable():
            await self.aclose()
            self._http = await self._open(core_url.origin, extensions.get("timeout", {}).get("connect"))
        assert isinstance(request.stream, httpx.AsyncByteStream)
        headers, body = request.headers.raw, request.stream
        response = await self._http.handle_async_request(
            httpcore.Request(request.method, core_url, headers=headers, content=body, extensions=extensions)
        )
        stream = cast("httpx.AsyncByteStream", response.stream)
        return httpx.Response(response.status, headers=response.headers, stream=stream, extensions=response.extensions)

    async def aclose(self) -> None:
        http, self._http = self._http, None
        if http:
            await http.aclose()

    async def _open(self, origin: httpcore.Origin, max_wait: float | None) -> _Http11:
        host = origin.host.decode("ascii")
        try:
            async with asyncio.timeout(max_wait):
                stream = await connect(host, origin.port, self._guard)
                if origin.scheme == b"https":
                    stream = await stream.start_tls(ssl_context(), host)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(error) from error
        return _Http11(origin, stream, KEEP_ALIVE_S)


class _Http11(httpcore.AsyncHTTP11Connection):
    def is_reusable(self) -> bool:
        """Whether it is open, not idle for too long, and the server has sent nothing since the last answer.

        httpcore checks the socket only, and would take bytes that came together with the last answer for the next one.
        """
        return self.is_idle() and not self.has_expired() and not self._h11_state.trailing_data[0]


class _Body(httpx.AsyncByteStream):
    """The body of a response; closing it puts its connection back."""

    def __init__(self, body: httpx.AsyncByteStream, put_back: Callable[[], None]) -> None:
        self._body = body
        self._put_back: Callable[[], None] | None = put_back

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx_errors():
            async for chunk in self._body:
                yield chunk

    async def aclose(self) -> None:
        put_back, self._put_back = self._put_back, None
        if put_back:
            try:
                await self._body.aclose()
            finally:
                put_back()


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    try:
        yield
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        # Both libraries give their errors the same names.
        raise getattr(httpx, type(error).__name__)(str(error)) from error


@cache
def ssl_context() -> ssl.SSLContext:
    """Return the process's SSL context; making one takes 35 ms."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


@lru_cache(maxsize=1024)
def _proxy_for(scheme: str, host: str) -> str | None:
    """Return the proxy that the usual environment variables name for this address. Cached, as every call needs it."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _transport_through(proxy: str) -> httpx.AsyncBaseTransport:
    """Return a transport of one connection through the proxy, or raise `BadInput` if the proxy cannot be used."""
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_S)
    try:
        return httpx.AsyncHTTPTransport(verify=ssl_context(), limits=limits, proxy=proxy)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        # The text of the error may hold the proxy's password.
        raise BadInput(
            f"the proxy {mask_query(proxy)!r} of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) cannot be "
            f"used ({type(error).__name__}). Expected something like http://proxy:3128; socks5:// needs the package "
            "socksio."
        ) from None
