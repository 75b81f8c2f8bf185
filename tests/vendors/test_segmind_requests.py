"""Segmind's JSON bodies and addresses, read back by the standard library."""

from __future__ import annotations

import base64
import json
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.models import Picture, Running
from airflow_provider_describer.vendors import get_vendor

VENDOR = get_vendor("segmind")
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))
URL = 'https://bucket.example.com/a b.jpg?X-Amz-Signature=s3cr3t&x="\\ü'


def account(**extra: str) -> Account:
    return account_from_connection(VENDOR.defaults(), conn_id="shop", password="key-1", extra=extra)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_call_goes_where_the_documentation_says(version: str) -> None:
    request = VENDOR.build_request(account(api_version=version), VENDOR.spec(), Picture("image/jpeg", url=URL))
    assert (request.method, request.url) == ("POST", f"https://api.segmind.com/{version}/ideogram-describe")
    assert request.headers["x-api-key"] == "key-1"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(b"".join(request.body)) == {"image_file": URL}
    assert request.billable


@pytest.mark.parametrize("media_type", sorted(VENDOR.media_types))
@given(content=st.binary(max_size=300))
def test_image_bytes_are_a_data_uri(media_type: str, content: bytes) -> None:
    picture = Picture(media_type, content=content, inline=True)
    request = VENDOR.build_request(account(), VENDOR.spec(), picture)
    head, _, data = json.loads(b"".join(request.body))["image_file"].partition(",")
    assert head == f"data:{media_type};base64"
    assert base64.b64decode(data, validate=True) == content


def test_an_upload_goes_to_the_storage_with_one_data_uri() -> None:
    request = VENDOR.build_upload(account(), Picture("image/png", content=JPEG))
    assert (request.method, request.url) == ("POST", "https://workflows-api.segmind.com/upload-asset")
    body = json.loads(b"".join(request.body))
    assert list(body) == ["data_urls"]
    assert body["data_urls"] == ["data:image/png;base64," + base64.b64encode(JPEG).decode()]
    assert request.headers == {"x-api-key": "key-1", "accept": "application/json", "content-type": "application/json"}
    assert len(request.body) == 3, "sent in parts that are not joined"
    assert not request.billable


def test_the_storage_host_is_the_accounts_own() -> None:
    own = account(storage_host="https://storage.example.com/x/")
    assert VENDOR.build_upload(own, Picture("image/png", content=JPEG)).url == (
        "https://storage.example.com/x/upload-asset"
    )
    assert VENDOR.build_credits(own).url == "https://api.segmind.com/v1/get-user-credits"


@pytest.mark.parametrize(
    ("status", "path"),
    [
        ("QUEUED", "/v2/requests/8f2d/status"),
        ("PROCESSING", "/v2/requests/8f2d/status"),
        ("COMPLETED", "/v2/requests/8f2d"),
    ],
)
def test_a_poll_asks_for_the_light_status_until_there_is_a_result(status: str, path: str) -> None:
    request = VENDOR.build_poll(account(), Running("8f2d", 0.0, status))
    assert (request.method, request.url) == ("GET", f"https://api.segmind.com{path}")
    assert request.body == () and not request.billable


@given(request_id=st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_request_id_is_one_segment_of_the_path(request_id: str) -> None:
    url = urlsplit(VENDOR.build_poll(account(), Running(request_id, 0.0, "COMPLETED")).url)
    assert url.netloc == "api.segmind.com" and not url.query and not url.fragment
    prefix, segment = url.path.rsplit("/", 1)
    assert prefix == "/v2/requests"
    assert unquote(segment) == request_id
    assert segment not in (".", "..")


def test_credits_and_the_check_are_one_free_request() -> None:
    assert VENDOR.build_check(account()) == VENDOR.build_credits(account())
    assert VENDOR.build_check(account()).method == "GET"


def test_the_model_takes_neither_prompt_nor_language() -> None:
    spec = VENDOR.spec("Describe it", "en")
    assert (spec.prompt, spec.lang) == (None, None)
    with pytest.raises(BadInput, match="'de' is not a language that Segmind writes; expected one of en"):
        VENDOR.spec(lang="de")
