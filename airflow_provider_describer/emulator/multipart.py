"""Parse a multipart/form-data body with python-multipart's parser.

Starlette's own form parser is not strict enough for a vendor's part: it drops the content type of text fields, decodes
text that is not UTF-8, and accepts a body without its last boundary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header


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


def read_form(content_type: str, body: bytes) -> list[Part]:
    """Return the parts of a multipart/form-data body in their order; raise FormError if it is not one."""
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
    return reader.parts
