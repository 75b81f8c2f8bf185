"""Which stores may be shown: what the setting names and nothing beside it, however an address is spelled."""

from __future__ import annotations

import pytest

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.gallery.stores import StoreEntry, StoreNotNamed, parse_stores, stores_below


def test_entries_are_separated_by_commas_or_lines():
    named = parse_stores("/data/shop, s3://bucket/shop aws_shop\n\n gs://art/stores/* ,")
    assert named.entries == (
        StoreEntry("/data/shop"),
        StoreEntry("s3://bucket/shop", "aws_shop"),
        StoreEntry("gs://art/stores", is_prefix=True),
    )
    assert parse_stores(" \n").entries == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data/shop", "entry 1 ('data/shop')"),
        ("/data/a, ftp://host/a", "entry 2 ('ftp://host/a')"),
        ("https://host/a", "absolute"),
        ("/data/a conn another", "3 words"),
        ("/*", "every folder of this machine"),
        ("/data/*/b", "at the end only"),
        ("s3://b/**", "at the end only"),
        ("s3://b/a/../c", "'.' or '..'"),
        ("s3://", "names no bucket"),
        ("s3a://bucket/a", "write s3://"),
    ],
)
def test_an_entry_that_cannot_work_is_named(text, said):
    with pytest.raises(BadInput, match="stores") as caught:
        parse_stores(text)
    assert said in str(caught.value)


def test_a_secret_in_an_entry_is_not_shown():
    with pytest.raises(BadInput) as caught:
        parse_stores("s3://AKIA:hushhush@bucket/shop")
    assert "hushhush" not in str(caught.value)


NAMED = parse_stores("/data/shop, /data/stores/* , s3://b/stores/* aws, s3://b/stores/own other, gs://art/*")


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("/data/shop", StoreEntry("/data/shop")),
        ("/data/shop/", StoreEntry("/data/shop")),
        ("file:///data/shop", StoreEntry("/data/shop")),
        ("/data/stores/a", StoreEntry("/data/stores/a")),
        ("/data//stores/./a", StoreEntry("/data/stores/a")),
        ("/data/stores/a/b c", StoreEntry("/data/stores/a/b c")),
        ("s3://b/stores/x/", StoreEntry("s3://b/stores/x", "aws")),
        ("s3://b/stores/own", StoreEntry("s3://b/stores/own", "other")),
        ("gs://art/x", StoreEntry("gs://art/x")),
    ],
)
def test_a_named_store_is_found_with_its_connection(address, found):
    assert NAMED.find(address) == found


HOSTILE = [
    "",
    "/",
    "/data",
    "/data/stores",
    "/data/stores/",
    "/data/stores/*",
    "/data/stores-secret",
    "/data/stores-secret/a",
    "/data/shop/inner",
    "/data/shopping",
    "/data/stores/../secret",
    "/data/stores/a/../../secret",
    "/data/shop/../shop",
    "/data/stores/%2e%2e/secret",
    "file:///data/stores/%2e%2e/secret",
    "file:///data/stores/a%2f..%2f..%2fsecret",
    "file://host/data/stores/a",
    "/data/stores/a\0",
    "/data/stores/..\\secret",
    "/data/stores/\\..\\secret",
    "/data/stores/a\n",
    "data/stores/a",
    "~/a",
    "s3://b",
    "s3://b/stores",
    "s3://b/stores/",
    "s3://b/stores-secret",
    "s3://b/stores//a",
    "s3://b/stores/../secret",
    "s3://b/stores/%2e%2e/secret",
    "s3://b/stores/a?versionId=1",
    "s3://b/stores/a#x",
    "s3://other/stores/a",
    "s3://b@other/stores/a",
    "s3a://b/stores/a",
    "gs://b/stores/a",
    "gs://art",
    "gs://art/",
    "https://b/stores/a",
    "/data/stores/" + "a" * 3000,
    "/data/stores/\ud800",
    None,
    7,
]


@pytest.mark.parametrize("address", HOSTILE)
def test_no_other_address_is_found(address):
    with pytest.raises(StoreNotNamed) as caught:
        NAMED.find(address)
    assert caught.value.kind == "store_not_named"
    assert len(str(caught.value)) < 500


@pytest.fixture
def stores(tmp_path):
    """A prefix with two stores, a folder that is none, and ways out of it."""
    for name in ("stores/b/journal", "stores/a/descriptions.lance", "stores/none/data", "secret/journal"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "stores/file").write_text("")
    (tmp_path / "stores/out").symlink_to(tmp_path / "secret")
    (tmp_path / "stores/again").symlink_to(tmp_path / "stores/a")
    return parse_stores(f"{tmp_path}/stores/*, {tmp_path}/own")


def test_a_symbolic_link_out_of_a_prefix_is_not_found(stores, tmp_path):
    for address in (f"{tmp_path}/stores/out", f"{tmp_path}/stores/out/inner"):
        with pytest.raises(StoreNotNamed):
            stores.find(address)
    assert stores.find(f"{tmp_path}/stores/again").address == f"{tmp_path}/stores/again"


def test_a_prefix_that_is_a_link_itself_is_followed(stores, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "stores")
    named = parse_stores(f"{tmp_path}/link/*")
    assert named.find(f"{tmp_path}/link/a").address == f"{tmp_path}/link/a"
    with pytest.raises(StoreNotNamed):
        named.find(f"{tmp_path}/stores/a")


def test_the_stores_below_a_local_prefix_are_listed(stores, tmp_path):
    found = stores.addresses(lambda entry: stores_below(entry, open_bucket=lambda scheme, name: pytest.fail("opened")))
    assert found == [*(f"{tmp_path}/stores/{name}" for name in ("a", "again", "b")), f"{tmp_path}/own"]
    assert (
        stores_below(StoreEntry(f"{tmp_path}/missing", is_prefix=True), lambda scheme, name: pytest.fail("opened"))
        == []
    )


def test_the_stores_below_a_prefix_in_a_bucket_are_listed(cloud):
    for key in ("s/b/journal/1.jsonl", "s/a/descriptions.lance/_versions/1", "s/none/x", "s/file", "other/journal/1"):
        cloud.bucket().put(key, b"x")
    entry = StoreEntry(f"{cloud.uri}/s", is_prefix=True)
    assert stores_below(entry, cloud.open_bucket) == [f"{cloud.uri}/s/a", f"{cloud.uri}/s/b"]
    assert stores_below(StoreEntry(cloud.uri, is_prefix=True), cloud.open_bucket) == [f"{cloud.uri}/other"]
