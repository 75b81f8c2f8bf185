"""The proxies that the machine's environment names, and what they mean for money."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import AmbiguousCall, BadInput, VendorUnavailable
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.vendors.wire import Response

if TYPE_CHECKING:
    from tests.conftest import Loopback, Visit
    from tests.http.conftest import Authority, Tools

HUGE = (b"x" * (48 * 1024 * 1024), b"end")
"""More than the sockets' buffers take, so that the end is not sent unless somebody reads."""


async def proxy(visit: Visit) -> None:
    """As much of an HTTP proxy as shows that one was asked."""
    while received := await visit.request():
        visit.answer(received.line.encode())


@pytest.mark.parametrize("form", ["http://{}", "{}", "http://me:hush@{}"])
def test_the_proxy_of_the_environment_is_asked(tools: Tools, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    async def scene() -> None:
        async with tools.serve(proxy) as server:
            monkeypatch.setenv("http_proxy", form.format(f"127.0.0.1:{server.port}"))
            url = f"http://vendor-of-{server.port}.example/describe"
            answer = await tools.send(tools.call(url))
        assert isinstance(answer, Response), answer
        assert answer.text == f"POST {url} HTTP/1.1"
        assert ("proxy-authorization" in server.requests[0].headers) == ("@" in form)

    asyncio.run(scene())


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "127.0.0.1:{}", "*", "10.0.0.1, 127.0.0.1"])
def test_no_proxy_is_honoured(tools: Tools, monkeypatch: pytest.MonkeyPatch, no_proxy: str) -> None:
    async def scene() -> None:
        async with tools.serve(proxy) as between, tools.serve(tools.polite) as server:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{between.port}")
            monkeypatch.setenv("no_proxy", no_proxy.format(server.port))
            await tools.send(tools.call(server.url))
        assert (between.connections, server.connections) == (0, 1)

    asyncio.run(scene())


def test_a_proxy_that_refuses_the_tunnel_costs_nothing(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(visit: Visit) -> None:
        await visit.head()
        visit.answer(b"", "407 Proxy Authentication Required")

    async def scene() -> None:
        async with tools.serve(refuse) as server:
            monkeypatch.setenv("https_proxy", f"http://me:hush@127.0.0.1:{server.port}")
            error = await tools.send(tools.call(f"https://vendor-of-{server.port}.example"))
        assert type(error) is VendorUnavailable and "hush" not in str(error)
        assert server.requests[0].line.startswith("CONNECT ")

    asyncio.run(scene())


@pytest.mark.parametrize(
    "bad", ["gopher://me:hush@proxy:70", "socks5://me:hush@proxy:1080", "http://me:hush@proxy:port"]
)
def test_a_proxy_that_cannot_be_used_is_named_and_blocks_no_slot(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setenv("http_proxy", bad)

    async def scene() -> None:
        async with AsyncClient(timeout=5, connections=1) as client:
            for number in range(3):
                with pytest.raises(BadInput, match="HTTP_PROXY") as caught:
                    await client.arun(tools.ask(tools.call(f"http://{abs(hash(bad))}-{number}.example")))
                assert "hush" not in str(caught.value)

    asyncio.run(scene())


async def close_after_all(visit: Visit) -> None:
    await visit.request()


async def read_the_head(visit: Visit) -> None:
    await visit.head()
    visit.cut()


@pytest.mark.parametrize(
    ("talk", "body", "expected"),
    [(close_after_all, (b"picture", b"end"), AmbiguousCall), (read_the_head, HUGE, VendorUnavailable)],
)
def test_what_was_sent_through_a_proxy_and_what_was_not(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, talk: Any, body: tuple[bytes, ...], expected: type[Exception]
) -> None:
    async def scene() -> None:
        async with tools.serve(talk) as server:
            monkeypatch.setenv("http_proxy", server.url)
            error = await tools.send(tools.call(f"http://vendor-of-{server.port}.example", body))
        assert type(error) is expected, error

    asyncio.run(scene())


class Tunnels:
    """A proxy that leads every tunnel to one server."""

    def __init__(self, tools: Tools, server: Loopback) -> None:
        self._server = server
        self.proxy = tools.serve(self._lead)

    async def _lead(self, visit: Visit) -> None:
        await visit.head()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        visit.writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        there = asyncio.create_task(self._copy(visit.reader, writer))
        await self._copy(reader, visit.writer)
        there.cancel()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            writer.transport.abort()
        finally:
            writer.close()


def test_a_tunnel_is_used_for_many_calls(tools: Tools, trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        name = "tunnel.example"
        async with tools.serve(tools.polite, trusted.server(name)) as server, Tunnels(tools, server).proxy as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            async with AsyncClient(timeout=10, connections=2) as client:
                url = f"https://{name}:{server.port}/describe"
                calls = [client.arun(tools.ask(tools.call(url))) for _ in range(20)]
                assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
        assert len(server.requests) == 20
        assert {received.line for received in server.requests} == {"POST /describe HTTP/1.1"}
        assert proxy.connections == server.connections <= 2
        assert {received.line for received in proxy.requests} == {f"CONNECT {name}:{server.port} HTTP/1.1"}

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("talk", "body", "expected"),
    [(close_after_all, (b"picture", b"end"), AmbiguousCall), (read_the_head, HUGE, VendorUnavailable)],
)
def test_what_was_sent_through_a_tunnel_and_what_was_not(
    tools: Tools,
    trusted: Authority,
    monkeypatch: pytest.MonkeyPatch,
    talk: Any,
    body: tuple[bytes, ...],
    expected: type[Exception],
) -> None:
    """The proxy's own request for the tunnel, which was sent in any case, does not count."""

    async def scene() -> None:
        name = f"{expected.__name__.lower()}.example"
        async with tools.serve(talk, trusted.server(name)) as server, Tunnels(tools, server).proxy as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            error = await tools.send(tools.call(f"https://{name}:{server.port}", body))
        assert type(error) is expected, error

    asyncio.run(scene())
