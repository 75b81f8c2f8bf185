"""Images that are stored or sent with a Content-Encoding: what is described is the decoded picture."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import tracemalloc
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import BadInput, DescriberError, RejectedImage
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.images.encoding import unpack_object
from airflow_provider_describer.images.listing import list_images
from airflow_provider_describer.images.listing_file import read_listing
from airflow_provider_describer.images.prepare import PreparedImage
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.storage.address import WebUrl
from airflow_provider_describer.storage.bucket import Signer

if TYPE_CHECKING:
    from tests.conftest import Loopback, Shop, Visit
    from tests.images.conftest import Objects

MB = 1_000_000


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


PACKED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("GZIP", gzip.compress),
    ("x-gzip", gzip.compress),
    ("aws-chunked,gzip", gzip.compress),
    ("gzip, identity", gzip.compress),
    ("gzip,gzip", lambda content: gzip.compress(gzip.compress(content))),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("gzip, deflate", lambda content: zlib.compress(gzip.compress(content))),
    ("gzip", lambda content: gzip.compress(content[:9]) + gzip.compress(content[9:]) + bytes(512)),
]
# The test's S3 takes "aws-chunked" for how the object is being uploaded.
# Programs write such words without packing anything; browsers pass over them.
NO_CODINGS = ["base64", "utf-8", "UTF-8", "binary", "none", "image/jpeg", "application/octet-stream"]
UNPACKED = [(word, bytes) for word in ("", "identity", *NO_CODINGS)]
STORED = [*UNPACKED, *(one for one in PACKED if "aws" not in one[0])]


@pytest.mark.parametrize(
    ("encoding", "pack"), [*PACKED, *UNPACKED, ("aws-chunked, identity", bytes), ("utf-8,gzip", gzip.compress)]
)
def test_each_coding_is_unpacked(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    content = bytes(range(256)) * 40
    assert unpack_object("a.jpg", pack(content), encoding, len(content)) == content


def refused(packed: bytes, encoding: str, max_bytes: int = MB) -> RejectedImage:
    with pytest.raises(RejectedImage, match=r"^s3://shop/a\.jpg: ") as caught:
        unpack_object("s3://shop/a.jpg", packed, encoding, max_bytes)
    return caught.value


@pytest.mark.parametrize(
    "encoding",
    [
        "br",
        "zstd",
        "compress",
        "exi",
        "rot13",
        "gzip, br",
        "br, gzip",
    ],
)
def test_an_unknown_coding_is_named(encoding: str) -> None:
    error = refused(gzip.compress(b"x"), encoding)
    assert error.kind == "undecodable" and encoding in str(error)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"\xff\xd8\xff" + b])
def test_what_is_not_packed_as_it_says_is_corrupt(encoding: str, damage: Callable[[bytes], bytes]) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    error = refused(damage(pack(bytes(range(256)))), encoding)
    assert error.kind == "undecodable" and "cannot be undone" in str(error)


def test_a_wrong_checksum_is_noticed() -> None:
    packed = bytearray(gzip.compress(b"picture"))
    packed[-5] ^= 1
    assert refused(bytes(packed), "gzip").kind == "undecodable"


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_is_given_up_on_at_the_limit(layers: int) -> None:
    packed = gzip.compress(bytes(300 * MB), 9)
    packed = gzip.compress(packed) if layers == 2 else packed
    tracemalloc.start()
    try:
        error = refused(packed, ",".join(["gzip"] * layers))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.kind == "too_large" and peak < 10 * MB


@pytest.mark.parametrize(("size", "fits"), [(MB, True), (MB + 1, False)])
def test_the_limit_is_that_of_the_picture(size: int, fits: bool) -> None:
    packed = gzip.compress(bytes(size))
    if fits:
        assert len(unpack_object("a", packed, "gzip", MB)) == MB
    else:
        assert refused(packed, "gzip").kind == "too_large"


# -- objects -----------------------------------------------------------------------------------------------------------


def good(found: PreparedImage | DescriberError) -> PreparedImage:
    assert isinstance(found, PreparedImage), found
    return found


@pytest.mark.parametrize("way", ["file", "inline", "url"])
@pytest.mark.parametrize(("encoding", "pack"), STORED)
def test_a_packed_object_is_an_image(
    objects: Objects,
    signer: Signer,
    draw: Callable[..., bytes],
    way: str,
    encoding: str,
    pack: Callable[[bytes], bytes],
) -> None:
    content = draw(1) + bytes(9000)
    packed = pack(content)
    objects.cloud.put_any("a.jpg", packed, encoding)
    version = objects.version("a.jpg")
    found = good(objects.prepared("a.jpg", way, signer=signer))
    assert (found.version, found.size) == (version, len(packed))
    assert version == hashlib.md5(packed).hexdigest()
    if way != "url":
        assert found.picture.content == content
        assert found.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("way", ["file", "inline", "url"])
@pytest.mark.parametrize(
    ("encoding", "kind"),
    [("br", "undecodable"), ("compress", "undecodable"), ("gzip", "undecodable"), ("deflate", "undecodable")],
)
def test_one_that_cannot_be_unpacked_is_rejected(
    objects: Objects, signer: Signer, draw: Callable[..., bytes], way: str, encoding: str, kind: str
) -> None:
    more = {"cache_control": "no-transform"} if objects.cloud.scheme == "gs" else {}
    objects.cloud.put_any("a.jpg", draw(1), encoding, **more)
    found = objects.prepared("a.jpg", way, signer=signer)
    assert isinstance(found, RejectedImage) and found.kind == kind, found
    assert objects.uri("a.jpg") in str(found)


@pytest.mark.parametrize("way", ["file", "inline", "url"])
def test_a_bomb_in_a_bucket_is_too_large(objects: Objects, signer: Signer, way: str) -> None:
    objects.cloud.put_any("a.jpg", gzip.compress(b"\xff\xd8\xff" + bytes(60 * MB)), "gzip")
    found = objects.prepared("a.jpg", way, signer=signer)
    assert isinstance(found, RejectedImage) and found.kind == "too_large"


@pytest.mark.parametrize("vendor", ["image_describer", "segmind"])
def test_packed_objects_are_described_once_each(
    shop: Shop, objects: Objects, signer: Signer, draw: Callable[..., bytes], vendor: str
) -> None:
    shop.vendor = vendor
    put = objects.cloud.put_any
    put("plain.jpg", draw(1))
    put("packed.jpg", gzip.compress(draw(2)), "gzip")
    put("packed/twice.jpg", gzip.compress(gzip.compress(draw(3))), "gzip, gzip")
    put("bomb.jpg", gzip.compress(draw(4) + bytes(30 * MB)), "gzip")
    put("brotli.jpg", draw(5), "br")
    put("base64.jpg", draw(6), "base64")
    images = [one.to_dict() for one in list_images(objects.cloud.uri, objects.opener(signer))]
    assert len(images) == 6
    first = shop.describe(images, open_bucket=objects.opener(signer))
    first.check_sums()
    assert first.counts["described"] == 4
    kinds = {row["uri"].rpartition("/")[2]: row["error"]["kind"] for row in first.of("rejected")}
    assert kinds == {"bomb.jpg": "too_large", "brotli.jpg": "undecodable"}
    assert first.ledger["requests"] == 4
    second = shop.describe(images, open_bucket=objects.opener(signer))
    assert second.counts == {**first.counts, "described": 0, "reused": 4}
    assert second.ledger["requests"] == 4


@pytest.mark.parametrize("encoding", ["gzip", "deflate", ""])
def test_a_listing_file_that_is_stored_packed_is_read(objects: Objects, encoding: str) -> None:
    """As ``gcloud storage cp --gzip-local=csv`` and ``gsutil cp -z csv`` leave it."""
    text = b"uri\n/data/a.jpg\n"
    packed = {"gzip": gzip.compress(text), "deflate": zlib.compress(text), "": text}[encoding]
    objects.cloud.put_any("/list.csv", packed, encoding)
    assert [item for _, item in read_listing(objects.uri("/list.csv"), objects.opener())] == [{"uri": "/data/a.jpg"}]


def test_a_listing_file_that_cannot_be_unpacked_is_named(objects: Objects) -> None:
    objects.cloud.put_any("list.csv", b"uri\n/data/a.jpg\n", "br")
    with pytest.raises(BadInput, match=r"The listing cannot be read: .*/list\.csv: its Content-Encoding is 'br'"):
        list(read_listing(objects.uri("list.csv"), objects.opener()))


# -- the web -----------------------------------------------------------------------------------------------------------


def fetched(loopback: type[Loopback], content: bytes, encoding: str, *, ranges: bool) -> tuple[Any, Any]:
    """What is read of an image whole, and of its first bytes; a static server cuts ranges out of the packed bytes."""

    async def serve(visit: Visit) -> None:
        while received := await visit.request():
            wanted = received.headers.get("range", "").removeprefix("bytes=")
            if wanted and ranges:
                end = min(int(wanted.partition("-")[2]) + 1, len(content))
                where = f"content-range: bytes 0-{end - 1}/{len(content)}"
                visit.answer(content[:end], "206 Partial Content", f"content-encoding: {encoding}", where)
            else:
                visit.answer(content, "200 OK", f"content-encoding: {encoding}")

    async def scene() -> tuple[Any, Any]:
        found: list[Any] = []
        async with loopback(serve) as server, AsyncClient(timeout=5) as client:
            reader, url = Reader(client), WebUrl(f"{server.url}/a.jpg")
            for act in (reader.read, reader.read_head):
                try:
                    found.append(await act(url, MB))
                except DescriberError as error:
                    found.append(error)
        return found[0], found[1]

    return asyncio.run(scene())


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("gzip, gzip", PACKED[5][1])]
)
def test_a_packed_web_image_is_an_image(
    loopback: type[Loopback], encoding: str, pack: Callable[[bytes], bytes], ranges: bool
) -> None:
    content = b"\xff\xd8\xff" + bytes(range(256)) * 60
    # Too little of it to be unpacked is in the first 4 KiB.
    noise = hashlib.shake_128(b"").digest(20_000)
    whole, head = fetched(loopback, pack(content + noise), encoding, ranges=ranges)
    assert whole.data == content + noise
    assert (head.data, head.size, head.packed) == (content[:4096], len(content + noise), True)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("encoding", NO_CODINGS)
def test_a_web_image_with_a_word_that_is_no_coding_is_read_as_it_is(
    loopback: type[Loopback], encoding: str, ranges: bool
) -> None:
    content = b"\xff\xd8\xff" + bytes(range(256)) * 60
    whole, head = fetched(loopback, content, encoding, ranges=ranges)
    assert whole.data == content
    assert (head.data, head.size, head.packed) == (content[:4096], len(content), False)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    ("encoding", "content", "kind"),
    [
        ("compress", b"\x1f\x9d" + bytes(99), "undecodable"),
        ("x-ours", bytes(5000), "undecodable"),
        ("gzip", b"\xff\xd8\xff" + bytes(5000), "undecodable"),
        ("gzip", gzip.compress(bytes(range(256)) * 9)[:-3], "undecodable"),
        ("gzip", gzip.compress(bytes(2 * MB)), "too_large"),
    ],
)
def test_a_web_image_that_cannot_be_unpacked_is_rejected(
    loopback: type[Loopback], encoding: str, content: bytes, kind: str, ranges: bool
) -> None:
    for error in fetched(loopback, content, encoding, ranges=ranges):
        assert isinstance(error, RejectedImage) and error.kind == kind, error
