"""Image Describer API V2, read strictly.

The form is parsed with python-multipart's parser, because Starlette's own form parser is not strict enough: it drops
the content type of text fields and decodes text that is not UTF-8.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from airflow_provider_describer.emulator.bad_responses import GATEWAY_ERRORS, gateway_error
from airflow_provider_describer.emulator.calls import RefusedError, Vendor
from airflow_provider_describer.emulator.fault_settings import IMAGE_DESCRIBER
from airflow_provider_describer.emulator.faults import Call
from airflow_provider_describer.emulator.image_info import LANGUAGES, ImageRefusedError, describe_in_markdown
from airflow_provider_describer.emulator.image_input import ReceivedImage
from airflow_provider_describer.emulator.ledger import Entry

FIELDS = ("image", "prompt", "lang")

# A documented error's code in the body, and its HTTP status if `error_style` gives errors one.
CODES = {
    "SERVER_ERROR": (500, 500, "Internal server error"),
    "INSUFFICIENT_CREDITS": (10003, 402, "Insufficient credits"),
    "INVALID_PARAM": (10004, 400, "Invalid parameters"),
    "HARMFUL_CONTENT": (10005, 422, "Harmful content detected"),
    "INVALID_API_KEY": (30001, 401, "Invalid API key"),
    "INVALID_SIGNATURE": (30002, 401, "Invalid request signature"),
}
# This vendor's names for the kinds of fault that all vendors have.
ERROR_NAMES = {
    "server_error": "SERVER_ERROR",
    "harmful": "HARMFUL_CONTENT",
    "insufficient_credits": "INSUFFICIENT_CREDITS",
    "spend_limit": "INSUFFICIENT_CREDITS",
    "invalid_key": "INVALID_API_KEY",
}
# The vendor does not document these; a gateway in front of any website may answer so.
HTML_ERRORS = {**GATEWAY_ERRORS, "forbidden": 403, "model_retired": 410}


class FormError(ValueError):
    """The request is not a well-formed form; the message says why."""


@dataclass(slots=True)
class Part:
    """One part of a form; `filename` is None if there was none, "" if it was empty."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    name: str = ""
    filename: str | None = None

    @property
    def content_type(self) -> str | None:
        """The media type without its parameters, or None if the part has no such header."""
        value = self.headers.get("content-type")
        return None if value is None else value.partition(";")[0].strip().lower()


