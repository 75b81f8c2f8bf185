"""The only file that imports httpx: drives a flow async (`AsyncClient.arun`), and that blocking (`run`).

Its second task is to tell failures apart that differ by money: a request that was never fully sent cost nothing, one
whose answer was lost may have been billed.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import cache
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx

from airflow_provider_describer.client.flow import Accepted, Driver, Flow, Sleep, Step
from airflow_provider_describer.description import Running
from airflow_provider_describer.errors import (
    AmbiguousCall,
    BadInput,
    Billed,
    DescriberError,
    UnexpectedAnswer,
    VendorUnavailable,
)
from airflow_provider_describer.vendors.wire import Request, Response, mask_query

T = TypeVar("T")

USER_AGENT = "airflow-provider-describer"
MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of an answer that are read where the request sets no limit of its own; no vendor's answer comes near."""
KEEP_ALIVE_S = 4.0
"""Below the 5 s after which common servers close an idle connection, so that none dies under a paid request."""


class Watch(Protocol):
    """What the batch engine adds to a flow while it is driven; a lone call has none."""

    async def turn(self, request: Request) -> None:
        """Called before each billable request is sent. May wait; may raise anything, and nothing is sent."""

    async def accepted(self, running: Running) -> None:
        """Called with the id of a request that now runs at the vendor, before it is polled."""

    async def sleep(self, sleep: Sleep) -> None:
        """Called in place of sleeping."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to its end from blocking code: the one way from the blocking entry points to the async engine.

    :raises BadInput: inside a running event loop, where the async entry point is to be awaited.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    coroutine.close()
    raise BadInput("This blocking call was made inside a running event loop; await its async twin, e.g. adescribe().")


class AsyncClient:
    """Async calls, at most ``connections`` at a time. An async context manager, bound to one event loop."""

    def __init__(
        self, *, timeout: float, connections: int = 1, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._http = httpx.AsyncClient(
            transport=transport or SlotTransport(connections), timeout=_timeout(timeout), trust_env=False
        )

    async def arun(self, flow: Flow[T], watch: Watch | None = None) -> T:
        """Drive the flow to its end and return its result, or raise its error."""
        driver = Driver(flow)
        while (step := driver.step) is not None:
            try:
                driver.reply(await self._do(step, watch))
            except DescriberError as error:
                driver.fail(error)
        return driver.result()

    async def _do(self, step: Step, watch: Watch | None) -> Response | None:
        match step:
            case Sleep():
                await (watch.sleep(step) if watch else asyncio.sleep(step.seconds))
                return None
            case Accepted():
                if watch:
                    await watch.accepted(step.running)
                return None
        if watch and step.billable:
            await watch.turn(step)
        return await self._send(step)

    async def _send(self, request: Request) -> Response:
        exchange = _Exchange(request)
        with exchange.failures():
            response = await self._http.send(exchange.request, stream=True)
            try:
                async for chunk in response.aiter_bytes():
                    exchange.take(chunk)
            finally:
                await response.aclose()
            return exchange.response(response)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()


class _Body(httpx.AsyncByteStream):
    """A request's body, handed over once; knows whether all of it was taken. Nothing is joined or kept."""

    def __init__(self, chunks: tuple[bytes, ...]) -> None:
        self._chunks = chunks
        self.taken = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        # Reached only when the last chunk has been written and the next one is asked for.
        self.taken = True


