"""The only file that imports httpx: drives a flow async (`AsyncClient.arun`), and that blocking (`run`).

Its second task is to tell failures apart that differ by money: a request that was never fully sent cost nothing, one
whose answer was lost may have been billed.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import cache, lru_cache
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import quote
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
        inside = False
    else:
        inside = True
    if not inside:
        # Not in the handler above: its errors would begin with "no running event loop".
        return asyncio.run(coroutine)
    coroutine.close()
    raise BadInput("This blocking call was made inside a running event loop; await its async twin, e.g. adescribe().")


class AsyncClient:
    """Async calls, at most ``connections`` at a time. An async context manager, bound to one event loop."""

    def __init__(
        self, *, timeout: float, connections: int = 1, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        # Not an httpx.AsyncClient: that logs every URL at INFO, with the query that may be a presigned secret.
        self._transport = transport or SlotTransport(connections)
        self._timeout = _timeout(timeout).as_dict()

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
        exchange = _Exchange(request, self._timeout)
        with exchange.failures():
            response = await self._transport.handle_async_request(exchange.request)
            try:
                async for chunk in response.aiter_bytes():
                    exchange.take(chunk)
            finally:
                await response.aclose()
            return exchange.response(response)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.aclose()


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

    def __init__(self, request: Request, timeout: Mapping[str, float | None]) -> None:
        self._of = request
        self._body = _Body(request.body)
        self._content = bytearray()
        self._began = time.monotonic()
        try:
            url = httpx.URL(request.url)
        except httpx.InvalidURL as error:
            raise BadInput(f"{mask_query(request.url)!r} is not a URL: {error}", kind="bad_address") from None
        if not url.host or (url.port or 0) > 65535:
            raise BadInput(f"{mask_query(request.url)!r} names no host and port to ask.", kind="bad_address")
        self._host = url.host
        headers = {"host": url.netloc.decode("ascii"), "user-agent": USER_AGENT, **request.headers}
        if request.body:
            headers["content-length"] = str(sum(map(len, request.body)))
        self.request = httpx.Request(
            request.method, url, headers=headers, stream=self._body, extensions={"timeout": timeout}
        )
        if url.userinfo:
            self.request = next(httpx.BasicAuth(url.username, url.password).auth_flow(self.request))

    def take(self, chunk: bytes) -> None:
        """Keep a piece of the answer, up to the limit."""
        self._content += chunk
        limit = self._of.max_answer or MAX_ANSWER
        if len(self._content) > limit:
            raise _TooLarge(f"the answer is larger than {limit} bytes")

    def response(self, response: httpx.Response) -> Response:
        # A vendor that quotes the key back must not bring it into an error, a log or the store.
        content = self._masked(bytes(self._content))
        headers = {name: self._masked(value.encode()).decode() for name, value in response.headers.items()}
        elapsed = time.monotonic() - self._began
        return Response(response.status_code, headers, content, time.time(), elapsed)

    def _masked(self, text: bytes) -> bytes:
        for secret in self._of.secrets:
            for form in _forms(secret):
                if form in text:
                    text = text.replace(form, b"***")
        return text

    def failures(self) -> _Failures:
        """Turn httpx's exceptions into ours, by whether the request had been sent."""
        return _Failures(self)

    def failure(self, error: Exception) -> DescriberError:
        # The exception's own text may hold the URL, whose query may be a presigned secret.
        said = f"{type(error).__name__}: {error}".replace(self._of.url, mask_query(self._of.url))
        said = self._masked(said.encode()).decode()
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return BadInput(f"{mask_query(self._of.url)!r} cannot be asked ({said})", kind="bad_address")
        if isinstance(error, _TooLarge):
            billed: Billed = "unknown" if self._of.billable else "no"
            return UnexpectedAnswer(f"{self._host}: {error}", kind="too_large", billed=billed)
        sent = self._body.taken and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        if sent and self._of.billable:
            return AmbiguousCall(f"{self._host} took the call and its answer was lost ({said}); it may be billed")
        return VendorUnavailable(f"{self._host} cannot be reached or does not answer ({said})")


@cache
def _forms(secret: str) -> tuple[bytes, ...]:
    """The secret as it is, and as JSON and addresses write it, each of which an error's reader would undo."""
    in_json = json.dumps(secret)[1:-1]
    forms = (secret, in_json, in_json.replace("/", "\\/"), quote(secret), quote(secret, safe=""))
    return tuple(form.encode() for form in dict.fromkeys(forms))


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
    """At most ``size`` calls at a time, each over a connection in a transport of its own, the last used one first.

    httpx's own pool looks at every idle connection at every request, which is quadratic (encode/httpx#3215); a
    free list is flat. A slot goes back when its answer has been read or the call has failed or been cancelled.
    Slots are kept apart by where they lead, so that turns between two servers (uploads and calls) break no connection.
    """

    def __init__(self, size: int, make: Callable[[str | None], httpx.AsyncBaseTransport] | None = None) -> None:
        self._make = make or _slot
        self._turns = asyncio.Semaphore(size)
        # As many again for a second server; of a thousand servers, most are not met again.
        self._most_free = 2 * size
        self._free: dict[_Way, list[httpx.AsyncBaseTransport]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send over a free slot; waits for one where all are in use."""
        await self._turns.acquire()
        try:
            way = _way(request.url)
            slot = await self._take(way)
        except BaseException:
            self._turns.release()
            raise

        def release() -> None:
            self._free.setdefault(way, []).append(slot)
            self._turns.release()

        try:
            response = await slot.handle_async_request(request)
        except BaseException:
            release()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Released(response.stream, release)
        return response

    async def _take(self, way: _Way) -> httpx.AsyncBaseTransport:
        if free := self._free.get(way):
            slot = free.pop()
            if not free:
                del self._free[way]
            return slot
        if sum(map(len, self._free.values())) >= self._most_free:
            longest_free = next(iter(self._free))
            unused = self._free[longest_free].pop(0)
            if not self._free[longest_free]:
                del self._free[longest_free]
            await unused.aclose()
        return self._make(way[0])

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
    try:
        return httpx.AsyncHTTPTransport(verify=_ssl_context(), limits=limits, proxy=proxy)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        # The text of the error may hold the proxy's password.
        raise BadInput(
            f"the proxy {mask_query(proxy or '')!r} of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) cannot be "
            f"used ({type(error).__name__}). Expected something like http://proxy:3128; socks5:// needs the package "
            "socksio."
        ) from None


_Way = tuple[str | None, str]
"""Where a slot leads: its proxy, if any, and the server's ``scheme://host:port``."""


def _way(url: httpx.URL) -> _Way:
    return _way_to(url.scheme, url.netloc.decode("ascii"))


@lru_cache(maxsize=1024)
def _way_to(scheme: str, netloc: str) -> _Way:
    """The way that the usual environment variables name; looked up once, as every call needs it."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(netloc):
        return None, f"{scheme}://{netloc}"
    return proxy if "://" in proxy else f"http://{proxy}", f"{scheme}://{netloc}"


def _timeout(seconds: float) -> httpx.Timeout:
    # The answer may take `timeout`; a connection that takes more than 15 s to open will not come, and pausing between
    # two pieces of an upload for a minute is a dead line. Waiting for a free slot is no failure, so it has no limit.
    return httpx.Timeout(seconds, connect=min(15.0, seconds), write=max(60.0, seconds), pool=None)
