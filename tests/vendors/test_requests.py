"""What every vendor's requests have in common: where the key goes, what is billed, what is hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from airflow_provider_describer.account import Account
from airflow_provider_describer.models import Picture, Running, Spec
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Request

if TYPE_CHECKING:
    from tests.vendors.conftest import Reader

JPEG = b"\xff\xd8\xff\xe0\r\n--\r\n\x00" + bytes(range(256)) + b"\r\n"
SIGNED = "https://bucket.example.com/a%20b.jpg?X-Amz-Signature=s3cr3t&name=mug"
PICTURES = {
    "file": Picture("image/jpeg", content=JPEG, filename="mug.jpg"),
    "inline": Picture("image/png", content=JPEG, inline=True),
    "url": Picture("image/jpeg", url=SIGNED),
}
HOSTILE_IDS = [
    "../../x?y",
    "..",
    ".",
    "/etc",
    "a#b",
    "a?b=c",
    "a%2fb",
    "@evil.example.com",
    "\\\\evil",
    "ü\r\nX: y",
    " ",
]


def requests_of(reader: Reader, spec: Spec, request_id: str = "8f2d") -> Iterator[Request]:
    """Every request that this vendor can build."""
    vendor, account = reader.vendor, reader.account
    yield vendor.build_check(account)
    for picture in PICTURES.values():
        yield vendor.build_request(account, spec, picture)
    if "poll" in reader.operations:
        for status in ("QUEUED", "COMPLETED"):
            yield vendor.build_poll(account, Running(request_id, 0.0, status))
    if "upload" in reader.operations:
        yield vendor.build_upload(account, PICTURES["file"])
    if "credits" in reader.operations:
        yield vendor.build_credits(account)


@pytest.mark.parametrize("request_id", HOSTILE_IDS)
def test_the_key_travels_only_to_the_hosts_of_the_account(
    reader: Reader, spec: Callable[[Vendor], Spec], key: str, request_id: str
) -> None:
    account = replace(reader.account, base_url="https://a.example.com/base", storage_url="https://b.example.com")
    of_this = replace(reader, account=account)
    for request in requests_of(of_this, spec(reader.vendor), request_id):
        url = urlsplit(request.url)
        assert (url.scheme, url.netloc) in (("https", "a.example.com"), ("https", "b.example.com"))
        assert url.netloc == "b.example.com" or url.path.startswith("/base/")
        assert ".." not in url.path.split("/") and not url.query and not url.fragment
        assert url.geturl().isascii() and url.geturl().isprintable() and " " not in url.geturl()
        assert key not in request.url


def test_every_request_carries_the_key_in_one_header_and_names_it_as_a_secret(
    reader: Reader, spec: Callable[[Vendor], Spec], key: str
) -> None:
    for request in requests_of(reader, spec(reader.vendor)):
        assert [key in value for value in request.headers.values()].count(True) == 1
        assert request.secrets[0] == key
        assert len(request.secrets) == 1 or b"s3cr3t" in b"".join(request.body)
        assert key.encode() not in b"".join(request.body)
        assert all(name == name.lower() and value.isascii() for name, value in request.headers.items())


def test_neither_key_nor_image_nor_signed_url_is_in_a_repr(
    reader: Reader, spec: Callable[[Vendor], Spec], key: str
) -> None:
    shown = repr([*requests_of(reader, spec(reader.vendor)), reader.account, *PICTURES.values()])
    assert [secret for secret in (key, "s3cr3t", "X-Amz", "\\xff\\xd8", "/9j/") if secret in shown] == []


def test_only_the_call_itself_is_billable(reader: Reader, spec: Callable[[Vendor], Spec]) -> None:
    billable = [request for request in requests_of(reader, spec(reader.vendor)) if request.billable]
    assert len(billable) == len(PICTURES)
    assert {request.method for request in billable} == {"POST"}
    assert not reader.vendor.build_check(reader.account).billable


def test_the_check_carries_no_image(reader: Reader) -> None:
    request = reader.vendor.build_check(reader.account)
    body = b"".join(request.body)
    assert b"image" not in body and b"http" not in body and b"base64" not in body
    assert len(body) < 1000


def test_the_same_call_is_the_same_bytes(reader: Reader, spec: Callable[[Vendor], Spec]) -> None:
    first, second = (list(requests_of(reader, spec(reader.vendor))) for _ in range(2))
    assert first == second


def test_image_bytes_are_passed_on_and_not_copied(reader: Reader, spec: Callable[[Vendor], Spec]) -> None:
    picture = PICTURES["file"]
    if "file" in reader.vendor.transports:
        request = reader.vendor.build_request(reader.account, spec(reader.vendor), picture)
        assert sum(part is picture.content for part in request.body) == 1
    else:
        assert set(reader.vendor.transports) <= {"upload", "inline"}


def test_a_connection_host_takes_everything(
    reader: Reader, spec: Callable[[Vendor], Spec], account: Callable[..., Account]
) -> None:
    local = "http://127.0.0.1:8901"
    own = replace(reader, account=replace(reader.account, base_url=local, storage_url=local))
    assert all(request.url.startswith(f"{local}/") for request in requests_of(own, spec(reader.vendor)))
    vendors_own = {urlsplit(url).netloc for url in (reader.vendor.base_url, reader.vendor.storage_url)}
    plain = replace(reader, account=account(reader.vendor))
    assert {urlsplit(request.url).netloc for request in requests_of(plain, spec(reader.vendor))} <= vendors_own
