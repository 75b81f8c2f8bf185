"""Answers that no documentation shows: HTML pages, half an answer, an answer of the wrong types."""

from __future__ import annotations

import http

from starlette.responses import HTMLResponse, JSONResponse, Response


def html_page(status: int) -> HTMLResponse:
    """Return the page a gateway in front of the vendor answers with."""
    title = f"{status} {http.HTTPStatus(status).phrase}"
    return HTMLResponse(
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
        status,
    )


def garbled(kind: str, proper: Response, wrong_types: object) -> Response:
    """Return what arrives instead of a proper answer, under the status and headers of that answer."""
    if kind == "html":
        spoiled: Response = html_page(200)
    elif kind == "wrong_types":
        spoiled = JSONResponse(wrong_types)
    elif kind == "empty":
        spoiled = Response(b"", media_type=proper.media_type)
    else:
        body = bytes(proper.body)
        spoiled = Response(body[: len(body) // 2], media_type=proper.media_type)
    for name, value in proper.headers.items():
        if name not in ("content-length", "content-type"):
            spoiled.headers[name] = value
    return spoiled
