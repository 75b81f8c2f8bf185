"""Answers, plain and with TLS: whole ones, endless ones, packed ones, and packed ones that end early."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import AmbiguousCall, BadInput, UnexpectedAnswer
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.vendors.wire import Response

if TYPE_CHECKING:
    from tests.conftest import Visit
    from tests.http.conftest import Serve, Tools


@pytest.mark.parametrize(
    ("said", "status", "content"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole", 200, b"whole"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nwh\r\n3\r\nole\r\n0\r\n\r\n", 200, b"whole"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\ncontent-length: 5\r\n\r\nwhole", 201, b"whole"),
        (
            (
                b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole"
            ),
            200,
            b"whole",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nwhole", 200, b"whole"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nwhole", 200, b"whole"),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", 204, b""),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlater", 503, b"later"),
    ],
)
def test_whole_answers(tools: Tools, serve: Serve, said: bytes, status: int, content: bytes) -> None:
    async def say(visit: Visit) -> None:
        await visit.request()
        visit.writer.write(said)
        await visit.writer.drain()

    async def scene() -> None:
        async with serve(say) as server, AsyncClient(timeout=10) as client:
            for _ in range(3):
                answer = await client.arun(tools.ask(tools.call(server.url)))
                assert (answer.status, answer.content) == (status, content)
        assert server.connections == len(server.requests) == 3

    asyncio.run(scene())


def test_an_answer_over_the_limit_is_not_read_to_its_end(tools: Tools, serve: Serve) -> None:
    async def flood(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"", length=1 << 40)
        while True:
            visit.writer.write(b"x" * 65536)
            await visit.writer.drain()

    error, _ = tools.send_once(serve, flood, b"picture")
    assert type(error) is UnexpectedAnswer and error.kind == "too_large"


@pytest.mark.parametrize("header", ["a\r\nb: c", "\x00", "grün"])
def test_what_http_cannot_carry_is_not_sent(serve: Serve, tools: Tools, header: str) -> None:
    async def scene() -> None:
        async with serve(tools.polite) as server, AsyncClient(timeout=10) as client:
            bad = tools.call(server.url)
            error = await tools.attempt(client, replace(bad, headers={**bad.headers, "said": header}))
            assert type(error) is BadInput and error.kind == "bad_address", error
            assert server.requests == []
            assert (await client.arun(tools.ask(tools.call(server.url)))).status == 200

    asyncio.run(scene())


def packed(content: bytes, encoding: str = "gzip") -> Callable[[Visit], Any]:
    async def answer(visit: Visit) -> None:
        await visit.request()
        visit.answer(content, "200 OK", f"content-encoding: {encoding}")

    return answer


def bare_deflate(content: bytes) -> bytes:
    """What some servers send as "deflate": without zlib's head and checksum."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
JSON = b'{"ok": "' + b"yes" * 10_000 + b'"}'


@pytest.mark.parametrize(
    ("encoding", "pack"), [*PACKERS.items(), ("deflate", bare_deflate), ("identity", bytes), ("GZIP", gzip.compress)]
)
def test_a_packed_answer_is_unpacked(tools: Tools, serve: Serve, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    response, _ = tools.send_once(serve, packed(pack(JSON), encoding), b"picture")
    assert isinstance(response, Response) and response.json() == {"ok": "yes" * 10_000}


def test_a_packed_answer_without_content_is_empty(tools: Tools, serve: Serve) -> None:
    response, _ = tools.send_once(serve, packed(b""), b"picture")
    assert isinstance(response, Response) and response.content == b""


@pytest.mark.parametrize("encoding", PACKERS)
@pytest.mark.parametrize("missing", [1, 4, 8, 9, 40])
def test_a_packed_answer_that_ends_early_is_lost(tools: Tools, serve: Serve, encoding: str, missing: int) -> None:
    """zlib unpacks what there is without a word, and HTTP sees nothing wrong with the length."""
    error, _ = tools.send_once(serve, packed(PACKERS[encoding](JSON)[:-missing], encoding), b"picture")
    assert type(error) is AmbiguousCall, error


def test_a_packed_answer_whose_connection_ends_early_is_lost(tools: Tools, serve: Serve) -> None:
    async def cut(visit: Visit) -> None:
        await visit.request()
        packed_json = gzip.compress(JSON)
        visit.answer(packed_json[:-20], "200 OK", "content-encoding: gzip", length=len(packed_json))

    error, _ = tools.send_once(serve, cut, b"picture")
    assert type(error) is AmbiguousCall, error


def test_a_packed_answer_counts_by_what_it_unpacks_to(tools: Tools) -> None:
    async def scene() -> None:
        async with tools.serve(packed(gzip.compress(b"x" * 50_000_000))) as server:
            error: Any = await tools.send(tools.call(server.url, max_answer=1_000_000))
        assert (error.kind, error.billed) == ("too_large", "unknown")

    asyncio.run(scene())
