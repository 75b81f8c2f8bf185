"""The answers of an OpenAI-compatible server: completions, those without a description, and errors in each form."""

from __future__ import annotations

import copy
import json
import time
import uuid
from math import ceil
from typing import Any

from airflow_provider_describer.emulator.fault_settings import VendorSettings
from airflow_provider_describer.emulator.image_info import ImageInfo
from airflow_provider_describer.emulator.openai_request import ChatCall


def tokens_of(text: str) -> int:
    """Return how many tokens a text has: four characters each."""
    return ceil(len(text) / 4)


def cut_to(call: ChatCall, text: str) -> tuple[str, str]:
    """Return the text as far as the call's token limit allows, and why it ends."""
    if call.max_tokens is None or tokens_of(text) <= call.max_tokens:
        return text, "stop"
    return text[: 4 * call.max_tokens], "length"


def completion(call: ChatCall, text: str, settings: VendorSettings) -> dict[str, Any]:
    """Return the body of an answer that holds the text."""
    written, reason = cut_to(call, text)
    content: object = written
    if settings.content == "parts":
        content = [{"type": "text", "text": written}]
    elif settings.content == "fenced" and call.schema:
        content = f"```json\n{written}\n```"
    message = {"role": "assistant", "content": content, "refusal": None}
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": call.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
    }
    if settings.usage == "tokens":
        asked, wrote = call.prompt_tokens, tokens_of(written)
        answer["usage"] = {"prompt_tokens": asked, "completion_tokens": wrote, "total_tokens": asked + wrote}
    return answer


def without_text(kind: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return a good answer as one that holds no whole description."""
    choice = answer["choices"][0]
    message = choice["message"]
    if kind == "refusal":
        message |= {"content": None, "refusal": "I'm sorry, I can't help with identifying this person."}
    elif kind == "content_filter":
        message["content"], choice["finish_reason"] = None, "content_filter"
    elif kind == "reasoning_only":
        message |= {"content": None, "reasoning_content": "The user wants a description. Let me look at the"}
        choice["finish_reason"] = "length"
    else:
        content = message["content"]
        message["content"] = content[: len(content) // 2] if isinstance(content, str) else content
        choice["finish_reason"] = "length"
    return answer


def false_completions(good: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return answers that hold the text of a good one and say besides that they are errors."""
    broken_off = copy.deepcopy(good)
    broken_off["choices"][0] |= {"finish_reason": "error", "error": {"code": 502, "message": "Provider disconnected"}}
    return (
        {**good, "error": {"message": "Provider returned error", "code": 502}},
        {**good, "error": "model overloaded"},
        {**good, "success": False},
        {**good, "status": "failed"},
        {**good, "errors": [{"message": "upstream timed out"}]},
        broken_off,
    )


def error_body(form: str, status: int, kind: str, code: str | int | None, field: str | None, text: str) -> object:
    """Return an error in the form of OpenAI, vLLM, Gemini, Ollama's own API (a text), or FastAPI."""
    if form == "vllm":
        return {"object": "error", "message": text, "type": kind, "param": field, "code": status}
    if form == "gemini":
        return [{"error": {"code": status, "message": text, "status": kind.upper()}}]
    if form == "text":
        return {"error": text}
    if form == "detail":
        return {"detail": text}
    return {"error": {"message": text, "type": kind, "param": field, "code": code}}


def structured_text(schema: str, text: str, image: ImageInfo) -> str:
    """Return the text of a JSON object that follows the schema."""
    return json.dumps(value_for(json.loads(schema), "", text, image), separators=(",", ":"))


def value_for(schema: Any, name: str, text: str, image: ImageInfo) -> object:
    """Return a value that follows a simple schema: texts describe the image, numbers are its measurements."""
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {key: value_for(value, key, text, image) for key, value in schema.get("properties", {}).items()}
    if kind == "array":
        items = schema.get("items", {})
        if items.get("type", "string") == "string" and "enum" not in items:
            return list(image.colours)
        return [value_for(items, name, text, image)]
    values: dict[str, object] = {"integer": image.width, "number": image.brightness, "boolean": True, "null": None}
    title = f"{image.orientation.capitalize()} in {image.colours[0]}"
    return values.get(kind, title if name == "title" else text)
