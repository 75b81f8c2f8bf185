"""Which addresses are connected to: the first that answers, and only those that the guard allows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import BadInput, VendorUnavailable
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.vendors.wire import Response

if TYPE_CHECKING:
    from tests.conftest import Visit
    from tests.http.conftest import Names, Tools

NAME = "cdn.shop.example"
"""Known to the fixture ``names`` alone."""


@pytest.fixture
def deaf() -> Iterator[Any]:
    """Makes an address where nobody ever picks up: its queue of waiting connections is full."""
    with ExitStack() as opened:

        def make(port: int) -> str:
            listener = opened.enter_context(socket.socket())
            listener.bind(("127.0.0.2", port))
            listener.listen(0)
            for _ in range(4):
                waiting = opened.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.2", listener.getsockname()[1]))
            return f"127.0.0.2:{listener.getsockname()[1]}"

        yield make


def test_the_next_address_is_tried_where_one_refuses(tools: Tools, names: Names) -> None:
    names.answers = [["127.0.0.2", "127.0.0.3", "127.0.0.1"]]

    async def scene() -> None:
        async with tools.serve(tools.polite) as server:
            response = await tools.send(tools.call(f"http://{NAME}:{server.port}"))
        assert isinstance(response, Response) and response.status == 200
        assert server.connections == 1

    asyncio.run(scene())


def test_the_next_address_is_tried_where_one_does_not_answer(tools: Tools, names: Names, deaf: Any) -> None:
    names.answers = [["127.0.0.2", "127.0.0.1"]]

    async def scene() -> None:
        async with tools.serve(tools.polite) as server:
            deaf(server.port)
            response = await tools.send(tools.call(f"http://{NAME}:{server.port}"))
        assert isinstance(response, Response) and response.status == 200

    asyncio.run(scene())


def test_where_no_address_answers_nothing_is_billed(tools: Tools, names: Names) -> None:
    names.answers = [["127.0.0.2", "127.0.0.3"], []]
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        url = f"http://{NAME}:{taken.getsockname()[1]}"
        for _ in range(2):
            error = asyncio.run(tools.send(tools.call(url)))
            assert type(error) is VendorUnavailable and NAME in str(error), error


def test_a_connection_that_does_not_come_about_is_waited_for_no_longer_than_told(tools: Tools, deaf: Any) -> None:
    error = asyncio.run(tools.send(tools.call(f"http://{deaf(0)}"), timeout=0.2))
    assert type(error) is VendorUnavailable and "0.2 s" in str(error), error


def test_a_call_cancelled_while_it_connects_gives_its_slot_back(tools: Tools, names: Names, deaf: Any) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite) as server, AsyncClient(timeout=60, connections=1) as client:
            deaf(server.port)
            names.answers = [["127.0.0.2"], ["127.0.0.1"]]
            url = f"http://{NAME}:{server.port}"
            first = asyncio.create_task(client.arun(tools.ask(tools.call(url))))
            await asyncio.to_thread(names.was_asked.wait)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert (await client.arun(tools.ask(tools.call(url)))).status == 200

    asyncio.run(scene())


async def answer_on_ipv6(visited: list[str]) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visited.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return await asyncio.start_server(answer, "::1", 0)


def test_an_ipv6_address_is_asked(tools: Tools) -> None:
    async def scene() -> None:
        visited: list[str] = []
        try:
            server = await answer_on_ipv6(visited)
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = server.sockets[0].getsockname()[1]
        seen: list[str] = []

        def guard(address: str) -> bool:
            seen.append(address)
            return True

        async with server:
            response = await tools.send(tools.call(f"http://[::1]:{port}/"), guard=guard)
            assert isinstance(response, Response) and response.text == "ok", response
        assert f"host: [::1]:{port}\r\n" in visited[0].lower()
        assert seen == ["::1"]

    asyncio.run(scene())


# --- the guard -------------------------------------------------------------------------------------------------------


def none(address: str) -> bool:
    return False


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001"])
def test_an_address_that_the_guard_refuses_is_not_connected_to(tools: Tools, host: str) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite) as server:
            error = await tools.send(tools.call(f"http://{host}:{server.port}/?sig=hush"), guard=none)
        assert isinstance(error, BadInput) and error.kind == "forbidden_address", error
        assert host in str(error) and "private" in str(error) and "hush" not in str(error)
        assert server.connections == 0

    asyncio.run(scene())


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(tools: Tools, names: Names) -> None:
    """A name that is public when it is checked and private when it is connected to is an old trick."""
    names.answers = [["127.0.0.1"], ["127.0.0.2"]]
    checked: list[str] = []

    def guard(address: str) -> bool:
        checked.append(address)
        return address == "127.0.0.1"

    async def scene() -> None:
        async with tools.serve(tools.polite) as server:
            response = await tools.send(tools.call(f"http://{NAME}:{server.port}"), guard=guard)
        assert isinstance(response, Response) and response.status == 200
        assert (checked, names.asked) == (["127.0.0.1"], 1)

    asyncio.run(scene())


def test_only_the_allowed_ones_of_several_addresses_are_connected_to(tools: Tools, names: Names) -> None:
    names.answers = [["127.0.0.1", "127.0.0.2"]]

    async def scene() -> None:
        async with tools.serve(tools.polite) as server:
            url = f"http://{NAME}:{server.port}"
            error = await tools.send(tools.call(url), guard=lambda address: address == "127.0.0.2")
        # Nobody is there; that the other one would have answered does not matter.
        assert type(error) is VendorUnavailable, error
        assert server.connections == 0

    asyncio.run(scene())


def test_a_name_that_moves_is_checked_again_where_the_connection_is_new(tools: Tools, names: Names) -> None:
    names.answers = [["127.0.0.1"], ["127.0.0.2"]]

    async def once(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"{}", "200 OK", "connection: close")

    async def scene() -> None:
        async with (
            tools.serve(once) as server,
            AsyncClient(timeout=10, guard=lambda address: address == "127.0.0.1") as client,
        ):
            call = tools.call(f"http://{NAME}:{server.port}")
            assert (await client.arun(tools.ask(call))).status == 200
            with pytest.raises(BadInput, match=NAME):
                await client.arun(tools.ask(call))
        assert server.connections == 1

    asyncio.run(scene())


@pytest.mark.parametrize(("host", "refused"), [("10.0.0.7", True), ("10.7", True), ("shop.example", False)])
def test_through_a_proxy_the_guard_is_asked_about_bare_addresses(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, host: str, refused: bool
) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            # A port of its own, as what the environment says of a host is looked up once.
            result = await tools.send(tools.call(f"http://{host}:{proxy.port}"), guard=none)
        assert isinstance(result, BadInput if refused else Response), result
        assert proxy.connections == (not refused)

    asyncio.run(scene())
