"""TLS: which servers are believed, and what they are told of the name that was asked for."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import VendorUnavailable
from airflow_provider_describer.vendors.wire import Response

if TYPE_CHECKING:
    from tests.conftest import Visit
    from tests.http.conftest import Authority, Names, Tools


@pytest.mark.parametrize(("names", "host"), [(["localhost"], "localhost"), (["127.0.0.1"], "127.0.0.1")])
def test_a_server_is_known_by_its_certificate(tools: Tools, trusted: Authority, names: list[str], host: str) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite, trusted.server(*names)) as server:
            response = await tools.send(tools.call(f"https://{host}:{server.port}", (b"x" * 1_000_000,)))
        assert isinstance(response, Response) and response.status == 200, response
        assert len(server.requests[0].body) == 1_000_000

    asyncio.run(scene())


@pytest.mark.parametrize(("names", "host"), [(["other.example"], "localhost"), (["localhost"], "127.0.0.1")])
def test_a_certificate_for_another_host_ends_it(tools: Tools, trusted: Authority, names: list[str], host: str) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite, trusted.server(*names)) as server:
            error = await tools.send(tools.call(f"https://{host}:{server.port}"))
        assert type(error) is VendorUnavailable and "certificate" in str(error).lower(), error
        assert server.requests == []

    asyncio.run(scene())


def test_a_certificate_of_nobody_we_trust_ends_it(tools: Tools, authority: Authority) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite, authority.server("127.0.0.1")) as server:
            error = await tools.send(tools.call(server.url))
        assert type(error) is VendorUnavailable and "certificate" in str(error).lower(), error
        assert server.requests == []

    asyncio.run(scene())


def test_a_handshake_that_the_server_drops_is_not_billed(tools: Tools, trusted: Authority) -> None:
    async def drop(visit: Visit) -> None:
        await visit.reader.read(1)

    async def scene() -> None:
        async with tools.serve(drop) as server:
            error = await tools.send(tools.call(server.url.replace("http", "https")))
        assert type(error) is VendorUnavailable, error

    asyncio.run(scene())


def test_a_handshake_that_never_ends_is_waited_for_no_longer_than_told(tools: Tools, trusted: Authority) -> None:
    async def dally(visit: Visit) -> None:
        await visit.reader.read()

    async def scene() -> None:
        async with tools.serve(dally) as server:
            error = await tools.send(tools.call(server.url.replace("http", "https")), timeout=0.2)
        assert type(error) is VendorUnavailable and "0.2 s" in str(error), error

    asyncio.run(scene())


def test_the_server_is_told_the_name_though_a_checked_address_is_connected_to(
    tools: Tools, trusted: Authority, names: Names
) -> None:
    names.answers = [["127.0.0.1"]]
    name = "cdn.shop.example"
    told: list[str | None] = []

    def remember(_tls: Any, server_name: str | None, _context: ssl.SSLContext) -> None:
        told.append(server_name)

    async def scene() -> None:
        context = trusted.server(name)
        context.sni_callback = remember
        async with tools.serve(tools.polite, context) as server:
            checked: list[str] = []

            def guard(address: str) -> bool:
                checked.append(address)
                return True

            response = await tools.send(tools.call(f"https://{name}:{server.port}/a"), guard=guard)
        assert isinstance(response, Response) and response.status == 200, response
        assert (checked, told) == (["127.0.0.1"], [name])
        assert server.requests[0].headers["host"] == f"{name}:{server.port}"

    asyncio.run(scene())


def test_a_call_cancelled_in_the_handshake_leaves_no_connection(tools: Tools, trusted: Authority) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def dally(visit: Visit) -> None:
        await visit.reader.read(1)
        arrived.set()
        await visit.reader.read()
        gone.set()

    async def scene() -> None:
        async with tools.serve(dally) as server:
            call = tools.call(server.url.replace("http", "https"))
            calling = asyncio.create_task(tools.send(call, timeout=60))
            await arrived.wait()
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            await gone.wait()

    asyncio.run(scene())
