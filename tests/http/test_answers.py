"""Answers on a connection of our own, plain and with TLS: whole ones, endless ones, packed ones."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.http.connections import CannotBeAsked, TooLarge
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
        async with serve(say) as server:
            connection = tools.connect(server)
            for _ in range(3):
                answer = await connection.ask(tools.post(server, b"picture"))
                assert (answer.status, answer.content) == (status, content)
            await connection.aclose()
        assert server.connections == len(server.requests) == 3

    asyncio.run(scene())


def test_an_answer_over_the_limit_is_not_read_to_its_end(tools: Tools, serve: Serve) -> None:
    async def flood(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"", length=1 << 40)
        while True:
            visit.writer.write(b"x" * 65536)
            await visit.writer.drain()

    error, _ = tools.in_one_round(serve, flood, b"picture")
    assert type(error) is TooLarge


@pytest.mark.parametrize("header", ["a\r\nb: c", "\x00", "grün"])
def test_what_http_cannot_carry_is_not_sent(serve: Serve, tools: Tools, header: str) -> None:
    async def scene() -> None:
        async with serve(tools.polite) as server:
            connection = tools.connect(server)
            assert type(await tools.asked(connection, tools.post(server, b"x", said=header))) is CannotBeAsked
            assert server.requests == []
            assert (await connection.ask(tools.post(server, b"x"))).status == 200
            await connection.aclose()

    asyncio.run(scene())


def packed(content: bytes) -> Callable[[Visit], Any]:
    async def answer(visit: Visit) -> None:
        await visit.request()
        visit.answer(gzip.compress(content), "200 OK", "content-encoding: gzip")

    return answer


def test_a_packed_answer_is_unpacked(tools: Tools) -> None:
    async def scene() -> None:
        async with tools.serve(packed(b'{"ok": "' + b"yes" * 10_000 + b'"}')) as server:
            response = await tools.send(tools.call(server.url))
        assert isinstance(response, Response) and response.json() == {"ok": "yes" * 10_000}

    asyncio.run(scene())


def test_a_packed_answer_counts_by_what_it_unpacks_to(tools: Tools) -> None:
    async def scene() -> None:
        async with tools.serve(packed(b"x" * 50_000_000)) as server:
            error: Any = await tools.send(tools.call(server.url, max_answer=1_000_000))
        assert (error.kind, error.billed) == ("too_large", "unknown")

    asyncio.run(scene())
