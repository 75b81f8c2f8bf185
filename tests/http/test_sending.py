"""Whether all of a request was sent, plain and with TLS: what a connection of our own says of every way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.http.connections import PIECE, Answer, AnswerLost, NotSent, _pieces
from airflow_provider_describer.http.line import MOST_UNREAD, Broken, Line, open_line
from airflow_provider_describer.http.over_httpx import ssl_context

if TYPE_CHECKING:
    from tests.conftest import Visit
    from tests.http.conftest import Serve, Tools

HUGE = b"x" * (48 * 1024 * 1024)
"""More than the sockets' buffers take, so that the end is not sent unless somebody reads."""


async def say_nothing(visit: Visit) -> None:
    await visit.request()
    await visit.reader.read()


async def close_after_all(visit: Visit) -> None:
    await visit.request()


async def cut_after_all(visit: Visit) -> None:
    await visit.request()
    visit.cut()


async def close_inside_the_answer(visit: Visit) -> None:
    await visit.request()
    visit.answer(b'{"data": "half', length=100)
    await visit.writer.drain()


async def cut_an_answer_without_length(visit: Visit) -> None:
    await visit.request()
    visit.writer.write(b'HTTP/1.1 200 OK\r\n\r\n{"data": "half')
    for _ in range(20):
        await asyncio.sleep(0)
    # Where all was read, closing alone would be a goodbye, and the answer whole.
    reset_at_close = struct.pack("ii", 1, 0)
    visit.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_close)
    visit.cut()


async def endless_head(visit: Visit) -> None:
    await visit.request()
    visit.writer.write(b"HTTP/1.1 200 OK\r\n" + b"x-more: and more\r\n" * 20_000)
    await visit.reader.read()


async def only_continue(visit: Visit) -> None:
    await visit.request()
    visit.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize(
    "talk",
    [
        say_nothing,
        close_after_all,
        cut_after_all,
        close_inside_the_answer,
        cut_an_answer_without_length,
        endless_head,
        only_continue,
    ],
)
@pytest.mark.parametrize(
    "body", [(b"picture",), (b"head", b"x" * (PIECE + 1), b"tail"), (b"x" * PIECE * 2, b""), ()], ids=len
)
def test_what_was_sent_and_not_answered_is_lost(tools: Tools, serve: Serve, talk: Any, body: tuple[bytes, ...]) -> None:
    error, server = tools.in_one_round(serve, talk, *body, max_wait=tools.soon)
    assert type(error) is AnswerLost, error
    assert [received.body for received in server.requests] == [b"".join(body)]


async def read_the_head(visit: Visit) -> None:
    await visit.head()
    visit.cut()


async def read_a_little_and_close(visit: Visit) -> None:
    await visit.head()
    await visit.reader.readexactly(100_000)


async def read_no_more(visit: Visit) -> None:
    await visit.head()
    visit.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is one that reads
    await asyncio.Event().wait()


@pytest.mark.parametrize("talk", [read_the_head, read_a_little_and_close, read_no_more])
@pytest.mark.parametrize("body", [(HUGE,), (HUGE, b"tail"), (b"head", HUGE, b"tail")], ids=len)
def test_what_was_not_all_sent_is_known_to_be_so(
    tools: Tools, serve: Serve, talk: Any, body: tuple[bytes, ...]
) -> None:
    error, server = tools.in_one_round(serve, talk, *body, max_wait=tools.soon)
    assert type(error) is NotSent, error
    assert len(server.requests) == 1


def test_an_answer_to_half_a_request_is_taken_though_the_line_breaks(tools: Tools, serve: Serve) -> None:
    async def refuse(visit: Visit) -> None:
        await visit.head()
        visit.answer(b"too large", "413 Content Too Large")
        # Both ends are in this event loop: it has been read when we go on.
        for _ in range(20):
            await asyncio.sleep(0)
        visit.cut()

    answer, _ = tools.in_one_round(serve, refuse, HUGE)
    assert isinstance(answer, Answer) and (answer.status, answer.content) == (413, b"too large")


