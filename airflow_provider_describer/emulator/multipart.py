"""Take a multipart/form-data body apart, and keep each part's filename and content type."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header


class FormError(ValueError):
    """The body is not the multipart form it says it is."""


@dataclass(slots=True)
class Part:
    """One part of the form; `filename` is None where none was given, "" where it was empty."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    name: str = ""
    filename: str | None = None

    @property
    def content_type(self) -> str | None:
        """The media type without its parameters, or None where the part has no such header."""
        stated = self.headers.get("content-type")
        return None if stated is None else stated.partition(";")[0].strip().lower()


class FormReader:
    """Collects the parts as the parser calls back."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.header_name = bytearray()
        self.header_value = bytearray()
        self.ended = False

    def on_part_begin(self) -> None:
        self.parts.append(Part())

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].body += memoryview(data)[start:end]

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.header_value += data[start:end]

    def on_header_end(self) -> None:
        name = self.header_name.decode("latin-1").strip().lower()
        self.parts[-1].headers[name] = self.header_value.decode("latin-1").strip()
        self.header_name.clear()
        self.header_value.clear()

    def on_headers_finished(self) -> None:
        part = self.parts[-1]
        kind, options = parse_options_header(part.headers.get("content-disposition", ""))
        if kind != b"form-data" or b"name" not in options:
            raise FormError("a part of the form has no Content-Disposition: form-data with a name")
        part.name = options[b"name"].decode("utf-8", "replace")
        if b"filename" in options:
            part.filename = options[b"filename"].decode("utf-8", "replace")

    def on_end(self) -> None:
        self.ended = True


def read_form(content_type: str, body: bytes) -> list[Part]:
    """Return the parts of a multipart/form-data body in their order; raise FormError where it is none."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise FormError(f"Content-Type must be multipart/form-data, not {content_type or 'absent'!r}")
    if not options.get(b"boundary"):
        raise FormError("Content-Type multipart/form-data without a boundary")
    reader = FormReader()
    parser = MultipartParser(
        options[b"boundary"],
        {
            "on_part_begin": reader.on_part_begin,
            "on_part_data": reader.on_part_data,
            "on_header_field": reader.on_header_field,
            "on_header_value": reader.on_header_value,
            "on_header_end": reader.on_header_end,
            "on_headers_finished": reader.on_headers_finished,
            "on_end": reader.on_end,
        },
    )
    try:
        parser.write(body)
    except MultipartParseError as error:
        raise FormError(f"the multipart body is malformed: {error}") from error
    if not reader.ended:
        raise FormError("the multipart body ends before its last boundary")
    return reader.parts
