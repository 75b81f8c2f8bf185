"""Which images a row may lead to: those that are allowed, and no other one, however its uri is spelled."""

from __future__ import annotations

import pytest

from airflow_provider_describer.errors import BadInput, RejectedImage
from airflow_provider_describer.gallery.allowed import NotAllowed, WebTrust, parse_allowed
from airflow_provider_describer.gallery.stores import StoreEntry
from airflow_provider_describer.storage.address import LocalFile

BUCKET = StoreEntry("s3://shop/stores/a", "aws_shop")
LOCAL = StoreEntry("/data/store")


def test_an_image_in_the_stores_own_bucket_is_read_with_its_connection():
    place = parse_allowed("").place("s3://shop/images/a b%2F.jpg", BUCKET)
    assert (str(place.location), place.conn_id) == ("s3://shop/images/a b%2F.jpg", "aws_shop")


@pytest.mark.parametrize(
    ("uri", "conn_id"),
    [
        ("s3://other/public/a.jpg", "aws_other"),
        ("s3://more/a.jpg", "aws_shop"),
        ("gs://art/images/x/y.jpg", "aws_shop"),
        ("https://img.example.com/shop/a.jpg", None),
        ("https://IMG.example.com:443/shop/a%20b.jpg", None),
    ],
)
def test_an_image_below_a_prefix_is_allowed(uri, conn_id):
    allowed = parse_allowed(
        "s3://other/public/ aws_other, s3://more/*\ngs://art/images, https://img.example.com/shop/*, /data/images"
    )
    assert allowed.place(uri, BUCKET).conn_id == conn_id


ALLOWED = parse_allowed("s3://other/public, https://img.example.com/shop, https://bare.example.com")


@pytest.mark.parametrize(
    "uri",
    [
        None,
        7,
        "",
        "s3://shop",
        "s3://shop/",
        "s3://shop/images/../../other/secret",
        "s3://shop/./a.jpg",
        "s3://shop-secret/a.jpg",
        "gs://shop/a.jpg",
        "s3://other/secret.jpg",
        "s3://other/public-secret/a.jpg",
        "s3://other/public/../secret.jpg",
        "s3://user@shop/a.jpg",
        "s3a://shop/a.jpg",
        "http://img.example.com/shop/a.jpg",
        "https://img.example.com/shop",
        "https://img.example.com/shop/",
        "https://img.example.com/shopping/a.jpg",
        "https://img.example.com/a.jpg",
        "https://img.example.com/shop/../a.jpg",
        "https://img.example.com/shop/%2e%2e/a.jpg",
        "https://img.example.com/shop/%2E./a.jpg",
        "https://img.example.com/shop/..%2fa.jpg",
        "https://img.example.com/shop/..%5ca.jpg",
        "https://img.example.com/shop\\..\\a.jpg",
        "https://img.example.com:8443/shop/a.jpg",
        "https://img.example.com@evil.example/shop/a.jpg",
        "https://user:hush@img.example.com/shop/a.jpg",
        "https://img.example.com.evil.example/shop/a.jpg",
        "https://evil.example/?https://img.example.com/shop/a.jpg",
        "https://img.example.com/shop/a.jpg?…",
        "https://169.254.169.254/latest/meta-data",
        "ftp://img.example.com/shop/a.jpg",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "/etc/passwd",
        "file:///etc/passwd",
        "file://img.example.com/shop/a.jpg",
        "../images/a.jpg",
        "~/a.jpg",
        "/data/store/results/a.jpg",
        "\0",
        "s3://shop/" + "a" * 5000,
    ],
)
@pytest.mark.parametrize("store", [BUCKET, LOCAL])
def test_no_other_uri_is_read(uri, store):
    with pytest.raises(NotAllowed) as caught:
        ALLOWED.place(uri, store)
    assert "hush" not in str(caught.value)


def test_a_local_store_allows_no_file_by_itself():
    with pytest.raises(NotAllowed):
        parse_allowed("").place("/data/store/a.jpg", LOCAL)


def test_files_are_below_a_folder_once_links_are_followed(tmp_path):
    for name in ("images", "images-secret", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"x")
    (tmp_path / "images" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "images" / "file.jpg").symlink_to(tmp_path / "secret" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    allowed = parse_allowed(f"{tmp_path}/link")
    for good in ("images/a.jpg", "link/a.jpg", "images/../images/a.jpg"):
        for uri in (f"{tmp_path}/{good}", f"file://{tmp_path}/{good}"):
            location = allowed.place(uri, LOCAL).location
            assert isinstance(location, LocalFile) and location.path.read_bytes() == b"x"
    for bad in (
        "images-secret/a.jpg",
        "images/../secret/a.jpg",
        "images/%2e%2e/secret/a.jpg",
        "images/out/a.jpg",
        "images/file.jpg",
        "link/out/a.jpg",
        "images/out/../secret/a.jpg",
    ):
        with pytest.raises(NotAllowed):
            allowed.place(f"file://{tmp_path}/{bad}", LOCAL)


def test_a_redirect_stays_below_the_prefixes_and_on_public_hosts():
    trust = WebTrust("s3://nothing/", False, ("https://img.example.com/shop", "https://127.0.0.1"))
    trust.check_web("https://img.example.com/shop/a.jpg")
    for url, kind in {
        "https://img.example.com/other/a.jpg": "not_allowed",
        "http://img.example.com/shop/a.jpg": "not_allowed",
        "https://127.0.0.1/a.jpg": "forbidden_address",
    }.items():
        with pytest.raises(RejectedImage) as caught:
            trust.check_web(url, "the image")
        assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/", "every file"),
        ("/*", "every file"),
        ("images", "absolute"),
        ("http://img.example.com/", "https"),
        ("https://", "https"),
        ("https://user:hush@img.example.com/", "https"),
        ("https://img.example.com/a/../b", "https"),
        ("s3://b/a/../c", "'.' or '..'"),
        ("/data/images conn more", "3 words"),
    ],
)
def test_an_entry_that_cannot_work_is_named(text, said):
    with pytest.raises(BadInput, match="images, entry 1") as caught:
        parse_allowed(text)
    assert said in str(caught.value) and "hush" not in str(caught.value)
