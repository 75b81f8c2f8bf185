"""Objects of every odd key, from listing to description: each has a row, each good one is paid for once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from loopback import Answer

from airflow_provider_describer.images.listing import ImageFilter, list_images

if TYPE_CHECKING:
    from clouds import Cloud

    from tests.conftest import Shop
    from tests.images.conftest import Objects

GOOD = [
    "a.jpg",
    "/a.jpg",
    "a.jpg/",
    "//a.jpg",
    "/a.jpg/",
    "a//b.jpg",
    "./a.jpg",
    "a/./b.jpg",
    "../a.jpg",
    "a/../b.jpg",
    "a/..",
    "tab\t.jpg",
    "\x01.jpg",
    "\x1b[31mred.jpg",
    "del\x7f.jpg",
    "a b+c%20d#e?f=g&h~i\\j.jpg",
    "e\u0301.jpg",
    "é.jpg",
    "😀\u2028.jpg",
    'quote".jpg',
]
ONLY_S3 = ["new\nline.jpg", "return\r\n.jpg", "nul\x00.jpg", "/", ".."]
MARKERS = ["catalog/", "/catalog/", "a//"]
ALL = ImageFilter(types=("*",))


def every_key(objects: Objects) -> list[str]:
    return [*GOOD, *(ONLY_S3 if objects.cloud.scheme == "s3" else [])]


@pytest.mark.parametrize("vendor", ["image_describer", "segmind"])
def test_every_object_has_a_row_and_every_good_one_is_paid_for_once(
    shop: Shop, objects: Objects, draw: Callable[..., bytes], vendor: str
) -> None:
    shop.vendor = vendor
    keys = every_key(objects)
    for number, key in enumerate(keys):
        objects.cloud.put_any(key, draw(number))
    for marker in MARKERS:
        objects.cloud.put_any(marker, b"")
    objects.cloud.put_any("/page\x01.jpg", b"<!doctype html>")
    listed = [one.to_dict() for one in list_images(objects.cloud.uri, objects.opener(), ALL)]
    assert {one["uri"] for one in listed} == {objects.uri(key) for key in [*keys, "/page\x01.jpg"]}
    assert len(listed) == len(keys) + 1
    first = shop.describe(listed, open_bucket=objects.opener())
    first.check_sums()
    assert {row["uri"] for row in first.of("described")} == {objects.uri(key) for key in keys}
    [bad] = first.of("rejected")
    assert bad["uri"] == objects.uri("/page\x01.jpg") and "/page\\x01.jpg" in bad["error"]["message"]
    assert first.ledger["billed"] == len(keys)
    assert first.error is None
    second = shop.describe(listed, open_bucket=objects.opener())
    assert second.counts["reused"] == len(keys) and second.ledger["billed"] == len(keys)


def test_without_their_versions_they_are_described_just_as_well(
    shop: Shop, objects: Objects, draw: Callable[..., bytes]
) -> None:
    keys = every_key(objects)
    for number, key in enumerate(keys):
        objects.cloud.put_any(key, draw(number))
    uris = [one.uri for one in list_images(objects.cloud.uri, objects.opener(), ALL)]
    result = shop.describe(uris, open_bucket=objects.opener())
    assert {row["uri"] for row in result.of("described")} == {objects.uri(key) for key in keys}
    assert result.ledger["billed"] == len(keys)


def test_no_line_of_the_log_or_of_a_file_is_broken_by_a_key(
    shop: Shop, objects: Objects, draw: Callable[..., bytes]
) -> None:
    objects.cloud.put_any("a\x1b[31m\x01\t.jpg", b"no image")
    uris = [one.uri for one in list_images(objects.cloud.uri, objects.opener())]
    gone = [objects.uri(f"gone{chr(code)}\r\nERROR all is lost.jpg") for code in (*range(32), 127, 0x85, 0x2028)]
    result = shop.describe([*uris, *gone], open_bucket=objects.opener())
    result.check_sums()
    assert result.counts["rejected"] == len(gone) + 1
    for row in result.of("rejected"):
        assert row["error"]["message"].isprintable(), row["error"]
    assert all(line.isprintable() for line in result.lines)
    for path in shop.store.rglob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            json.loads(line)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ["/a.jpg", "/b/c.jpg", "a.jpg", "a.jpg/", "a//b.jpg", "a/c.jpg"]),
        ("/", ["/a.jpg", "/b/c.jpg"]),
        ("//", []),
        ("a", ["a//b.jpg", "a/c.jpg"]),
        ("a/", ["a//b.jpg", "a/c.jpg"]),
        ("a//", ["a//b.jpg"]),
        ("**/*.jpg", ["/a.jpg", "/b/c.jpg", "a.jpg", "a//b.jpg", "a/c.jpg"]),
        ("*.jpg", ["a.jpg"]),
        ("/*.jpg", ["/a.jpg"]),
        ("*.jpg/", ["a.jpg/"]),
        ("a/*/*.jpg", ["a//b.jpg"]),
    ],
)
def test_a_path_or_pattern_is_compared_with_keys_as_they_are(objects: Objects, path: str, expected: list[str]) -> None:
    for key in ["a.jpg", "/a.jpg", "a.jpg/", "a//b.jpg", "a/c.jpg", "/b/c.jpg", "x\x01"]:
        objects.cloud.put_any(key, b"x")
    for marker in MARKERS:
        objects.cloud.put_any(marker, b"")
    found = list_images(f"{objects.cloud.uri}/{path}", objects.opener())
    assert [one.uri.removeprefix(f"{objects.cloud.uri}/") for one in found] == expected


def test_a_bucket_of_markers_has_no_images(objects: Objects) -> None:
    for marker in MARKERS:
        objects.cloud.put_any(marker, b"")
    assert list(list_images(objects.cloud.uri, objects.opener(), ALL)) == []


def test_a_key_that_is_not_unicode_has_a_row_and_the_others_are_described(
    shop: Shop, s3: Cloud, draw: Callable[..., bytes]
) -> None:
    """No cloud takes such a key, but some stores of S3's kind do."""
    s3.put_any("a.jpg", draw(1))
    about = "<ETag>e</ETag><Size>9</Size><LastModified>2025-01-14T08:00:00.000Z</LastModified>"
    listed = "".join(f"<Contents><Key>{key}</Key>{about}</Contents>" for key in ("%FF.jpg", "a.jpg", "b%C3.jpg"))
    page = f"<ListBucketResult><EncodingType>url</EncodingType>{listed}</ListBucketResult>"
    s3.server.instead(Answer(200, page.encode(), {"Content-Type": "application/xml"}))
    images = [one.to_dict() for one in list_images(s3.uri, s3.open_bucket)]
    result = shop.describe(images, open_bucket=s3.open_bucket)
    result.check_sums()
    assert [row["uri"] for row in result.of("described")] == [f"{s3.uri}/a.jpg"]
    bad = result.of("rejected")
    assert [row["error"]["kind"] for row in bad] == ["bad_key", "bad_key"]
    assert sorted("\\udcff.jpg" in row["error"]["message"] for row in bad) == [False, True]
    assert result.ledger["billed"] == 1
