"""Drives a flow: `AsyncClient.arun` awaits it, `run` blocks. Turns our values into HTTP and back.

Tells failures apart by money: a request that was not fully sent cost nothing, one whose answer was lost may be billed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol, Self, TypeVar

from airflow_provider_describer.errors import (
    AmbiguousCall,
    BadInput,
    Billed,
    DescriberError,
    UnexpectedAnswer,
    UnreadableImage,
    VendorUnavailable,
)
from airflow_provider_describer.http.addresses import AddressRefused, Guard
from airflow_provider_describer.http.exchange import Deadline, Overdue, Upload, read_whole
from airflow_provider_describer.http.flow import Accepted, Admit, Flow, Sleep, Step
from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.http.transport import PooledTransport
from airflow_provider_describer.http.unpacking import ACCEPTED, TooLarge
from airflow_provider_describer.models import Picture, Running
from airflow_provider_describer.storage.address import mask_query
from airflow_provider_describer.vendors.secrets import mask_bytes, mask_quoted, mask_words
from airflow_provider_describer.vendors.wire import Request, Response

T = TypeVar("T")

USER_AGENT = "airflow-provider-describer"
CONNECT_TIMEOUT_S = 15.0
"""A connection that takes longer to open will not come."""
PROXY_STEPS = 3
"""Through a proxy a connection may take this many times as long: to the proxy, from there to the server, then TLS."""
WRITE_TIMEOUT_S = 60.0
"""A server that takes nothing of an upload for longer is gone."""
SLOWEST_UPLOAD = 16 * 1024
"""Bytes in a second. Sending may take as long as a line of this speed would, and the write timeout on top."""
SIGN_AGAIN_AFTER_S = 300.0
"""A presigned address that is older when its call is admitted could expire in the vendor's queue."""
MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of an answer that are read unless the request sets its own limit; no vendor's answer comes near."""

LASTING_FAILURES = ("no_such_host", "bad_certificate", "undecodable")
"""Kinds of a `VendorUnavailable` that does not pass by itself: the host's name is in no DNS, TLS cannot be agreed on
with it, or its answer is not packed as it says."""
_UNKNOWN_NAMES = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


class CallHooks(Protocol):
    """What the engine does around the steps of a flow; a single call has none."""

    async def before_call(self, picture: Picture) -> None:
        """Called before each billable request is made and sent. May wait; may raise anything, and nothing is sent.

        :param picture: what the request shows the vendor; `signed_again` says where it has become another one.
        """

    async def signed_again(self, picture: Picture) -> None:
        """Called after `before_call` if the picture's address had to be signed again while it waited."""

    async def accepted(self, running: Running) -> None:
        """Called with the id of a request that now runs at the vendor, before it is polled."""

    def attempt_failed(self, error: DescriberError, seconds: float) -> None:
        """Called when an attempt has failed and the next one follows after ``seconds``."""

    async def sleep(self, seconds: float) -> None:
        """Called in place of sleeping, between attempts and between polls."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to its end from blocking code: the one way from the blocking entry points to the async engine.

    :raises BadInput: inside a running event loop, where the async entry point is to be awaited.
    """
    if in_event_loop():
        coroutine.close()
        raise BadInput("This blocking call was made inside a running event loop; await its async twin, as adescribe().")
    return asyncio.run(coroutine)


