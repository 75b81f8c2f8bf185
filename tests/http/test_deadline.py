"""Servers that never fall silent and never finish: each step of an exchange ends in its time, whatever moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_describer.errors import AmbiguousCall, DescriberError, UnreadableImage, VendorUnavailable
from airflow_provider_describer.http import client as clients
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import Admit, Flow
from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.models import Picture
from airflow_provider_describer.storage.address import WebUrl
from airflow_provider_describer.vendors.wire import Response

if TYPE_CHECKING:
    from tests.conftest import Loopback, Visit
    from tests.http.conftest import Authority, Serve, Tools

SOON_S = 1.0
"""A deadline; what drips comes far more often."""
HUGE = b"x" * (48 * 1024 * 1024)
"""More than the sockets' buffers take, so that the end is not sent unless somebody reads."""


async def drip(visit: Visit, pieces: Callable[[int], bytes], pause: float = 0.02) -> None:
    """Send pieces until the client hangs up; notes that it did."""
    number = 0
    try:
        while not visit.reader.at_eof():
            visit.writer.write(pieces(number))
            await visit.writer.drain()
            await asyncio.sleep(pause)
            number += 1
    except ConnectionError:
        pass
    hung_up.append(visit)


hung_up: list[Any] = []


@pytest.fixture(autouse=True)
def _nobody_hung_up() -> None:
    hung_up.clear()


def answering(head: bytes, pieces: Callable[[int], bytes], pause: float = 0.02) -> Callable[[Visit], Awaitable[None]]:
    """A server that reads the whole request, sends this head, and then pieces without end."""

    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.writer.write(head)
        await drip(visit, pieces, pause)

    return talk


OK = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "status line": answering(b"", lambda n: b"HTTP/1.1 200 OK"[n : n + 1] or b"x"),
    "headers": answering(OK, lambda n: b"x-%d: more\r\n" % (n % 7)),
    "body with length": answering(OK + b"content-length: 1000000\r\n\r\n", lambda n: b"x"),
    "body without length": answering(OK + b"\r\n", lambda n: b" "),
    "chunks": answering(OK + b"transfer-encoding: chunked\r\n\r\n", lambda n: b"1\r\nx\r\n"),
    "chunk extension": answering(OK + b"transfer-encoding: chunked\r\n\r\n1", lambda n: b";a=b"),
    "trailers": answering(OK + b"transfer-encoding: chunked\r\n\r\n0\r\n", lambda n: b"x-t: more\r\n"),
    "empty gzip blocks": answering(
        OK + b"content-encoding: gzip\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
        lambda n: b"\x00\x00\x00\xff\xff",
    ),
    "100 Continue": answering(b"", lambda n: b"HTTP/1.1 100 Continue\r\n\r\n"),
    "102 Processing": answering(b"", lambda n: b"HTTP/1.1 102 Processing\r\n\r\n"),
    "flood of 1xx": answering(b"", lambda n: b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 500, 0.0),
    "silence": answering(b"", lambda n: b""),
}


@pytest.mark.parametrize("billable", [True, False], ids=["billable", "free"])
@pytest.mark.parametrize("talk", DRIPS.values(), ids=DRIPS)
def test_an_answer_that_never_ends_is_not_waited_for(tools: Tools, serve: Serve, talk: Any, billable: bool) -> None:
    async def scene() -> None:
        async with serve(talk) as server, AsyncClient(timeout=SOON_S) as client:
            error = await tools.attempt(client, tools.call(server.url, billable=billable))
            assert isinstance(error, DescriberError) and f"no whole answer within {SOON_S:g} s" in str(error)
            if billable:
                assert type(error) is AmbiguousCall and error.billed == "unknown"
                assert "its answer was lost" in str(error)
            else:
                assert type(error) is VendorUnavailable and error.billed == "no"
            while not hung_up:  # noqa: ASYNC110  the server sees a little later that the connection is closed
                await asyncio.sleep(0.01)
            assert len(server.requests) == 1

    asyncio.run(asyncio.wait_for(scene(), 30))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 120), size=st.integers(1, 40))
