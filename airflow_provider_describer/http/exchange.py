"""One request and its whole answer over an httpx transport: how long it may take, and whether the request was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from airflow_provider_describer.http.library import httpcore, httpx
from airflow_provider_describer.http.unpacking import TooLarge, unpack

PIECE = 256 * 1024
"""Bytes that are sent at a time, each within the write timeout."""


HAS_TURN = "transport.has_turn"
"""The event at which a transport begins to work on a request that may have waited for others."""
Step = Literal["connect", "send", "answer"]


class Overdue(Exception):
    """A step of an exchange has taken longer than it may."""

    def __init__(self, step: Step, seconds: float) -> None:
        super().__init__(f"{_MISSED[step]} within {seconds:g} s")
        self.step = step


_MISSED: Mapping[Step, str] = {
    "connect": "no connection",
    "send": "the server did not take the whole request",
    "answer": "no whole answer",
}


class Deadline:
    """Ends an exchange when a step of it takes too long in all; an async context manager around the exchange.

    A server that sends a byte now and then gains no time. Until the first step begins, no time counts: the request
    waits for others that are under way.

    :param seconds: what each step may take.
    :raises Overdue: from the context manager.
    """

    def __init__(self, seconds: Mapping[Step, float]) -> None:
        self._seconds = seconds
        self._timer = asyncio.timeout(None)
        self._step: Step = "connect"

    def begin(self, step: Step) -> None:
        """The exchange has come to this step."""
        if not self._timer.expired():
            self._step = step
            self._timer.reschedule(asyncio.get_running_loop().time() + self._seconds[step])

    def end(self) -> None:
        """The answer has been read whole: closing it must not lose it."""
        if not self._timer.expired():
            self._timer.reschedule(None)

    async def __aenter__(self) -> Self:
        await self._timer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timer.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Overdue(self._step, self._seconds[self._step]) from None


class Upload(httpx.AsyncByteStream):
    """A request's body, which can be read once and is not kept. Knows whether the whole request was sent.

    A retry needs a new one. ``trace`` goes into the request's extensions.

    :param deadline: is told which step the exchange has come to.
    """

    def __init__(self, chunks: tuple[bytes, ...], deadline: Deadline | None = None) -> None:
        self._chunks = chunks
        self._deadline = deadline
        self._at_last_piece = not chunks
        self._handed_over = False
        self._is_tunnel = False
        self._traced_as_sent: bool | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks, self._chunks = self._chunks, ()
        for number, chunk in enumerate(chunks, 1):
            for start in range(0, len(chunk) or 1, PIECE):
                self._at_last_piece = number == len(chunks) and start + PIECE >= len(chunk)
                yield chunk[start : start + PIECE]
        self._handed_over = True

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Note httpcore's steps, as the type of its errors does not tell whether the request was sent."""
        if event == HAS_TURN:
            self._begin("connect")
        elif event == "http11.send_request_headers.started":
            # The request to a proxy for a tunnel is traced like our own.
            self._is_tunnel = info["request"].method == b"CONNECT"
            self._traced_as_sent = False
            self._begin("send")
        elif event == "http11.send_request_body.complete":
            self._traced_as_sent = not self._is_tunnel
            self._begin("answer")
        elif event in _SENDING_FAILED and isinstance(info["exception"], httpcore.WriteError):
            # httpcore goes on: the server may have answered before it closed the connection.
            self._begin("answer")

    def _begin(self, step: Step) -> None:
        if self._deadline and not self._is_tunnel:
            self._deadline.begin(step)

    def may_have_arrived(self, error: Exception) -> bool:
        """Whether all of the request was sent before this error."""
        is_late = isinstance(error, httpx.WriteTimeout) or (isinstance(error, Overdue) and error.step == "send")
        if self._at_last_piece and is_late:
            # The last bytes may have left at the very moment of the timeout.
            return True
        if self._traced_as_sent is not None:
            return self._traced_as_sent
        # There was no connection, or the transport is not one of httpcore's.
        return self._handed_over and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


_SENDING_FAILED = ("http11.send_request_headers.failed", "http11.send_request_body.failed")


async def read_whole(response: httpx.Response, limit: int) -> bytes:
    """Return the answer's content, unpacked.

    :raises TooLarge: it has more than ``limit`` bytes, packed or unpacked.
    :raises httpx.DecodingError: it cannot be unpacked, or ends early.
    """
    encodings = [name.strip().lower() for name in response.headers.get("content-encoding", "").split(",")]
    content = bytearray()
    async for chunk in response.stream:  # type: ignore[union-attr]  # an AsyncClient's response has an async stream
        content += chunk
        if len(content) > limit:
            raise TooLarge(f"the answer is larger than {limit} bytes")
    try:
        return unpack(bytes(content), encodings, limit)
    except httpx.DecodingError:
        if response.status_code < 400:
            raise
        # The status alone says what has become of the call.
        return b""
