"""Drives a flow async (`AsyncClient.arun`), and that blocking (`run`): our values to HTTP and back.

Its second task is to tell failures apart that differ by money: a request that was never fully sent cost nothing, one
whose answer was lost may have been billed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar
from urllib.parse import quote

from airflow_provider_describer.errors import (
    AmbiguousCall,
    BadInput,
    Billed,
    DescriberError,
    UnexpectedAnswer,
    VendorUnavailable,
)
from airflow_provider_describer.http.connections import (
    Answer,
    AnswerLost,
    CannotBeAsked,
    Connection,
    NotSent,
    Outgoing,
    Slot,
    Slots,
    TooLarge,
    Way,
)
from airflow_provider_describer.http.flow import Accepted, Admit, Driver, Flow, Sleep, Step
from airflow_provider_describer.http.line import Guard, Patience, Refused, allowed, literal
from airflow_provider_describer.http.over_httpx import OverHttpx, Target, ssl_context, target_of, through, unpacked
from airflow_provider_describer.models import Picture, Running
from airflow_provider_describer.storage.address import mask_query
from airflow_provider_describer.vendors.wire import Request, Response

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

USER_AGENT = "airflow-provider-describer"
MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of an answer that are read where the request sets no limit of its own; no vendor's answer comes near."""


class CallHooks(Protocol):
    """What the batch engine adds to a flow while it is driven; a lone call has none."""

    async def before_call(self) -> None:
        """Called before each billable request is made and sent. May wait; may raise anything, and nothing is sent."""

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
    """Async calls, at most ``connections`` at a time. An async context manager, bound to one event loop.

    :param timeout: seconds to wait for an answer.
    :param transport: an httpx transport to ask over, in place of connections of its own.
    :param guard: asked with every IP address that a host resolves to; only those that it allows are connected to, and
        no other resolution comes between. A proxy of the environment resolves names itself: there the guard is asked
        about addresses that are IP addresses only. Nor is it asked where a ``transport`` was passed in.
    """

    def __init__(
        self,
        *,
        timeout: float,
        connections: int = 1,
        transport: httpx.AsyncBaseTransport | None = None,
        guard: Guard | None = None,
    ) -> None:
        # The answer may take `timeout`; a connection that takes more than 15 s to open will not come, and taking
        # nothing of an upload for a minute is a dead line. Waiting for a free slot is no failure, so it has no limit.
        self._patience = Patience(connect=min(15.0, timeout), read=timeout, write=max(60.0, timeout))
        self._guard = guard
        self._slots = OverHttpx(transport, self._patience) if transport else Slots(connections, self._slot)

    def _slot(self, way: Way) -> Slot:
        if way.proxy is None:
            return Connection(way.server, ssl_context, self._patience, self._guard)
        # Raises where the guard refuses.
        allowed(literal(way.server), way.server.host, self._guard)
        return OverHttpx(through(way.proxy), self._patience)

    async def arun(self, flow: Flow[T], hooks: CallHooks | None = None) -> T:
        """Drive the flow to its end and return its result, or raise its error."""
        driver = Driver(flow)
        while (step := driver.step) is not None:
            try:
                driver.reply(await self._do(step, hooks))
            except DescriberError as error:
                driver.fail(error)
        return driver.result()

    async def _do(self, step: Step, hooks: CallHooks | None) -> Response | Picture | None:
        match step:
            case Sleep():
                await (hooks.sleep(step) if hooks else asyncio.sleep(step.seconds))
                return None
            case Accepted():
                if hooks:
                    await hooks.accepted(step.running)
                return None
            case Admit():
                if hooks:
                    await hooks.before_call()
                sign = step.picture.sign
                return replace(step.picture, url=await asyncio.to_thread(sign), sign=None) if sign else step.picture
        return await self._send(step)

    async def _send(self, request: Request) -> Response:
        began = time.monotonic()
        target = target_of(request.url)
        try:
            answer = await self._slots.ask(_outgoing(request, target))
            if any(name == b"content-encoding" for name, _ in answer.headers):
                answer = unpacked(answer, request.max_answer or MAX_ANSWER)
        except (NotSent, AnswerLost, TooLarge, CannotBeAsked, Refused) as error:
            raise _failure(error, request, target) from None
        return _response(answer, request.secrets, time.monotonic() - began)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._slots.aclose()


# --- our values to HTTP's and back -----------------------------------------------------------------------------------


def _outgoing(request: Request, target: Target) -> Outgoing:
    headers = {"host": target.host, "user-agent": USER_AGENT, **request.headers}
    if request.body:
        headers["content-length"] = str(sum(map(len, request.body)))
    if target.authorization:
        headers["authorization"] = target.authorization
    limit = request.max_answer or MAX_ANSWER
    return Outgoing(target.way, request.url, request.method, target.path, list(headers.items()), request.body, limit)


def _response(answer: Answer, secrets: tuple[str, ...], elapsed: float) -> Response:
    # A vendor that quotes the key back must not bring it into an error, a log or the store.
    headers: dict[str, str] = {}
    for raw_name, raw_value in answer.headers:
        name, value = raw_name.decode("latin-1"), _masked(raw_value, secrets).decode("utf-8", "replace")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Response(answer.status, headers, _masked(answer.content, secrets), time.time(), elapsed)


def _masked(text: bytes, secrets: tuple[str, ...]) -> bytes:
    for secret in secrets:
        for form in _forms(secret):
            if form in text:
                text = text.replace(form, b"***")
    return text


@cache
def _forms(secret: str) -> tuple[bytes, ...]:
    """The secret as it is, and as JSON and addresses write it, each of which an error's reader would undo."""
    in_json = json.dumps(secret)[1:-1]
    forms = (secret, in_json, in_json.replace("/", "\\/"), quote(secret), quote(secret, safe=""))
    return tuple(form.encode() for form in dict.fromkeys(forms))


def _failure(error: Exception, request: Request, target: Target) -> DescriberError:
    """Return our error for it, by what it means for money."""
    host, shown = target.way.server.host, mask_query(request.url)
    # The text may hold the URL, whose query may be a presigned secret, or quote what the server said.
    said = _masked(str(error).replace(request.url, shown).encode(), request.secrets).decode()
    match error:
        case Refused():
            return BadInput(
                f"{shown!r} is not asked: {said}, a private address. Expected a host on the public internet.",
                kind="forbidden_address",
            )
        case CannotBeAsked():
            return BadInput(f"{shown!r} cannot be asked ({said})", kind="bad_address")
        case TooLarge():
            billed: Billed = "unknown" if request.billable else "no"
            return UnexpectedAnswer(f"{host}: {said}", kind="too_large", billed=billed)
        case AnswerLost() if request.billable:
            return AmbiguousCall(f"{host} took the call and its answer was lost ({said}); it may be billed")
    return VendorUnavailable(f"{host} cannot be reached or does not answer ({said})")
