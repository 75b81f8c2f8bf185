"""Reading and listing in both clouds; "cannot read" is never "not there"."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from loopback import Answer

from airflow_provider_describer.errors import BucketError

ODD_KEYS = [
    "with a space.jpg",
    "a+b%20c#d?e=f&g.jpg",
    "ünïcode/日本語/😀.jpg",
    "back\\slash 'quotes\" <>&;,:@$!*()[]{}|^`~.jpg",
    "…" * 341 + "x",  # 1 024 bytes
]


def keys(pages):
    return [entry.key for page in pages for entry in page]


def aread(bucket, key, max_bytes=None, **part):
    return asyncio.run(bucket.aread(key, max_bytes=max_bytes, **part))


@pytest.fixture(params=["blocking", "async"])
def read(request, bucket):
    return bucket.read if request.param == "blocking" else lambda key, **part: aread(bucket, key, **part)


def test_a_listing_and_a_read_agree(bucket, read):
    bucket.put("a/b.jpg", b"0123456789")
    content = read("a/b.jpg")
    [[entry]] = bucket.entries()
    assert content.data == b"0123456789" and content.size == 10
    assert (entry.key, entry.size, entry.version) == ("a/b.jpg", 10, content.version)
    assert entry.modified > 1.7e9
    assert content.version and '"' not in content.version
    bucket.put("a/b.jpg", b"changed")
    assert read("a/b.jpg").version != content.version


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, 4, b"0123"), (2, 3, b"234"), (8, None, b"89"), (8, 99, b"89"), (10, 1, b""), (99, None, b""), (3, 0, b"")],
)
def test_a_part_is_read(bucket, read, start, length, expected):
    bucket.put("x", b"0123456789")
    whole = bucket.read("x")
    content = read("x", start=start, length=length)
    assert content.data == expected
    assert (content.size, content.version) == (10, whole.version)


def test_only_the_requested_part_is_fetched(bucket, cloud, read):
    bucket.put("x", b"0123456789")
    cloud.server.reset()
    read("x", start=2, length=3)
    [asked] = cloud.server.requests
    assert asked.headers["Range"] == "bytes=2-4"


def test_an_empty_object(bucket, read):
    bucket.put("empty", b"")
    for content in (read("empty"), read("empty", length=4096)):
        assert (content.data, content.size) == (b"", 0)
        assert content.version


def test_one_request_reads_one_object(bucket, cloud):
    bucket.put("x", b"x")
    cloud.server.reset()
    aread(bucket, "x", max_bytes=10)
    assert [asked.method for asked in cloud.server.requests] == ["GET"]


def test_an_object_that_is_too_large_is_not_fetched(bucket, cloud):
    bucket.put("x", b"12345")
    assert aread(bucket, "x", max_bytes=5).data == b"12345"
    with pytest.raises(BucketError, match=f"{cloud.uri}/x has 5 bytes, more than the 4 allowed") as caught:
        aread(bucket, "x", max_bytes=4)
    assert caught.value.kind == "too_large"
    # Of this one the body would never come.
    headers = {"Content-Length": "99999999999", "ETag": '"e"', "Last-Modified": "Tue, 14 Jan 2025 08:00:00 GMT"}
    cloud.server.instead(Answer(200, b"only this", headers))
    with pytest.raises(BucketError, match="99,999,999,999 bytes"):
        aread(bucket, "x", max_bytes=10**9)


def test_an_absent_object(bucket, cloud):
    assert bucket.read("none") is None
    with pytest.raises(BucketError, match=f"{cloud.uri}/none is not there") as caught:
        aread(bucket, "none")
    assert caught.value.kind == "no_such_object"


def test_many_objects_are_read_at_once(bucket):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: bucket.put(f"{number}", b"x" * number), range(64)))

    async def sizes():
        return [
            content.size for content in await asyncio.gather(*(bucket.aread(f"{n}", max_bytes=99) for n in range(64)))
        ]

    assert asyncio.run(sizes()) == list(range(64))


@pytest.mark.parametrize("key", ODD_KEYS, ids=range(len(ODD_KEYS)))
def test_a_key_is_taken_literally(bucket, cloud, read, key):
    bucket.put("decoy", b"decoy")
    bucket.put(key, b"found")
    assert read(key).data == b"found"
    assert sorted(keys(bucket.entries())) == sorted(["decoy", key])
    assert keys(bucket.entries(key)) == [key]
    assert bucket.address(key) == f"{cloud.uri}/{key}"
    bucket.delete(key)
    assert bucket.read(key) is None and bucket.read("decoy")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "./a", "a/../b", "a\nb", "a\x7f", "a\udcff"])
def test_nothing_is_written_or_removed_under_a_key_that_obstore_would_change(bucket, cloud, key):
    for act in (
        lambda: bucket.create(key, b""),
        lambda: bucket.put(key, b""),
        lambda: bucket.replace(key, b"", None),
        lambda: bucket.delete(key),
    ):
        with pytest.raises(BucketError, match="must not begin or end") as caught:
            act()
        assert caught.value.kind == "unsupported"
    assert cloud.server.requests == []


@pytest.mark.parametrize("key", ["", "a\udcff"])
def test_a_key_that_no_request_can_name_is_refused_before_any(bucket, cloud, key):
    for act in (lambda: bucket.read(key), lambda: aread(bucket, key), lambda: bucket.sign(key, 60)):
        with pytest.raises(BucketError, match="no request can name this key") as caught:
            act()
        assert caught.value.kind == "bad_key"
    assert cloud.server.requests == []


# -- listings ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_long_listing_is_fetched_page_by_page_on_demand(bucket, cloud):
    names = [f"many/{number:04d}.jpg" for number in range(2500)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: bucket.put(name, b"x"), names))
    bucket.put("other/x", b"x")
    cloud.server.reset()
    pages = bucket.entries("many/")
    assert cloud.server.requests == []
    first = keys([next(pages)])
    assert first == names[:1000] and len(cloud.server.requests) < 3
    assert first + keys(pages) == names
    assert keys(bucket.entries("many/", after=names[2000])) == names[2001:]
    assert keys(bucket.entries("many/", after=names[-1])) == []


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", ["a/0", "a/00/x", "a/1", "a/10", "a/b-1", "a/b.jpg", "a/b/c", "ab", "é/è"]),
        ("a", ["a/0", "a/00/x", "a/1", "a/10", "a/b-1", "a/b.jpg", "a/b/c", "ab"]),
        ("a/", ["a/0", "a/00/x", "a/1", "a/10", "a/b-1", "a/b.jpg", "a/b/c"]),
        ("a/0", ["a/0", "a/00/x"]),
        ("a/1", ["a/1", "a/10"]),
        ("a/b", ["a/b-1", "a/b.jpg", "a/b/c"]),
        ("a/b-", ["a/b-1"]),
        ("a/b/c", ["a/b/c"]),
        ("ab", ["ab"]),
        ("é/", ["é/è"]),
        ("é/è", ["é/è"]),
        ("a/2", []),
        ("z", []),
    ],
)
def test_a_prefix_is_any_start_of_a_key(bucket, prefix, expected):
    for key in ("a/0", "a/00/x", "a/1", "a/10", "a/b-1", "a/b.jpg", "a/b/c", "ab", "é/è"):
        bucket.put(key, b"x")
    assert keys(bucket.entries(prefix)) == expected
    for number, key in enumerate(expected):
        assert keys(bucket.entries(prefix, after=key)) == expected[number + 1 :]


def page_of(keys):
    """A page of a listing that is followed by another."""
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    about = "<ETag>e</ETag><Size>0</Size><LastModified>2025-01-14T08:00:00.000Z</LastModified>"
    listed = "".join(f"<Contents><Key>{key}</Key>{about}</Contents>" for key in keys)
    body = f"<ListBucketResult>{more}{listed}</ListBucketResult>"
    return Answer(200, body.encode(), {"Content-Type": "application/xml"})


def test_a_prefix_does_not_list_keys_far_behind_it(bucket, cloud):
    for key in ("x/1", "x/2", "x/3"):
        bucket.put(key, b"x")
    cloud.server.reset()
    assert keys(bucket.entries("x/2")) == ["x/2"]
    [asked] = cloud.server.requests
    assert asked.query["prefix"] == "x/2"


def test_a_server_that_ignores_where_a_listing_begins_is_not_believed(bucket, cloud):
    cloud.server.instead(page_of(["w/1", "x/1", "x/2"]))
    cloud.server.instead(page_of([]))
    cloud.server.deny()
    pages = bucket.entries("x/", after="x/1")
    assert [entry.key for entry in next(pages)] == ["x/2"]


def test_an_error_during_a_listing_is_not_its_end(bucket, cloud):
    cloud.server.instead(page_of(f"x/{number:03d}" for number in range(1000)))
    cloud.server.deny()
    pages = bucket.entries("x/")
    assert len(next(pages)) == 1000
    with pytest.raises(BucketError, match=f"{cloud.uri}/x/ cannot be listed") as caught:
        next(pages)
    assert caught.value.kind == "denied"
