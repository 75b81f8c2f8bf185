"""Objects of either cloud, as a reader finds them, and what signs their addresses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.engine.identify import identify
from airflow_provider_describer.engine.plan import IdentifiedImage
from airflow_provider_describer.errors import DescriberError
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.images.prepare import PreparedImage, Transport, choose_transport, prepare
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.storage.address import parse_uri
from airflow_provider_describer.storage.bucket import Bucket, Signed, Signer
from airflow_provider_describer.vendors import get_vendor

if TYPE_CHECKING:
    from clouds import Cloud
    from loopback import LoopbackServer

WAYS = {"file": "image_describer", "inline": "segmind", "url": "segmind"}
"""By ``url`` an object's first bytes are looked at; otherwise all of it is read. And a vendor that takes it so."""
LOCAL = "http://127.0.0.1:9"
"""A vendor within this network, which could fetch from here."""


@pytest.fixture
def signer(cloud: Cloud) -> Signer:
    """What signs addresses of the bucket, as the cloud's own library does."""
    if cloud.scheme == "s3":
        obstore = pytest.importorskip("obstore")
        store = cloud.bucket()._store

        def sign(key: str, seconds: float) -> str:
            url: str = obstore.sign(store, "GET", key, timedelta(seconds=seconds))
            return url

    else:
        storage = pytest.importorskip("google.cloud.storage")
        account = pytest.importorskip("google.oauth2.service_account")
        key_file = cloud.server.access.key_file  # type: ignore[attr-defined]  # which the fake GCS has
        credentials = account.Credentials.from_service_account_info(key_file)
        blobs = storage.Client("shop", credentials).bucket(cloud.name)

        def sign(key: str, seconds: float) -> str:
            url: str = blobs.blob(key).generate_signed_url(
                timedelta(seconds=seconds), version="v4", api_access_endpoint=cloud.server.url
            )
            return url

    return lambda key, seconds: Signed(sign(key, seconds), time.time() + seconds)


@dataclass
class Objects:
    """The objects of a bucket, which an image describer's account of the test's choice is about to be shown."""

    cloud: Cloud

    @property
    def server(self) -> LoopbackServer:
        return self.cloud.server

    def uri(self, key: str) -> str:
        return f"{self.cloud.uri}/{key}"

    def put(self, key: str, content: bytes) -> str:
        """Write an object, and return its version as a listing tells it; no request is remembered."""
        self.cloud.bucket().put(key, content)
        version = self.version(key)
        self.cloud.server.reset()
        return version

    def version(self, key: str) -> str:
        [entry] = [entry for page in self.cloud.bucket().entries(key) for entry in page]
        assert entry.version
        return entry.version

    def opener(self, signer: Signer | None = None) -> Callable[..., Bucket]:
        return lambda scheme, name: self.cloud.bucket(name, signer=signer)

    def request(
        self, uri: str, version: str | None = None, max_pixels: int | None = None, way: str = "file"
    ) -> DescribeRequest:
        (request,) = parse_images([{"uri": uri, "version": version}], get_vendor(WAYS[way]), max_pixels=max_pixels)
        return request

    def account(self, way: str = "file", vendor: str | None = None, host: str | None = LOCAL) -> Account:
        defaults, extra = get_vendor(vendor or WAYS[way]).defaults(), {"image_transport": way}
        return account_from_connection(defaults, conn_id="shop", password="sk-secret", host=host, extra=extra)

    def with_reader(self, act: Callable[[Reader], Coroutine[Any, Any, Any]], signer: Signer | None = None) -> Any:
        """What comes of it; an error of ours is returned."""

        async def scene() -> Any:
            async with AsyncClient(timeout=5) as client:
                try:
                    return await act(Reader(client, open_bucket=self.opener(signer)))
                except DescriberError as error:
                    return error

        return asyncio.run(scene())

    def prepared(
        self, key: str, way: str = "file", *, signer: Signer | None = None, uri: str | None = None, **about: Any
    ) -> PreparedImage | DescriberError:
        paid_by = self.account(way)
        request, vendor = self.request(uri or self.uri(key), way=way, **about), get_vendor(paid_by.vendor)
        found: PreparedImage | DescriberError = self.with_reader(
            lambda reader: prepare(reader, vendor, paid_by, request), signer
        )
        return found

    def identified(self, *requests: DescribeRequest) -> list[IdentifiedImage]:
        paid_by = self.account()
        vendor = get_vendor(paid_by.vendor)
        found = self.with_reader(lambda reader: identify(reader, vendor, paid_by, requests))
        if isinstance(found, DescriberError):
            raise found
        return list(found)

    def transport(
        self, way: str, vendor: str, *, signer: Signer | None = None, scaled: bool = False, host: str | None = LOCAL
    ) -> Transport | DescriberError:
        paid_by, location = self.account(way, vendor, host), parse_uri(self.uri("a.jpg"))

        async def choose(reader: Reader) -> Transport:
            visibility = await asyncio.to_thread(reader.visibility, location)
            return choose_transport(get_vendor(vendor), paid_by, location, visibility, scaled=scaled)

        found: Transport | DescriberError = self.with_reader(choose, signer)
        return found


@pytest.fixture
def objects(cloud: Cloud) -> Objects:
    return Objects(cloud)
