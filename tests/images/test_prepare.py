"""How an image reaches the vendor, and what is found out about it before anything is billed; web images on loopback."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.errors import BadInput, DescriberError, RejectedImage, UnreadableImage
from airflow_provider_describer.http.client import AsyncClient, ascii_address
from airflow_provider_describer.images.prepare import PreparedImage, Transport, choose_transport, prepare
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.models import DescribeRequest, Image
from airflow_provider_describer.storage.address import parse_uri
from airflow_provider_describer.vendors import get_vendor
from airflow_provider_describer.vendors.image_describer import ImageDescriber

if TYPE_CHECKING:
    from tests.conftest import Loopback, Result, Shop, Visit


def account(vendor: str = "image_describer", host: str | None = None, **extra: Any) -> Account:
    defaults = get_vendor(vendor).defaults()
    return account_from_connection(defaults, conn_id="shop", password="sk-secret", host=host, extra=extra)


async def prepared(uri: str, paid_by: Account, version: str | None = None) -> PreparedImage | DescriberError:
    vendor = get_vendor(paid_by.vendor)
    async with AsyncClient(timeout=5) as client:
        try:
            return await prepare(Reader(client), vendor, paid_by, DescribeRequest(Image(uri, version), vendor.spec()))
        except DescriberError as error:
            return error


def transport(uri: str, paid_by: Account) -> Transport:
    """How the image would reach the vendor, as far as its reference tells."""

    async def scene() -> Transport:
        async with AsyncClient(timeout=5) as client:
            visibility = Reader(client).visibility(parse_uri(uri))
        return choose_transport(get_vendor(paid_by.vendor), paid_by, parse_uri(uri), visibility)

    return asyncio.run(scene())


@pytest.mark.parametrize(
    ("vendor", "wanted", "inline", "upload"),
    [
        ("image_describer", "auto", False, False),
        ("image_describer", "inline", True, False),
        ("image_describer", "file", False, False),
        ("segmind", "auto", False, True),
        ("segmind", "upload", False, True),
        ("segmind", "inline", True, False),
    ],
)
def test_a_local_image_is_sent_as_the_connection_says(
    tmp_path: Path, draw: Callable[..., bytes], vendor: str, wanted: str, inline: bool, upload: bool
) -> None:
    content = draw(1)
    (tmp_path / "Red shoe.txt").write_bytes(content)
    found = asyncio.run(prepared(str(tmp_path / "Red shoe.txt"), account(vendor, image_transport=wanted), "etag"))
    assert isinstance(found, PreparedImage)
    assert (found.picture.content, found.picture.media_type) == (content, "image/jpeg")
    assert (found.picture.inline, found.upload, found.picture.url) == (inline, upload, None)
    assert (found.sha256, found.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (found.version, found.picture.filename) == ("etag", "Red shoe.jpg")
    assert "content" not in repr(found.picture)


@pytest.mark.parametrize(
    ("vendor", "wanted", "uri", "says"),
    [
        ("image_describer", "upload", "a.jpg", "Image Describer does not take; expected auto, url, file or inline"),
        ("segmind", "file", "a.jpg", "Segmind does not take; expected auto, url, upload or inline"),
        ("segmind", "url", "/data/a.jpg", "'/data/a.jpg' has no address that the vendor could fetch. Choose auto"),
    ],
)
def test_a_transport_that_does_not_fit_names_the_connection(vendor: str, wanted: str, uri: str, says: str) -> None:
    with pytest.raises(BadInput, match="Connection 'shop': image_transport is") as caught:
        transport(uri, account(vendor, image_transport=wanted))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("host", "uri", "chosen", "why"),
    [
        (None, "https://shop.example.com/a.jpg", "url", "Image Describer fetches public addresses itself"),
        (None, "http://minio:9000/a.jpg", "file", "it is how Image Describer takes bytes"),
        (None, "http://10.0.0.7/a.jpg", "file", "it is how Image Describer takes bytes"),
        ("http://127.0.0.1:8901", "http://10.0.0.7/a.jpg", "url", "Image Describer fetches public addresses itself"),
        (None, "a.jpg", "file", "it is how Image Describer takes bytes"),
    ],
)
def test_auto_passes_on_an_address_that_the_vendor_can_reach(host: str | None, uri: str, chosen: str, why: str) -> None:
    assert transport(uri, account(host=host)) == Transport(chosen, why)


def test_auto_sends_bytes_to_a_vendor_that_may_reach_no_web_server() -> None:
    class Shut(ImageDescriber):
        fetches_addresses = False

    paid_by = account(host=None)
    chosen = choose_transport(Shut(), paid_by, parse_uri("https://shop.example.com/a.jpg"), "public")
    assert chosen == Transport("file", "it is how Image Describer takes bytes")
    transport_help = next(field.help for field in Shut().form() if field.name == "image_transport")
    assert "auto: all images as bytes" in transport_help
    wanted = replace(paid_by, image_transport="url")
    assert choose_transport(Shut(), wanted, parse_uri("https://shop.example.com/a.jpg"), "public").way == "url"


Talk = Callable[["Visit"], Any]


def serving(content: bytes, *, ranges: bool = True) -> Talk:
    """A web server with one image, which knows ranges or not."""

    async def talk(visit: Visit) -> None:
        while received := await visit.request():
            wanted = received.headers.get("range") if ranges else None
            if wanted:
                last = int(wanted.rpartition("-")[2])
                part = content[: last + 1]
                about = f"content-range: bytes 0-{len(part) - 1}/{len(content)}"
                visit.answer(part, "206 Partial Content", about, 'etag: "v1"')
            else:
                visit.answer(content, "200 OK", 'etag: "v1"')

    return talk


def answering(status: str, *headers: str, content: bytes = b"") -> Talk:
    async def talk(visit: Visit) -> None:
        while await visit.request():
            visit.answer(content, status, *headers)

    return talk


WAYS = ["url", "file"]
"""A web image is looked at and its address passed on, or it is read and its bytes are sent."""


def fetch(
    loopback: type[Loopback], talk: Talk, way: str, path: str = "/a.jpg?sig=hush"
) -> tuple[PreparedImage | DescriberError, Loopback]:
    async def scene() -> tuple[PreparedImage | DescriberError, Loopback]:
        async with loopback(talk) as server:
            return await prepared(server.url + path, account(image_transport=way)), server

    found, server = asyncio.run(scene())
    assert "hush" not in str(found) + repr(found)
    return found, server


@pytest.mark.parametrize("ranges", [True, False])
def test_of_an_image_passed_on_only_the_head_is_read(
    loopback: type[Loopback], draw: Callable[..., bytes], ranges: bool
) -> None:
    content = draw(1) + bytes(100_000)
    found, server = fetch(loopback, serving(content, ranges=ranges), "url")
    assert isinstance(found, PreparedImage)
    assert found.picture.url == f"{server.url}/a.jpg?sig=hush"
    assert (found.size, found.version, found.sha256) == (len(content), '"v1"', None)
    assert [received.headers["range"] for received in server.requests] == ["bytes=0-4095"]
    assert "authorization" not in server.requests[0].headers


def test_an_image_without_a_version_is_known_by_its_bytes(loopback: type[Loopback], draw: Callable[..., bytes]) -> None:
    content = draw(1)
    found, server = fetch(loopback, answering("200 OK", content=content), "url")
    assert isinstance(found, PreparedImage)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert (found.picture.url, found.picture.content) == (f"{server.url}/a.jpg?sig=hush", None)


def test_a_web_image_that_the_vendor_cannot_reach_is_read_whole(
    loopback: type[Loopback], draw: Callable[..., bytes]
) -> None:
    content = draw(2) + bytes(100_000)
    found, _ = fetch(loopback, serving(content), "file", "/Red%20shoe.jpg?sig=hush")
    assert isinstance(found, PreparedImage)
    assert found.picture.content == content
    assert found.picture.filename == "Red%20shoe.jpg"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("talk", "error", "kind", "says"),
    [
        (answering("404 Not Found"), RejectedImage, "missing", "HTTP 404"),
        (answering("410 Gone"), RejectedImage, "missing", "HTTP 410"),
        (answering("403 Forbidden"), RejectedImage, "denied", "presigned URL may have expired"),
        (answering("401 Unauthorized"), RejectedImage, "denied", "access denied"),
        (answering("429 Too Many"), UnreadableImage, "unreadable", "HTTP 429"),
        (answering("503 Unavailable"), UnreadableImage, "unreadable", "HTTP 503"),
        (answering("304 Not Modified"), RejectedImage, "refused", "HTTP 304"),
        (answering("302 Found"), RejectedImage, "refused", "HTTP 302"),
        (answering("416 Range Not Satisfiable"), RejectedImage, "empty", "0 bytes"),
        (answering("200 OK"), RejectedImage, "empty", "0 bytes"),
        (answering("200 OK", content=b"<!doctype html>Sign in"), RejectedImage, "not_an_image", "text/html"),
        (answering("302 Found", "location: /a.jpg"), RejectedImage, "missing", "more than 5 redirects"),
        (answering("302 Found", "location: file:///etc/passwd"), RejectedImage, "missing", "no web address"),
        (answering("302 Found", "location: ftp://x.example/?sig=hush"), RejectedImage, "missing", "no web address"),
        (answering("302 Found", "location: http://[oops/?sig=hush"), RejectedImage, "missing", "no web address"),
        (answering("302 Found", "location: http://x.example:99999/"), RejectedImage, "missing", "no web address"),
    ],
)
def test_each_way_of_not_getting_a_web_image(
    loopback: type[Loopback], way: str, talk: Talk, error: type[DescriberError], kind: str, says: str
) -> None:
    found, server = fetch(loopback, talk, way)
    assert type(found) is error, found
    assert (found.kind, found.billed) == (kind, "no")
    assert says in str(found) and f"{server.url}/a.jpg?…" in str(found)


@pytest.mark.parametrize("way", WAYS)
def test_a_redirect_of_an_image_is_followed(loopback: type[Loopback], draw: Callable[..., bytes], way: str) -> None:
    content = draw(3)

    async def moved(visit: Visit) -> None:
        while received := await visit.request():
            if "/a.jpg" in received.line:
                visit.answer(b"", "301 Moved Permanently", "location: ../new/b.jpg?sig=hush")
            else:
                visit.answer(content, "200 OK", "last-modified: yesterday")

    found, server = fetch(loopback, moved, way)
    assert isinstance(found, PreparedImage)
    assert [received.line.split()[1] for received in server.requests] == ["/a.jpg?sig=hush", "/new/b.jpg?sig=hush"]


@pytest.mark.parametrize("way", WAYS)
def test_an_endless_image_is_given_up_on(loopback: type[Loopback], way: str) -> None:
    async def flood(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"\xff\xd8\xff\xe0", length=1 << 40)
        while True:
            visit.writer.write(bytes(1 << 20))
            await visit.writer.drain()

    found, _ = fetch(loopback, flood, way)
    assert type(found) is RejectedImage, found
    assert found.kind == "too_large"
    assert "Scale it down" in str(found)


def test_an_image_too_large_is_known_from_its_head(loopback: type[Loopback]) -> None:
    async def says_60_mb(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"\xff\xd8\xff\xe0", "206 Partial Content", "content-range: bytes 0-3/60000000")

    found, server = fetch(loopback, says_60_mb, "url")
    assert isinstance(found, RejectedImage) and found.kind == "too_large"
    assert "60.0 MB" in str(found)
    assert len(server.requests) == 1


@pytest.mark.parametrize("way", WAYS)
def test_half_an_image_is_never_sent(loopback: type[Loopback], draw: Callable[..., bytes], way: str) -> None:
    content = draw(4)

    async def cut(visit: Visit) -> None:
        await visit.request()
        visit.answer(content[:-10], length=len(content))

    found, _ = fetch(loopback, cut, way)
    assert type(found) is UnreadableImage, found


@pytest.mark.parametrize("name", ["photo #1.jpg", "what?.jpg"])
def test_a_bad_local_image_is_named_whole(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no image")
    found = asyncio.run(prepared(str(tmp_path / name), account()))
    assert isinstance(found, RejectedImage)
    assert str(tmp_path / name) in str(found)


def test_an_image_that_only_the_other_vendor_takes(tmp_path: Path, draw: Callable[..., bytes]) -> None:
    (tmp_path / "a.jpg").write_bytes(draw(5, "GIF"))
    assert isinstance(asyncio.run(prepared(str(tmp_path / "a.jpg"), account())), PreparedImage)
    found = asyncio.run(prepared(str(tmp_path / "a.jpg"), account("segmind")))
    assert isinstance(found, RejectedImage) and found.kind == "unsupported_type"
    assert "Segmind takes no image/gif" in str(found)


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("https://h.example/a?b", "https://h.example/a?b"),
        ("https://bücher.example/%C3%BC.jpg?x=%20", "https://xn--bcher-kva.example/%C3%BC.jpg?x=%20"),
        ("https://日本語。jp/x", "https://xn--wgv71a119e.jp/x"),
    ],
)
def test_a_host_of_other_letters_is_sent_in_ascii(address: str, sent: str) -> None:
    assert ascii_address(address) == sent


@pytest.mark.parametrize(
    "uri", ["https://i\u2764.example/a.jpg", "https://xn--\u2764.example/a.jpg", "http://xn--/a.jpg"]
)
def test_a_host_that_cannot_be_a_name_is_a_bad_address(uri: str) -> None:
    error = asyncio.run(prepared(uri, account()))
    assert isinstance(error, RejectedImage) and error.kind == "bad_address" and "is not a URL" in str(error)


@pytest.mark.parametrize("vendor", ["image_describer", "segmind"])
def test_an_address_with_a_login_is_not_given_to_the_vendor(
    shop: Shop, loopback: type[Loopback], draw: Callable[..., bytes], vendor: str
) -> None:
    async def serve(visit: Visit) -> None:
        while received := await visit.request():
            known = received.headers.get("authorization") == "Basic dTpwQHNz"
            visit.answer(draw(7), "200 OK" if known else "401 Unauthorized")

    async def scene() -> Result:
        async with loopback(serve) as server:
            address = server.url.replace("://", "://u:p%40ss@")
            return await asyncio.to_thread(shop.describe, [f"{address}/a.jpg", f"{address}/b.jpg"])

    shop.vendor = vendor
    found = asyncio.run(scene())
    assert found.counts["described"] + found.counts["reused"] == 2 and found.error is None
    assert found.ledger["billed"] == 1 and "ss@" not in str(found.rows) + str(found.lines)
