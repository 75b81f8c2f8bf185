"""Answers outside the vendors' documentation: errors as answers, HTML pages, damaged answers, and no answer at all."""

from __future__ import annotations

import asyncio
import gzip
import html
import struct
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote

from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

CONNECTION = "describer_emulator.connection"
DRIP_S = 0.1
# The errors of a gateway in front of a vendor; their answers are HTML pages.
GATEWAY_WORDS = (
    "Internal Server Error",
    "upstream request timeout",
    "no healthy upstream",
    "error code: 524",
    "502 Bad Gateway",
)
GATEWAY_ERRORS = {"bad_gateway": 502, "html_error": 502, "unavailable": 503, "gateway_timeout": 504, "too_large": 413}


class ClientConnection(NamedTuple):
    """A client's TCP connection, as `scope[CONNECTION]` holds it; each has its own number."""

    number: int
    transport: asyncio.Transport


class HangingResponse:
    """Never answer; return when the client has disconnected."""

    status_code: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn answers 500 if a handler returns without an answer while the client is connected.
        while (await receive())["type"] != "http.disconnect":
            pass


class DroppedConnection(HangingResponse):
    """Close the TCP connection without sending any part of an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[CONNECTION].transport.abort()
        await super().__call__(scope, receive, send)


class DrippingResponse(HangingResponse):
    """Begin a good answer and send a byte of it now and then, without an end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        gone = asyncio.ensure_future(super().__call__(scope, receive, send))
        while not gone.done():
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.wait([gone], timeout=DRIP_S)


def html_page(status: int) -> HTMLResponse:
    """Return the error page of a gateway in front of the vendor."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "A proxy's error"
    title = f"{status} {phrase}"
    return HTMLResponse(
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
        status,
    )


def gateway_error(status: int) -> HTMLResponse:
    """Return the page of a gateway that has not passed the call on; with 503 it asks for the call again."""
    page = html_page(status)
    if status == 503:
        page.headers["retry-after"] = "0"
    return page


def quoted(uri: str | None, variant: int) -> str:
    """Return an image's address as one of the vendors' layers would quote it: cut at its end, or escaped."""
    forms: tuple[Callable[[str], str], ...] = (
        str,
        html.escape,
        lambda text: quote(text, safe=""),
        lambda text: text[:-9] + "...",
    )
    return forms[variant % len(forms)](uri or "(a file)")


def damaged(kind: str, response: Response, wrong_types: object, variant: int = 0) -> Response:
    """Return a damaged form of a good response, with the same status and headers.

    :param variant: selects one of a gateway's texts.
    """
    if kind in ("blank", "error_in_200"):
        return response  # its body is what the fault wants already
    if kind in PACKERS:
        result: Response = packed(kind, response)
    elif kind == "plain_error":
        result = PlainTextResponse(GATEWAY_WORDS[variant % len(GATEWAY_WORDS)])
    elif kind == "html":
        result = html_page(200)
    elif kind == "wrong_types":
        result = JSONResponse(wrong_types)
    elif kind == "empty":
        result = Response(b"", media_type=response.media_type)
    else:
        body = bytes(response.body)
        result = Response(body[: len(body) // 2], media_type=response.media_type)
    for name, value in response.headers.items():
        if name not in ("content-length", "content-type"):
            result.headers[name] = value
    return result


def zstd(content: bytes) -> bytes:
    """Pack in the zstd format, stored without compression, as no library for it is needed then."""
    blocks = [content[start : start + 100_000] for start in range(0, len(content), 100_000)] or [b""]
    heads = [struct.pack("<I", len(block) << 3 | (block is blocks[-1]))[:3] for block in blocks]
    frame = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(content))
    return frame + b"".join(head + block for head, block in zip(heads, blocks, strict=True))


def with_raw_newline(content: bytes) -> bytes:
    """Put a line break and a tab as they are, which JSON forbids, into the last text of two words."""
    before, space, after = content.rpartition(b" ")
    return before + b"\n\t" + after if space else content


def with_broken_byte(content: bytes) -> bytes:
    """Put a byte that is not UTF-8 into the last text of two words."""
    before, space, after = content.rpartition(b" ")
    return before + b" \xe9" + after if space else content


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip_cut": lambda content: gzip.compress(content, mtime=0)[:-12],
    "zstd": zstd,
    "raw_newline": with_raw_newline,
    "broken_utf8": with_broken_byte,
    "byte_order_mark": lambda content: b"\xef\xbb\xbf" + content,
    "utf16": lambda content: content.decode().encode("utf-16"),
}
ENCODINGS = {"gzip_cut": "gzip", "zstd": "zstd"}


def packed(kind: str, response: Response) -> Response:
    """Return the same answer in a strange encoding or charset."""
    content_type = response.headers["content-type"].partition(";")[0] + ("; charset=utf-16" if kind == "utf16" else "")
    headers = {"content-type": content_type}
    if kind in ENCODINGS:
        headers["content-encoding"] = ENCODINGS[kind]
    return Response(PACKERS[kind](bytes(response.body)), response.status_code, headers)
