"""Connections that are used again: only where nothing is left on them, and never after their end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.http.client import AsyncClient

if TYPE_CHECKING:
    from tests.conftest import Visit
    from tests.http.conftest import Serve, Tools

HUGE = b"x" * (48 * 1024 * 1024)
"""More than the sockets' buffers take, so that the end is not sent unless somebody reads."""


def test_one_connection_for_many_calls(serve: Serve, tools: Tools) -> None:
    async def scene() -> None:
        async with serve(tools.polite) as server, AsyncClient(timeout=10) as client:
            for number in range(50):
                await client.arun(tools.ask(tools.call(server.url, (b"%d" % number,))))
        assert server.connections == 1
        assert [received.body for received in server.requests] == [b"%d" % number for number in range(50)]

    asyncio.run(scene())


@pytest.mark.parametrize("goodbye", ["close", "cut"])
def test_a_connection_that_the_server_ended_is_not_used_again(tools: Tools, serve: Serve, goodbye: str) -> None:
    gone = asyncio.Event()

    async def hang_up(visit: Visit) -> None:
        await visit.request()
        visit.answer()
        await visit.writer.drain()
        # It has read the answer before the line breaks.
        for _ in range(20):
            await asyncio.sleep(0)
        if goodbye == "cut":
            visit.cut()
        visit.writer.close()
        # Not until it is closed on both sides: with TLS, the client would have to answer first.
        for _ in range(20):
            await asyncio.sleep(0)
        gone.set()

    async def scene() -> None:
        async with serve(hang_up) as server, AsyncClient(timeout=10) as client:
            for _ in range(5):
                gone.clear()
                assert (await client.arun(tools.ask(tools.call(server.url, (b"picture",))))).status == 200
                await gone.wait()
        assert server.connections == len(server.requests) == 5

    asyncio.run(scene())


def test_the_end_is_seen_where_the_event_loop_has_not_looked_yet(tools: Tools) -> None:
    async def say_and_hold(visit: Visit) -> None:
        await visit.request()
        visit.answer()
        held.append(visit)
        await asyncio.Event().wait()

    held: list[Visit] = []

    async def scene() -> None:
        async with tools.serve(say_and_hold) as server, AsyncClient(timeout=10) as client:
            await client.arun(tools.ask(tools.call(server.url, (b"first",))))
            # Past both event loops' backs: nothing has run between this and the second call.
            held[0].writer.get_extra_info("socket")._sock.shutdown(1)
            await client.arun(tools.ask(tools.call(server.url, (b"second",))))
        assert server.connections == 2
        assert [received.body for received in server.requests] == [b"first", b"second"]

    asyncio.run(scene())


def test_a_connection_that_was_idle_for_too_long_is_not_used_again(
    serve: Serve, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_describer.http.transport.KEEP_ALIVE_S", -1.0)

    async def scene() -> None:
        async with serve(tools.polite) as server, AsyncClient(timeout=10) as client:
            for _ in range(3):
                await client.arun(tools.ask(tools.call(server.url, (b"picture",))))
        assert server.connections == 3

    asyncio.run(scene())


@pytest.mark.parametrize("together", [True, False])
def test_an_answer_that_nobody_asked_for_is_given_to_nobody(tools: Tools, serve: Serve, together: bool) -> None:
    """The next call would take it for its own."""
    more = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale"

    async def one_too_many(visit: Visit) -> None:
        received = await visit.request()
        assert received
        visit.answer(received.body)
        if not together:
            for _ in range(20):
                await asyncio.sleep(0)
        visit.writer.write(more)
        await visit.reader.read()

    async def scene() -> None:
        async with serve(one_too_many) as server, AsyncClient(timeout=10) as client:
            for body in (b"one", b"two", b"three"):
                assert (await client.arun(tools.ask(tools.call(server.url, (body,))))).content == body
                for _ in range(40):
                    await asyncio.sleep(0)

    asyncio.run(scene())


def test_a_call_cancelled_while_it_waits_for_its_answer_leaves_none_to_the_next(tools: Tools, serve: Serve) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def echo(visit: Visit) -> None:
        while received := await visit.request():
            arrived.set()
            if received.body == b"first":
                await go.wait()
            visit.answer(received.body)

    async def scene() -> None:
        async with serve(echo) as server, AsyncClient(timeout=10) as client:
            await client.arun(tools.ask(tools.call(server.url, (b"before",))))
            arrived.clear()
            first = asyncio.create_task(client.arun(tools.ask(tools.call(server.url, (b"first",)))))
            await arrived.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            go.set()
            assert (await client.arun(tools.ask(tools.call(server.url, (b"second",))))).content == b"second"
        assert server.connections == 2

    asyncio.run(scene())


def test_a_call_cancelled_while_it_is_sent_is_not_sent_on(serve: Serve, tools: Tools) -> None:
    received = 0
    arrived, cancelled, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def count(visit: Visit) -> None:
        nonlocal received
        if visit.server.connections > 1:
            return await tools.polite(visit)
        await visit.request()
        visit.answer()
        await visit.head()
        arrived.set()
        await cancelled.wait()
        while received < len(HUGE) and (chunk := await visit.reader.read(1 << 20)):
            received += len(chunk)
        over.set()
        return None

    async def scene() -> None:
        async with serve(count) as server, AsyncClient(timeout=10) as client:
            await client.arun(tools.ask(tools.call(server.url, (b"before",))))
            first = asyncio.create_task(client.arun(tools.ask(tools.call(server.url, (HUGE,)))))
            await arrived.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            cancelled.set()
            await over.wait()
            assert received < len(HUGE)
            assert (await client.arun(tools.ask(tools.call(server.url, (b"second",))))).status == 200

    asyncio.run(scene())
