"""The OpenAI-compatible server of the emulator: OpenAI's own client works with it, and it reads requests strictly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from airflow_provider_describer.emulator import EmulatorProcess

if TYPE_CHECKING:
    from tests.emulator.conftest import Caller

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "description": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"enum": ["product", "scene"]},
        "width": {"type": "integer"},
    },
    "required": ["title", "description", "tags", "kind", "width"],
    "additionalProperties": False,
}


def form_of(schema: Any, **about: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "d", "strict": True, "schema": schema, **about}}


@pytest.fixture
def client(emulator: EmulatorProcess) -> Iterator[openai.OpenAI]:
    with httpx.Client(trust_env=False) as http:
        key = emulator.keys["openai_compatible"]
        yield openai.OpenAI(api_key=key, base_url=f"{emulator.url}/v1", max_retries=0, http_client=http)


@pytest.fixture
def ask(client: openai.OpenAI, call: Caller) -> Callable[..., Any]:
    def ask_for(image: bytes | None = None, **fields: Any) -> Any:
        return client.chat.completions.create(**call.question(image, **fields))

    return ask_for


def test_openais_client_gets_a_description(ask: Callable[..., Any], call: Caller, image: Callable[..., bytes]) -> None:
    answer = ask(image(size=(640, 480)), max_tokens=300)
    choice = answer.choices[0]
    assert "640 x 480" in choice.message.content
    assert (choice.finish_reason, choice.message.refusal, answer.model) == ("stop", None, "emulated-vision")
    (entry,) = call.emulator.ledger()["entries"]
    assert entry["request_id"] == answer._request_id
    assert (entry["prompt"], entry["image_via"], entry["outcome"]) == ("What is it?", "inline", "described")


def test_tokens_are_what_is_billed(ask: Callable[..., Any], call: Caller, image: Callable[..., bytes]) -> None:
    call.emulator.faults({"openai_compatible": {"input_price": 2, "output_price": 8}})
    usage = ask(image(size=(1024, 600))).usage
    assert usage.prompt_tokens == 3 + 85 + 4 * 170
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    ledger = call.emulator.ledger()["by_vendor"]["openai_compatible"]
    assert ledger["cost_usd"] == pytest.approx((2 * usage.prompt_tokens + 8 * usage.completion_tokens) / 1e6)
    assert ledger["credits_left"] == pytest.approx(1000 - ledger["cost_usd"])


def test_low_detail_costs_the_fewest_tokens(client: openai.OpenAI, call: Caller) -> None:
    question = call.question()
    question["messages"][0]["content"][1]["image_url"]["detail"] = "low"
    assert client.chat.completions.create(**question).usage.prompt_tokens == 3 + 85


def test_a_text_ends_at_the_limit_of_tokens(ask: Callable[..., Any]) -> None:
    answer = ask(max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    assert len(answer.choices[0].message.content) == 20
    assert answer.usage.completion_tokens == 5


@pytest.mark.parametrize("content", ["text", "parts", "fenced"])
def test_a_schema_is_followed(call: Caller, content: str) -> None:
    call.emulator.faults({"openai_compatible": {"content": content}})
    found = call.chat(response_format=form_of(SCHEMA)).json()["choices"][0]["message"]["content"]
    text = found[0]["text"] if content == "parts" else found
    parts = json.loads(text.removeprefix("```json\n").removesuffix("\n```"))
    assert list(parts) == ["title", "description", "tags", "kind", "width"]
    assert (parts["title"], parts["kind"], parts["width"]) == ("Landscape in red", "product", 64)
    assert "64 x 48" in parts["description"] and parts["tags"] == ["red"]


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (form_of({**SCHEMA, "additionalProperties": True}), "'additionalProperties' is required"),
        (form_of({**SCHEMA, "required": ["title"]}), "'required' must include every key"),
        (form_of({"type": "array"}), "must have the type 'object'"),
        (form_of(SCHEMA, name="a name"), "json_schema.name"),
        ({"type": "json_schema"}, "expected text, or json_schema"),
        ("json", "expected text, or json_schema"),
    ],
    ids=["additional", "required", "array", "name", "no_schema", "text"],
)
def test_a_schema_that_openai_refuses_is_refused(ask: Callable[..., Any], form: Any, says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says) as caught:
        ask(response_format=form)
    assert caught.value.param == "response_format"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": None}, "you must provide a model"),
        ({"messages": []}, "Invalid 'messages'"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, "'messages' hold 0"),
        ({"messages": [{"role": "cat", "content": "Hello"}]}, "no known role"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "parts of type"),
        ({"max_tokens": 0}, "expected an integer above 0"),
        ({"max_completion_tokens": "many"}, "expected an integer above 0"),
        ({"top_k": 5}, "Unrecognized request argument supplied: top_k"),
        ({"stream": True}, "does not stream"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_malformed_request_is_refused_unbilled(call: Caller, fields: dict[str, Any], says: str) -> None:
    response = call.chat(**fields)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
    assert says in response.json()["error"]["message"]
    assert call.emulator.ledger()["billed"] == 0


def test_newer_models_take_another_limit_of_tokens(ask: Callable[..., Any]) -> None:
    assert ask(model="emulated-reasoning", max_completion_tokens=300).choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="Use 'max_completion_tokens'") as caught:
        ask(model="emulated-reasoning", max_tokens=300)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "max_tokens")


def test_models_are_listed_and_others_unknown(client: openai.OpenAI, ask: Callable[..., Any], call: Caller) -> None:
    assert [model.id for model in client.models.list()] == ["emulated-vision", "emulated-reasoning"]
    assert call.emulator.ledger()["free_requests"] == 1
    with pytest.raises(openai.NotFoundError) as caught:
        ask(model="emulated-vison")
    assert caught.value.code == "model_not_found"
    call.emulator.faults({"openai_compatible": {"models": "none"}})
    with pytest.raises(openai.NotFoundError):
        client.models.list()


@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [
        ("bad_request", openai.BadRequestError, None),
        ("invalid_image", openai.BadRequestError, "invalid_image_format"),
        ("harmful", openai.BadRequestError, "content_policy_violation"),
        ("context_length", openai.BadRequestError, "context_length_exceeded"),
        ("spend_limit", openai.BadRequestError, "billing_hard_limit_reached"),
        ("invalid_key", openai.AuthenticationError, "invalid_api_key"),
        ("forbidden", openai.PermissionDeniedError, "model_not_found"),
        ("model_retired", openai.NotFoundError, "model_not_found"),
        ("rate_limited", openai.RateLimitError, "rate_limit_exceeded"),
        ("insufficient_credits", openai.RateLimitError, "insufficient_quota"),
        ("server_error", openai.InternalServerError, None),
        ("overloaded", openai.InternalServerError, None),
        ("bad_gateway", openai.InternalServerError, None),
    ],
)
def test_errors_are_those_of_openais_client(
    ask: Callable[..., Any], call: Caller, kind: str, error: type[openai.APIStatusError], code: str | None
) -> None:
    call.emulator.faults({"openai_compatible": {"errors": [{"kind": kind, "share": 1}]}})
    with pytest.raises(error) as caught:
        ask()
    assert caught.value.code == code
    assert call.emulator.ledger()["billed"] == 0


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("refusal", "stop"), ("content_filter", "content_filter"), ("cut_off", "length"), ("reasoning_only", "length")],
)
def test_an_answer_without_a_description_is_billed(
    ask: Callable[..., Any], call: Caller, kind: str, reason: str
) -> None:
    call.emulator.faults({"openai_compatible": {"errors": [{"kind": kind, "share": 1}]}})
    choice = ask().choices[0]
    assert choice.finish_reason == reason
    assert bool(choice.message.content) == (kind == "cut_off")
    (entry,) = call.emulator.ledger()["entries"]
    assert (entry["billed"], entry["outcome"]) == (True, kind)


def test_an_error_with_status_200_is_not_billed(call: Caller) -> None:
    call.emulator.faults({"openai_compatible": {"errors": [{"kind": "error_as_200", "share": 1}]}})
    response = call.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (200, 429)
    assert call.emulator.ledger()["billed"] == 0


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ("openai", lambda body: body["error"]["message"]),
        ("vllm", lambda body: body["message"]),
        ("gemini", lambda body: body[0]["error"]["message"]),
        ("text", lambda body: body["error"]),
        ("detail", lambda body: body["detail"]),
    ],
)
def test_errors_come_in_the_forms_of_other_servers(call: Caller, form: str, where: Callable[[Any], str]) -> None:
    call.emulator.faults({"openai_compatible": {"error_form": form, "errors": [{"kind": "overloaded", "share": 1}]}})
    assert "overloaded" in where(call.chat().json())


def test_a_rate_limit_is_told_in_openais_headers(call: Caller) -> None:
    call.emulator.faults({"openai_compatible": {"requests_per_minute": 1, "rate_window_s": 100}})
    assert call.chat().status_code == 200
    limited = call.chat()
    assert (limited.status_code, limited.headers["x-ratelimit-remaining-requests"]) == (429, "0")
    minutes, seconds = limited.headers["x-ratelimit-reset-requests"].removesuffix("s").split("m")
    assert 0 < 60 * int(minutes) + float(seconds) <= 100
    assert "retry-after" not in limited.headers


def test_a_key_is_needed_unless_it_is_optional(call: Caller) -> None:
    for headers, said in (({}, "didn't provide"), ({"Authorization": "Bearer wrong"}, "Incorrect API key")):
        response = call.http.post("/v1/chat/completions", json=call.question(), headers=headers)
        assert response.status_code == 401 and said in response.json()["error"]["message"]
    call.emulator.faults({"openai_compatible": {"key": "optional"}})
    assert call.http.post("/v1/chat/completions", json=call.question()).status_code == 200


def test_the_protocol_is_served_under_v1_alone(call: Caller) -> None:
    response = call.http.post("/chat/completions", json=call.question(), headers=call.chat_key)
    assert response.status_code == 404
