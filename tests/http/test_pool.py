"""Connections: never more than asked for, and given back whatever happens."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import AmbiguousCall
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.http.transport import PooledTransport

if TYPE_CHECKING:
    from tests.conftest import Loopback, Visit
    from tests.http.conftest import Serve, Tools


def test_no_more_connections_than_slots_over_500_calls(tools: Tools) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite) as server, AsyncClient(timeout=10, connections=8) as client:
            answers = await asyncio.gather(*(client.arun(tools.ask(tools.call(server.url))) for _ in range(500)))
        assert {answer.status for answer in answers} == {200}
        assert len(server.requests) == 500
        assert server.connections <= 8

    asyncio.run(scene())


def test_turns_between_two_servers_break_no_connection(tools: Tools) -> None:
    """Segmind's uploads and its calls go to different hosts, one after the other for every image."""

    async def upload_and_call(client: AsyncClient, *servers: Loopback) -> None:
        for server in servers:
            await client.arun(tools.ask(tools.call(server.url)))

    async def scene() -> None:
        async with (
            tools.serve(tools.polite) as storage,
            tools.serve(tools.polite) as api,
            AsyncClient(timeout=10, connections=4) as client,
        ):
            await asyncio.gather(*(upload_and_call(client, storage, api) for _ in range(100)))
        assert len(storage.requests) == len(api.requests) == 100
        assert storage.connections <= 4 and api.connections <= 4

    asyncio.run(scene())


def test_many_servers_leave_few_connections_open(tools: Tools) -> None:
    open_now: set[int] = set()

    async def count(visit: Visit) -> None:
        open_now.add(visit.server.port)
        await tools.polite(visit)
        open_now.remove(visit.server.port)

    async def scene() -> None:
        async with AsyncExitStack() as servers, AsyncClient(timeout=10, connections=2) as client:
            visited = [await servers.enter_async_context(tools.serve(count)) for _ in range(20)]
            for server in visited:
                assert (await client.arun(tools.ask(tools.call(server.url)))).status == 200
            assert [server.connections for server in visited] == [1] * 20
            while len(open_now) > 2 * 2:  # noqa: ASYNC110  the servers see it a little later
                await asyncio.sleep(0.01)
            assert open_now == {server.port for server in visited[-4:]}, "the one used least recently is closed first"
            await client.__aexit__()
            while open_now:  # noqa: ASYNC110  likewise
                await asyncio.sleep(0.01)

    asyncio.run(scene())


def test_a_call_waits_for_a_slot(tools: Tools) -> None:
    under_way, most, gate = 0, 0, asyncio.Event()

    async def slowly(visit: Visit) -> None:
        nonlocal under_way, most
        while await visit.request():
            under_way += 1
            most = max(most, under_way)
            if under_way == 3:
                gate.set()
            await gate.wait()
            under_way -= 1
            visit.answer()

    async def scene() -> None:
        async with tools.serve(slowly) as server, AsyncClient(timeout=10, connections=3) as client:
            await asyncio.gather(*(client.arun(tools.ask(tools.call(server.url))) for _ in range(12)))
        assert most == 3
        assert len(server.requests) == 12

    asyncio.run(scene())


def test_a_cancelled_call_gives_its_slot_back(tools: Tools) -> None:
    arrived = asyncio.Event()

    async def first_hangs(visit: Visit) -> None:
        if visit.server.connections > 1:
            return await tools.polite(visit)
        await visit.request()
        arrived.set()
        await visit.reader.read()
        return None

    async def scene() -> None:
        async with tools.serve(first_hangs) as server, AsyncClient(timeout=60, connections=1) as client:
            hangs = asyncio.create_task(client.arun(tools.ask(tools.call(server.url))))
            waits = asyncio.create_task(client.arun(tools.ask(tools.call(server.url))))
            await arrived.wait()
            hangs.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hangs
            assert (await waits).status == 200

    asyncio.run(scene())


def test_a_call_cancelled_while_it_waits_takes_no_slot(tools: Tools) -> None:
    arrived, gate = asyncio.Event(), asyncio.Event()

    async def at_the_gate(visit: Visit) -> None:
        while await visit.request():
            arrived.set()
            await gate.wait()
            visit.answer()

    async def scene() -> None:
        async with tools.serve(at_the_gate) as server, AsyncClient(timeout=60, connections=1) as client:
            first, second, third = (asyncio.create_task(client.arun(tools.ask(tools.call(server.url)))) for _ in "123")
            await arrived.wait()
            second.cancel()
            gate.set()
            assert [(await each).status for each in (first, third)] == [200, 200]
        assert len(server.requests) == 2

    asyncio.run(scene())


