"""Objects of S3 and GCS: read once, known by their versions, and never paid for where something speaks against it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from loopback import Answer

from airflow_provider_describer.errors import BadInput, BucketError, DescriberError, RejectedImage, UnreadableImage
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.images.checks import HEAD
from airflow_provider_describer.images.prepare import PreparedImage, choose_version, prepare
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.storage.address import ObjectKey
from airflow_provider_describer.storage.bucket import Signer
from airflow_provider_describer.vendors import get_vendor

if TYPE_CHECKING:
    from tests.conftest import Shop
    from tests.images.conftest import Objects


@pytest.fixture(params=["file", "inline", "url"])
def way(request: pytest.FixtureRequest) -> str:
    """By ``url`` an object's first bytes are looked at; otherwise all of it is read."""
    return str(request.param)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- read once ---


@pytest.mark.parametrize("key", ["a.jpg", "a/b c+d%20e#f?g=é.jpg"])
@pytest.mark.parametrize("way", ["file", "inline"])
def test_an_object_is_read_in_one_request(objects: Objects, draw: Callable[..., bytes], way: str, key: str) -> None:
    content = draw(1) + bytes(100_000)
    version = objects.put(key, content)
    found = objects.prepared(key, way)
    assert isinstance(found, PreparedImage)
    assert (found.picture.content, found.sha256, found.size) == (content, sha256(content), len(content))
    assert (found.version, found.upload, found.picture.inline) == (version, False, way == "inline")
    assert found.picture.filename == key.rpartition("/")[2]
    [asked] = objects.server.requests
    assert asked.method == "GET" and asked.path == f"/{objects.cloud.name}/{key}" and "Range" not in asked.headers


def test_many_objects_are_read_in_as_many_requests(objects: Objects, draw: Callable[..., bytes]) -> None:
    keys = [f"{number}.jpg" for number in range(20)]
    for number, key in enumerate(keys):
        objects.put(key, draw(number))

    async def all_of_them(reader: Reader) -> list[PreparedImage]:
        vendor, paid_by = get_vendor("image_describer"), objects.account()
        requests = [objects.request(objects.uri(key)) for key in keys]
        return list(await asyncio.gather(*(prepare(reader, vendor, paid_by, request) for request in requests)))

    found = objects.with_reader(all_of_them)
    assert [one.sha256 for one in found] == [sha256(draw(number)) for number in range(20)]
    paths = [f"/{objects.cloud.name}/{key}" for key in keys]
    assert sorted(asked.path for asked in objects.server.requests) == sorted(paths)


def test_an_object_is_scaled_down_after_it_is_read(
    objects: Objects, signer: Signer, draw: Callable[..., bytes]
) -> None:
    content = draw(1, "PNG", (400, 300))
    objects.put("a.png", content)
    found = objects.prepared("a.png", max_pixels=40_000, signer=signer)
    assert isinstance(found, PreparedImage) and found.picture.content is not None
    assert (found.sha256, found.size) == (sha256(content), len(content))
    assert (found.picture.media_type, found.picture.filename) == ("image/jpeg", "a.jpg")
    assert found.saved == len(content) - len(found.picture.content)
    assert len(objects.server.requests) == 1


def test_an_object_too_large_to_be_sent_may_be_scaled_down(objects: Objects, draw: Callable[..., bytes]) -> None:
    objects.put("a.png", draw(1, "PNG", (400, 300)) + bytes(21_000_000))
    assert isinstance(objects.prepared("a.png", max_pixels=40_000), PreparedImage)
    found = objects.prepared("a.png")
    assert isinstance(found, RejectedImage) and found.kind == "too_large"


# --- versions ---


