"""HTTP/1.1 over lines of our own: one request and its whole answer, over connections that are used again.

Tells failures apart by the one thing that decides about money: whether all of the request was sent.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import h11

from airflow_provider_describer.http.line import Broken, Guard, Line, Patience, Server, open_line

KEEP_ALIVE_S = 4.0
"""Below the 5 s after which common servers close an idle connection, so that none dies under a paid request."""
PIECE = 256 * 1024
"""Bytes that are handed to the system at a time: pieces smaller than that are joined, larger ones cut."""
MAX_HEAD = 100 * 1024


class NotSent(Exception):
    """Not all of the request was sent, so that nobody can have acted on it."""


class AnswerLost(Exception):
    """All of the request was sent, or may have been, and no whole answer has come."""


class TooLarge(Exception):
    """The answer is larger than the request allows."""


class CannotBeAsked(Exception):
    """The request is none that HTTP can carry."""


class Way(NamedTuple):
    """How a server is reached: itself, or by a proxy."""

    server: Server
    proxy: str | None = None


class Outgoing(NamedTuple):
    """A request as it is sent. ``max_answer`` is in bytes."""

    way: Way
    url: str
    method: str
    target: bytes
    headers: list[tuple[str, str]]
    body: tuple[bytes, ...]
    max_answer: int


class Answer(NamedTuple):
    """A whole answer; the headers' names are in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    content: bytes


class Slot(Protocol):
    """Asks one thing at a time."""

    async def ask(self, outgoing: Outgoing) -> Answer:
        """Send and return the whole answer.

        :raises NotSent: nobody can have acted on it.
        :raises AnswerLost: somebody may have.
        :raises TooLarge: likewise.
        :raises CannotBeAsked: nothing was sent.
        """

    async def aclose(self) -> None:
        """Close its connection."""


class Slots:
    """At most ``size`` questions at a time, each over a slot of its own, the last used one first.

    A slot goes back when its answer has been read or the call has failed or been cancelled. Slots are kept apart by
    their way, so that turns between two servers (uploads and calls) break no connection.
    """

    def __init__(self, size: int, make: Callable[[Way], Slot]) -> None:
        self._make = make
        self._turns = asyncio.Semaphore(size)
        # As many again for a second server; of a thousand servers, most are not met again.
        self._most_free = 2 * size
        self._count = 0
        self._free: dict[Way, list[Slot]] = {}

    async def ask(self, outgoing: Outgoing) -> Answer:
        """Ask over a free slot; waits for one where all are in use."""
        async with self._turns:
            way = outgoing.way
            slot = await self._take(way)
            try:
                return await slot.ask(outgoing)
            finally:
                self._free.setdefault(way, []).append(slot)
                self._count += 1

    async def _take(self, way: Way) -> Slot:
        if free := self._free.get(way):
            self._count -= 1
            slot = free.pop()
            if not free:
                del self._free[way]
            return slot
        if self._count >= self._most_free:
            longest_free = next(iter(self._free))
            unused = self._free[longest_free].pop(0)
            self._count -= 1
            if not self._free[longest_free]:
                del self._free[longest_free]
            await unused.aclose()
        return self._make(way)

    async def aclose(self) -> None:
        """Close every connection."""
        while self._free:
            for slot in self._free.popitem()[1]:
                await slot.aclose()
        self._count = 0


class Connection:
    """A slot that leads straight to a server. Opens its line when it is asked, and again where that is used up."""

    def __init__(
        self, server: Server, context: Callable[[], ssl.SSLContext], patience: Patience, guard: Guard | None
    ) -> None:
        self._server, self._context, self._patience, self._guard = server, context, patience, guard
        self._line: Line | None = None
        self._until = 0.0

    async def ask(self, outgoing: Outgoing) -> Answer:
        """Send and return the whole answer, as `Slot` says."""
        if self._line and (time.monotonic() > self._until or not self._line.is_silent()):
            self._close()
        if self._line is None:
            try:
                self._line = await open_line(self._server, self._context, self._patience, self._guard)
            except Broken as error:
                raise NotSent(str(error)) from None
            self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        try:
            answer = await self._exchange(self._line, outgoing)
        except BaseException:
            # Where it stands nobody knows.
            self._close()
            raise
        self._rest()
        return answer

    async def aclose(self) -> None:
        """Close the line."""
        self._close()
        # The event loop closes the socket in its next round.
        await asyncio.sleep(0)

    async def _exchange(self, line: Line, outgoing: Outgoing) -> Answer:
        head = self._head(outgoing)
        broke = None
        try:
            for piece in _pieces(head, outgoing.body):
                await line.write(piece, self._patience.write)
        except TimeoutError:
            raise NotSent(f"the server took nothing for {self._patience.write:g} s") from None
        except Broken as error:
            # It may have answered before it hung up, that the request is too large for it or the key wrong.
            broke = error
        try:
            answer = await self._answer(line, outgoing.max_answer)
        except TimeoutError:
            said = f"no answer within {self._patience.read:g} s"
        except (Broken, h11.RemoteProtocolError) as error:
            said = str(error)
        else:
            return answer
        if broke:
            raise NotSent(str(broke))
        raise AnswerLost(said)

    def _head(self, outgoing: Outgoing) -> bytes:
        try:
            request = h11.Request(method=outgoing.method, target=outgoing.target, headers=outgoing.headers)
            head = self._http.send(request)
            for chunk in outgoing.body:
                self._http.send(h11.Data(data=chunk))
            self._http.send(h11.EndOfMessage())
        except (h11.LocalProtocolError, UnicodeError) as error:
            raise CannotBeAsked(str(error)) from None
        return head

    async def _answer(self, line: Line, limit: int) -> Answer:
        http, head, content = self._http, None, bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                data = await line.read(self._patience.read)
                if not data and head is None:
                    raise Broken("the server closed the connection without an answer")
                http.receive_data(data)
            elif isinstance(event, h11.Data):
                content += event.data
                if len(content) > limit:
                    raise TooLarge(f"the answer is larger than {limit} bytes")
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.EndOfMessage) and head:
                return Answer(head.status_code, list(head.headers), bytes(content))
            elif not isinstance(event, h11.InformationalResponse):
                raise Broken("the server said what belongs to no answer")

    def _rest(self) -> None:
        """Keep the line for the next question, unless it is over or has more to say than was asked."""
        http = self._http
        if http.our_state is h11.DONE and http.their_state is h11.DONE and not http.trailing_data[0]:
            http.start_next_cycle()
            self._until = time.monotonic() + KEEP_ALIVE_S
        else:
            self._close()

    def _close(self) -> None:
        if self._line:
            self._line.close()
            self._line = None


def _pieces(head: bytes, body: tuple[bytes, ...]) -> Iterator[bytes | memoryview]:
    """What is written at a time: as few writes as can be, without a copy of anything large. Never nothing."""
    joined, size = [head], len(head)
    for chunk in body:
        if size and size + len(chunk) > PIECE:
            yield b"".join(joined)
            joined, size = [], 0
        if len(chunk) > PIECE:
            view = memoryview(chunk)
            yield from (view[start : start + PIECE] for start in range(0, len(chunk), PIECE))
        else:
            joined.append(chunk)
            size += len(chunk)
    if size:
        yield b"".join(joined)
