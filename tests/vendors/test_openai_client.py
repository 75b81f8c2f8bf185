"""What we send and read is what the protocol's official client sends and reads: its own types are the judge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsBase, CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.models import Description, Picture
from airflow_provider_describer.vendors import get_vendor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.vendors.conftest import Parsed, Sample

PARAMETERS: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))
PICTURES = {
    "inline": Picture("image/jpeg", content=JPEG, inline=True),
    "url": Picture("image/png", url='https://shop.example.com/a b.png?x="\\ü'),
}
FIELDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "schema": {"response_schema": {**SCHEMA, "additionalProperties": False}},
    "detail": {"image_detail": "low"},
    "newer": {"max_length_field": "max_completion_tokens", "max_length": 4000},
    "extra_body": {"extra_body": {"temperature": 0, "reasoning_effort": "low", "seed": 7}},
}
# A list of parts is what some servers answer; the client knows a text alone.
UNKNOWN_TO_THE_CLIENT = {"content_as_parts", "usage_is_nonsense"}


def account(**extra: Any) -> Account:
    defaults = get_vendor("openai_compatible").defaults()
    return account_from_connection(
        defaults, conn_id="shop", password="sk-secret-key-1", extra={"model": "gpt-4o-mini", **extra}
    )


def body_of(picture: Picture, lang: str = "de", **extra: Any) -> dict[str, Any]:
    paid_by = account(**extra)
    vendor = get_vendor("openai_compatible").configured(paid_by)
    request = vendor.build_request(paid_by, vendor.spec('What "is" this?', lang), picture)
    body: dict[str, Any] = json.loads(b"".join(request.body))
    return body


def read_to_the_end(value: Any) -> Any:
    """Iterables of the client's types are checked as they are read."""
    if isinstance(value, dict):
        return {name: read_to_the_end(item) for name, item in value.items()}
    return value if isinstance(value, str) or not hasattr(value, "__iter__") else [read_to_the_end(v) for v in value]


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_request_is_one_of_the_clients(picture: Picture, fields: dict[str, Any]) -> None:
    body = body_of(picture, **fields)
    assert read_to_the_end(PARAMETERS.validate_python(body)) == body
    assert set(body) <= set(CompletionCreateParamsBase.__annotations__)


def test_a_misspelt_part_would_be_noticed() -> None:
    body = body_of(PICTURES["url"])
    body["messages"][0]["content"][1]["type"] = "image"
    with pytest.raises(ValueError, match="image_url"):
        read_to_the_end(PARAMETERS.validate_python(body))


def test_the_client_reads_the_same_in_every_good_answer(
    all_samples: tuple[Sample, ...], read: Callable[[Sample], Parsed]
) -> None:
    good = [
        sample
        for sample in all_samples
        if (sample.vendor, sample.operation) == ("openai_compatible", "describe") and "description" in sample.expected
    ]
    assert len(good) > 15
    for sample in good:
        if sample.case in UNKNOWN_TO_THE_CLIENT:
            continue
        answer = ChatCompletion.model_validate(sample.response.json())
        found, content = read(sample), answer.choices[0].message.content
        assert isinstance(found, Description) and content
        assert (found.fields and str(found.fields["title"]) in content) or found.text in content, sample.case


def test_the_models_of_a_check_are_the_clients(all_samples: tuple[Sample, ...]) -> None:
    (served,) = [
        sample for sample in all_samples if (sample.vendor, sample.case) == ("openai_compatible", "check-served")
    ]
    listed = [Model.model_validate(model).id for model in served.response.json()["data"]]
    assert listed == ["some-model", "gpt-4.1-mini"]