def test_wherever_an_answer_begins_to_drip_it_is_lost(tools: Tools, cut: int, size: int) -> None:
    """Any split of an answer into what comes at once and what drips; one byte is never sent."""
    whole = OK + b"content-type: application/json\r\ncontent-length: 41\r\n\r\n" + b"x" * 41
    cut = min(cut, len(whole) - 1)

    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.writer.write(whole[:cut])
        for start in range(cut, len(whole) - 1, size):
            visit.writer.write(whole[start : min(start + size, len(whole) - 1)])
            await visit.writer.drain()
            await asyncio.sleep(0.01)
        while not visit.reader.at_eof():  # noqa: ASYNC110  until the client hangs up
            await asyncio.sleep(0.01)

    async def scene() -> None:
        async with tools.serve(talk) as server, AsyncClient(timeout=0.3) as client:
            with pytest.raises(AmbiguousCall, match=r"no whole answer within 0\.3 s"):
                await client.arun(tools.ask(tools.call(server.url)))

    asyncio.run(scene())


def test_a_slow_answer_that_ends_in_time_is_taken(tools: Tools, serve: Serve) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"", length=10)
        for _ in range(10):
            visit.writer.write(b"x")
            await visit.writer.drain()
            await asyncio.sleep(0.02)
        await visit.reader.read()

    answer, _ = tools.send_once(serve, talk, b"picture", timeout=20)
    assert isinstance(answer, Response) and answer.content == b"x" * 10


async def read_slowly(visit: Visit) -> None:
    await visit.head()
    visit.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is one that reads
    while True:
        await asyncio.sleep(0.05)
        visit.writer.transport.resume_reading()  # type: ignore[attr-defined]  # likewise
        await visit.reader.read(70_000)
        visit.writer.transport.pause_reading()  # type: ignore[attr-defined]  # likewise


@pytest.mark.parametrize("body", [(HUGE,), (b"head", HUGE, b"tail")], ids=len)
def test_an_upload_that_only_trickles_is_given_up_unbilled(
    tools: Tools, serve: Serve, body: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "WRITE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(clients, "SLOWEST_UPLOAD", 1024**3)
    error, _ = tools.send_once(serve, read_slowly, *body, timeout=0.5)
    assert type(error) is VendorUnavailable and error.billed == "no", error
    assert "did not take the whole request within 0.5" in str(error) or "accepted no data for 0.5 s" in str(error)


def test_a_large_upload_has_time_of_its_own(tools: Tools, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer's time begins when all has been sent."""
    monkeypatch.setattr(clients, "WRITE_TIMEOUT_S", 30.0)

    async def talk(visit: Visit) -> None:
        received = await visit.head()
        assert received
        left = int(received.headers["content-length"])
        for pieces in range(left):
            left -= len(await visit.reader.read(1 << 20))
            if not left:
                break
            # The whole takes longer than the answer may.
            await asyncio.sleep(0.2 if pieces < 10 else 0)
        visit.answer(b"ok")
        await visit.reader.read()

    answer, _ = tools.send_once(serve, talk, HUGE, timeout=1.0)
    assert isinstance(answer, Response) and answer.content == b"ok", answer


async def never_shake_hands(visit: Visit) -> None:
    # A handshake record of 16 KB that arrives a byte at a time.
    await drip(visit, lambda n: b"\x16\x03\x03\x40\x00"[n : n + 1] or b"\x02")


@pytest.mark.parametrize("talk", [never_shake_hands, answering(b"", lambda n: b"")], ids=["drips", "silent"])
def test_a_handshake_that_never_ends_is_no_connection(tools: Tools, talk: Any) -> None:
    async def scene() -> None:
        async with tools.serve(talk) as server:
            url = server.url.replace("http:", "https:")
            error = await tools.send(tools.call(url), timeout=SOON_S)
        assert type(error) is VendorUnavailable and error.billed == "no"
        assert f"no connection within {SOON_S:g} s" in str(error)

    asyncio.run(asyncio.wait_for(scene(), 30))


@pytest.mark.parametrize("talk", ["headers", "100 Continue", "status line", "silence"])
def test_a_proxy_that_never_opens_its_tunnel_is_no_connection(
    tools: Tools, trusted: Authority, monkeypatch: pytest.MonkeyPatch, talk: str
) -> None:
    async def scene() -> None:
        async with tools.serve(DRIPS[talk]) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            error = await tools.send(tools.call(f"https://vendor-of-{proxy.port}.example"), timeout=SOON_S)
            assert [received.line.split()[0] for received in proxy.requests] == ["CONNECT"]
        assert type(error) is VendorUnavailable and error.billed == "no"
        assert f"no connection within {3 * SOON_S:g} s" in str(error)

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_waiting_for_another_call_takes_nothing_of_the_time(tools: Tools) -> None:
    """Four calls over one connection; the last waits for it longer than a call may take."""

    async def talk(visit: Visit) -> None:
        while await visit.request():
            await asyncio.sleep(1.2)
            visit.answer()

    async def scene() -> None:
        async with tools.serve(talk) as server, AsyncClient(timeout=3.0, connections=1) as client:
            answers = await asyncio.gather(*(tools.attempt(client, tools.call(server.url)) for _ in range(4)))
        assert [type(answer) for answer in answers] == [Response] * 4, answers

    asyncio.run(scene())


def test_a_slot_and_its_socket_are_free_again(tools: Tools, serve: Serve) -> None:
    async def first_drips(visit: Visit) -> None:
        if visit.server.connections > 1:
            return await tools.polite(visit)
        return await DRIPS["body with length"](visit)

    async def scene() -> None:
        async with serve(first_drips) as server, AsyncClient(timeout=SOON_S, connections=1) as client:
            assert type(await tools.attempt(client, tools.call(server.url))) is AmbiguousCall
            answer = await tools.attempt(client, tools.call(server.url))
            assert isinstance(answer, Response), answer
            while not hung_up:  # noqa: ASYNC110  the server sees it a little later
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(scene(), 30))


@pytest.mark.parametrize("moment", [0.0, 0.05, SOON_S], ids=["at once", "while it drips", "with the deadline"])
def test_a_cancelled_call_stays_cancelled(tools: Tools, moment: float) -> None:
    async def scene() -> None:
        async with tools.serve(DRIPS["body with length"]) as server, AsyncClient(timeout=SOON_S) as client:
            working = asyncio.create_task(client.arun(tools.ask(tools.call(server.url))))
            while not server.requests:  # noqa: ASYNC110  it has been sent
                await asyncio.sleep(0)
            await asyncio.sleep(moment)
            was_working = working.cancel()
            (ended,) = await asyncio.gather(working, return_exceptions=True)
            # At the deadline either may come first; a cancelled call never ends well, and nothing else comes of it.
            assert isinstance(ended, asyncio.CancelledError if moment < SOON_S else BaseException)
            assert not was_working or isinstance(ended, asyncio.CancelledError)

    asyncio.run(scene())


def test_an_outer_deadline_is_not_taken_for_our_own(tools: Tools) -> None:
    async def scene() -> None:
        async with tools.serve(DRIPS["headers"]) as server, AsyncClient(timeout=30) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.arun(tools.ask(tools.call(server.url)))

    asyncio.run(scene())


def test_another_transport_has_the_same_deadline(tools: Tools) -> None:
    class Drips(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Drips()))
    error = asyncio.run(tools.send(tools.call("http://v.example"), timeout=SOON_S, transport=transport))
    assert type(error) is AmbiguousCall and f"no whole answer within {SOON_S:g} s" in str(error)


