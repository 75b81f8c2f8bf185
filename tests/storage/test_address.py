"""Addresses as people write them; keys are taken as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.storage.address import (
    LocalFile,
    Location,
    ObjectKey,
    WebUrl,
    bucket_address,
    is_plain,
    just_before,
    parse_uri,
)


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://b/k", ("s3", "b", "k")),
        ("gs://b/a/b.jpg", ("gs", "b", "a/b.jpg")),
        ("S3://b/k", ("s3", "b", "k")),
        ("s3://b", ("s3", "b", "")),
        ("s3://b/", ("s3", "b", "")),
        ("s3://b//k/", ("s3", "b", "/k/")),
        ("s3://b/a b+c%20d#e?f=é&@:", ("s3", "b", "a b+c%20d#e?f=é&@:")),
        ("gs://b/x://y", ("gs", "b", "x://y")),
        ("s3://b/" + "k" * 1024, ("s3", "b", "k" * 1024)),
    ],
)
def test_an_address_is_taken_apart_and_put_together(uri, parts):
    address = bucket_address(uri)
    assert address == ObjectKey(*parts)
    assert bucket_address(str(address)) == address
    if parts[2]:
        assert str(address) == parts[0] + uri[2:]


@pytest.mark.parametrize("uri", ["", "a/b.jpg", "/s3/x", "https://s3.amazonaws.com/b/k", "file:///x", "s3:/b/k", "s3"])
def test_what_is_no_address_of_a_bucket(uri):
    assert bucket_address(uri) is None


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://", "names no bucket"),
        ("gs:///key", "names no bucket"),
        ("s3:// /key", "names no bucket"),
        ("gcs://b/k", "write gs://b/k instead"),
        ("s3a://b/k", "write s3://b/k instead"),
        ("s3://aws_default@b/k", "storage_conn_id"),
    ],
)
def test_an_address_that_cannot_be_says_what_to_write(uri, words):
    with pytest.raises(BadInput, match=words):
        bucket_address(uri)


def test_a_secret_in_an_address_is_not_repeated():
    with pytest.raises(BadInput) as caught:
        bucket_address("s3://AKIAKEY:secret@b/k")
    assert "secret" not in str(caught.value) and "s3://b/k" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "plain"),
    [("a", True), ("a/b.jpg", True), (".a/..b/...", True), ("", False), ("a/", False), ("/a", False), ("a/./b", False)],
)
def test_plain_keys(key, plain):
    assert is_plain(key) is plain


@pytest.mark.parametrize(
    "prefix", ["a", "a/b", "a/0", "0", " ", "a/ ", "!", "é", "\ue000", "\x80", "a/.", "日本", "\U0001f600"]
)
def test_just_before_a_prefix_lies_before_it_and_can_be_asked_for(prefix):
    """By the order of bytes, in which both stores list."""
    before = just_before(prefix)
    assert before is None or before.encode() < prefix.encode()
    assert before is None or is_plain(before)


@pytest.mark.parametrize(
    ("uri", "location", "name"),
    [
        ("a?b.jpg", LocalFile("a?b.jpg", Path("a?b.jpg")), "a?b.jpg"),
        ("FILE:///a%20b.jpg", LocalFile("FILE:///a%20b.jpg", Path("/a b.jpg")), "FILE:///a%20b.jpg"),
        ("https://x.example/a?sig=hush", WebUrl("https://x.example/a?sig=hush"), "https://x.example/a?…"),
        ("gs://b/a?b.jpg", ObjectKey("gs", "b", "a?b.jpg"), "gs://b/a?b.jpg"),
    ],
)
def test_a_uri_is_parsed_and_shown_without_secrets(uri: str, location: Location, name: str) -> None:
    assert parse_uri(uri) == location
    assert str(location) == name


@pytest.mark.parametrize("uri", ["ftp://x/a.jpg", "s3://", "gcs://b/k", "file://host/a.jpg", "https://x:99999/a.jpg"])
def test_a_uri_that_can_never_be_read_is_refused(uri: str) -> None:
    with pytest.raises(BadInput):
        parse_uri(uri)
