"""Answers outside the vendors' documentation: HTML pages, damaged answers, and no answer at all."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import NamedTuple

from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

CONNECTION = "describer_emulator.connection"
# The errors of a gateway in front of a vendor; their answers are HTML pages.
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


def html_page(status: int) -> HTMLResponse:
    """Return the error page of a gateway in front of the vendor."""
    title = f"{status} {HTTPStatus(status).phrase}"
    return HTMLResponse(
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
        status,
    )


def damaged(kind: str, response: Response, wrong_types: object) -> Response:
    """Return a damaged form of a good response, with the same status and headers."""
    if kind == "blank":
        return response  # its description is empty already
    if kind == "html":
        result: Response = html_page(200)
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
