"""Image Describer API V2, read strictly."""

from __future__ import annotations

import asyncio
import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from airflow_provider_describer.emulator.bad_responses import html_page
from airflow_provider_describer.emulator.calls import Asked, RefusedError, is_refusal, note_image
from airflow_provider_describer.emulator.fake_text import LANGUAGES, markdown
from airflow_provider_describer.emulator.fault_rolls import Fate
from airflow_provider_describer.emulator.faults import IMAGE_DESCRIBER
from airflow_provider_describer.emulator.image_input import ImageRefusedError, Received
from airflow_provider_describer.emulator.ledger import Entry
from airflow_provider_describer.emulator.multipart import FormError, Part, read_form
from airflow_provider_describer.emulator.state import World

PATH = "/api/openapi-v2/describe-image"
FIELDS = ("image", "prompt", "lang")

# Documented error: its code in the body, and the HTTP status it has where errors are given one.
CODES = {
    "SERVER_ERROR": (500, 500, "Internal server error"),
    "INSUFFICIENT_CREDITS": (10003, 402, "Insufficient credits"),
    "INVALID_PARAM": (10004, 400, "Invalid parameters"),
    "HARMFUL_CONTENT": (10005, 422, "Harmful content detected"),
    "INVALID_API_KEY": (30001, 401, "Invalid API key"),
    "INVALID_SIGNATURE": (30002, 401, "Invalid request signature"),
}
NAMES = {
    "server_error": "SERVER_ERROR",
    "harmful": "HARMFUL_CONTENT",
    "insufficient_credits": "INSUFFICIENT_CREDITS",
    "spend_limit": "INSUFFICIENT_CREDITS",
    "invalid_key": "INVALID_API_KEY",
}
# The vendor documents none of these; they are what the gateway in front of any website answers.
GATEWAY = {
    "bad_gateway": 502,
    "html_error": 502,
    "unavailable": 503,
    "gateway_timeout": 504,
    "forbidden": 403,
    "model_retired": 410,
    "too_large": 413,
}
WRONG: tuple[object, ...] = (
    {"code": 200, "succeed": True, "msg": "Success", "data": {"content": 42}},
    {"code": 200, "succeed": True, "msg": "Success", "data": ["a description"]},
    {"code": 200, "succeed": True, "msg": "Success", "data": None},
    {"code": "ok", "succeed": "yes", "msg": 7, "data": "a description"},
    ["a description"],
    None,
)


class ImageDescriber:
    """What Image Describer does with a call."""

    name = IMAGE_DESCRIBER

    def __init__(self, world: World) -> None:
        self.world = world

    def check_key(self, request: Request) -> None:
        sent = request.headers.get("authorization", "")
        if not secrets.compare_digest(sent.encode(), f"Bearer {self.world.keys[self.name]}".encode()):
            raise RefusedError("INVALID_API_KEY")

    async def read(self, request: Request, body: bytes, entry: Entry) -> Asked:
        try:
            fields = by_name(read_form(request.headers.get("content-type", ""), body))
            entry.prompt = text(fields, "prompt")
            entry.lang = text(fields, "lang") if "lang" in fields else "en"
            check_words(entry.prompt, entry.lang)
            received = await self.image(fields)
            fingerprint = await self.world.intake.fingerprint(received)
            note_image(entry, received, fingerprint)
            sight = await self.world.intake.look(received, fingerprint)
        except (FormError, ImageRefusedError) as error:
            raise RefusedError("INVALID_PARAM", str(error)) from error
        return Asked(sight, entry.prompt, entry.lang)

    async def image(self, fields: dict[str, Part]) -> Received:
        part = fields.get("image")
        if part is None:
            raise FormError("the field 'image' is missing")
        if part.filename is None and part.content_type in (None, "text/plain"):
            return await self.world.intake.receive(text(fields, "image"), self.world.faults(self.name).fetch_timeout_s)
        if not part.filename:
            raise FormError("the file part 'image' has no filename")
        if part.content_type is None:
            raise FormError("the file part 'image' has no Content-Type")
        return Received(bytes(part.body), "file", part.content_type)

    async def work(self, request: Request, asked: Asked, fate: Fate, entry: Entry) -> Response:
        if fate.kind is not None and is_refusal(fate.kind):
            await asyncio.sleep(fate.latency_s)
            raise RefusedError(fate.kind)
        price = self.world.price(self.name)
        if not self.world.ledger.hold(self.name, price):
            raise RefusedError("INSUFFICIENT_CREDITS")
        await asyncio.sleep(fate.latency_s)
        self.world.ledger.bill(entry, price)
        entry.outcome = "described"
        return success(markdown(asked.sight, asked.prompt or "", asked.lang or "en"))

    def blank(self, request: Request, entry: Entry) -> Response:
        return success("")

    def wrong_types(self, variant: int) -> object:
        return WRONG[variant % len(WRONG)]

    def refusal(self, refused: RefusedError, entry: Entry) -> Response:
        entry.outcome = NAMES.get(refused.kind, refused.kind)
        if entry.outcome in GATEWAY:
            return html_page(GATEWAY[entry.outcome])
        if entry.outcome == "rate_limited":
            return self.too_many()
        code, status, meaning = CODES[entry.outcome]
        style = self.world.faults(self.name).error_style
        answer: dict[str, object] = {
            "code": code,
            "succeed": False,
            "msg": f"{entry.outcome}: {refused.detail or meaning}",
        }
        if not style.endswith("no_data"):
            answer["data"] = None
        return JSONResponse(answer, status if style.startswith("http") else 200)

    def too_many(self) -> Response:
        retry_after = self.world.faults(self.name).retry_after
        return JSONResponse(
            {"code": 429, "succeed": False, "msg": "Too many requests", "data": None},
            429,
            {} if retry_after is None else {"retry-after": retry_after},
        )


def success(content: str) -> Response:
    return JSONResponse({"code": 200, "data": {"content": content}, "succeed": True, "msg": "Success"})


def by_name(parts: list[Part]) -> dict[str, Part]:
    fields: dict[str, Part] = {}
    for part in parts:
        if part.name not in FIELDS:
            raise FormError(f"unknown field {part.name!r}")
        if part.name in fields:
            raise FormError(f"the field {part.name!r} was sent twice")
        fields[part.name] = part
    return fields


def text(fields: dict[str, Part], name: str) -> str:
    """Return the text of a field that must be text; raise FormError where it is a file part or not UTF-8."""
    part = fields.get(name)
    if part is None:
        raise FormError(f"the field {name!r} is missing")
    if part.filename is not None:
        raise FormError(f"the text field {name!r} was sent as a file part")
    if part.content_type not in (None, "text/plain"):
        raise FormError(f"the text field {name!r} was sent as {part.content_type!r}")
    try:
        return part.body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormError(f"the text field {name!r} is not UTF-8") from error


def check_words(prompt: str, lang: str) -> None:
    if not prompt.strip():
        raise FormError("the field 'prompt' is blank")
    if lang not in LANGUAGES:
        raise FormError(f"the field 'lang' is {lang!r}, not one of {'/'.join(LANGUAGES)}")
