"""An object store that sends a byte now and then, without an end: the request's timeout is that of the whole answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import BucketError
from airflow_provider_describer.storage import rest_client
from airflow_provider_describer.storage.bucket import Bucket
from airflow_provider_describer.storage.open_bucket import gcs_bucket, s3_bucket
from airflow_provider_describer.storage.rest_client import RetrySettings

if TYPE_CHECKING:
    from tests.conftest import Loopback, Visit

pytest.importorskip("obstore")
SOON: dict[str, Any] = {
    "anonymous": True,
    "client_options": {"timeout": "1s"},
    "retry": RetrySettings(retries=1, first=0.01, longest=0.01, in_all=1.0),
}
HEAD = b'HTTP/1.1 200 OK\r\netag: "0123"\r\nlast-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n'


async def drip_headers(visit: Visit) -> None:
    await visit.request()
    visit.writer.write(HEAD)
    while True:
        visit.writer.write(b"x-more: and more\r\n")
        await visit.writer.drain()
        await asyncio.sleep(0.05)


async def drip_body(visit: Visit) -> None:
    await visit.request()
    visit.writer.write(HEAD + b"content-length: 1000000\r\n\r\n")
    while True:
        visit.writer.write(b"x")
        await visit.writer.drain()
        await asyncio.sleep(0.05)


async def drip_without_length(visit: Visit) -> None:
    await visit.request()
    visit.writer.write(HEAD + b"\r\n<?xml version='1.0'?>")
    while True:
        visit.writer.write(b" ")
        await visit.writer.drain()
        await asyncio.sleep(0.05)


async def never_shake_hands(visit: Visit) -> None:
    # A handshake record of 16 KB that arrives a byte at a time.
    visit.writer.write(b"\x16\x03\x03\x40\x00\x02")
    while True:
        visit.writer.write(b"\x00")
        await visit.writer.drain()
        await asyncio.sleep(0.05)


DRIPS = (drip_headers, drip_body, drip_without_length, never_shake_hands)
READS = ("aread", "read", "entries", "odd key")


async def begin(bucket: Bucket, do: str) -> None:
    match do:
        case "aread":
            await bucket.aread("a.jpg", max_bytes=10_000_000)
        case "read":
            await asyncio.to_thread(bucket.read, "a.jpg")
        case "entries":
            await asyncio.to_thread(lambda: list(bucket.entries("a")))
        case "odd key":
            await asyncio.to_thread(bucket.read, "/a//b.jpg")
        case "put":
            await asyncio.to_thread(bucket.put, "a.jpg", b"picture")


@pytest.mark.parametrize(
    ("talk", "do"),
    # S3 says in its headers whether an object was written.
    [(drip_headers, "put"), *((talk, do) for talk in DRIPS for do in READS)],
)
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_store_that_drips_holds_nobody(
    loopback: type[Loopback], monkeypatch: pytest.MonkeyPatch, scheme: str, talk: Any, do: str
) -> None:
    monkeypatch.setattr(rest_client, "ANSWER_TIMEOUT_S", 1.0)

    async def scene() -> None:
        async with loopback(talk) as server:
            new = s3_bucket if scheme == "s3" else gcs_bucket
            url = server.url.replace("http:", "https:") if talk is never_shake_hands else server.url
            bucket = new("shop", endpoint=url, **SOON)
            with pytest.raises(BucketError):
                await begin(bucket, do)

    asyncio.run(asyncio.wait_for(scene(), 60))
