"""Thumbnails: small, made once, and only of what is allowed, is an image and is not too much."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
import zlib

import pytest
from PIL import Image

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.gallery import thumbnails
from airflow_provider_describer.gallery.allowed import parse_allowed
from airflow_provider_describer.gallery.stores import StoreEntry
from airflow_provider_describer.gallery.thumbnails import NoThumbnail, Thumbnails

LOCAL = StoreEntry("/data/store")


def no_buckets(conn_id):
    def open_bucket(scheme, name):
        raise BadInput(f"no connection {conn_id}")

    return open_bucket


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def made(images):
    return Thumbnails(no_buckets, parse_allowed(str(images)))


def row(uri, **more):
    return {"uri": str(uri), "version": None, "sha256": None, **more}


def opened(content):
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def reason(made, uri, store=LOCAL, **more):
    with pytest.raises(NoThumbnail) as caught:
        made.get(row(uri, **more), store)
    assert caught.value.reason and "\n" not in caught.value.reason
    return caught.value.kind


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize(("size", "shown"), [((1600, 400), (320, 80)), ((10, 9000), (1, 320)), ((30, 20), (30, 20))])
def test_a_thumbnail_is_small_and_of_the_same_shape(made, images, draw, form, size, shown):
    (images / "a").write_bytes(draw(1, form, size))
    picture = opened(made.get(row(images / "a"), LOCAL))
    assert (picture.format, picture.size) == ("WEBP", shown)


def test_it_is_upright_and_without_metadata(made, images):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "taken at home"
    Image.new("RGB", (600, 300), "red").save(images / "a.jpg", exif=exif, comment=b"hush")
    content = made.get(row(images / "a.jpg"), LOCAL)
    assert opened(content).size == (160, 320)
    assert b"home" not in content and b"hush" not in content and not opened(content).getexif()


def test_transparency_and_grey_and_cmyk(made, images):
    for mode, form, expected in (
        ("RGBA", "PNG", "RGBA"),
        ("LA", "PNG", "RGBA"),
        ("L", "PNG", "RGB"),
        ("CMYK", "JPEG", "RGB"),
    ):
        Image.new(mode, (700, 10)).save(images / mode, form)
        assert opened(made.get(row(images / mode), LOCAL)).mode == expected


def test_one_is_kept_until_the_row_says_otherwise(made, images, draw):
    (images / "a").write_bytes(draw(1))
    first = made.get(row(images / "a", version="1"), LOCAL)
    (images / "a").write_bytes(draw(100))
    assert made.get(row(images / "a", version="1"), LOCAL) == first
    assert made.get(row(images / "a", version="2"), LOCAL) != first


def test_a_failure_is_remembered_for_a_while(made, images, draw, monkeypatch):
    assert reason(made, images / "a") == "missing"
    (images / "a").write_bytes(draw(1))
    assert reason(made, images / "a") == "missing"
    monkeypatch.setattr(thumbnails, "FAILED_FOR_S", 0.0)
    assert opened(made.get(row(images / "a"), LOCAL)).size == (32, 24)


def test_what_is_kept_is_bounded(images, draw):
    for number in range(5):
        (images / str(number)).write_bytes(draw(number))
    one = len(Thumbnails(no_buckets, parse_allowed(str(images))).get(row(images / "0"), LOCAL))
    made = Thumbnails(no_buckets, parse_allowed(str(images)), cache_bytes=3 * one)
    for number in range(5):
        made.get(row(images / str(number)), LOCAL)
        (images / str(number)).unlink()
    assert [reason_or_none(made, images / str(number)) for number in range(5)].count(None) in (2, 3)


def reason_or_none(made, uri):
    try:
        made.get(row(uri), LOCAL)
    except NoThumbnail as error:
        return error.kind
    return None


def test_another_image_than_was_described_is_not_shown(made, images, draw):
    (images / "a").write_bytes(draw(1))
    digest = hashlib.sha256(draw(1)).hexdigest()
    assert made.get(row(images / "a", sha256=digest), LOCAL)
    assert reason(made, images / "a", sha256="0" * 64) == "changed"


def test_what_is_no_picture_is_not_passed_on(made, images):
    for name, content in {
        "passwords": b"root:x:0:0",
        "page.jpg": b"<html><script>alert(1)</script>",
        "drawing.svg": b"<svg onload='alert(1)'/>",
        "tiff": b"II*\0" + bytes(100),
        "empty": b"",
        "torn.jpg": b"\xff\xd8\xff\xe0" + bytes(50),
        "torn.png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    }.items():
        (images / name).write_bytes(content)
        assert reason(made, images / name) in ("unsupported_type", "corrupt")


def test_a_file_that_cannot_be_read_says_why(made, images):
    os.mkfifo(images / "pipe")
    (images / "folder").mkdir()
    assert reason(made, images / "missing.jpg") == "missing"
    assert reason(made, images / "pipe") == "not_an_image"
    assert reason(made, images / "folder") == "not_an_image"


def test_links_out_of_the_folder_and_other_uris_are_refused(made, images, draw, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(draw(1))
    (images / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    for uri in (
        images / "link.jpg",
        tmp_path / "secret.jpg",
        f"file://{tmp_path}/secret.jpg",
        f"{images}/../secret.jpg",
        f"file://{images}/%2e%2e/secret.jpg",
        "https://169.254.169.254/latest",
        "s3://bucket/a.jpg",
        "\0",
    ):
        assert reason(made, uri) == "not_allowed"


def test_a_file_that_is_too_large_is_not_read(made, images, monkeypatch):
    with (images / "a.jpg").open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(thumbnails.MOST_BYTES + 1)
    assert reason(made, images / "a.jpg") == "too_large"


def png_of(width, height, data):
    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused(made, images, draw):
    # Some hundred kilobytes that would be a picture of gigabytes, or a picture that is decoded thousands of times.
    (images / "wide.png").write_bytes(png_of(60_000, 60_000, zlib.compress(bytes(10_000_000))))
    (images / "text.png").write_bytes(png_of(10, 10, zlib.compress(bytes(50_000_000))))
    progressive = io.BytesIO()
    Image.new("RGB", (64, 64)).save(progressive, "JPEG", progressive=True)
    content = progressive.getvalue()
    last = content.rindex(b"\xff\xda")
    (images / "scans.jpg").write_bytes(content[:-2] + content[last:-2] * 5000 + b"\xff\xd9")
    (images / "gif").write_bytes(b"GIF89a" + b"\xff\xff" * 2 + bytes(3) + b"," + bytes(4) + b"\xff\xff" * 2 + bytes(20))
    assert reason(made, images / "wide.png") == "too_many_pixels"
    assert reason(made, images / "scans.jpg") == "too_many_pixels"
    assert reason(made, images / "gif") == "too_many_pixels"
    # Its size is what its header says, whatever follows.
    assert reason_or_none(made, images / "text.png") in (None, "corrupt")


def test_without_pillow_it_says_what_to_install(made, images, draw, monkeypatch):
    (images / "a").write_bytes(draw(1))
    monkeypatch.setattr("airflow_provider_describer.images.scaling.find_spec", lambda name: None)
    with pytest.raises(NoThumbnail, match=r"airflow-provider-describer\[scaling\]"):
        made.get(row(images / "a"), LOCAL)


def test_at_most_two_are_made_at_once(images, draw, monkeypatch):
    (images / "a").write_bytes(draw(1))
    made = Thumbnails(no_buckets, parse_allowed(str(images)), wait_s=0.05)
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def slow(content, longest_side, uri):
        begun.release()
        assert go_on.wait(20)
        return b"picture"

    monkeypatch.setattr(thumbnails, "thumbnail", slow)
    threads = [threading.Thread(target=made.get, args=(row(images / "a", version=str(n)), LOCAL)) for n in range(2)]
    for thread in threads:
        thread.start()
        assert begun.acquire(timeout=20)
    assert reason(made, images / "a", version="3") == "busy"
    go_on.set()
    for thread in threads:
        thread.join()
    assert made.get(row(images / "a", version="3"), LOCAL) == b"picture"


def test_images_in_buckets(cloud, draw):
    opened_with = []

    def open_buckets(conn_id):
        opened_with.append(conn_id)
        return cloud.open_bucket

    cloud.bucket().put("images/a.jpg", draw(1, size=(640, 480)))
    cloud.bucket().put("images/large.jpg", draw(2) + bytes(100))
    store = StoreEntry(f"{cloud.uri}/stores/a", "conn")
    made = Thumbnails(open_buckets, parse_allowed(""))
    assert opened(made.get(row(f"{cloud.uri}/images/a.jpg"), store)).size == (320, 240)
    assert opened_with == ["conn"]
    assert reason(made, f"{cloud.uri}/images/missing.jpg", store) == "missing"
    assert reason(made, f"{cloud.uri}/images/a.jpg", StoreEntry("/data/store")) == "not_allowed"
    assert reason(made, f"{cloud.scheme}://another/images/a.jpg", store) == "not_allowed"


def test_an_error_of_a_bucket_shows_no_credential(cloud, draw):
    cloud.bucket().put("a.jpg", draw(1))
    store, uri = StoreEntry(f"{cloud.uri}/store"), f"{cloud.uri}/a.jpg"
    wrong = (
        {"access_key_id": "AKIDWRONG", "secret_access_key": "hushhush"}
        if cloud.scheme == "s3"
        else {"token": "hushhush"}
    )

    def open_buckets(conn_id):
        return lambda scheme, name: cloud.bucket(name, credential_provider=lambda: {"expires_at": None, **wrong})

    with pytest.raises(NoThumbnail) as caught:
        Thumbnails(open_buckets, parse_allowed("")).get(row(uri), store)
    assert "hush" not in caught.value.reason and "AKID" not in caught.value.reason


def test_a_private_web_server_is_never_asked(loopback, monkeypatch):
    async def talk(visit):
        visit.answer(b"secret")

    async def scene():
        async with loopback(talk) as server:
            for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}"):
                made = Thumbnails(no_buckets, parse_allowed(f"https://{host}/images"))
                found = await asyncio.to_thread(reason, made, f"https://{host}/images/a.jpg")
                assert found == "forbidden_address"
            return server.connections

    assert asyncio.run(scene()) == 0
