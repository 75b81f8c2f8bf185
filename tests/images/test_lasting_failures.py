"""Which failures may pass by themselves (pending), and which are the image's own (rejected, and looked at again)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import DescriberError, RejectedImage, Unfinished, UnreadableImage
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.storage.address import WebUrl
from airflow_provider_describer.storage.bucket import Signer

if TYPE_CHECKING:
    from tests.conftest import Loopback, Shop, Visit
    from tests.images.conftest import Objects

MAY_PASS = {408, 425, 429, *range(500, 600)}
KINDS = {400: "denied", 401: "denied", 403: "denied", 404: "missing", 410: "missing", 416: "empty"}


def failure(answer: Callable[[httpx.Request], httpx.Response]) -> DescriberError:
    async def scene() -> DescriberError:
        async with AsyncClient(timeout=5, transport=httpx.MockTransport(answer)) as client:
            found = []
            for act in ("read", "read_head"):
                with pytest.raises(DescriberError) as caught:
                    await getattr(Reader(client), act)(WebUrl("http://h.example/a.jpg?sig=hush"), 1000)
                assert "http://h.example/a.jpg?…" in str(caught.value) and "hush" not in str(caught.value)
                found.append((type(caught.value), caught.value.kind))
            assert found[0] == found[1]
            return caught.value

    return asyncio.run(scene())


@pytest.mark.parametrize("status", [*range(201, 206), 300, 304, 305, *range(400, 600), 600, 999])
def test_every_status_of_a_web_image(status: int) -> None:
    error = failure(lambda request: httpx.Response(status, content=b"<html>"))
    if status in MAY_PASS:
        assert type(error) is UnreadableImage
    else:
        assert (type(error), error.kind) == (RejectedImage, KINDS.get(status, "refused"))


def raising(error: Exception, because: Exception | None = None) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error from because

    return answer


@pytest.mark.parametrize(
    ("error", "because"),
    [
        (httpx.ConnectTimeout(""), None),
        (httpx.ReadTimeout(""), None),
        (httpx.PoolTimeout(""), None),
        (httpx.ConnectError(""), ConnectionRefusedError(111, "refused")),
        (httpx.ConnectError(""), OSError(113, "No route to host")),
        (httpx.ConnectError(""), socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")),
        (httpx.ConnectError(""), ssl.SSLEOFError(8, "EOF occurred in violation of protocol")),
        (httpx.ReadError(""), ConnectionResetError(104, "reset")),
        (httpx.ReadError(""), ssl.SSLError(1, "decryption failed or bad record mac")),
        (httpx.RemoteProtocolError("Server disconnected"), None),
        (httpx.ProxyError("503"), None),
    ],
)
def test_what_may_pass_is_pending(error: Exception, because: Exception | None) -> None:
    assert type(failure(raising(error, because))) is UnreadableImage


@pytest.mark.parametrize(
    ("error", "because", "kind"),
    [
        (httpx.ConnectError(""), socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no_such_host"),
        (httpx.ConnectError(""), ssl.SSLCertVerificationError(1, "certificate has expired"), "bad_certificate"),
        (httpx.ConnectError(""), ssl.SSLError(1, "wrong version number"), "bad_certificate"),
        (httpx.DecodingError("incorrect header check"), None, "undecodable"),
    ],
)
def test_what_will_not_pass_is_rejected(error: Exception, because: Exception | None, kind: str) -> None:
    found = failure(raising(error, because))
    assert (type(found), found.kind) == (RejectedImage, kind)


@pytest.mark.parametrize("host", ["a..example", ".example", "a" * 64 + ".example", "h." * 130 + "example"])
def test_a_host_that_no_resolver_takes_is_rejected(shop: Shop, pictures: Callable[..., list[Path]], host: str) -> None:
    found = shop.describe([f"http://{host}/a.jpg", *pictures(1)])
    assert found.error is None and found.ledger["billed"] == 1
    assert [row["error"]["kind"] for row in found.of("rejected")] == ["no_such_host"]


def test_an_answer_that_cannot_be_unpacked_is_not_called_no_answer() -> None:
    said = str(failure(lambda request: httpx.Response(200, headers={"content-encoding": "foo"}, content=b"x")))
    assert "cannot be unpacked" in said and "does not answer" not in said


def test_a_refused_web_image_ends_no_run_and_is_looked_at_again(
    shop: Shop, loopback: type[Loopback], draw: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = False

    async def serve(visit: Visit) -> None:
        while received := await visit.request():
            if "/private" in received.line and not allowed:
                visit.answer(b"", "403 Forbidden")
            elif "/busy" in received.line and not allowed:
                visit.answer(b"", "503 Unavailable")
            else:
                visit.answer(draw(len(received.line.split()[1])))

    async def scene(*names: str) -> Any:
        async with loopback(serve) as server:
            # The same addresses in both runs do not matter: nothing of a rejection is stored.
            return await asyncio.to_thread(shop.describe, [f"{server.url}/{name}.jpg" for name in names])

    first = asyncio.run(scene("a", "private"))
    first.check_sums()
    assert first.error is None and first.ledger["requests"] == 1
    assert [row["error"]["kind"] for row in first.of("rejected")] == ["denied"]
    busy = asyncio.run(scene("a", "busy"))
    assert isinstance(busy.error, Unfinished) and busy.counts["pending"] == 1
    allowed = True
    last = asyncio.run(scene("a", "private", "busy"))
    assert last.counts["described"] == 2 and last.counts["reused"] == 1
    assert last.ledger["requests"] == 3


def test_objects_that_are_refused_are_rejected_and_the_others_described(
    shop: Shop, objects: Objects, draw: Callable[..., bytes]
) -> None:
    for number, key in enumerate(("a.jpg", "denied.jpg", "archived.jpg", "busy.jpg")):
        objects.put(key, draw(number))
    server = objects.server
    server.deny(path="denied")
    server.fail(403, "InvalidObjectState", path="archived", times=float("inf"))
    server.slow_down(path="busy", times=float("inf"))
    uris = [objects.uri(name) for name in ("a.jpg", "denied.jpg", "archived.jpg", "busy.jpg", "none.jpg")]
    elsewhere = f"{objects.cloud.scheme}://no-such-bucket/a.jpg"
    first = shop.describe([*uris, elsewhere], open_bucket=objects.opener())
    first.check_sums()
    kinds = {row["uri"].rpartition("/")[2]: row["error"]["kind"] for row in first.of("rejected")}
    assert kinds["denied.jpg"] == "denied" and kinds["archived.jpg"] == "archived" and kinds["none.jpg"] == "missing"
    assert first.counts["rejected"] == 4 and first.counts["pending"] == 1 and first.counts["described"] == 1
    assert isinstance(first.error, Unfinished) and first.ledger["requests"] == 1
    server.reset()
    second = shop.describe(uris[:4], open_bucket=objects.opener())
    assert second.counts["described"] == 3 and second.counts["reused"] == 1 and second.error is None
    assert second.ledger["requests"] == 4


def test_bad_credentials_end_the_run_and_are_recorded_against_no_image(
    shop: Shop, objects: Objects, draw: Callable[..., bytes], signer: Signer
) -> None:
    version = objects.put("a.jpg", draw(1))
    for image in ({"uri": objects.uri("a.jpg"), "version": version}, {"uri": objects.uri("a.jpg")}):
        objects.server.fail(403, "InvalidAccessKeyId", times=float("inf"))
        try:
            result = shop.describe([image], open_bucket=objects.opener())
        except DescriberError as raised:
            error: DescriberError | None = raised
        else:
            error = result.error
            assert result.counts["rejected"] == 0
        assert error is not None and error.kind == "bad_credentials"
        objects.server.reset()
    assert shop.describe([objects.uri("a.jpg")], open_bucket=objects.opener()).counts["described"] == 1
