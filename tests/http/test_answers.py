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
from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.http.unpacking import ACCEPTED, TooLarge, unpack
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


def twice(content: bytes) -> bytes:
    return gzip.compress(gzip.compress(content))


def in_members(content: bytes) -> bytes:
    """As ``cat a.gz b.gz`` makes it."""
    return gzip.compress(b"") + gzip.compress(content[:7]) + gzip.compress(content[7:])


READABLE: list[tuple[str, Callable[[bytes], bytes]]] = [
    *PACKERS.items(),
    ("deflate", bare_deflate),
    ("identity", bytes),
    ("", bytes),
    ("GZIP", gzip.compress),
    ("x-gzip", gzip.compress),
    ("gzip, gzip", twice),
    ("identity,gzip", gzip.compress),
    ("deflate, gzip", lambda content: gzip.compress(zlib.compress(content))),
    ("gzip", in_members),
    ("gzip", lambda content: gzip.compress(content) + b"\0" * 512),
    ("gzip", lambda content: gzip.compress(content) + b"garbage"),
]


@pytest.mark.parametrize(("encoding", "pack"), READABLE)
def test_a_packed_answer_is_unpacked(tools: Tools, serve: Serve, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    response, _ = tools.send_once(serve, packed(pack(JSON), encoding), b"picture")
    assert isinstance(response, Response) and response.json() == {"ok": "yes" * 10_000}


def test_a_packed_answer_without_content_is_empty(tools: Tools, serve: Serve) -> None:
    response, _ = tools.send_once(serve, packed(b""), b"picture")
    assert isinstance(response, Response) and response.content == b""


# Between two members there is nothing to see.
PACKED = [
    (encoding, pack) for encoding, pack in READABLE if encoding not in ("", "identity") and pack is not in_members
]


@pytest.mark.parametrize(("encoding", "pack"), PACKED, ids=range(len(PACKED)))
def test_a_packed_answer_that_ends_early_is_lost(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    """zlib unpacks what there is without a word, and HTTP sees nothing wrong with the length."""
    small = b'{"ok": "yes"}'
    whole, names = pack(small), [name.strip().lower() for name in encoding.split(",")]
    for length in range(1, len(whole)):
        try:
            assert unpack(whole[:length], names, 1000) == small, "only what follows the end may be missing"
        except httpx.DecodingError:
            continue
        assert whole[length:].strip(b"\0garbe") == b"", length


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "none", "binary", "8bit", "identity, utf-8"])
def test_what_names_no_packing_is_read_as_it_is(tools: Tools, serve: Serve, encoding: str) -> None:
    response, _ = tools.send_once(serve, packed(JSON, encoding), b"picture")
    assert isinstance(response, Response) and response.content == JSON


@pytest.mark.parametrize("encoding", PACKERS)
@pytest.mark.parametrize("missing", [1, 4, 8, 9, 40])
def test_an_answer_that_cannot_be_unpacked_is_lost(tools: Tools, serve: Serve, encoding: str, missing: int) -> None:
    error, _ = tools.send_once(serve, packed(PACKERS[encoding](JSON)[:-missing], encoding), b"picture")
    assert type(error) is AmbiguousCall and "ends early" in str(error), error


@pytest.mark.parametrize(
    "encoding", [name for name in ("br", "zstd") if name not in ACCEPTED] + ["compress", "gzip, x"]
)
def test_an_answer_in_an_unknown_encoding_is_lost(tools: Tools, serve: Serve, encoding: str) -> None:
    error, _ = tools.send_once(serve, packed(JSON, encoding), b"picture")
    assert type(error) is AmbiguousCall and error.billed == "unknown"
    assert "cannot be read here" in str(error) and repr(encoding.rpartition(" ")[2]) in str(error)


@pytest.mark.parametrize("content", [b"{}", b'{"ok": 1}', b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x08\0", b"\0" * 20, b"Oops"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "x-gzip", "gzip, deflate"])
def test_what_is_not_packed_as_it_says_is_lost(content: bytes, encoding: str) -> None:
    with pytest.raises(httpx.DecodingError):
        unpack(content, encoding.split(", "), 1000)


def test_a_refusal_that_cannot_be_unpacked_is_known_by_its_status(tools: Tools, serve: Serve) -> None:
    async def refuse(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"?", "429 Slow down", "content-encoding: gzip", "retry-after: 7")

    response, _ = tools.send_once(serve, refuse, b"picture")
    assert isinstance(response, Response)
    assert (response.status, response.content, response.headers["retry-after"]) == (429, b"", "7")


def test_what_can_be_read_is_asked_for(tools: Tools, serve: Serve) -> None:
    _, server = tools.send_once(serve, tools.polite, b"picture")
    (request,) = server.requests
    assert request.headers["accept-encoding"] == ACCEPTED
    assert ACCEPTED.startswith("gzip, deflate")


@pytest.mark.parametrize(("name", "encoding"), [("brotli", "br"), ("zstandard", "zstd")])
def test_other_encodings_are_read_where_their_library_is(name: str, encoding: str) -> None:
    library = pytest.importorskip(name)
    content = library.compress(JSON)
    assert encoding in ACCEPTED
    assert unpack(content, [encoding], len(JSON)) == JSON
    for length in (1, len(content) // 2, len(content) - 1):
        with pytest.raises(httpx.DecodingError):
            unpack(content[:length], [encoding], len(JSON))
    with pytest.raises(TooLarge):
        unpack(content, [encoding], len(JSON) - 1)


@pytest.mark.parametrize(("sent", "said"), [(b"whole", 9), (b"", 1)])
def test_an_answer_shorter_than_it_says_is_lost(tools: Tools, serve: Serve, sent: bytes, said: int) -> None:
    async def cut(visit: Visit) -> None:
        await visit.request()
        visit.answer(sent, length=said)

    error, _ = tools.send_once(serve, cut, b"picture")
    assert type(error) is AmbiguousCall, error


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_packed_answer_that_is_longer_than_it_says_is_lost(tools: Tools, serve: Serve, encoding: str) -> None:
    content = PACKERS[encoding](JSON)

    async def cut(visit: Visit) -> None:
        await visit.request()
        visit.answer(content, "200 OK", f"content-encoding: {encoding}", length=len(content) - 3)

    error, _ = tools.send_once(serve, cut, b"picture")
    assert type(error) is AmbiguousCall, error


@pytest.mark.parametrize("body", [b"", b"5\r\nwh", b"5\r\nwhole", b"5\r\nwhole\r\n", b"5\r\nwhole\r\n0\r\n"])
def test_a_chunked_answer_without_its_end_is_lost(tools: Tools, serve: Serve, body: bytes) -> None:
    async def cut(visit: Visit) -> None:
        await visit.request()
        visit.writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body)
        await visit.writer.drain()

    error, _ = tools.send_once(serve, cut, b"picture")
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