def test_an_object_that_changed_after_its_listing_is_noticed(
    objects: Objects, signer: Signer, draw: Callable[..., bytes], way: str
) -> None:
    listed, read = objects.put("a.jpg", draw(1)), objects.put("a.jpg", draw(2))
    found = objects.prepared("a.jpg", way, version=listed, signer=signer)
    assert isinstance(found, PreparedImage)
    assert found.version == read != listed
    assert found.sha256 == (None if way == "url" else sha256(draw(2)))


MD5, OTHER_MD5 = "0123456789abcdef0123456789abcdef", "f" * 32


@pytest.mark.parametrize(
    ("listed", "read", "known_by"),
    [
        (MD5, OTHER_MD5, OTHER_MD5),
        (MD5, f"{MD5}-2", f"{MD5}-2"),
        ("1700000000000001", "1700000000000002", "1700000000000002"),
        (None, MD5, MD5),
        (MD5, None, MD5),
        (None, None, None),
        ("catalog 7", MD5, "catalog 7"),
        ("1700000000000001", MD5, "1700000000000001"),
        (f'"{MD5}"', OTHER_MD5, f'"{MD5}"'),
    ],
)
def test_an_image_is_known_by_what_was_read_where_the_listing_speaks_of_the_same(
    listed: str | None, read: str | None, known_by: str | None
) -> None:
    assert choose_version(listed, read) == known_by


def test_a_change_after_the_listing_is_described_and_known_as_what_it_is(
    shop: Shop, objects: Objects, draw: Callable[..., bytes]
) -> None:
    def listing() -> list[dict[str, object]]:
        return [{"uri": objects.uri("a.jpg"), "version": objects.version("a.jpg"), "size": len(draw(1))}]

    objects.put("a.jpg", draw(1))
    old = listing()
    objects.put("a.jpg", draw(2))
    [row] = shop.describe(old, open_bucket=objects.opener()).of("described")
    assert (row["version"], row["sha256"]) == (objects.version("a.jpg"), sha256(draw(2)))
    assert shop.describe(listing(), open_bucket=objects.opener()).counts["reused"] == 1
    objects.put("a.jpg", draw(1))
    result = shop.describe(old, open_bucket=objects.opener())
    assert result.counts["described"] == 1 and result.ledger["by_image"] == {sha256(draw(1)): 1, sha256(draw(2)): 1}


def test_a_copy_and_a_renamed_object_are_known_by_their_listing(
    shop: Shop, objects: Objects, draw: Callable[..., bytes]
) -> None:
    def listing() -> list[dict[str, object]]:
        entries = [entry for page in objects.cloud.bucket().entries() for entry in page]
        return [{"uri": objects.uri(one.key), "version": one.version, "size": one.size} for one in entries]

    objects.put("a.jpg", draw(1))
    assert shop.describe(listing(), open_bucket=objects.opener()).counts["described"] == 1
    objects.put("copies/b.jpg", draw(1))
    objects.put("copies/c.jpg", draw(1))
    objects.cloud.bucket().delete("a.jpg")
    images = listing()
    objects.server.reset()
    result = shop.describe(images, open_bucket=objects.opener())
    assert (result.counts["reused"], result.counts["requested"]) == (2, 2)
    assert objects.server.requests == [] and result.ledger["billed"] == 1


def test_what_has_a_version_is_known_without_a_request(objects: Objects) -> None:
    requests = [
        objects.request(objects.uri(f"{key}.jpg"), version=version) for key, version in (("a", MD5), ("b", "v1"))
    ]
    found = objects.identified(*requests)
    assert [(one.request, one.version, one.sha256, one.error) for one in found] == [
        (requests[0], MD5, None, None),
        (requests[1], "v1", None, None),
    ]
    assert all(len(one.keys) == 1 for one in found) and found[0].keys != found[1].keys
    assert objects.server.requests == []