def test_half_an_answer_to_half_a_request_means_that_it_was_not_sent(tools: Tools, serve: Serve) -> None:
    async def refuse(visit: Visit) -> None:
        await visit.head()
        visit.answer(b"too", "413 Content Too Large", length=100)
        for _ in range(20):
            await asyncio.sleep(0)
        visit.cut()

    error, _ = tools.in_one_round(serve, refuse, HUGE)
    assert type(error) is NotSent, error


@pytest.mark.parametrize(
    "body", [(), (b"",), (b"a",), (b"a", b""), (b"x" * PIECE * 2, b""), (b"a", b"x" * PIECE, b"b"), (b"x" * PIECE,) * 3]
)
def test_a_body_is_cut_into_pieces_that_say_something(body: tuple[bytes, ...]) -> None:
    """Of a line that breaks before it is written, an empty one would say that the request was not all sent."""
    pieces = [bytes(piece) for piece in _pieces(b"head", body)]
    assert b"".join(pieces) == b"head" + b"".join(body)
    assert all(0 < len(piece) <= PIECE for piece in pieces)


def test_what_the_system_is_said_to_have_taken_arrives(tools: Tools, serve: Serve) -> None:
    """Also where the line is closed right after: nothing waits in this process that was called sent."""
    got: asyncio.Future[int]

    async def late_reader(visit: Visit) -> None:
        visit.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is one that reads
        await closed.wait()
        visit.writer.transport.resume_reading()  # type: ignore[attr-defined]  # likewise
        got.set_result(len(await visit.reader.read(-1)))

    closed = asyncio.Event()

    async def scene() -> None:
        nonlocal got
        got = asyncio.get_running_loop().create_future()
        async with serve(late_reader) as server:
            line = await open_line(tools.way(server).server, ssl_context, tools.later)
            taken = 0
            with contextlib.suppress(TimeoutError):
                while True:
                    await line.write(b"x" * 4096, 0.1)
                    taken += 4096
            line.close()
            closed.set()
            # TLS has one piece in hand; that it counts as sent errs on the safe side.
            assert taken - (4096 if server.tls else 0) <= await got <= taken + 4096

    asyncio.run(scene())


def test_what_comes_while_nobody_reads_is_not_kept_without_end(tools: Tools, serve: Serve) -> None:
    async def flood(visit: Visit) -> None:
        for _ in range(32):
            visit.writer.write(b"x" * (1 << 20))
            await visit.writer.drain()

    async def scene() -> None:
        async with serve(flood) as server:
            line = await open_line(tools.way(server).server, ssl_context, tools.later)
            while line._transport.is_reading():  # noqa: ASYNC110  # asyncio has no event for it
                await asyncio.sleep(0)
            assert line._unread < MOST_UNREAD + (1 << 20)
            total = 0
            while data := await line.read(10):
                total += len(data)
            line.close()
        assert total == 32 << 20

    asyncio.run(scene())


class Stuck(asyncio.Transport):
    """A socket that takes nothing until it is told to, or none any more."""

    def __init__(self, line: Line, *, broken: bool = False) -> None:
        super().__init__()
        self.line, self.broken, self.closing = line, broken, False
        self.written: list[bytes] = []

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: Any) -> None:
        self.written.append(data)
        if self.broken:
            self.closing = True
        else:
            self.line.pause_writing()


def test_bytes_that_leave_in_the_very_moment_of_the_timeout_are_sent() -> None:
    async def scene() -> None:
        loop, line = asyncio.get_running_loop(), Line()
        line.connection_made(Stuck(line))
        deadline = loop.time() + 0.05
        writing = asyncio.create_task(line.write(b"all", 0.05))
        # One round of the event loop in which both are due.
        loop.call_at(deadline + 0.001, line.resume_writing)
        loop.call_at(deadline - 0.001, time.sleep, 0.01)
        await writing

    asyncio.run(scene())


def test_bytes_that_the_system_refuses_are_not_sent() -> None:
    async def scene() -> None:
        line = Line()
        line.connection_made(Stuck(line, broken=True))
        with pytest.raises(Broken):
            await line.write(b"all", 1)

    asyncio.run(scene())


def test_nothing_is_written_to_a_line_that_is_closing() -> None:
    async def scene() -> None:
        line = Line()
        transport = Stuck(line)
        line.connection_made(transport)
        transport.closing = True
        with pytest.raises(Broken):
            await line.write(b"all", 1)
        assert transport.written == []

    asyncio.run(scene())
