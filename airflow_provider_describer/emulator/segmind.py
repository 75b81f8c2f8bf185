"""Segmind's `ideogram-describe` v1, its errors, and its endpoints that cost nothing, read strictly."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import formatdate
from mimetypes import add_type, guess_extension
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from airflow_provider_describer.emulator.bad_responses import GATEWAY_ERRORS, gateway_error
from airflow_provider_describer.emulator.calls import EmulatorState, RefusedError, Vendor, read_body
from airflow_provider_describer.emulator.fault_settings import SEGMIND
from airflow_provider_describer.emulator.faults import Call, CallFaults
from airflow_provider_describer.emulator.image_info import ImageRefusedError, describe_in_a_sentence
from airflow_provider_describer.emulator.image_input import ReceivedImage, from_data_uri
from airflow_provider_describer.emulator.ledger import Entry, format_usd, to_usd
from airflow_provider_describer.emulator.segmind_history import PATH, RequestHistory

FORMATS = ("JPEG", "PNG", "WEBP")
UNSAFE = "Image failed the safety check"
# The wait that a 429 asks for if a fault rule, not the rate limit, caused it.
RATE_LIMITED_S = 1.0
MAX_STORED_BYTES = 2 * 1024**3
add_type("image/webp", ".webp")  # some platforms' tables do not know it

# An error's HTTP status, its text and, for some, its description.
ERRORS: dict[str, tuple[int, str, str | None]] = {
    "bad_request": (400, "Invalid request body", None),
    "missing_key": (401, "Missing Authorization or x-api-key in header", None),
    "invalid_key": (401, "invalid_api_key", "Unauthorized. API key is invalid or may have expired"),
    "forbidden": (403, "Your account is not permitted to use the model ideogram-describe", None),
    "not_found": (404, "Model not found", None),
    "invalid_content_type": (406, "Invalid content type", None),
    "spend_limit": (406, "Team spend limit reached: your monthly limit of $50.00 is used up", None),
    "model_retired": (410, "The model ideogram-describe has been retired", None),
    "harmful": (422, UNSAFE, None),
    "rate_limited": (429, "rate_limit_exceeded", "Too many requests"),
    "server_error": (500, "An internal server error occurred during processing", None),
}
HTML_ERRORS = {**GATEWAY_ERRORS, "method_not_allowed": 405}

Handler = Callable[[Request], Awaitable[Response]]


class Segmind(Vendor):
    """v1: the answer to the call is the description."""

    name = SEGMIND
    path = "/v1/ideogram-describe"
    refusal = "bad_request"
    wrong_types: ClassVar[tuple[object, ...]] = (
        {"descriptions": 7},
        {"descriptions": [{"text": None}]},
        {"descriptions": []},
        [1, 2],
        {"output": {"unexpected": True}},
        42,
        None,
    )

    def __init__(self, state: EmulatorState, history: RequestHistory | None = None) -> None:
        super().__init__(state)
        self.history = history or RequestHistory(state)

    @property
    def balance(self) -> int:
        return self.ledger.accounts[self.name].balance or 0

    def check_key(self, request: Request) -> None:
        given = request.headers.get("x-api-key")
        if not given:
            raise RefusedError("missing_key")
        if not secrets.compare_digest(given.encode(), self.state.keys[self.name].encode()):
            raise RefusedError("invalid_key")

    async def read(self, request: Request, body: bytes, entry: Entry) -> Call:
        inputs = read_json(request, body)
        self.history.note_inputs(entry, inputs)
        uri = inputs.get("image_file")
        if not isinstance(uri, str) or not uri:
            raise RefusedError("bad_request", "image_file is required and must be a URI")
        try:
            info = await self.measure(await self.state.images.load(uri, self.settings.fetch_timeout_s), entry)
        except ImageRefusedError as error:
            raise RefusedError("bad_request", str(error)) from error
        if info.format not in FORMATS:
            raise RefusedError("bad_request", f"image is {info.format}; only {', '.join(FORMATS)} are supported")
        return Call(self.name, info, image_uri=uri)

    async def work(self, request: Request, call: Call, faults: CallFaults, entry: Entry) -> Response:
        price, started = self.price, time.monotonic()
        self.history.note_output(entry, self.output(self.describe(call)))
        response = await super().work(request, call, faults, entry)
        response.headers["x-cost"] = format_usd(price)
        response.headers["x-remaining-credits"] = format_usd(self.balance)
        response.headers["x-generation-time"] = f"{time.monotonic() - started:.3f}"
        response.headers["x-request-id"] = entry.request_id
        return response

    def describe(self, call: Call) -> str:
        return describe_in_a_sentence(call.image)

    def answer(self, call: Call, text: str) -> Response:
        if self.settings.answer_style == "plain":
            return PlainTextResponse(text)
        return JSONResponse(self.output(text))

    def output(self, text: str) -> object:
        """Return a description in one of the forms that the documentation leaves open."""
        style = self.settings.answer_style
        forms: dict[str, object] = {
            "descriptions": {"descriptions": [{"text": text}]},
            "list": [text],
            "objects": [{"text": text}],
            "string": text,
            "plain": text,
        }
        return forms.get(style, {style: text})

    def false_answer(self, call: Call, text: str, variant: int) -> Response:
        return JSONResponse(self.false_output(text, variant))

    def false_output(self, text: str, variant: int) -> object:
        outputs: tuple[dict[str, object], ...] = (
            {"error": "Model overloaded", "prompt": "a"},
            {"status": "error", "text": text},
            {"success": False, "message": "Internal Server Error", "output": text},
            {"code": 500, "description": text},
            {"descriptions": [{"text": text}], "error_message": "Model overloaded"},
            {"descriptions": [{"text": text, "error": {"type": "timeout"}}]},
        )
        return outputs[variant % len(outputs)]

    def error_answer(self, refused: RefusedError, entry: Entry) -> Response:
        refused.kind = entry.outcome = "invalid_key" if refused.kind == "unauthorized" else refused.kind
        entry.ended_at = time.time()
        response = self.error(refused)
        response.headers["x-request-id"] = entry.request_id
        return response

    def error(self, refused: RefusedError) -> Response:
        """Return the documented answer for an error."""
        if refused.kind in HTML_ERRORS:
            return gateway_error(HTML_ERRORS[refused.kind])
        if refused.kind == "insufficient_credits":
            has, needs = format_usd(self.balance), format_usd(self.price)
            return json_error(406, f"Insufficient credits: your balance is ${has}, this call needs ${needs}")
        status, text, description = ERRORS[refused.kind]
        if description is None:
            return json_error(status, refused.detail or text)
        response = JSONResponse({"error": text, "error_description": description, "status_code": status}, status)
        if refused.kind == "rate_limited":
            resets_at = refused.resets_at or time.time() + RATE_LIMITED_S
            response.headers["x-rate-limit-reset-at-utc"] = format_time(resets_at, self.settings.reset_format)
            if self.settings.retry_after is not None:
                response.headers["retry-after"] = self.settings.retry_after
        return response

    def free(self, handler: Handler) -> Handler:
        """Return a handler that checks the key first and turns RefusedError into an answer."""

        async def check_and_handle(request: Request) -> Response:
            self.ledger.free_requests += 1
            try:
                self.check_key(request)
                return await handler(request)
            except RefusedError as refused:
                return self.error(refused)

        return check_and_handle


class FreeEndpoints:
    """The balance, uploads, and models that do not exist."""

    def __init__(self, vendor: Segmind) -> None:
        self.vendor = vendor
        self.stored: dict[str, ReceivedImage] = {}
        self.stored_bytes = 0

    def routes(self) -> list[Route]:
        """Return the routes; they belong after those of the models that exist."""
        free = self.vendor.free
        return [
            Route("/v1/get-user-credits", free(self.credits)),
            Route("/upload-asset", free(self.upload), methods=["POST"]),
            Route(PATH, free(self.history)),
            Route("/assets/{name}", self.asset),
            Route("/v1/{model}", free(self.unknown_model), methods=["POST"]),
            Route("/v2/{model}", free(self.unknown_model), methods=["POST"]),
        ]

    async def credits(self, request: Request) -> Response:
        balance = self.vendor.ledger.accounts[SEGMIND].balance
        if balance is None:
            return json_error(404, "No credits found for the user")
        return JSONResponse({"credits": to_usd(balance), "free-credits": 0.0})

    async def history(self, request: Request) -> Response:
        return self.vendor.history.page(request.query_params)

    async def upload(self, request: Request) -> Response:
        body = await read_body(request)
        if body is None:
            raise RefusedError("too_large")
        uris = read_json(request, body).get("data_urls")
        if not isinstance(uris, list) or not uris:
            raise RefusedError("bad_request", "data_urls is required and must be a list of data URIs")
        names = [self.store(uri, number) for number, uri in enumerate(uris)]
        urls = [f"{request.base_url}assets/{name}" for name in names]
        return JSONResponse({self.vendor.settings.upload_answer: urls, "message": "Files uploaded successfully"})

    def store(self, uri: object, number: int) -> str:
        """Store a file and return its name, which is made of its content: equal files are stored once."""
        if not isinstance(uri, str):
            raise RefusedError("bad_request", f"data_urls[{number}] is not a data URI")
        try:
            received = from_data_uri(uri)
        except ImageRefusedError as error:
            raise RefusedError("bad_request", f"data_urls[{number}]: {error}") from error
        extension = guess_extension(received.claimed_type or "") or ".bin"
        name = hashlib.sha256(received.data).hexdigest()[:32] + extension
        if name not in self.stored:
            # Nothing is ever deleted, because the vendor promises lasting URLs.
            if self.stored_bytes + len(received.data) > MAX_STORED_BYTES:
                raise RefusedError("server_error", f"the emulator stores at most {MAX_STORED_BYTES} bytes of uploads")
            self.stored[name] = received
            self.stored_bytes += len(received.data)
        return name

    async def asset(self, request: Request) -> Response:
        stored = self.stored.get(request.path_params["name"])
        if stored is None:
            return json_error(404, "No such asset")
        return Response(stored.data, media_type=stored.claimed_type)

    async def unknown_model(self, request: Request) -> Response:
        raise RefusedError("not_found", f"Model {request.path_params['model']} not found")


def json_error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def read_json(request: Request, body: bytes) -> dict[str, object]:
    """Return the JSON object in a request; raise RefusedError if there is none."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RefusedError("invalid_content_type")
    try:
        value = json.loads(body)
    except ValueError as error:
        raise RefusedError("bad_request", "the body is not JSON") from error
    if not isinstance(value, dict):
        raise RefusedError("bad_request", "the body is not a JSON object")
    return value


def format_time(timestamp: float, form: str) -> str:
    """Return a time in one of the forms that a client must understand, rounded up."""
    if form == "epoch":
        return str(math.ceil(timestamp))
    if form == "http":
        return formatdate(math.ceil(timestamp), usegmt=True)
    rounded = datetime.fromtimestamp(math.ceil(timestamp * 1000) / 1000, tz=UTC)
    return rounded.isoformat(timespec="milliseconds").replace("+00:00", "Z")
