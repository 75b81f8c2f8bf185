"""The settings of an OpenAI-compatible connection: its fields, what they ask of the model, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_describer.account import Account, Field
from airflow_provider_describer.errors import BadConnection
from airflow_provider_describer.vendors.openai_answers import usd_for

# No name holds the word token: Airflow would take the value for a secret and mask it, in the form and in logs.
FIELDS = (
    Field("model", "Model", "The name of the model, as the server lists it at /models.", required=True),
    Field("max_length", "Longest answer (tokens)", "The most tokens that an answer may have.", "integer", default=300),
    Field(
        "max_length_field",
        "Name of that limit in requests",
        "OpenAI's newer models take max_completion_tokens alone, Ollama max_tokens alone; others take either.",
        choices=("max_tokens", "max_completion_tokens"),
        default="max_tokens",
    ),
    Field(
        "response_schema",
        "Schema of the answer",
        "A JSON schema of type object. The answer's parts are then stored in `fields`.",
        "object",
    ),
    Field(
        "image_detail",
        "Image detail",
        "How closely the model looks: OpenAI's low costs the fewest tokens.",
        choices=("auto", "low", "high"),
    ),
    Field(
        "extra_body",
        "Further request fields",
        'A JSON object that is sent with each call, such as {"temperature": 0} or {"reasoning_effort": "low"}.',
        "object",
    ),
    Field(
        "input_price",
        "Input price (USD per million tokens)",
        "With the output price, each call's cost is counted by its tokens.",
        "number",
    ),
    Field(
        "output_price",
        "Output price (USD per million tokens)",
        "With the input price, each call's cost is counted by its tokens.",
        "number",
    ),
    Field(
        "tpm",
        "Tokens per minute (TPM)",
        "The rate of calls is kept below it, each reckoned with the input estimate and the longest answer.",
        "number",
    ),
    Field(
        "input_estimate",
        "Input estimate (tokens per call)",
        "Tokens that a question with its image has at most. Limits reckon with it before a call; servers count images "
        "differently.",
        "integer",
        default=2000,
    ),
)
_OWN_FIELDS = frozenset(
    {"model", "messages", "stream", "n", "max_tokens", "max_completion_tokens", "response_format", "image_detail"}
)
"""Fields of the request that are not taken from ``extra_body``."""


def asked_of(options: Mapping[str, Any]) -> str:
    """Return what a request holds beside model and messages, as canonical JSON (``image_detail``: with the image)."""
    asked = dict(options["extra_body"] or {})
    asked[options["max_length_field"]] = options["max_length"]
    if options["response_schema"]:
        about = {"name": "description", "strict": True, "schema": options["response_schema"]}
        asked["response_format"] = {"type": "json_schema", "json_schema": about}
    if options["image_detail"]:
        asked["image_detail"] = options["image_detail"]
    # Within a schema the order is the user's: models write an object's parts in it.
    return json.dumps(dict(sorted(asked.items())), separators=(",", ":"))


def with_limits(account: Account) -> Account:
    """Return the account with the price and the rate of calls that its prices and its rate of tokens come to."""
    options = account.options
    input_tokens, output_tokens = options["input_estimate"], options["max_length"]
    price, rate = account.price_per_call, account.requests_per_minute
    if price is None and options["output_price"] is not None:
        price = usd_for(options, input_tokens, output_tokens)
    if options["tpm"] is not None:
        by_tokens = options["tpm"] / (input_tokens + output_tokens)
        rate = by_tokens if rate is None else min(rate, by_tokens)
    return replace(account, price_per_call=price, requests_per_minute=rate)


def check(account: Account) -> None:
    """Refuse fields that are missing or do not go together.

    :raises BadConnection: naming the connection, the field and the fix.
    """
    options, wrong = account.options, None
    prices = [options["input_price"], options["output_price"]]
    schema = options["response_schema"]
    if prices.count(None) == 1:
        wrong = "only one of input_price and output_price is set, expected both"
    elif schema and schema.get("type") != "object":
        wrong = 'response_schema is no schema of an object, expected {"type": "object", "properties": …}'
    elif own := _OWN_FIELDS & set(options["extra_body"] or ()):
        wrong = f"extra_body holds {min(own)}, which has a field of its own or cannot be changed"
    if wrong:
        raise BadConnection(f"Connection {account.conn_id!r}: {wrong}. Correct it under Admin > Connections.")
