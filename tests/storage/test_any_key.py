"""Keys that obstore cannot express: listed as they are, and read like any other."""

from __future__ import annotations

import asyncio
import gzip
import inspect
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import Answer

from airflow_provider_describer.errors import BucketError
from airflow_provider_describer.storage.address import ObjectKey, check_reference, parse_uri
from airflow_provider_describer.storage.authorization import Credentials, can_ask, signature_v4
from airflow_provider_describer.storage.open_bucket import s3_bucket

ODD = [
    "/a.jpg",
    "a.jpg/",
    "//a.jpg",
    "a.jpg//",
    "a//b.jpg",
    "./a.jpg",
    "a/./b.jpg",
    "../a.jpg",
    "a/../b.jpg",
    "a/..",
    "a\x01b.jpg",
    "tab\t.jpg",
    "del\x7f.jpg",
    "a b+c%20d#e?f=g&h~i\\j.jpg/",
    "/ü/日本/😀/e\u0301 é.jpg",
    "\x1b[31mred.jpg",
    "last\u2028line.jpg",
]
ONLY_S3 = ["new\nline.jpg", "return\r.jpg", "nul\x00.jpg", "/", "..", "."]
"""GCS takes no such names."""


def keys(pages):
    return [entry.key for page in pages for entry in page]


def aread(bucket, key, max_bytes=None, **part):
    return asyncio.run(bucket.aread(key, max_bytes=max_bytes, **part))


@pytest.fixture
def odd(cloud):
    found = sorted([*ODD, *(ONLY_S3 if cloud.scheme == "s3" else []), "a.jpg", "b.jpg"], key=str.encode)
    for key in found:
        cloud.put_any(key, key.encode())
    cloud.server.reset()
    return found


def test_every_key_is_listed_as_it_is_and_can_be_read(bucket, odd):
    entries = [entry for page in bucket.entries() for entry in page]
    assert [entry.key for entry in entries] == odd
    for entry in entries:
        for content in (bucket.read(entry.key), aread(bucket, entry.key, max_bytes=99)):
            assert content.data == entry.key.encode()
            assert (content.version, content.size) == (entry.version, entry.size)


def test_one_page_of_them_is_one_request(bucket, cloud, odd):
    keys(bucket.entries("a"))
    # GCS's XML cannot express control characters: such a page is asked for again, as JSON.
    assert len(cloud.server.requests) == (1 if cloud.scheme == "s3" else 2)
    cloud.server.reset()
    keys(bucket.entries("b"))
    assert len(cloud.server.requests) == 1


@pytest.mark.parametrize("prefix", ["/", "//", "a/.", "a/../", "a.jpg/", "tab\t", "a b+c%20d#e?f=g&"])
def test_they_begin_with_any_prefix(bucket, odd, prefix):
    expected = [key for key in odd if key.startswith(prefix)]
    assert keys(bucket.entries(prefix)) == expected != []
    for number, key in enumerate(expected):
        assert keys(bucket.entries(prefix, after=key)) == expected[number + 1 :]


def test_pages_follow_each_other_among_odd_keys(cloud, bucket):
    names = [f"/{number:04}\x01.jpg" for number in range(1003)]
    for name in names:
        cloud.put_any(name, b"x")
    assert keys(bucket.entries()) == names


@pytest.mark.parametrize(
    ("start", "length", "expected"), [(0, 4, b"0123"), (8, None, b"89"), (10, 1, b""), (3, 0, b"")]
)
def test_a_part_of_one_is_read(cloud, bucket, start, length, expected):
    cloud.put_any("/x/", b"0123456789")
    for content in (bucket.read("/x/", start, length), aread(bucket, "/x/", start=start, length=length)):
        assert (content.data, content.size) == (expected, 10)


def test_one_that_is_too_large_is_not_fetched(cloud, bucket):
    cloud.put_any("/x", b"12345")
    assert aread(bucket, "/x", max_bytes=5).data == b"12345"
    headers = {"Content-Length": "99999999999", "ETag": '"e"'}
    cloud.server.instead(Answer(200, b"only this", headers))
    with pytest.raises(BucketError, match="99,999,999,999 bytes") as caught:
        aread(bucket, "/x", max_bytes=10**9)
    assert caught.value.kind == "too_large"


def test_one_without_a_length_is_read_no_further_than_allowed(cloud, bucket):
    cloud.server.instead(Answer(200, b"0123456789", {"Transfer-Encoding": "chunked"}))
    with pytest.raises(BucketError) as caught:
        aread(bucket, "/x", max_bytes=4)
    assert caught.value.kind == "too_large"


def test_an_absent_one(cloud, bucket):
    assert bucket.read("/none/") is None
    with pytest.raises(BucketError) as caught:
        aread(bucket, "/none/")
    assert caught.value.kind == "no_such_object"


