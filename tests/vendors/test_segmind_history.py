"""Segmind's request history, in every form that its SDK leaves open; anything else is an error, never "not found"."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.errors import DescriberError, InvalidKey, UnexpectedAnswer, WrongEndpoint
from airflow_provider_describer.models import HistoryPage, Picture
from airflow_provider_describer.vendors import get_vendor
from airflow_provider_describer.vendors.wire import Response

SEGMIND = get_vendor("segmind")
URL = "https://shop.example/a.jpg?sig=1"
NOW = 1763708820.0
ROW = {
    "request_id": "8f2d",
    "model_name": "ideogram-describe",
    "model_status": "COMPLETED",
    "credits_deduction": 0.015,
    "request_body": {"image_file": URL},
    "generation_url": None,
    "latency_ms": 4200,
    "model_created": "2025-11-21T07:07:00Z",
    "output": {"descriptions": [{"text": "A mug on a table"}]},
}


def account(**fields: Any):
    return account_from_connection(SEGMIND.defaults(), conn_id="shop", password="sk-1234567890", **fields)


def read(value: object, page: int = 1, status: int = 200) -> HistoryPage:
    return SEGMIND.parse_history(account(), Response(status, {}, json.dumps(value).encode()), page)


@pytest.mark.parametrize(
    ("fields", "base"),
    [
        ({}, "https://api.spotprod.segmind.com"),
        ({"host": "http://127.0.0.1:8901"}, "http://127.0.0.1:8901"),
        (
            {"host": "https://proxy.example", "extra": {"storage_host": "https://other.example"}},
            "https://other.example",
        ),
        ({"extra": {"storage_host": "https://other.example"}}, "https://other.example"),
    ],
)
def test_the_request_is_the_sdks(fields: dict[str, Any], base: str) -> None:
    request = SEGMIND.build_history(account(**fields), NOW, 3)
    parts = urlsplit(request.url)
    assert f"{parts.scheme}://{parts.netloc}" == base
    assert parts.path == "/inference-request/request-history"
    assert parse_qs(parts.query) == {
        "page": ["3"],
        "per_page": ["100"],
        "from_date": ["2025-11-20"],
        "model_name": ["ideogram-describe"],
        "sort_by": ["model_created"],
        "sort_order": ["desc"],
    }
    assert (request.method, request.body, request.billable) == ("GET", (), False)
    assert request.headers["x-api-key"] == "sk-1234567890" and "sk-" not in request.url


@pytest.mark.parametrize(
    "picture",
    [Picture("image/jpeg", url=URL), Picture("image/png", content=b"\x89PNG" + bytes(100), inline=True)],
    ids=["url", "data_uri"],
)
def test_what_is_shown_is_the_digest_of_what_is_sent(picture: Picture) -> None:
    sent = json.loads(b"".join(SEGMIND.build_request(account(), SEGMIND.spec(), picture).body))["image_file"]
    assert SEGMIND.shown(picture) == hashlib.sha256(sent.encode()).hexdigest()


@pytest.mark.parametrize(
    "envelope",
    [
        lambda rows: rows,
        lambda rows: {"data": rows},
        lambda rows: {"results": rows, "page": 1, "per_page": 100, "total": 700},
        lambda rows: {"items": rows, "message": "ok", "error": None, "errors": []},
        lambda rows: {"success": True, "data": {"requests": rows, "pagination": {"page": 1, "total": 3}}},
        lambda rows: {"status": "success", "data": {"history": rows}, "links": []},
    ],
)
def test_envelopes(envelope: Any) -> None:
    (record,) = read(envelope([ROW])).records
    assert (record.request_id, record.status, record.created_at) == ("8f2d", "completed", NOW)
    assert (record.cost_usd, record.text, record.elapsed_s) == (0.015, "A mug on a table", 4.2)
    assert record.shown == hashlib.sha256(URL.encode()).hexdigest()
    empty = read(envelope([]))
    assert empty.records == () and empty.is_last


@pytest.mark.parametrize(
    "value",
    [
        *({}, None, 7, "", "none", [1], ["a"], {"data": None}, {"data": {}}, {"data": "none"}, {"count": 0}),
        *({"error": "backend down", "data": []}, {"success": False, "data": []}, {"details": []}),
        *({"message": "Internal Server Error", "data": []}, {"data": [ROW], "other": [ROW]}),
        {"data": [{**ROW, "request_id": None}]},
        {"data": [{**ROW, "request_id": " "}]},
        {"data": [{**ROW, "model_status": "PAUSED"}]},
        {"data": [{**ROW, "model_status": None}]},
        {"data": [{**ROW, "model_created": "yesterday"}]},
        {"data": [{name: value for name, value in ROW.items() if name != "model_created"}]},
        {"data": [{**ROW, "request_body": 7}]},
        {"data": [{**ROW, "request_body": "not JSON"}]},
        {"data": [ROW, "a text"]},
    ],
    ids=repr,
)
def test_what_is_in_no_known_form_is_an_error(value: object) -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        read(value)
    assert caught.value.billed == "no"


def test_it_shows_200_characters() -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        read({"unknown": "X" * 1000})
    assert 150 < str(caught.value).count("X") <= 200


@pytest.mark.parametrize("content", [b"", b"<html>nginx</html>", b'{"data": [{"request_id": "8f', b"null", bytes(9)])
def test_a_page_that_is_cut_off_or_html_is_an_error(content: bytes) -> None:
    with pytest.raises(UnexpectedAnswer):
        SEGMIND.parse_history(account(), Response(200, {}, content), 1)


@pytest.mark.parametrize(
    ("status", "value", "error"),
    [
        (401, {"error": "invalid_api_key"}, InvalidKey),
        (404, {"error": "no such page"}, WrongEndpoint),
        (400, {"error": "from_date is too early"}, UnexpectedAnswer),
        (422, {"error": "Image failed the safety check"}, UnexpectedAnswer),
    ],
)
def test_errors(status: int, value: object, error: type[DescriberError]) -> None:
    with pytest.raises(error) as caught:
        read(value, status=status)
    assert caught.value.billed == "no"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_status": "pending", "credits_deduction": None}, {"status": "running", "cost_usd": None, "text": None}),
        ({"model_status": "FAILED", "credits_deduction": 0, "error": "x"}, {"status": "failed", "text": None}),
        ({"model_status": "FAILED"}, {"status": "completed", "cost_usd": 0.015, "text": None}),
        ({"credits_deduction": "0.0150"}, {"cost_usd": 0.015}),
        ({"credits_deduction": -1}, {"cost_usd": None}),
        ({"credits_deduction": "NaN"}, {"cost_usd": None}),
        ({"output": None}, {"text": None, "status": "completed"}),
        ({"output": None, "generation_url": "https://x.example/1.json"}, {"text": None}),
        ({"output": '{"descriptions": [{"text": "A mug"}]}'}, {"text": "A mug"}),
        ({"request_body": json.dumps({"image_file": URL})}, {"shown": hashlib.sha256(URL.encode()).hexdigest()}),
        ({"request_body": None}, {"shown": None}),
        ({"request_body": {}}, {"shown": None}),
        ({"request_body": {"image_file": 7}}, {"shown": None}),
        ({"model_created": 1763708820}, {"created_at": NOW}),
        ({"model_created": 1763708820000}, {"created_at": NOW}),
        ({"model_created": "2025-11-21 07:07:00"}, {"created_at": NOW}),
        ({"model_created": None, "created_at": "2025-11-21T08:07:00+01:00"}, {"created_at": NOW}),
        ({"model_name": "Ideogram-Describe"}, {"status": "completed"}),
        ({"model_name": None}, {"status": "completed"}),
        ({"latency_ms": None}, {"elapsed_s": 0.0}),
    ],
)
def test_forms_of_a_row(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    (record,) = read({"data": [{**ROW, **changes}]}).records
    assert {name: getattr(record, name) for name in expected} == expected


def test_other_models_are_left_out_and_do_not_end_the_books() -> None:
    page = read({"data": [{**ROW, "model_name": "flux", "request_body": 7}]})
    assert page.records == () and not page.is_last


@pytest.mark.parametrize(("page", "pages", "is_last"), [(1, 2, False), (2, 2, True), (3, 2, True), (1, 0, False)])
def test_the_last_page_is_the_one_that_says_so(page: int, pages: int, is_last: bool) -> None:
    assert read({"data": [ROW], "total_pages": pages}, page).is_last is is_last
    assert not read({"data": [ROW]}, page).is_last, "a short page may be one of a server that allows no more rows"


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ROW, "data", "total_pages"]), inner),
    max_leaves=20,
)


@given(json_values)
def test_any_json_is_a_page_or_an_error(value: object) -> None:
    try:
        page = read(value)
    except UnexpectedAnswer:
        return
    assert all(record.request_id and record.status for record in page.records)