def test_what_has_no_version_is_known_by_one_look_at_its_start(objects: Objects, draw: Callable[..., bytes]) -> None:
    content = draw(1) + bytes(100_000)
    version = objects.put("a.jpg", content)
    objects.put("b.jpg", content)
    requests = [objects.request(objects.uri(f"{key}.jpg")) for key in "ab"]
    found = objects.identified(*requests)
    first, second = found
    assert (first.version, first.sha256, first.error) == (version, None, None)
    # The MD5 of both, and each one's name and version.
    assert len(first.keys) == len(second.keys) == 2 and len({*first.keys, *second.keys}) == 3
    assert [asked.headers["Range"] for asked in objects.server.requests] == [f"bytes=0-{HEAD - 1}"] * 2


def test_objects_files_and_those_that_fail_are_identified_together(
    objects: Objects, tmp_path: Path, draw: Callable[..., bytes]
) -> None:
    (tmp_path / "a.jpg").write_bytes(draw(1))
    objects.put("a.jpg", draw(1))
    objects.put("page.jpg", b"<!doctype html>Sign in")
    uris = [objects.uri("none.jpg"), str(tmp_path / "a.jpg"), objects.uri("page.jpg"), objects.uri("a.jpg")]
    found = objects.identified(*(objects.request(uri) for uri in uris))
    assert [one.error.kind if one.error else None for one in found] == ["missing", None, "not_an_image", None]
    assert [one.sha256 for one in found] == [None, sha256(draw(1)), None, None]


# --- what cannot be read ---


def each_way(objects: Objects, signer: Signer, key: str, **about: Any) -> list[DescriberError]:
    """What becomes of it by each way of showing it, and when it is looked at for a plan."""
    found: list[object] = [objects.prepared(key, way, signer=signer, **about) for way in ("file", "inline", "url")]
    uri = about.get("uri") or objects.uri(key)
    try:
        found += [planned.error for planned in objects.identified(objects.request(uri))]
    except DescriberError as refused:
        found.append(refused)
    errors = [error for error in found if isinstance(error, DescriberError)]
    assert len(errors) == 4, found
    for error in errors:
        assert error.billed == "no" and uri in str(error)
        assert not [secret for secret in objects.cloud.secrets() if secret in str(error)]
    return errors


def test_an_object_that_is_not_there_is_missing(objects: Objects, signer: Signer) -> None:
    for error in each_way(objects, signer, "none.jpg"):
        assert (type(error), error.kind) == (RejectedImage, "missing")


def test_a_bucket_that_is_not_there_is_a_fault_of_the_image_that_names_it(objects: Objects, signer: Signer) -> None:
    uri = f"{objects.cloud.scheme}://no-such-bucket/a.jpg"
    for error in each_way(objects, signer, "a.jpg", uri=uri):
        assert (type(error), error.kind) == (RejectedImage, "no_such_bucket")
        assert "no such bucket" in str(error) and "endpoint" in str(error)


@pytest.mark.parametrize("trouble", ["throttled", "unreachable"])
def test_what_cannot_be_read_now_is_not_said_to_be_missing(
    objects: Objects, signer: Signer, draw: Callable[..., bytes], trouble: str
) -> None:
    objects.put("a.jpg", draw(1))
    troubles = {"throttled": objects.server.slow_down, "unreachable": objects.server.cut}
    troubles[trouble](times=float("inf"))
    for error in each_way(objects, signer, "a.jpg"):
        assert (type(error), error.kind) == (UnreadableImage, trouble)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", "denied"),
        (403, "InvalidObjectState", "archived"),
        (400, "KMS.DisabledException", "denied"),
        (400, "UserProjectMissing", "denied"),
        (404, "NoSuchBucket", "no_such_bucket"),
        (301, "PermanentRedirect", "wrong_region"),
        (451, "Unavailable", "denied"),
    ],
)
def test_what_will_not_pass_by_itself_is_a_fault_of_the_image(
    objects: Objects, signer: Signer, status: int, code: str, kind: str
) -> None:
    objects.server.fail(status, code, times=float("inf"))
    for error in each_way(objects, signer, "a.jpg"):
        assert (type(error), error.kind) == (RejectedImage, kind)