def in_event_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class AsyncClient:
    """Async calls, at most ``connections`` at a time. An async context manager, bound to one event loop.

    :param timeout: seconds from when a request has been sent until its answer has been read whole.
    :param transport: an httpx transport to use in place of `PooledTransport`.
    :param guard: called with every IP address that a host resolves to; only those that it allows are connected to. A
        proxy of the environment resolves names itself: there the guard is called for hosts that are IP addresses only.
        With a ``transport`` it is not called.
    """

    def __init__(
        self,
        *,
        timeout: float,
        connections: int = 1,
        transport: httpx.AsyncBaseTransport | None = None,
        guard: Guard | None = None,
    ) -> None:
        connect = min(CONNECT_TIMEOUT_S, timeout)
        # What is read has the `Deadline`.
        self._timeouts = {"connect": connect, "pool": connect, "write": max(WRITE_TIMEOUT_S, timeout)}
        self._timeout = timeout
        self._transport = transport or PooledTransport(connections, guard)

    async def arun(self, flow: Flow[T], hooks: CallHooks | None = None) -> T:
        """Drive the flow to its end and return its result, or raise its error."""
        try:
            step = next(flow)
            while True:
                try:
                    result = await self._do(step, hooks)
                except DescriberError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            returned: T = end.value
            return returned

    async def _do(self, step: Step, hooks: CallHooks | None) -> Response | Picture | None:
        match step:
            case Sleep(seconds, error):
                if hooks and error:
                    hooks.attempt_failed(error, seconds)
                await (hooks or asyncio).sleep(seconds)
                return None
            case Accepted():
                if hooks:
                    await hooks.accepted(step.running)
                return None
            case Admit():
                # Before the call is admitted for a moment that a slow signature could miss.
                picture, signed_at = await self._signed(step.picture), time.monotonic()
                if hooks:
                    await hooks.before_call(picture)
                    if step.picture.sign and time.monotonic() - signed_at > SIGN_AGAIN_AFTER_S:
                        picture = await self._signed(step.picture)
                        await hooks.signed_again(picture)
                return picture
        return await self._send(step)

    async def _signed(self, picture: Picture) -> Picture:
        if not picture.sign:
            return picture
        try:
            async with asyncio.timeout(self._timeout):
                url = await asyncio.to_thread(picture.sign)
        except TimeoutError:
            raise UnreadableImage(f"its address could not be signed within {self._timeout:g} s.") from None
        return replace(picture, url=url, sign=None)

    async def _send(self, request: Request) -> Response:
        began = time.monotonic()
        url = _url_of(request.url)
        deadline = self._deadline(request)
        upload = Upload(request.body, deadline)
        extensions = {"timeout": self._timeouts, "trace": upload.trace}
        try:
            headers = _headers(request, url)
            outgoing = httpx.Request(request.method, url, headers=headers, stream=upload, extensions=extensions)
            async with deadline:
                if not isinstance(self._transport, PooledTransport):
                    # It tells of no steps.
                    deadline.begin("answer")
                async with aclosing(await self._transport.handle_async_request(outgoing)) as response:
                    content = await read_whole(response, request.max_answer or MAX_ANSWER)
                    deadline.end()
        except (httpx.HTTPError, httpx.StreamError, OSError, UnicodeError, TooLarge, AddressRefused, Overdue) as error:
            raise self._failure(error, upload.may_have_arrived(error), request, url.host) from None
        return _response(response, content, request.secrets, time.monotonic() - began)

    def _deadline(self, request: Request) -> Deadline:
        connect, write = self._timeouts["connect"], self._timeouts["write"]
        send = write + sum(map(len, request.body)) / SLOWEST_UPLOAD
        return Deadline({"connect": PROXY_STEPS * connect, "send": send, "answer": self._timeout})

    def _failure(self, error: Exception, sent: bool, request: Request, host: str) -> DescriberError:
        """Return our error for it, chosen by what it means for money."""
        shown = mask_query(request.url)
        # The text may contain the URL, whose query may be a presigned secret, or quote the server's answer.
        text = self._describe(error).replace(request.url, shown)
        reason = mask_words(mask_quoted(text, request.secrets), request.secrets)
        match error:
            case AddressRefused():
                return BadInput(
                    f"{shown!r} is not requested: {reason}, a private address. Expected a host on the public internet.",
                    kind="forbidden_address",
                )
            case httpx.LocalProtocolError() | UnicodeError() if not sent:
                return BadInput(f"{shown!r} cannot be requested ({reason})", kind="bad_address")
            case TooLarge():
                billed: Billed = "unknown" if request.billable else "no"
                return UnexpectedAnswer(f"{host}: {reason}", kind="too_large", billed=billed)
        if sent and request.billable:
            return AmbiguousCall(f"the call was sent to {host} and its answer was lost ({reason}); it may be billed")
        kind = _lasting_failure(error)
        problem = (
            "sent an answer that cannot be unpacked"
            if kind == "undecodable"
            else "cannot be reached or does not answer"
        )
        return VendorUnavailable(f"{host} {problem} ({reason})", kind=kind)

    def _describe(self, error: Exception) -> str:
        match error:
            case httpx.ConnectTimeout():
                return f"no connection within {self._timeouts['connect']:g} s"
            case httpx.ReadTimeout():
                return f"no whole answer within {self._timeout:g} s"
            case httpx.WriteTimeout():
                return f"the server accepted no data for {self._timeouts['write']:g} s"
            case TooLarge() | AddressRefused() | Overdue() | httpx.DecodingError():
                return str(error)
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        return f"{type(cause).__name__}: {cause}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.aclose()


def _lasting_failure(error: BaseException) -> str | None:
    """Return which of `LASTING_FAILURES` it is, or None for what may pass by itself."""
    if isinstance(error, httpx.DecodingError):
        return "undecodable"
    is_connecting, cause = isinstance(error, httpx.ConnectError), error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]  # one of the two is there
    if isinstance(cause, ssl.SSLError) and is_connecting:
        hung_up = isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
        return None if hung_up else "bad_certificate"
    # A resolver that is out of order says so with another code. One that takes no such name at all: UnicodeError.
    unknown = isinstance(cause, socket.gaierror) and cause.errno in _UNKNOWN_NAMES
    return "no_such_host" if unknown or isinstance(cause, UnicodeError) else None


@lru_cache(maxsize=512)
def _url_of(address: str) -> httpx.URL:
    """Parse an address. Cached, as parsing costs as much as sending a request.

    :raises BadInput: it is no address of a web server.
    """
    shown = repr(mask_query(address))
    try:
        url = httpx.URL(address)
        host = url.host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise BadInput(f"{shown} is not a URL: {error}", kind="bad_address") from None
    if not host or (url.port or 0) > 65535:
        raise BadInput(f"{shown} has no host, or a port above 65535.", kind="bad_address")
    if url.scheme not in ("http", "https"):
        raise BadInput(f"{shown} cannot be requested: expected http:// or https://.", kind="bad_address")
    return url


def ascii_address(address: str) -> str:
    """Return the address with a host of other letters in the form that is sent (``xn--…``); others unchanged.

    :raises BadInput: no host has such a name.
    """
    return address if address.isascii() else str(_url_of(address))


def _headers(request: Request, url: httpx.URL) -> dict[str, str]:
    own = {"host": url.netloc.decode("ascii"), "user-agent": USER_AGENT, "accept-encoding": ACCEPTED}
    headers = {**own, **request.headers}
    if request.body:
        headers["content-length"] = str(sum(map(len, request.body)))
    if url.userinfo:
        headers["authorization"] = f"Basic {b64encode(f'{url.username}:{url.password}'.encode()).decode()}"
    return headers


def _response(response: httpx.Response, content: bytes, secrets: tuple[str, ...], elapsed: float) -> Response:
    # A vendor that quotes the key back must not bring it into an error, a log or the store.
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers.raw:
        name, value = raw_name.decode("latin-1").lower(), mask_bytes(raw_value, secrets).decode("utf-8", "replace")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Response(response.status_code, headers, mask_bytes(content, secrets), time.time(), elapsed)
