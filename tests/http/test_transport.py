"""Which failures may have cost money, on real sockets: the one thing the transport must never get wrong."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.errors import AmbiguousCall, BadInput, UnexpectedAnswer, VendorUnavailable
from airflow_provider_describer.http.client import AsyncClient, run
from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.models import Picture
from airflow_provider_describer.vendors import vendors
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Request, Response

if TYPE_CHECKING:
    from tests.conftest import Visit
    from tests.http.conftest import Tools

HUGE = (b"x" * (48 * 1024 * 1024), b"end")
"""More than the sockets' buffers take, so that the end is not sent unless somebody reads."""


async def cut_at_once(visit: Visit) -> None:
    visit.cut()


async def cut_after_the_head(visit: Visit) -> None:
    await visit.head()
    visit.cut()


async def cut_after_the_body(visit: Visit) -> None:
    await visit.request()
    visit.cut()


async def close_after_the_body(visit: Visit) -> None:
    await visit.request()


async def cut_inside_the_answer(visit: Visit) -> None:
    await visit.request()
    visit.answer(b'{"data": "half', length=100)
    await visit.writer.drain()


async def say_nothing(visit: Visit) -> None:
    await visit.request()
    await visit.reader.read()


async def garbage(visit: Visit) -> None:
    await visit.request()
    visit.writer.write(b"\x16\x03\x01 what is this?\r\n\r\n")


async def badly_packed(visit: Visit) -> None:
    await visit.request()
    visit.answer(b"this is no gzip", "200 OK", "content-encoding: gzip")


LOST = [
    cut_after_the_body,
    close_after_the_body,
    cut_inside_the_answer,
    say_nothing,
    garbage,
    badly_packed,
]


@pytest.mark.parametrize("talk", LOST)
def test_an_answer_lost_after_sending_is_ambiguous(tools: Tools, talk: Any) -> None:
    async def scene() -> None:
        async with tools.serve(talk) as server:
            error = await tools.send(tools.call(server.url), timeout=0.5)
        assert type(error) is AmbiguousCall, error
        assert (error.billed, error.kind) == ("unknown", "ambiguous")
        assert "127.0.0.1" in str(error)
        assert len(server.requests) == 1

    asyncio.run(scene())


@pytest.mark.parametrize("talk", LOST)
def test_the_same_loss_of_a_free_request_costs_nothing(tools: Tools, talk: Any) -> None:
    async def scene() -> None:
        async with tools.serve(talk) as server:
            error = await tools.send(tools.call(server.url, billable=False), timeout=0.5)
        assert type(error) is VendorUnavailable, error
        assert error.billed == "no"

    asyncio.run(scene())


@pytest.mark.parametrize("talk", [cut_at_once, cut_after_the_head])
def test_a_call_that_was_never_fully_sent_is_not_billed(tools: Tools, talk: Any) -> None:
    async def scene() -> None:
        async with tools.serve(talk) as server:
            error = await tools.send(tools.call(server.url, HUGE))
        assert type(error) is VendorUnavailable, error
        assert error.billed == "no"

    asyncio.run(scene())


def test_a_small_call_that_may_have_arrived_is_ambiguous(tools: Tools) -> None:
    """All of it lay in the socket's buffer: nobody on this side knows who read it."""

    async def scene() -> None:
        async with tools.serve(cut_after_the_head) as server:
            assert type(await tools.send(tools.call(server.url))) is AmbiguousCall

    asyncio.run(scene())


def test_a_refused_connection_is_not_billed(tools: Tools) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused for certain
        error = asyncio.run(tools.send(tools.call(f"http://127.0.0.1:{taken.getsockname()[1]}")))
    assert type(error) is VendorUnavailable
    assert "127.0.0.1" in str(error)


def test_tls_to_a_plain_port_is_not_billed(tools: Tools) -> None:
    async def bad_request(visit: Visit) -> None:
        await visit.reader.read(1)
        visit.answer(b"that was no HTTP", "400 Bad Request")

    async def scene() -> None:
        async with tools.serve(bad_request) as server:
            error = await tools.send(tools.call(server.url.replace("http", "https")))
        assert type(error) is VendorUnavailable, error

    asyncio.run(scene())