class ImageDescriber(Vendor):
    name = IMAGE_DESCRIBER
    path = "/api/openapi-v2/describe-image"
    refusal = "INVALID_PARAM"
    wrong_types = (
        {"code": 200, "succeed": True, "msg": "Success", "data": {"content": 42}},
        {"code": 200, "succeed": True, "msg": "Success", "data": ["a description"]},
        {"code": 200, "succeed": True, "msg": "Success", "data": None},
        {"code": "ok", "succeed": "yes", "msg": 7, "data": "a description"},
        ["a description"],
        None,
    )

    def check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not secrets.compare_digest(given.encode(), f"Bearer {self.state.keys[self.name]}".encode()):
            raise RefusedError("INVALID_API_KEY")

    async def read(self, request: Request, body: bytes, entry: Entry) -> Call:
        try:
            fields = read_form(request.headers.get("content-type", ""), body)
            entry.prompt = text_of(fields, "prompt")
            entry.lang = text_of(fields, "lang") if "lang" in fields else "en"
            if not entry.prompt.strip():
                raise FormError("the field 'prompt' is blank")
            if entry.lang not in LANGUAGES:
                raise FormError(f"the field 'lang' is {entry.lang!r}, not one of {'/'.join(LANGUAGES)}")
            info = await self.measure(await self.read_image(fields), entry)
        except (FormError, ImageRefusedError) as error:
            raise RefusedError("INVALID_PARAM", str(error)) from error
        uri = text_of(fields, "image") if entry.image_via != "file" else None
        return Call(self.name, info, entry.prompt, entry.lang, uri)

    async def read_image(self, fields: dict[str, Part]) -> ReceivedImage:
        part = fields.get("image")
        if part is None:
            raise FormError("the field 'image' is missing")
        if part.filename is None and part.content_type in (None, "text/plain"):
            return await self.state.images.load(text_of(fields, "image"), self.settings.fetch_timeout_s)
        if not part.filename:
            raise FormError("the file part 'image' has no filename")
        if part.content_type is None:
            raise FormError("the file part 'image' has no Content-Type")
        return ReceivedImage(bytes(part.body), "file", part.content_type)

    def describe(self, call: Call) -> str:
        return describe_in_markdown(call.image, call.prompt or "", call.lang or "en")

    def answer(self, call: Call, text: str) -> Response:
        return JSONResponse({"code": 200, "data": {"content": text}, "succeed": True, "msg": "Success"})

    def false_answer(self, call: Call, text: str, variant: int) -> Response:
        good = {"code": 200, "succeed": True, "msg": "Success", "data": {"content": text}}
        lies: tuple[dict[str, object], ...] = (
            {"succeed": None},
            {"succeed": False},
            {"code": "200", "succeed": "false"},
            {"error": "Model overloaded"},
            {"msg": "SERVER_ERROR"},
            {"code": 200, "status": "failed"},
        )
        return JSONResponse({**good, **lies[variant % len(lies)]})

    def error_answer(self, refused: RefusedError, entry: Entry) -> Response:
        entry.outcome = ERROR_NAMES.get(refused.kind, refused.kind)
        if entry.outcome in HTML_ERRORS:
            return gateway_error(HTML_ERRORS[entry.outcome])
        if entry.outcome == "rate_limited":
            body = {"code": 429, "succeed": False, "msg": "Too many requests", "data": None}
            retry_after = self.settings.retry_after
            return JSONResponse(body, 429, {} if retry_after is None else {"retry-after": retry_after})
        code, status, meaning = CODES[entry.outcome]
        style = self.settings.error_style
        body = {"code": code, "succeed": False, "msg": f"{entry.outcome}: {refused.detail or meaning}", "data": None}
        if style.endswith("no_data"):
            del body["data"]
        return JSONResponse(body, status if style.startswith("http") else 200)


def text_of(fields: dict[str, Part], name: str) -> str:
    """Return the text of a field; raise FormError if it is missing, a file part or not UTF-8."""
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


class FormReader:
    """Collects the parts of a body that is parsed in one piece; the parser calls the `on_…` methods."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.header = ""
        self.is_complete = False

    def on_part_begin(self) -> None:
        self.parts.append(Part())

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].body += memoryview(data)[start:end]

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header = data[start:end].decode("latin-1").strip().lower()
        self.parts[-1].headers[self.header] = ""

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].headers[self.header] = data[start:end].decode("latin-1").strip()

    def on_headers_finished(self) -> None:
        part = self.parts[-1]
        kind, options = parse_options_header(part.headers.get("content-disposition", ""))
        if kind != b"form-data" or b"name" not in options:
            raise FormError("a part of the form has no Content-Disposition: form-data with a name")
        part.name = options[b"name"].decode("utf-8", "replace")
        if b"filename" in options:
            part.filename = options[b"filename"].decode("utf-8", "replace")

    def on_end(self) -> None:
        self.is_complete = True


def read_form(content_type: str, body: bytes) -> dict[str, Part]:
    """Return the parts of a multipart/form-data body by their names; raise FormError if it is malformed."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise FormError(f"Content-Type must be multipart/form-data, not {content_type or 'absent'!r}")
    if not options.get(b"boundary"):
        raise FormError("Content-Type multipart/form-data without a boundary")
    reader = FormReader()
    callbacks = {name: getattr(reader, name) for name in vars(FormReader) if name.startswith("on_")}
    try:
        MultipartParser(options[b"boundary"], callbacks).write(body)  # type: ignore[arg-type]
    except MultipartParseError as error:
        raise FormError(f"the multipart body is malformed: {error}") from error
    if not reader.is_complete:
        raise FormError("the multipart body ends before its last boundary")
    fields: dict[str, Part] = {}
    for part in reader.parts:
        if part.name not in FIELDS:
            raise FormError(f"unknown field {part.name!r}")
        if part.name in fields:
            raise FormError(f"the field {part.name!r} was sent twice")
        fields[part.name] = part
    return fields