# --- images ---


def redirecting(then: Callable[[Visit], Awaitable[None]]) -> Callable[[Visit], Awaitable[None]]:
    async def talk(visit: Visit) -> None:
        if visit.server.connections > 1:
            return await then(visit)
        await visit.request()
        visit.answer(b"", "302 Found", f"location: {visit.server.url}/elsewhere.jpg", "connection: close")
        return None

    return talk


@pytest.mark.parametrize("do", ["read", "read_head"])
@pytest.mark.parametrize("way", ["directly", "redirected"])
@pytest.mark.parametrize("talk", ["headers", "body with length", "chunks", "100 Continue"])
def test_an_image_that_drips_cannot_be_read_now(loopback: type[Loopback], do: str, way: str, talk: str) -> None:
    async def scene() -> None:
        serving = DRIPS[talk] if way == "directly" else redirecting(DRIPS[talk])
        async with loopback(serving) as server, AsyncClient(timeout=SOON_S) as client:
            image = WebUrl(f"{server.url}/a.jpg?sig=hush")
            with pytest.raises(UnreadableImage) as caught:
                await getattr(Reader(client), do)(image, 1_000_000)
        assert str(caught.value).startswith(f"{server.url}/a.jpg?…: ")
        assert f"no whole answer within {SOON_S:g} s" in str(caught.value) and "hush" not in str(caught.value)

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_an_address_that_takes_too_long_to_sign_is_an_unreadable_image() -> None:
    def slowly() -> str:
        time.sleep(1.0)
        return "https://bucket.example/a.jpg?sig=hush"

    def admit(picture: Picture) -> Flow[Picture]:
        signed: Picture = yield Admit(picture)
        return signed

    async def scene() -> None:
        async with AsyncClient(timeout=0.2) as client:
            with pytest.raises(UnreadableImage, match=r"could not be signed within 0\.2 s"):
                await client.arun(admit(Picture("image/jpeg", sign=slowly)))

    asyncio.run(scene())