@pytest.mark.parametrize("bad", ["timeout", "cut", "flood"])
def test_a_failed_call_gives_its_slot_back(tools: Tools, bad: str) -> None:
    async def first_fails(visit: Visit) -> None:
        if visit.server.connections > 1:
            return await tools.polite(visit)
        await visit.request()
        if bad == "timeout":
            await visit.reader.read()
        elif bad == "flood":
            visit.answer(b"x" * 100_000)
        return None

    async def scene() -> None:
        async with tools.serve(first_fails) as server, AsyncClient(timeout=0.3, connections=1) as client:
            with pytest.raises(Exception, match=r"127\.0\.0\.1"):
                await client.arun(tools.ask(tools.call(server.url, max_answer=1000)))
            assert (await client.arun(tools.ask(tools.call(server.url)))).status == 200

    asyncio.run(scene())


def test_a_dropped_idle_connection_is_replaced_without_an_error(tools: Tools) -> None:
    gone = asyncio.Event()

    async def hang_up_when_idle(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"{}", "200 OK", "connection: keep-alive")
        await visit.writer.drain()
        visit.writer.close()
        await visit.writer.wait_closed()
        gone.set()

    async def scene() -> None:
        async with tools.serve(hang_up_when_idle) as server, AsyncClient(timeout=10) as client:
            for _ in range(5):
                gone.clear()
                assert (await client.arun(tools.ask(tools.call(server.url)))).status == 200
                await gone.wait()
        assert server.connections == len(server.requests) == 5

    asyncio.run(scene())


def test_the_body_is_rebuilt_for_each_attempt(tools: Tools) -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.content)
        if len(seen) == 1:
            raise httpx.ReadTimeout("late")
        return httpx.Response(200)

    async def scene() -> None:
        request = tools.call("http://v.example", (b"one-", b"shot"))
        async with AsyncClient(timeout=1, transport=httpx.MockTransport(answer)) as client:
            with pytest.raises(AmbiguousCall):
                await client.arun(tools.ask(request))
            await client.arun(tools.ask(request))

    asyncio.run(scene())
    assert seen == [b"one-shot", b"one-shot"]


# --- as a transport of httpx's ---------------------------------------------------------------------------------------


def test_a_response_that_was_not_read_whole_closes_its_connection(tools: Tools, serve: Serve) -> None:
    async def long_then_polite(visit: Visit) -> None:
        await visit.request()
        if visit.server.connections == 1:
            visit.answer(b"x" * 1_000_000)
        else:
            visit.answer(b"whole")
        await tools.polite(visit)

    async def scene() -> None:
        async with serve(long_then_polite) as server, httpx.AsyncClient(transport=PooledTransport()) as client:
            async with client.stream("GET", server.url) as response:
                assert await anext(response.aiter_raw())
            for _ in range(3):
                assert (await client.get(server.url)).status_code == 200
        assert server.connections == 2

    asyncio.run(scene())


def test_a_response_holds_its_connection_until_it_is_closed(tools: Tools) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite) as server, httpx.AsyncClient(transport=PooledTransport(2)) as client:
            first = await client.send(client.build_request("GET", server.url), stream=True)
            second = await client.send(client.build_request("GET", server.url), stream=True)
            third = asyncio.create_task(client.get(server.url))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not third.done() and len(server.requests) == 2
            await first.aread()
            # Closed again and again, it gives back one connection.
            await first.aclose()
            assert (await third).status_code == 200
            await second.aclose()
        assert server.connections == 2

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("talk", "error"),
    [("cut", httpx.RemoteProtocolError), ("silence", httpx.ReadTimeout), ("nobody", httpx.ConnectError)],
)
def test_errors_are_those_of_httpx(tools: Tools, talk: str, error: type[Exception]) -> None:
    async def misbehave(visit: Visit) -> None:
        await visit.request()
        if talk == "silence":
            await visit.reader.read()

    async def scene() -> None:
        async with (
            tools.serve(misbehave) as server,
            httpx.AsyncClient(transport=PooledTransport(), timeout=0.3) as client,
        ):
            url = f"http://127.0.0.2:{server.port}" if talk == "nobody" else server.url
            with pytest.raises(error):
                await client.get(url)

    asyncio.run(scene())
