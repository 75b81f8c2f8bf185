"""Whether all of a request was sent, plain and with TLS: what a billable call becomes in every way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import AmbiguousCall, VendorUnavailable
from airflow_provider_describer.http import addresses, client
from airflow_provider_describer.http.exchange import PIECE, Upload
from airflow_provider_describer.http.library import httpcore, httpx
from airflow_provider_describer.http.transport import ssl_context
from airflow_provider_describer.vendors.wire import Response

if TYPE_CHECKING:
    from tests.conftest import Loopback, Visit
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
    error, server = tools.send_once(serve, talk, *body, timeout=1.0)
    assert type(error) is AmbiguousCall, error
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
    tools: Tools, serve: Serve, talk: Any, body: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WRITE_TIMEOUT_S", 1.0)
    error, server = tools.send_once(serve, talk, *body, timeout=1.0)
    assert type(error) is VendorUnavailable and error.billed == "no", error
    assert len(server.requests) == 1


def test_an_answer_to_half_a_request_is_taken_though_the_line_breaks(tools: Tools, serve: Serve) -> None:
    async def refuse(visit: Visit) -> None:
        await visit.head()
        visit.answer(b"too large", "413 Content Too Large")
        # Both ends are in this event loop: it has been read when we go on.
        for _ in range(20):
            await asyncio.sleep(0)
        visit.cut()

    answer, _ = tools.send_once(serve, refuse, HUGE)
    assert isinstance(answer, Response) and (answer.status, answer.content) == (413, b"too large")


def test_half_an_answer_to_half_a_request_means_that_it_was_not_sent(tools: Tools, serve: Serve) -> None:
    async def refuse(visit: Visit) -> None:
        await visit.head()
        visit.answer(b"too", "413 Content Too Large", length=100)
        for _ in range(20):
            await asyncio.sleep(0)
        visit.cut()

    error, _ = tools.send_once(serve, refuse, HUGE)
    assert type(error) is VendorUnavailable and error.billed == "no", error


@pytest.mark.parametrize(
    "body", [(), (b"",), (b"a",), (b"a", b""), (b"x" * PIECE * 2, b""), (b"a", b"x" * PIECE, b"b"), (b"x" * PIECE,) * 3]
)
def test_a_body_is_sent_in_pieces_that_each_have_the_write_timeout(body: tuple[bytes, ...]) -> None:
    async def scene() -> None:
        upload = Upload(body)
        pieces = [piece async for piece in upload]
        assert b"".join(pieces) == b"".join(body)
        assert all(len(piece) <= PIECE for piece in pieces)
        assert [piece async for piece in upload] == [], "a body is handed over once, and not kept"

    asyncio.run(scene())


async def connect(server: Loopback) -> httpcore.AsyncNetworkStream:
    stream = await addresses.connect("127.0.0.1", server.port)
    return await stream.start_tls(ssl_context(), "127.0.0.1", timeout=10) if server.tls else stream


def test_what_the_system_is_said_to_have_taken_arrives(tools: Tools, serve: Serve) -> None:
    """Also where the connection is closed right after: nothing waits in this process that was called sent."""
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
            stream = await connect(server)
            taken = 0
            with contextlib.suppress(httpcore.WriteTimeout):
                while True:
                    await stream.write(b"x" * 4096, 0.1)
                    taken += 4096
            await stream.aclose()
            closed.set()
            assert taken <= await got <= taken + 4096

    asyncio.run(scene())


def test_what_comes_while_nobody_reads_is_not_kept_without_end(tools: Tools, serve: Serve) -> None:
    piece = 1 << 20
    written = 0

    async def flood(visit: Visit) -> None:
        nonlocal written
        for _ in range(64):
            visit.writer.write(b"x" * piece)
            await visit.writer.drain()
            written += piece

    async def scene() -> None:
        async with serve(flood) as server:
            stream = await connect(server)
            before = -1
            while before < written or not written:
                before = written
                await asyncio.sleep(0.1)
            assert written < 32 * piece
            total = 0
            while data := await stream.read(1 << 16, 10):
                total += len(data)
            await stream.aclose()
        assert total == 64 * piece

    asyncio.run(scene())


def test_bytes_that_may_have_left_in_the_very_moment_of_the_timeout_count_as_sent() -> None:
    async def scene() -> None:
        late = httpx.WriteTimeout("")
        upload = Upload((b"head", b"x" * PIECE * 2))
        await upload.trace("http11.send_request_headers.started", {"request": httpcore.Request("POST", "http://v")})
        may_have_arrived = [upload.may_have_arrived(late) async for _ in upload]
        assert may_have_arrived == [False, False, True]
        assert Upload(()).may_have_arrived(late)

    asyncio.run(scene())


def test_bytes_that_the_system_refuses_are_not_sent(tools: Tools, serve: Serve) -> None:
    async def scene() -> None:
        async with serve(say_nothing) as server:
            stream = await connect(server)
            await stream.write(b"some", 10)
            # Unknown to the event loop, so that it tries.
            stream.get_extra_info("socket")._sock.shutdown(socket.SHUT_WR)
            with pytest.raises(httpcore.WriteError):
                await stream.write(b"all", 10)

    asyncio.run(scene())


def test_nothing_is_written_to_a_connection_that_is_closed(tools: Tools, serve: Serve) -> None:
    async def scene() -> None:
        async with serve(say_nothing) as server:
            stream = await connect(server)
            await stream.aclose()
            with pytest.raises(httpcore.WriteError):
                await stream.write(b"all", 10)

    asyncio.run(scene())