class _Exchange:
    """One request and its answer, from our values to httpx's and back."""

    def __init__(self, request: Request) -> None:
        self._of = request
        self._body = _Body(request.body)
        self._content = bytearray()
        self._began = time.monotonic()
        try:
            url = httpx.URL(request.url)
        except httpx.InvalidURL as error:
            raise BadInput(f"{mask_query(request.url)!r} is not a URL: {error}") from None
        self._host = url.host
        headers = {"host": url.netloc.decode("ascii"), "user-agent": USER_AGENT, **request.headers}
        if request.body:
            headers["content-length"] = str(sum(map(len, request.body)))
        self.request = httpx.Request(request.method, url, headers=headers, stream=self._body)

    def take(self, chunk: bytes) -> None:
        """Keep a piece of the answer, up to the limit."""
        self._content += chunk
        limit = self._of.max_answer or MAX_ANSWER
        if len(self._content) > limit:
            raise _TooLarge(f"the answer is larger than {limit} bytes")

    def response(self, response: httpx.Response) -> Response:
        content = bytes(self._content)
        for secret in self._of.secrets:
            # A vendor that quotes the key back must not bring it into an error, a log or the store.
            if (found := secret.encode()) in content:
                content = content.replace(found, b"***")
        elapsed = time.monotonic() - self._began
        return Response(response.status_code, dict(response.headers), content, time.time(), elapsed)

    def failures(self) -> _Failures:
        """Turn httpx's exceptions into ours, by whether the request had been sent."""
        return _Failures(self)

    def failure(self, error: Exception) -> DescriberError:
        # The exception's own text may hold the URL, whose query may be a presigned secret.
        said = f"{type(error).__name__}: {error}".replace(self._of.url, mask_query(self._of.url))
        for secret in self._of.secrets:
            said = said.replace(secret, "***")
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return BadInput(f"{mask_query(self._of.url)!r} cannot be asked ({said})")
        if isinstance(error, _TooLarge):
            billed: Billed = "unknown" if self._of.billable else "no"
            return UnexpectedAnswer(f"{self._host}: {error}", kind="too_large", billed=billed)
        sent = self._body.taken and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        if sent and self._of.billable:
            return AmbiguousCall(f"{self._host} took the call and its answer was lost ({said}); it may be billed")
        return VendorUnavailable(f"{self._host} cannot be reached or does not answer ({said})")


class _TooLarge(Exception):
    pass


class _Failures:
    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, httpx.HTTPError | httpx.StreamError | _TooLarge | ssl.SSLError | OSError):
            raise self._exchange.failure(error) from None


class SlotTransport(httpx.AsyncBaseTransport):
    """At most ``size`` connections, each in a transport of its own, the last used one taken first.

    httpx's own pool looks at every idle connection at every request, which is quadratic (encode/httpx#3215); a
    free list is flat. A slot goes back when its answer has been read or the call has failed or been cancelled.
    """

    def __init__(self, size: int, make: Callable[[str | None], httpx.AsyncBaseTransport] | None = None) -> None:
        self._make = make or _slot
        self._turns = asyncio.Semaphore(size)
        self._free: dict[str | None, list[httpx.AsyncBaseTransport]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send over a free slot; waits for one where all are in use."""
        await self._turns.acquire()
        proxy = _proxy_for(request.url.scheme, request.url.host)
        free = self._free.setdefault(proxy, [])
        slot = free.pop() if free else self._make(proxy)

        def release() -> None:
            free.append(slot)
            self._turns.release()

        try:
            response = await slot.handle_async_request(request)
        except BaseException:
            release()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Released(response.stream, release)
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        for free in self._free.values():
            while free:
                await free.pop().aclose()


class _Released(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release: Callable[[], None] | None = release

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        release, self._release = self._release, None
        try:
            await self._stream.aclose()
        finally:
            if release:
                release()


@cache
def _ssl_context() -> ssl.SSLContext:
    # 35 ms to make, so one a process.
    return httpx.create_ssl_context()


def _slot(proxy: str | None) -> httpx.AsyncBaseTransport:
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_S)
    return httpx.AsyncHTTPTransport(verify=_ssl_context(), limits=limits, proxy=proxy)


@cache
def _proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the usual environment variables name for the host; looked up once, as every call needs it."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return None if not proxy or proxy_bypass(host) else proxy


def _timeout(seconds: float) -> httpx.Timeout:
    # The answer may take `timeout`; a connection that takes more than 15 s to open will not come, and pausing between
    # two pieces of an upload for a minute is a dead line. Waiting for a free slot is no failure, so it has no limit.
    return httpx.Timeout(seconds, connect=min(15.0, seconds), write=max(60.0, seconds), pool=None)
