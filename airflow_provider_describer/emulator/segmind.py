"""Segmind's `ideogram-describe`, v1 and v2, read strictly."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from datetime import UTC, datetime
from email.utils import formatdate

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from airflow_provider_describer.emulator.bad_responses import html_page
from airflow_provider_describer.emulator.calls import Asked, RefusedError, is_refusal, note_image
from airflow_provider_describer.emulator.fake_text import sentence
from airflow_provider_describer.emulator.fault_rolls import Fate
from airflow_provider_describer.emulator.faults import SEGMIND
from airflow_provider_describer.emulator.image_input import ImageRefusedError
from airflow_provider_describer.emulator.ledger import Entry, plain
from airflow_provider_describer.emulator.segmind_jobs import Jobs
from airflow_provider_describer.emulator.state import World

V1_PATH = "/v1/ideogram-describe"
V2_PATH = "/v2/ideogram-describe"
FORMATS = ("JPEG", "PNG", "WEBP")
UNSAFE = "Image failed the safety check"
# How long a 429 that only a fault ordered asks the client to wait.
SHORT_WAIT_S = 1.0

ERRORS = {
    "bad_request": (400, "Invalid request body"),
    "missing_key": (401, "Missing Authorization or x-api-key in header"),
    "forbidden": (403, "Your account is not permitted to use the model ideogram-describe"),
    "not_found": (404, "Model not found"),
    "invalid_content_type": (406, "Invalid content type"),
    "spend_limit": (406, "Team spend limit reached: your monthly limit of $50.00 is used up"),
    "model_retired": (410, "The model ideogram-describe has been retired"),
    "harmful": (422, UNSAFE),
    "server_error": (500, "An internal server error occurred during processing"),
}
AUTH_ERRORS = {
    "invalid_key": (401, "invalid_api_key", "Unauthorized. API key is invalid or may have expired"),
    "rate_limited": (429, "rate_limit_exceeded", "Too many requests"),
}
PAGES = {
    "method_not_allowed": 405,
    "too_large": 413,
    "bad_gateway": 502,
    "html_error": 502,
    "unavailable": 503,
    "gateway_timeout": 504,
}
WRONG: tuple[object, ...] = (
    {"descriptions": 7},
    {"descriptions": [{"text": None}]},
    {"descriptions": []},
    [1, 2],
    {"output": {"unexpected": True}},
    42,
    None,
)
WRONG_V2: tuple[object, ...] = (
    {"request_id": 17, "status": ["QUEUED"]},
    {"status": "QUEUED"},
    ["QUEUED"],
    "QUEUED",
    None,
)


class Segmind:
    """What Segmind does with a v1 call: it answers when the description is there."""

    name = SEGMIND

    def __init__(self, world: World) -> None:
        self.world = world

    def check_key(self, request: Request) -> None:
        sent = request.headers.get("x-api-key")
        if not sent:
            raise RefusedError("missing_key")
        if not secrets.compare_digest(sent.encode(), self.world.keys[self.name].encode()):
            raise RefusedError("invalid_key")

    async def read(self, request: Request, body: bytes, entry: Entry) -> Asked:
        uri = image_uri(read_json(request, body))
        try:
            received = await self.world.intake.receive(uri, self.world.faults(self.name).fetch_timeout_s)
            fingerprint = await self.world.intake.fingerprint(received)
            note_image(entry, received, fingerprint)
            sight = await self.world.intake.look(received, fingerprint)
        except ImageRefusedError as error:
            raise RefusedError("bad_request", str(error)) from error
        if sight.format not in FORMATS:
            raise RefusedError("bad_request", f"image is {sight.format}; only {', '.join(FORMATS)} are supported")
        return Asked(sight)

    async def work(self, request: Request, asked: Asked, fate: Fate, entry: Entry) -> Response:
        if fate.kind is not None and is_refusal(fate.kind):
            await asyncio.sleep(fate.latency_s)
            raise RefusedError(fate.kind)
        price = self.hold()
        started = time.monotonic()
        await asyncio.sleep(fate.latency_s)
        self.world.ledger.bill(entry, price)
        entry.outcome = "described"
        response = styled(sentence(asked.sight), self.world.faults(self.name).answer_style)
        response.headers["x-cost"] = plain(price)
        response.headers["x-remaining-credits"] = plain(self.balance())
        response.headers["x-generation-time"] = f"{time.monotonic() - started:.3f}"
        response.headers["x-request-id"] = entry.request_id
        return response

    def hold(self) -> int:
        """Set the price of a call aside and return it; raise RefusedError where the balance is too low."""
        price = self.world.price(self.name)
        if not self.world.ledger.hold(self.name, price):
            raise RefusedError("insufficient_credits")
        return price

    def balance(self) -> int:
        return self.world.ledger.accounts[self.name].balance or 0

    def blank(self, request: Request, entry: Entry) -> Response:
        return styled("", self.world.faults(self.name).answer_style)

    def wrong_types(self, variant: int) -> object:
        return WRONG[variant % len(WRONG)]

    def refusal(self, refused: RefusedError, entry: Entry) -> Response:
        response = self.error(refused)
        entry.outcome = "invalid_key" if refused.kind == "unauthorized" else refused.kind
        response.headers["x-request-id"] = entry.request_id
        return response

    def error(self, refused: RefusedError) -> Response:
        """Return the documented answer for an error."""
        kind = "invalid_key" if refused.kind == "unauthorized" else refused.kind
        if kind in PAGES:
            return html_page(PAGES[kind])
        if kind == "insufficient_credits":
            has, needs = plain(self.balance()), plain(self.world.price(self.name))
            return error(406, f"Insufficient credits: your balance is ${has}, this call needs ${needs}")
        if kind not in AUTH_ERRORS:
            status, message = ERRORS[kind]
            return error(status, refused.detail or message)
        status, code, meaning = AUTH_ERRORS[kind]
        response = JSONResponse({"error": code, "error_description": meaning, "status_code": status}, status)
        if kind == "rate_limited":
            self.say_when(response, refused.resets_at or time.time() + SHORT_WAIT_S)
        return response

    def say_when(self, response: Response, resets_at: float) -> None:
        faults = self.world.faults(self.name)
        response.headers["x-rate-limit-reset-at-utc"] = timestamp(resets_at, faults.reset_format)
        if faults.retry_after is not None:
            response.headers["retry-after"] = faults.retry_after


class SegmindV2(Segmind):
    """What Segmind does with a v2 call: it answers at once, and the description is fetched later."""

    def __init__(self, world: World, jobs: Jobs) -> None:
        super().__init__(world)
        self.jobs = jobs

    async def work(self, request: Request, asked: Asked, fate: Fate, entry: Entry) -> Response:
        if fate.kind is not None and is_refusal(fate.kind) and fate.kind != "harmful":
            raise RefusedError(fate.kind)
        price = self.hold()
        failure = UNSAFE if fate.kind == "harmful" else "Inference failed" if fate.fails_later else None
        faults = self.world.faults(self.name)
        output = styled_value(sentence(asked.sight), faults.answer_style)
        job = self.jobs.submit(entry, price, output, failure, faults)
        return JSONResponse(
            {"request_id": job.id, "status": "QUEUED", **self.jobs.urls(job, str(request.base_url))},
            headers={"x-request-id": job.id},
        )

    def blank(self, request: Request, entry: Entry) -> Response:
        job = self.jobs.by_id[entry.request_id]
        job.output = styled_value("", self.world.faults(self.name).answer_style)
        return JSONResponse({"request_id": job.id, "status": "QUEUED", **self.jobs.urls(job, str(request.base_url))})

    def wrong_types(self, variant: int) -> object:
        return WRONG_V2[variant % len(WRONG_V2)]


def error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def read_json(request: Request, body: bytes) -> dict[str, object]:
    """Return the JSON object a request carries; raise RefusedError where it carries none."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RefusedError("invalid_content_type")
    try:
        given = json.loads(body)
    except ValueError as problem:
        raise RefusedError("bad_request", "the body is not JSON") from problem
    if not isinstance(given, dict):
        raise RefusedError("bad_request", "the body is not a JSON object")
    return given


def image_uri(given: dict[str, object]) -> str:
    uri = given.get("image_file")
    if not isinstance(uri, str) or not uri:
        raise RefusedError("bad_request", "image_file is required and must be a URI")
    return uri


def styled_value(text: str, style: str) -> object:
    """Return a description in one of the forms that the documentation leaves open."""
    forms: dict[str, object] = {
        "descriptions": {"descriptions": [{"text": text}]},
        "list": [text],
        "objects": [{"text": text}],
        "string": text,
        "plain": text,
    }
    return forms.get(style, {style: text})


def styled(text: str, style: str) -> Response:
    if style == "plain":
        return PlainTextResponse(text)
    return JSONResponse(styled_value(text, style))


def timestamp(moment: float, form: str) -> str:
    """Return a moment in one of the forms a client must understand, never a moment too early."""
    if form == "epoch":
        return str(math.ceil(moment))
    if form == "http":
        return formatdate(math.ceil(moment), usegmt=True)
    rounded = datetime.fromtimestamp(math.ceil(moment * 1000) / 1000, tz=UTC)
    return rounded.isoformat(timespec="milliseconds").replace("+00:00", "Z")
