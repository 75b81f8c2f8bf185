"""What an answer of the OpenAI-compatible protocol holds: the first choice, its parts, its tokens and their price."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_describer.arguments import as_float
from airflow_provider_describer.vendors.answers import says_error
from airflow_provider_describer.vendors.wire import Response, one_line

_TEXTS = ("description", "alt_text", "caption", "text", "title")
"""The parts of a structured answer that may be its text, the best one first."""
_THOUGHT = re.compile(r"\s*<think(?:ing)?>(?:.*?</think(?:ing)?>\s*|.*$)", re.DOTALL)
_FENCED = re.compile(r"\s*```[A-Za-z]*\s*\n(.*?)\s*```\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Choice:
    """The one answer that was asked for.

    ``text`` is None if there is none; ``refusal`` says why the model or a filter refuses, or is empty; ``ended`` is
    the protocol's ``finish_reason``.
    """

    text: str | None
    refusal: str
    ended: str
    has_reasoning: bool


def first_choice(answer: Mapping[str, Any]) -> Choice | None:
    """Return the first choice of an answer, or None if the answer has no form of the protocol."""
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        return None
    content = message.get("content")
    written = _joined(content)
    if content is not None and written is None:
        return None
    text = _THOUGHT.sub("", written, count=1) if written else ""
    ended = one_line(first.get("finish_reason")).lower()
    refusal = one_line(message.get("refusal"))
    if not refusal and ended.startswith("content_filter"):
        refusal = "its content filter has ended the answer"
    thought = any(one_line(message.get(name)) for name in ("reasoning_content", "reasoning"))
    return Choice(text if text.strip() else None, refusal, ended, thought or text != written)


def names_error(answer: Mapping[str, Any]) -> bool:
    """Whether an answer, or its first choice, says that it is an error, whatever text it holds besides.

    What lies deeper is about other things, such as a content filter that was not asked.
    """
    first = answer["choices"][0]
    return first.get("finish_reason") == "error" or says_error([_shallow(answer), _shallow(first)])


def _shallow(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in part.items() if name in ("error", "errors") or not isinstance(value, dict | list)
    }


def _joined(content: object) -> str | None:
    """Return the content of a message, a text or a list of parts, as one text; None for any other form."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [part.get("text") if isinstance(part, dict) else None for part in content]
    return "".join(text for text in texts if isinstance(text, str))


def structured(text: str) -> tuple[str | None, dict[str, Any] | None]:
    """Return the text and the parts of a structured answer, which may stand in a code fence; None if it is none."""
    fenced = _FENCED.fullmatch(text)
    found = Response(200, {}, (fenced[1] if fenced else text).encode("utf-8", "replace")).json_object()
    if not found:
        return None, None
    texts = (found.get(name) for name in _TEXTS)
    return next((part for part in texts if isinstance(part, str) and part.strip()), text), found


def usd_for(options: Mapping[str, Any], input_tokens: float, output_tokens: float) -> float:
    """Return what so many tokens cost by the connection's prices; a missing price is none."""
    prices = [options.get(name) or 0.0 for name in ("input_price", "output_price")]
    return float((input_tokens * prices[0] + output_tokens * prices[1]) / 1e6)


def cost_of(options: Mapping[str, Any], answer: Mapping[str, Any], response: Response) -> float | None:
    """Return the cost of a call in USD: by the connection's prices, else what the server says, else None.

    LiteLLM says it in a header and OpenRouter in ``usage``. Their zero means that they know no price.
    """
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    if options.get("output_price") is not None:
        tokens = [as_float(usage.get(f"{way}_tokens")) for way in ("prompt", "completion")]
        if tokens[0] is not None and tokens[1] is not None and min(tokens[0], tokens[1]) >= 0:
            return usd_for(options, tokens[0], tokens[1])
        return None
    named = (as_float(response.headers.get("x-litellm-response-cost")), as_float(usage.get("cost")))
    return next((cost for cost in named if cost is not None and cost > 0), None)


def request_id_of(answer: Mapping[str, Any], response: Response) -> str | None:
    """Return the server's id of the call, from its headers or its answer."""
    found = (response.headers.get("x-request-id"), answer.get("id"), response.headers.get("x-litellm-call-id"))
    # A longer text is no id.
    return next((text for text in found if isinstance(text, str) and 0 < len(text.strip()) <= len(text) <= 200), None)


def models_in(response: Response) -> frozenset[str] | None:
    """Return the names of the models that the server lists, or None if the answer is no such list."""
    listed = response.json_object().get("data")
    if not isinstance(listed, list):
        return None
    names = [model.get("id") for model in listed if isinstance(model, dict)]
    # Gemini lists them as models/NAME and takes either.
    return frozenset(form for name in names if isinstance(name, str) for form in (name, name.removeprefix("models/")))