@pytest.mark.parametrize("key", ["/a", "a\x01"])
def test_throttling_is_waited_out(cloud, bucket, key):
    cloud.put_any(key, b"x")
    cloud.server.slow_down(times=2)
    assert bucket.read(key).data == b"x"
    cloud.server.cut(times=1)
    assert keys(bucket.entries(key)) == [key]
    cloud.server.slow_down(times=float("inf"))
    with pytest.raises(BucketError) as caught:
        bucket.read(key)
    assert caught.value.kind == "throttled"


@pytest.mark.parametrize("cache_control", ["", "no-transform"])
@pytest.mark.parametrize("key", ["packed.jpg", "/packed.jpg"])
def test_an_object_that_is_stored_packed_is_read_as_it_is_stored(cloud, bucket, key, cache_control):
    """GCS would unpack it on its way, and tell neither its size nor a part of it."""
    packed = gzip.compress(b"picture" * 999)
    cloud.put_any(key, packed, "gzip", **({"cache_control": cache_control} if cloud.scheme == "gs" else {}))
    [[entry]] = bucket.entries()
    for content in (bucket.read(key), aread(bucket, key, max_bytes=len(packed))):
        assert (content.data, content.size, content.encoding) == (packed, len(packed), "gzip")
        assert content.version == entry.version
    assert aread(bucket, key, length=5).data == packed[:5]
    with pytest.raises(BucketError) as caught:
        aread(bucket, key, max_bytes=len(packed) - 1)
    assert caught.value.kind == "too_large"


# -- addresses ---------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
PLACES = [lambda c: c + "a/b", lambda c: "a/b" + c, lambda c: f"a{c}b", lambda c: f"a/{c}/b", lambda c: c]


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_every_byte_at_every_place_of_a_key_survives_its_address(scheme):
    for character in [*map(chr, range(0x80)), "é", "e\u0301", "\u2028", "\u0085", "😀", "\ufeff", "\xa0"]:
        for place in PLACES:
            key = ObjectKey(scheme, "shop", place(character))
            assert parse_uri(str(key)) == key
            check_reference(str(key))


@given(TEXT.filter(bool))
def test_any_text_is_a_key(text):
    key = ObjectKey("s3", "shop", text)
    assert parse_uri(str(key)) == key


@settings(deadline=None, max_examples=40)
@given(text=TEXT.filter(bool))
def test_any_text_is_listed_and_read(s3_session, text):
    s3_session.put_any(text, b"x")
    bucket = s3_session.bucket()
    assert text in keys(bucket.entries(text))
    assert bucket.read(text).data == b"x"


@pytest.fixture(scope="module")
def s3_session(new_s3):
    return new_s3()


# -- authorization -----------------------------------------------------------------------------------------------------


def test_the_example_of_the_aws_documentation_is_signed_alike():
    """GET Bucket (List Objects) in "Signature Calculations for the Authorization Header"."""
    held = {
        "access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    }
    sign = signature_v4(Credentials(lambda: held), "us-east-1", lambda: datetime(2013, 5, 24, tzinfo=UTC))
    signed = sign("examplebucket.s3.amazonaws.com", "/", "max-keys=2&prefix=J")["authorization"]
    assert signed.endswith("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")


def test_credentials_are_asked_for_again_only_before_they_expire():
    asked = []

    def provide():
        asked.append(1)
        return {"token": "t", "expires_at": datetime.now(UTC).replace(year=9999 if len(asked) > 1 else 2000)}

    credentials = Credentials(provide)
    for _ in range(5):
        assert credentials.get()["token"] == "t"
    assert len(asked) == 2


def test_only_blocking_providers_are_asked():
    async def later():
        return {}

    assert inspect.iscoroutinefunction(later)
    assert can_ask(dict) and not can_ask(later) and not can_ask(None)


# -- without credentials that we know ---------------------------------------------------------------------------------


@pytest.fixture
def obstore_only(s3, monkeypatch):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3_bucket(s3.name)


def test_where_only_obstore_knows_the_credentials_odd_keys_are_refused_by_name(s3, obstore_only):
    s3.put_any("a.jpg", b"x")
    assert keys(obstore_only.entries()) == ["a.jpg"] and obstore_only.read("a.jpg").data == b"x"
    for key in ("/a.jpg", "a//b", "a\nb"):
        with pytest.raises(BucketError) as caught:
            obstore_only.read(key)
        assert caught.value.kind == "bad_key" and repr(f"{s3.uri}/{key}") in str(caught.value)
    s3.put_any("a//b", b"x")
    with pytest.raises(BucketError) as caught:
        keys(obstore_only.entries())
    assert caught.value.kind == "unsupported" and "'a//b'" in str(caught.value)
