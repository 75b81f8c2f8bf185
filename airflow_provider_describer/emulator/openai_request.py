"""Read a request of the OpenAI-compatible protocol as strictly as OpenAI's own server does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from airflow_provider_describer.emulator.calls import RefusedError
from airflow_provider_describer.emulator.faults import Call
from airflow_provider_describer.emulator.image_info import ImageInfo

# The second one takes `max_completion_tokens` alone, as OpenAI's newer models do.
MODELS = ("emulated-vision", "emulated-reasoning")
FIELDS = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "response_format", "stream", "temperature", "top_p"}
    | {"n", "seed", "stop", "user", "metadata", "store", "presence_penalty", "frequency_penalty", "reasoning_effort"}
)
SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
TILE = 512


@dataclass(frozen=True, slots=True)
class ChatCall(Call):
    """A well-formed call of the protocol. `schema` is the answer's JSON schema as text, or empty."""

    model: str = MODELS[0]
    max_tokens: int | None = None
    schema: str = ""
    detail: str = "auto"

    @property
    def prompt_tokens(self) -> int:
        """The tokens of the question: four characters each, and those of the image by its 512-pixel tiles."""
        tiles = 0 if self.detail == "low" else ceil(self.image.width / TILE) * ceil(self.image.height / TILE)
        return ceil(len(self.prompt or "") / 4) + 85 + 170 * tiles


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks, before its image is fetched."""

    model: str
    prompt: str
    image_uri: str
    detail: str
    max_tokens: int | None
    schema: str

    def call(self, vendor: str, image: ImageInfo) -> ChatCall:
        return ChatCall(
            vendor,
            image,
            self.prompt,
            image_uri=self.image_uri,
            model=self.model,
            max_tokens=self.max_tokens,
            schema=self.schema,
            detail=self.detail,
        )


def refused(detail: str, kind: str = "bad_request") -> RefusedError:
    return RefusedError(kind, detail)


def read_chat(content_type: str, body: bytes) -> Asked:
    """Return what a request asks; raise RefusedError if it is malformed."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise refused("Content-Type must be application/json")
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise refused("We could not parse the JSON body of your request.") from error
    if not isinstance(asked, dict):
        raise refused("The JSON body of your request is not an object.")
    for name in asked:
        if name not in FIELDS:
            raise refused(f"Unrecognized request argument supplied: {name}")
    if asked.get("stream"):
        raise refused("The emulator does not stream.")
    model = asked.get("model")
    if not isinstance(model, str) or not model:
        raise refused("you must provide a model parameter")
    if model not in MODELS:
        raise refused(f"The model `{model}` does not exist or you do not have access to it.", "not_found")
    prompt, uri, detail = read_messages(asked.get("messages"))
    return Asked(model, prompt, uri, detail, read_max_tokens(asked, model), read_schema(asked.get("response_format")))


def read_max_tokens(asked: Mapping[str, object], model: str) -> int | None:
    if "max_tokens" in asked and model == MODELS[1]:
        words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'"
        raise refused(f"{words} instead.", "unsupported_parameter")
    limits: list[int] = []
    for name in ("max_tokens", "max_completion_tokens"):
        limit = asked.get(name)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            limits.append(limit)
        elif limit is not None:
            raise refused(f"Invalid value for {name}: expected an integer above 0, but got {limit!r}.")
    return min(limits, default=None)


def read_messages(messages: object) -> tuple[str, str, str]:
    """Return the texts, the address of the one image, and its detail."""
    if not isinstance(messages, list) or not messages:
        raise refused("Invalid 'messages': empty array or no array.")
    texts: list[str] = []
    images: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("system", "developer", "user", "assistant"):
            raise refused(f"Invalid value: 'messages[{number}]' has no known role.")
        content = message.get("content")
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or []:
            read_part(part, f"messages[{number}].content", texts, images)
    if len(images) != 1:
        raise refused(f"The emulator describes one image a call, but 'messages' hold {len(images)}.")
    return "\n".join(texts), *images[0]


def read_part(part: object, where: str, texts: list[str], images: list[tuple[str, str]]) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    value = part.get(kind) if isinstance(part, dict) and kind in ("text", "image_url") else None
    if kind == "text" and isinstance(value, str):
        texts.append(value)
        return
    if kind != "image_url" or not isinstance(value, dict) or not isinstance(value.get("url"), str):
        raise refused(f"Invalid value in '{where}': expected parts of type text or image_url.")
    detail = value.get("detail", "auto")
    if detail not in ("auto", "low", "high") or set(value) > {"url", "detail"}:
        raise refused(f"Invalid value in '{where}': expected url and a detail of auto, low or high.")
    images.append((value["url"], detail))


def read_schema(form: object) -> str:
    """Return the JSON schema of the answer as text, or an empty text if none is asked for."""
    if form is None or (isinstance(form, dict) and form.get("type") == "text"):
        return ""
    about = form.get("json_schema") if isinstance(form, dict) and form.get("type") == "json_schema" else None
    if not isinstance(about, dict) or not isinstance(about.get("schema"), dict):
        raise refused("Invalid 'response_format': expected text, or json_schema with a schema.", "invalid_schema")
    name = about.get("name")
    if not isinstance(name, str) or not SCHEMA_NAME.fullmatch(name):
        raise refused(f"Invalid 'response_format.json_schema.name': {name!r}.", "invalid_schema")
    if about["schema"].get("type") != "object":
        raise refused(f"Invalid schema for response_format '{name}': it must have the type 'object'.", "invalid_schema")
    if about.get("strict"):
        check_strict(about["schema"], name, ())
    return json.dumps(about["schema"])


def check_strict(schema: object, name: str, context: tuple[str, ...]) -> None:
    """Raise RefusedError unless each object of a strict schema names all of its properties and allows no other."""
    if not isinstance(schema, dict):
        return
    begin = f"Invalid schema for response_format '{name}': In context={context!r}, "
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            raise refused(
                f"{begin}'additionalProperties' is required to be supplied and to be false.", "invalid_schema"
            )
        if set(schema.get("required", ())) != set(properties):
            raise refused(f"{begin}'required' must include every key in properties.", "invalid_schema")
        for key, value in properties.items():
            check_strict(value, name, (*context, "properties", key))
    check_strict(schema.get("items"), name, (*context, "items"))