@pytest.mark.parametrize(("billable", "billed"), [(True, "unknown"), (False, "no")])
def test_a_huge_answer_is_not_read_to_its_end(tools: Tools, billable: bool, billed: str) -> None:
    async def flood(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"", length=1 << 40)
        while True:
            visit.writer.write(b"x" * 65536)
            await visit.writer.drain()

    async def scene() -> None:
        async with tools.serve(flood) as server:
            error = await tools.send(tools.call(server.url, billable=billable, max_answer=100_000))
        assert type(error) is UnexpectedAnswer, error
        assert (error.kind, error.billed) == ("too_large", billed)

    asyncio.run(scene())


def test_an_answer_in_small_pieces_is_whole(tools: Tools) -> None:
    async def dribble(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"", length=5)
        for byte in b"piece":
            await visit.writer.drain()
            await asyncio.sleep(0)
            visit.writer.write(bytes([byte]))

    async def scene() -> None:
        async with tools.serve(dribble) as server:
            response = await tools.send(tools.call(server.url))
        assert isinstance(response, Response) and response.text == "piece"

    asyncio.run(scene())


def test_an_answer_before_the_body_was_read_is_taken(tools: Tools) -> None:
    async def refuse_early(visit: Visit) -> None:
        await visit.head()
        visit.answer(b"too large", "413 Content Too Large")
        await visit.writer.drain()
        while await visit.reader.read(1 << 20):
            pass

    async def scene() -> None:
        async with tools.serve(refuse_early) as server:
            response = await tools.send(tools.call(server.url, HUGE))
        assert isinstance(response, Response) and response.status == 413

    asyncio.run(scene())


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_call_follows_no_redirect(tools: Tools, status: str) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite) as elsewhere:

            async def redirect(visit: Visit) -> None:
                await visit.request()
                visit.answer(b"", status, f"location: {elsewhere.url}/again")

            async with tools.serve(redirect) as server:
                response = await tools.send(tools.call(server.url))
        assert isinstance(response, Response) and response.status == int(status[:3])
        assert elsewhere.connections == 0

    asyncio.run(scene())


def test_what_is_sent_is_what_was_built(tools: Tools) -> None:
    body = (b"head-", b"\x00\xff" * 50_000, b"-tail")

    async def scene() -> None:
        async with tools.serve(tools.polite) as server:
            await tools.send(tools.call(f"{server.url}/a%20b?x=%2F", body))
            await tools.send(Request("GET", server.url))
        posted, got = server.requests
        assert posted.line == "POST /a%20b?x=%2F HTTP/1.1"
        assert posted.body == b"".join(body)
        assert posted.headers["content-length"] == str(len(posted.body))
        assert posted.headers["host"] == f"127.0.0.1:{server.port}"
        assert "transfer-encoding" not in posted.headers
        assert {"content-length", "transfer-encoding", "authorization"}.isdisjoint(got.headers)

    asyncio.run(scene())


def test_a_body_is_handed_on_piece_by_piece(tools: Tools) -> None:
    pieces = (b"a", b"b" * 1000, b"c")
    seen: list[bytes] = []

    class Looks(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            assert isinstance(request.stream, httpx.AsyncByteStream)
            seen.extend([piece async for piece in request.stream])
            return httpx.Response(200)

    asyncio.run(tools.send(tools.call("http://vendor.example", pieces), transport=Looks()))
    assert all(sent is given for sent, given in zip(seen, pieces, strict=True))


@pytest.mark.parametrize("vendor", list(vendors().values()), ids=lambda vendor: vendor.name)
def test_every_call_with_a_picture_ends_with_a_short_piece(vendor: Vendor) -> None:
    """Through a proxy, the transport sees that the line broke under a long piece only when it writes the next."""
    needed = {field.name: "some" for field in vendor.fields if field.required}
    account = account_from_connection(vendor.defaults(), conn_id="shop", password="sk-secret", extra=needed)
    picture = Picture("image/jpeg", b"x" * (1 << 20))
    body = vendor.build_request(account, vendor.spec(), picture).body
    assert len(body) > 1 and len(body[-1]) < 1024


def test_blocking_inside_a_loop_says_what_to_await(tools: Tools) -> None:
    async def scene() -> None:
        with pytest.raises(BadInput, match="await its async twin"):
            run(tools.send(tools.call("http://v.example")))

    asyncio.run(scene())


def test_blocking_returns_what_awaiting_would(tools: Tools) -> None:
    async def describe() -> Response:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, text="seen"))
        async with AsyncClient(timeout=1, transport=transport) as client:
            return await client.arun(tools.ask(tools.call("http://v.example")))

    assert run(describe()).text == "seen"
