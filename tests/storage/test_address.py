"""Addresses as people write them; keys are taken as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.storage.address import (
    LocalFile,
    Location,
    ObjectKey,
    WebUrl,
    bucket_address,
    check_reference,
    is_plain,
    just_before,
    masked,
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


@pytest.mark.parametrize(
    ("uri", "sent"),
    [
        ("http://h/a b.jpg", "http://h/a%20b.jpg"),
        ("http://h/a%20b.jpg", "http://h/a%20b.jpg"),
        ("http://h/a%20b c.jpg", "http://h/a%20b%20c.jpg"),
        ("http://h/50%.jpg", "http://h/50%.jpg"),
        ("http://h/é.jpg", "http://h/%C3%A9.jpg"),
        ("http://h/日本/a.jpg", "http://h/%E6%97%A5%E6%9C%AC/a.jpg"),
        ('http://h/a|b"c<d>e^f`g{h}.jpg', "http://h/a%7Cb%22c%3Cd%3Ee%5Ef%60g%7Bh%7D.jpg"),
        ('http://h/a?q=x y|z&é="', "http://h/a?q=x%20y%7Cz&%C3%A9=%22"),
        ("http://h/a?q=a\\b", "http://h/a?q=a%5Cb"),
        ("http://h?q=x y", "http://h?q=x%20y"),
        ("http://h/a.jpg#x y", "http://h/a.jpg#x%20y"),
        (
            "https://b.example/k?X-Amz-Signature=ab%2Fc&d=e+f/g==",
            "https://b.example/k?X-Amz-Signature=ab%2Fc&d=e+f/g==",
        ),
        ("http://h/~a/(b)!$&'*+,;=:@[c]-._.jpg", "http://h/~a/(b)!$&'*+,;=:@[c]-._.jpg"),
        ("http://u ser:p@h:81/a b", "http://u%20ser:p@h:81/a%20b"),
        ("http://[::1]:81/a b", "http://[::1]:81/a%20b"),
        ("HTTP://H/a b.jpg", "http://H/a%20b.jpg"),
        ("HTTPS://H/a.jpg", "https://H/a.jpg"),
        ("http://bücher.example/ü.jpg", "http://bücher.example/%C3%BC.jpg"),
    ],
)
def test_a_web_address_is_encoded_as_browsers_do_it_and_only_once(uri: str, sent: str) -> None:
    assert parse_uri(uri) == WebUrl(sent)
    assert parse_uri(sent) == WebUrl(sent)


@given(path=st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\")))
def test_what_is_sent_is_encoded_once(path: str) -> None:
    found = parse_uri(f"https://h.example/{path}")
    assert isinstance(found, WebUrl) and found.url.isascii() and " " not in found.url
    assert parse_uri(found.url) == found


BAD_BUCKETS = ["a b", "shop!", "é", "a:b", "a%20b", "a?b", "a#b", "a\\b", " shop", "shop\n", "\0"]


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http:/h/a.jpg", "after http: come // (two slashes)"),
        ("http:h/a.jpg", "after http: come // (two slashes)"),
        ("HTTPS:\\\\h\\a.jpg", "after HTTPS: come // (two slashes)"),
        ("s3:/b/k", "after s3: come // (two slashes)"),
        ("file:/data/a.jpg", "after file: come /// (three slashes)"),
        ("http:///a.jpg", "it names no host"),
        ("http://", "it names no host"),
        ("http://:80/a.jpg", "it names no host"),
        ("http://h\\a.jpg", "it has a backslash"),
        ("http://h/a\\b.jpg", "it has a backslash"),
        ("http://h/a\tb.jpg", "it has a control character"),
        ("http://h/a\nb.jpg", "it has a control character"),
        ("http://h/\udcff.jpg", "it has half a character"),
        ("http://h:0/a.jpg", "no server has the port 0"),
        ("http://h:70000/a.jpg", "Port out of range"),
        ("http://h:x/a.jpg", "Port could not be cast"),
        ("http://[::1/a.jpg", "Invalid IPv6 URL"),
        ("http://a b.example/c.jpg", "its host has a character that no host has"),
        ("ftp://h/a.jpg", "not ftp://"),
        ("ftp:/h/a.jpg", "after ftp: come // (two slashes)"),
        ("sftp://h/a.jpg", "not sftp://"),
        ("azure://h/a.jpg", "not azure://"),
        ("data:image/png;base64,iVBORw0KGgo=", "an image within its address (data:) is not read"),
        ("~/a.jpg", "'~' is not replaced by a home folder"),
        ("file://data/a.jpg", "three slashes"),
        *((f"s3://{name}/a.jpg", "names of buckets have letters") for name in BAD_BUCKETS),
        *((f"gs://{name}/a.jpg", "names of buckets have letters") for name in BAD_BUCKETS),
    ],
)
def test_what_is_no_reference_is_refused_for_its_true_reason(uri: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_reference(uri)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "http",
        "https.jpg",
        "s3:notes.jpg",
        "./http:x.jpg",
        "/data/http:/x.jpg",
        "C:\\a.jpg",
        "a~b.jpg",
        "~a/b.jpg",
        "//h/a",
    ],
)
def test_a_file_may_have_such_a_name(uri: str) -> None:
    check_reference(uri)
    assert parse_uri(uri) == LocalFile(uri, Path(uri))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http:/u:hush@h/a.jpg?sig=hush", "http:/h/a.jpg?…"),
        ("https:h/a.jpg?sig=hush#hush", "https:h/a.jpg?…"),
        ("https://u:hush@h/a@b.jpg?sig=hush", "https://h/a@b.jpg?…"),
        ("HTTPS://h/a.jpg#hush", "HTTPS://h/a.jpg"),
        ("ftp://u:hush@h/a.jpg?sig=hush", "ftp://h/a.jpg?…"),
        ("/data/a?b#c@d.jpg", "/data/a?b#c@d.jpg"),
        ("s3://b/a?b#c@d.jpg", "s3://b/a?b#c@d.jpg"),
    ],
)
def test_no_secret_of_an_address_is_shown(uri: str, shown: str) -> None:
    assert masked(uri) == shown
