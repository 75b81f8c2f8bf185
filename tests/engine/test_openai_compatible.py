"""Jobs at an OpenAI-compatible server: what is billed is what its tokens cost, and nothing is paid for twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import (
    BadConnection,
    DescriberError,
    Forbidden,
    InsufficientCredits,
    InvalidKey,
    ModelRetired,
    WrongEndpoint,
)

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]
PRICES = {"input_price": 1, "output_price": 4}
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "alt_text": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["title", "alt_text", "tags"],
    "additionalProperties": False,
}


@pytest.fixture
def openai_shop(shop: Shop) -> Shop:
    shop.vendor = "openai_compatible"
    shop.fields |= {"host": f"{shop.emulator.url}/v1", "model": "emulated-vision", "price_per_call": None}
    return shop


def test_tokens_are_the_cost_of_each_row(openai_shop: Shop, pictures: Pictures) -> None:
    result = openai_shop.describe(pictures(8), fields=PRICES)
    assert (result.error, result.counts["described"]) == (None, 8)
    ledger = result.ledger["by_vendor"]["openai_compatible"]
    assert ledger["billed"] == 8 and max(result.ledger["by_image"].values()) == 1
    assert sum(row["cost_usd"] for row in result.rows) == pytest.approx(ledger["cost_usd"])
    assert result.manifest["cost_usd"] == pytest.approx(ledger["cost_usd"])
    for row in result.rows:
        assert row["sha256"][:12] in row["text"]
        assert (row["model"], row["fields"], row["billed"]) == ("emulated-vision", None, "yes")
    asked = {entry["request_id"] for entry in result.ledger["entries"]}
    assert {row["request_id"] for row in result.rows} == asked


def test_without_any_price_the_cost_is_unknown(openai_shop: Shop, pictures: Pictures) -> None:
    result = openai_shop.describe(pictures(2))
    assert {row["cost_usd"] for row in result.rows} == {None}


def test_an_answer_by_a_schema_lands_in_fields(openai_shop: Shop, pictures: Pictures) -> None:
    openai_shop.faults(content="fenced")
    result = openai_shop.describe(pictures(3), fields={"response_schema": SCHEMA})
    assert (result.error, result.counts["described"]) == (None, 3)
    for row in result.rows:
        assert list(row["fields"]) == ["title", "alt_text", "tags"]
        assert row["text"] == row["fields"]["alt_text"] and row["sha256"][:12] in row["text"]
        assert row["fields"]["tags"]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "emulated-reasoning"},
        {"max_length": 200},
        {"response_schema": SCHEMA},
        {"image_detail": "low"},
        {"extra_body": {"temperature": 0}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_is_asked_identifies_a_description(openai_shop: Shop, pictures: Pictures, other: dict[str, Any]) -> None:
    paths = pictures(1)
    openai_shop.fields["max_length_field"] = "max_completion_tokens"
    assert openai_shop.describe(paths).counts["described"] == 1
    assert openai_shop.describe(paths, fields=other).counts["described"] == 1
    assert (
        openai_shop.describe(paths).counts["reused"] == openai_shop.describe(paths, fields=other).counts["reused"] == 1
    )
    assert openai_shop.emulator.ledger(entries=False)["billed"] == 2


def test_prices_limits_and_the_key_do_not(openai_shop: Shop, pictures: Pictures) -> None:
    paths = pictures(1)
    openai_shop.describe(paths)
    openai_shop.key = ""
    others = {**PRICES, "tpm": 1_000_000, "input_estimate": 3000, "host": "http://127.0.0.1:1/v1"}
    assert openai_shop.describe(paths, fields=others).counts["reused"] == 1


def test_a_server_without_keys_is_called_without_one(openai_shop: Shop, pictures: Pictures) -> None:
    openai_shop.key = ""
    openai_shop.faults(key="optional")
    assert openai_shop.describe(pictures(1)).counts["described"] == 1


@pytest.mark.parametrize("kind", ["server_error", "overloaded", "rate_limited", "error_as_200", "unavailable"])
def test_what_was_not_billed_is_sent_again(openai_shop: Shop, pictures: Pictures, kind: str) -> None:
    openai_shop.breaks(kind, attempts=1)
    result = openai_shop.describe(pictures(3))
    assert (result.error, result.counts["described"]) == (None, 3)
    assert (result.ledger["billed"], result.ledger["requests"]) == (3, 6)


BILLED = ["html", "empty", "truncated", "wrong_types", "blank", "error_in_200", "plain_error", "proxy_error"]
BILLED += ["gzip_cut", "drop_after_bill", "reasoning_only"]


@pytest.mark.parametrize("kind", BILLED)
def test_what_was_billed_is_not_sent_again(openai_shop: Shop, pictures: Pictures, kind: str) -> None:
    openai_shop.breaks(kind)
    result = openai_shop.describe(pictures(1), on_unknown="hold")
    assert (result.counts["unknown"], result.ledger["billed"]) == (1, 1)
    assert result.rows[0]["billed"] in ("yes", "unknown")
    openai_shop.faults()
    openai_shop.describe(pictures(1), on_unknown="hold")
    assert openai_shop.emulator.ledger(entries=False)["billed"] == 1


@pytest.mark.parametrize("kind", ["refusal", "content_filter"])
def test_a_refusal_that_was_billed_is_never_asked_again(openai_shop: Shop, pictures: Pictures, kind: str) -> None:
    openai_shop.breaks(kind)
    (row,) = openai_shop.describe(pictures(1)).rows
    assert (row["status"], row["error"]["kind"], row["billed"]) == ("rejected", "harmful_content", "yes")
    openai_shop.faults()
    assert openai_shop.describe(pictures(1)).counts["rejected"] == 1
    assert openai_shop.emulator.ledger(entries=False)["billed"] == 1


def test_a_text_that_was_cut_off_is_kept(openai_shop: Shop, pictures: Pictures) -> None:
    openai_shop.breaks("cut_off")
    (row,) = openai_shop.describe(pictures(1)).rows
    assert row["status"] == "described" and row["text"].startswith("A landscape")


@pytest.mark.parametrize("form", ["openai", "vllm", "gemini", "text"])
def test_an_image_that_is_refused_stops_no_other(openai_shop: Shop, pictures: Pictures, form: str) -> None:
    openai_shop.faults(error_form=form, errors=[{"kind": "invalid_image", "first": 1}])
    result = openai_shop.describe(pictures(3), concurrency=1)
    assert (result.error, result.counts["rejected"], result.counts["described"]) == (None, 1, 2)
    assert result.of("rejected")[0]["error"]["kind"] == "invalid_param"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("invalid_key", InvalidKey),
        ("insufficient_credits", InsufficientCredits),
        ("spend_limit", InsufficientCredits),
        ("forbidden", Forbidden),
        ("model_retired", ModelRetired),
    ],
)
def test_what_concerns_every_call_stops_the_run_unpaid(
    openai_shop: Shop, pictures: Pictures, kind: str, error: type[DescriberError]
) -> None:
    openai_shop.breaks(kind)
    result = openai_shop.describe(pictures(5), concurrency=1)
    assert type(result.error) is error and "'shop'" in str(result.error)
    assert (result.ledger["requests"], result.ledger["billed"], result.counts["pending"]) == (1, 0, 5)


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"model": "emulated-reasoning"}, BadConnection, "max_length_field"),
        ({"extra_body": {"top_q": 1}}, BadConnection, "top_q"),
        ({"response_schema": {"type": "object"}}, BadConnection, "response_schema"),
        ({"model": "emulated-vison"}, ModelRetired, "now 'emulated-vison'"),
    ],
    ids=["limit", "extra_body", "schema", "model"],
)
def test_a_bad_setting_is_held_against_no_image(
    openai_shop: Shop, pictures: Pictures, fields: dict[str, Any], error: type[DescriberError], says: str
) -> None:
    result = openai_shop.describe(pictures(3), concurrency=1, fields=fields)
    assert type(result.error) is error and says in str(result.error) and "'shop'" in str(result.error)
    assert (result.counts["pending"], result.ledger["billed"]) == (3, 0)


def test_a_base_url_without_v1_is_told(openai_shop: Shop, pictures: Pictures) -> None:
    result = openai_shop.describe(pictures(1), fields={"host": openai_shop.emulator.url})
    assert type(result.error) is WrongEndpoint and "usually ends in /v1" in str(result.error)
    assert result.counts["pending"] == 1


def test_a_budget_reckons_with_the_most_tokens_of_a_call(openai_shop: Shop, pictures: Pictures) -> None:
    fields = {**PRICES, "input_estimate": 300, "max_length": 50}
    result = openai_shop.describe(pictures(9), max_cost=0.0022, concurrency=1, fields=fields)
    price = (300 * 1 + 50 * 4) / 1e6
    assert openai_shop.account(**fields).price_per_call == pytest.approx(price)
    spent = result.ledger["by_vendor"]["openai_compatible"]["cost_usd"]
    assert 0.0022 - price < spent <= 0.0022
    # The first ones cost less than reckoned, which leaves room for one more.
    assert result.ledger["billed"] == result.counts["described"] == 5


def test_the_servers_own_pause_is_kept(openai_shop: Shop, pictures: Pictures) -> None:
    openai_shop.faults(requests_per_minute=2, rate_window_s=1)
    result = openai_shop.describe(pictures(5), concurrency=5)
    assert (result.error, result.counts["described"], result.ledger["billed"]) == (None, 5, 5)
    refused = [entry["at"] for entry in result.ledger["entries"] if entry["status"] == 429]
    assert refused and max(result.ledger["by_image"].values()) == 1
