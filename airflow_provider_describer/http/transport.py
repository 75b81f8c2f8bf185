"""The httpx transport that sends all requests. Limits how many are under way and keeps their connections.

httpx's own pool inspects all its connections at each request. With 64 or more connections, that costs
more than the request itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, cast

from airflow_provider_describer.http.addresses import Guard, check_addresses, connect, literal_addresses
from airflow_provider_describer.http.library import httpcore, httpx
from airflow_provider_describer.http.proxies import proxy_for, ssl_context, transport_through

KEEP_ALIVE_S = 4.0
"""Less than the 5 s after which common servers close an idle connection, so that none closes under a paid request."""


class Route(NamedTuple):
    """Where a request goes: a server, directly or through a proxy."""

    scheme: str
    host: str
    port: int | None
    proxy: str | None


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
        """Send the request once fewer than ``size`` are under way."""
        url = request.url
        route = Route(url.scheme, url.raw_host.decode("ascii"), url.port, proxy_for(url))
        await self._turns.acquire()
        connection = None
        try:
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
        if route.proxy is None:
            return _Connection(self._guard)
        # The proxy resolves names itself.
        check_addresses(route.host, literal_addresses(route.host), self._guard)
        return transport_through(route.proxy, KEEP_ALIVE_S)

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
