"""From a connection to its document: one for each account, the same for all of its tasks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.errors import BadConnection
from airflow_provider_describer.quota.document import document_name, open_limits_document
from airflow_provider_describer.quota.shared import open_quota
from airflow_provider_describer.storage.cas_document import BucketDocument, LocalDocument
from airflow_provider_describer.storage.redis_document import RedisDocument
from airflow_provider_describer.vendors import get_vendor

names = st.text(min_size=1, max_size=300)


@pytest.fixture
def account() -> Account:
    return account_from_connection(get_vendor("segmind").defaults(), conn_id="segmind_default", password="key-123")


@given(st.tuples(names, names), st.tuples(names, names))
def test_each_account_has_a_file_of_its_own_with_a_valid_name(one, other):
    for name in (document_name(*one), document_name(*other)):
        assert len(name.encode()) <= 220 and "/" not in name and not name.startswith(".") and name.isprintable()
    if one != other and "-" not in "".join(one + other):
        assert document_name(*one) != document_name(*other)


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_local_folder(account, tmp_path, prefix):
    document = open_limits_document(replace(account, limits_path=f"{prefix}{tmp_path}/limits"))
    assert isinstance(document, LocalDocument)
    assert document.where == str(tmp_path / "limits" / "segmind--segmind_default.limits.json")


@pytest.mark.parametrize(("path", "key"), [("s3://b/a b/limits/", "a b/limits/"), ("s3://b", ""), ("s3://b/", "")])
def test_a_bucket(account, bucket, path, key):
    asked = []

    def opens(scheme, name):
        asked.append((scheme, name))
        return bucket

    document = open_limits_document(replace(account, limits_path=path), opens)
    assert isinstance(document, BucketDocument) and asked == [("s3", "b")]
    assert document.where == f"s3://bucket/{key}segmind--segmind_default.limits.json"


@pytest.mark.parametrize(
    "path",
    [
        "limits",
        "./limits",
        "~/limits",
        "s3a://b/limits",
        "s3://",
        "ftp://b/x",
        "s3://b/limits",
        "redis://",
        "redis:/h/0",
    ],
)
def test_a_path_that_cannot_be_shared_is_refused(account, path):
    with pytest.raises(BadConnection, match=r"'segmind_default': limits_path .*Admin > Connections"):
        open_limits_document(replace(account, limits_path=path))


@pytest.mark.parametrize("path", ["ftp://b/x", "limits"])
def test_the_error_names_every_scheme(account, path):
    with pytest.raises(BadConnection, match=r"file://, s3://, redis://, rediss:// or gs://"):
        open_limits_document(replace(account, limits_path=path))


def test_a_redis(account):
    document = open_limits_document(replace(account, limits_path="rediss://user:pass-w0rd@cache:7000/3"))
    assert isinstance(document, RedisDocument)
    key = "airflow-provider-describer:segmind--segmind_default.limits.json"
    assert document.where == f"rediss://cache:7000/3 (key {key!r})"


def test_an_account_without_limits_has_permits_for_all(account):
    async def use():
        async with open_quota(account) as limits:
            permits = [await limits.acquire() for _ in range(1000)]
            assert all(limits.is_valid(permit) for permit in permits)

    asyncio.run(use())


def test_the_document_does_not_contain_the_key(account, tmp_path):
    async def use():
        limited = replace(account, limits_path=str(tmp_path), max_cost_per_day=1.0, requests_per_minute=600.0)
        async with open_quota(limited) as limits:
            limits.settle(await limits.acquire(), 0.015)

    asyncio.run(use())
    (file,) = [entry for entry in Path(tmp_path).iterdir() if not entry.name.startswith(".")]
    assert file.name == "segmind--segmind_default.limits.json"
    assert b"key-123" not in file.read_bytes()