@pytest.mark.parametrize(("status", "code"), [(403, "InvalidAccessKeyId"), (400, "ExpiredToken"), (401, "x")])
def test_bad_credentials_are_no_fault_of_an_image(objects: Objects, signer: Signer, status: int, code: str) -> None:
    objects.server.fail(status, code, times=float("inf"))
    for error in each_way(objects, signer, "a.jpg"):
        assert (type(error), error.kind) == (BucketError, "bad_credentials")
        assert "Correct or renew" in str(error)


def test_an_empty_object(objects: Objects, signer: Signer) -> None:
    objects.put("a.jpg", b"")
    for error in each_way(objects, signer, "a.jpg"):
        assert (type(error), error.kind) == (RejectedImage, "empty")
        assert "0 bytes" in str(error)


def test_a_key_that_cannot_be_asked_for(objects: Objects, signer: Signer) -> None:
    for way in ("file", "inline", "url"):
        error = objects.prepared("\udcffb.jpg", way, signer=signer)
        assert isinstance(error, RejectedImage) and error.kind == "bad_key"
        assert repr(objects.uri("\udcffb.jpg")) in str(error) and "Copy the object to another key" in str(error)
    assert objects.server.requests == []


def test_of_a_60_mb_object_nothing_is_taken(objects: Objects) -> None:
    """It says how large it is, and nothing more ever comes: waiting for it would end as unreachable."""
    about = {"ETag": f'"{MD5}"', "Last-Modified": "Tue, 14 Jan 2025 08:00:00 GMT", "Content-Length": "60000000"}
    objects.server.instead(Answer(200, b"", about), times=float("inf"))
    for way in ("file", "inline"):
        found = objects.prepared("a.jpg", way)
        assert isinstance(found, RejectedImage) and found.kind == "too_large"
        assert objects.uri("a.jpg") in str(found) and "Scale it down" in str(found)
    assert len(objects.server.requests) == 2


def test_a_large_object_is_known_as_such_from_its_start(
    objects: Objects, signer: Signer, draw: Callable[..., bytes]
) -> None:
    objects.put("a.jpg", draw(1) + bytes(11_000_000))
    found = objects.prepared("a.jpg", "url", signer=signer)
    assert isinstance(found, RejectedImage) and found.kind == "too_large"
    assert "11.0 MB is more than the 10.5 MB that Segmind takes" in str(found)
    assert [asked.headers["Range"] for asked in objects.server.requests] == [f"bytes=0-{HEAD - 1}"]


def test_nothing_that_cannot_be_described_is_paid_for(shop: Shop, objects: Objects, draw: Callable[..., bytes]) -> None:
    objects.put("empty.jpg", b"")
    objects.put("page.jpg", b"<!doctype html>Sign in")
    objects.put("cut.png", draw(1, "PNG", (200, 160))[:-20])
    names = ("empty.jpg", "page.jpg", "cut.png", "none.jpg", "a//none.jpg")
    # With a version each, as of a listing: they are looked at only when it is their turn.
    images = [{"uri": objects.uri(name), "version": f"of {name}"} for name in names]
    result = shop.describe(images, open_bucket=objects.opener())
    kinds = {row["uri"].removeprefix(f"{objects.cloud.uri}/"): row["error"]["kind"] for row in result.of("rejected")}
    assert kinds == dict(zip(names, ("empty", "not_an_image", "corrupt", "missing", "missing"), strict=True))
    assert result.ledger["requests"] == 0


def test_a_reader_that_opens_no_buckets_says_what_it_lacks() -> None:
    async def scene() -> None:
        async with AsyncClient(timeout=5) as client:
            await Reader(client).read_head(ObjectKey("s3", "shop", "a.jpg"), 10)

    with pytest.raises(BadInput, match="give a storage_conn_id"):
        asyncio.run(scene())
