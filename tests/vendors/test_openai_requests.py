"""The OpenAI-compatible vendor: what a connection's fields ask, what they cost, and what a structured answer is."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.errors import BadConnection, UnexpectedAnswer
from airflow_provider_describer.models import Description, Picture, Spec
from airflow_provider_describer.vendors import get_vendor
from airflow_provider_describer.vendors.openai_errors import retry_at, seconds_in
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Response

KEY = "sk-Very.Secret_0123456789"
URL = Picture("image/jpeg", url="https://shop.example.com/a.jpg?sig=s3cr3t0123456789")
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}, "a": {"type": "string"}}}


def account(password: str | None = KEY, host: str | None = None, **extra: Any) -> Account:
    defaults = get_vendor("openai_compatible").defaults()
    fields = {"model": "llava:7b", **extra}
    return account_from_connection(defaults, conn_id="shop", password=password, host=host, extra=fields)


def configured(**extra: Any) -> tuple[Vendor, Account]:
    paid_by = account(**extra)
    return get_vendor("openai_compatible").configured(paid_by), paid_by


def body_of(picture: Picture = URL, prompt: str | None = None, lang: str | None = None, **extra: Any) -> Any:
    vendor, paid_by = configured(**extra)
    return json.loads(b"".join(vendor.build_request(paid_by, vendor.spec(prompt, lang), picture).body))


def test_the_call_is_a_question_with_an_image() -> None:
    vendor, paid_by = configured(host="http://localhost:11434/v1/")
    request = vendor.build_request(paid_by, vendor.spec(), URL)
    assert (request.method, request.url) == ("POST", "http://localhost:11434/v1/chat/completions")
    assert request.billable and request.headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(b"".join(request.body)) == {
        "model": "llava:7b",
        "max_tokens": 300,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Describe this image in detail.\n\nAnswer in English (en)."},
                    {"type": "image_url", "image_url": {"url": URL.url}},
                ],
            }
        ],
    }


def test_the_host_is_openais_unless_the_connection_names_another() -> None:
    assert account().base_url == account(host="https://api.openai.com/v1").base_url == "https://api.openai.com/v1"
    with pytest.raises(BadConnection, match="whole endpoint"):
        account(host="http://localhost:8000/v1/chat/completions")


def test_a_connection_without_a_key_sends_none() -> None:
    vendor, paid_by = configured(password=None)
    for request in (vendor.build_request(paid_by, vendor.spec(), URL), vendor.build_check(paid_by)):
        assert "authorization" not in request.headers and "" not in request.secrets


@given(content=st.binary(max_size=300), prompt=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_bytes_are_a_data_uri_that_is_not_copied(content: bytes, prompt: str) -> None:
    vendor, paid_by = configured(image_detail="high")
    picture = Picture("image/webp", content=content, inline=True)
    request = vendor.build_request(paid_by, vendor.spec(prompt, "fr"), picture)
    assert len(request.body) == 3
    text, image = json.loads(b"".join(request.body))["messages"][0]["content"]
    assert text["text"] == f"{prompt}\n\nAnswer in French (fr)."
    head, _, data = image["image_url"]["url"].partition(",")
    assert (head, image["image_url"]["detail"]) == ("data:image/webp;base64", "high")
    assert base64.b64decode(data, validate=True) == content


@pytest.mark.parametrize(
    ("lang", "asked"), [("de", "German (de)"), ("pt-BR", "the language pt-BR"), ("gsw", "the language gsw")]
)
def test_a_language_is_asked_for_in_words(lang: str, asked: str) -> None:
    assert body_of(prompt="What?", lang=lang)["messages"][0]["content"][0]["text"] == f"What?\n\nAnswer in {asked}."


def test_what_is_asked_is_what_is_hashed() -> None:
    fields: dict[str, Any] = {
        "response_schema": SCHEMA,
        "image_detail": "low",
        "max_length": 90,
        "extra_body": {"seed": 7},
    }
    vendor, _ = configured(**fields)
    asked = json.loads(vendor.spec().parameters)
    detail = asked.pop("image_detail")
    body = body_of(**fields)
    assert body.pop("messages")[0]["content"][1]["image_url"]["detail"] == detail == "low"
    assert body == {"model": "llava:7b", **asked}
    form = body["response_format"]["json_schema"]
    assert form == {"name": "description", "strict": True, "schema": SCHEMA}
    assert list(form["schema"]["properties"]) == ["title", "a"], "models write the parts in the user's order"
    assert "llava:7b" in repr(vendor.spec()) and KEY not in repr(vendor.spec())


def test_the_same_fields_in_any_order_are_the_same_question() -> None:
    one, _ = configured(extra_body={"seed": 7, "temperature": 0})
    other, _ = configured(extra_body={"temperature": 0, "seed": 7})
    assert one.spec() == other.spec() != get_vendor("openai_compatible").spec()


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"model": " "}, "model is empty"),
        ({"max_length": 0}, "max_length is 0, expected a number above 0"),
        ({"max_length": 12.5}, "max_length is 12.5, expected a whole number"),
        ({"max_length_field": "max_output_tokens"}, "expected one of max_tokens, max_completion_tokens"),
        ({"image_detail": "best"}, "expected one of auto, low, high"),
        ({"input_price": 1}, "expected both"),
        ({"output_price": 1}, "expected both"),
        ({"response_schema": {"type": "array"}}, "response_schema is no schema of an object"),
        ({"response_schema": "{"}, "response_schema is a text, expected a JSON object"),
        ({"extra_body": {"stream": True}}, "extra_body holds stream"),
        ({"extra_body": {"messages": []}}, "extra_body holds messages"),
        ({"max_lenght": 5}, "did you mean max_length"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_field_that_cannot_work_is_named_before_it_costs(extra: dict[str, Any], says: str) -> None:
    with pytest.raises(BadConnection, match=says) as caught:
        account(**extra)
    assert "'shop'" in str(caught.value) and KEY not in str(caught.value)


PRICES: dict[str, Any] = {"input_price": 0.15, "output_price": 0.6}


def test_limits_reckon_with_the_most_tokens_of_a_call() -> None:
    assert account(**PRICES).price_per_call == pytest.approx((2000 * 0.15 + 300 * 0.6) / 1e6)
    assert account(**PRICES, price_per_call=0.01).price_per_call == 0.01
    assert account().price_per_call is None
    assert account(tpm=23_000).requests_per_minute == 10
    assert account(tpm=23_000, requests_per_minute=3).requests_per_minute == 3
    assert account(tpm=23_000, requests_per_minute=30).requests_per_minute == 10
    assert account(tpm=500, input_estimate=700).requests_per_minute == 0.5


def described(content: str, reason: str = "stop", **extra: Any) -> Description:
    vendor, paid_by = configured(response_schema=SCHEMA, **extra)
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": reason}
    response = Response(200, {}, json.dumps({"id": "c-1", "choices": [choice]}).encode())
    found = vendor.parse_response(paid_by, vendor.spec(), response)
    assert isinstance(found, Description)
    return found


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"title": "T", "description": "D", "alt_text": "A"}, "D"),
        ({"title": "T", "caption": "C"}, "C"),
        ({"title": "T", "text": "X"}, "X"),
        ({"title": "T", "description": " ", "tags": ["a"]}, "T"),
        ({"tags": ["a"]}, '{"tags": ["a"]}'),
        ({"description": ["not a text"]}, '{"description": ["not a text"]}'),
    ],
)
def test_the_text_of_a_structured_answer_is_its_best_part(parts: dict[str, Any], text: str) -> None:
    found = described(json.dumps(parts))
    assert (found.text, found.fields) == (text, parts)


@pytest.mark.parametrize(
    ("content", "reason", "says"),
    [
        ('{"title": "A red mu', "length", "Raise max_length on connection 'shop'"),
        ("A red mug on a table.", "stop", "no JSON object, which response_schema asks for"),
        ('["a"]', "stop", "no JSON object"),
        ("{}", "stop", "no JSON object"),
        ("<think>Let me see", "length", "without a text"),
    ],
)
def test_a_structured_answer_that_cannot_be_read_was_paid_for(content: str, reason: str, says: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=says) as caught:
        described(content, reason)
    assert (caught.value.billed, caught.value.request_id) == ("yes", "c-1")
    assert content in json.loads(caught.value.answer)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *[("1s", 1), ("6m0s", 360), ("250ms", 0.25), ("1h2m3.5s", 3723.5), ("20", 20), ("8.64s", 8.64), ("2m", 120)],
        *[("", None), ("soon", None), ("-1", None), ("1e99", None), ("9999h", None), (None, None), (7, None)],
    ],
)
def test_durations_in_every_form(value: object, seconds: float | None) -> None:
    assert seconds_in(value) == (None if seconds is None else pytest.approx(seconds))


@given(st.dictionaries(st.sampled_from(["retry-after-ms", "x-ratelimit-reset-requests"]), st.text(max_size=8)))
def test_a_pause_is_never_in_the_past(headers: dict[str, str]) -> None:
    at = retry_at(Response(429, headers, b"", received_at=1000.0))
    assert at is None or 1000.0 <= at < float("inf")


def test_a_spec_of_an_older_store_asks_nothing_more() -> None:
    vendor, paid_by = configured()
    request = vendor.build_request(paid_by, Spec("openai_compatible", "llava:7b", "What?"), URL)
    assert set(json.loads(b"".join(request.body))) == {"model", "messages"}
