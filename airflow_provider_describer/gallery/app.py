"""The page's server: FastAPI around `StoreGallery`. Who asks, and which stores there are, it is told by its host."""

from __future__ import annotations

import html
from pathlib import Path

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_describer.errors import BadInput, DescriberError
from airflow_provider_describer.gallery.answers import NotThere
from airflow_provider_describer.gallery.api import routes
from airflow_provider_describer.gallery.host import Host, NoAccess
from airflow_provider_describer.gallery.stores import StoreNotNamed
from airflow_provider_describer.gallery.thumbnails import NoThumbnail

FILES = Path(__file__).with_name("page")
ASSETS = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "cards.js": "text/javascript",
    "chart.js": "text/javascript",
    "words.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "icon_dark.svg": "image/svg+xml",
}
NOT_FOUND = (StoreNotNamed, NotThere, NoThumbnail)
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(host: Host) -> FastAPI:
    """Return the app: the page at ``/``, its files below ``/assets/``, ``/results`` and ``/api/…``.

    Every answer but the login's redirect is refused without a login. Errors are ``{"error": …}``, or a small page where
    a browser asked for one.
    """
    app = FastAPI(title="Descriptions", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(SafeHeaders)
    may_see = Depends(host.reader)

    @app.get("/", dependencies=[may_see])
    async def page() -> Response:
        return FileResponse(FILES / "index.html", media_type="text/html", headers={"Cache-Control": "no-cache"})

    @app.get("/assets/{name}", dependencies=[may_see])
    async def asset(name: str) -> Response:
        if name not in ASSETS:
            raise HTTPException(404)
        return FileResponse(FILES / name, media_type=ASSETS[name], headers={"Cache-Control": "no-cache"})

    app.include_router(routes(host))
    _add_error_handlers(app, host)
    return app


class SafeHeaders:
    """Adds the security headers to every response, and keeps it out of caches unless it says otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _add_error_handlers(app: FastAPI, host: Host) -> None:
    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if error.status_code not in (401, 403):
            return _error(request, error.status_code, "There is nothing at this address.")
        # Airflow answers a token that is none with 403. For a reader it is the same: log in.
        if _is_for_a_person(request):
            path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(host.login(path), 303)
        return _error(request, 401, "Log in to Airflow first: this needs a valid token.")

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def nothing(request: Request, error: Exception) -> Response:
        return _error(request, getattr(error, "status_code", 404), "There is nothing at this address.")

    @app.exception_handler(NoAccess)
    async def no_access(request: Request, error: NoAccess) -> Response:
        return _error(request, 403, str(error))

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(request: Request, error: RequestValidationError) -> Response:
        names = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        return _error(request, 422, f"These parameters are missing or cannot be read: {names}.")

    @app.exception_handler(DescriberError)
    async def failed(request: Request, error: DescriberError) -> Response:
        status = 404 if isinstance(error, NOT_FOUND) else 400 if isinstance(error, BadInput) else 502
        return _error(request, status, str(error))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return _error(request, 500, f"The page failed ({type(error).__name__}). The API server's log says more.")


def _is_for_a_person(request: Request) -> bool:
    """Whether a browser asked for a page, and not a script of ours or another program."""
    return "text/html" in request.headers.get("accept", "")


def _error(request: Request, status: int, text: str) -> Response:
    if not _is_for_a_person(request):
        return JSONResponse({"error": text}, status)
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>Descriptions</title><link rel="stylesheet" href="{html.escape(request.scope.get("root_path", ""))}'
        '/assets/page.css"><main><div class="message bad" role="alert"><h1>This cannot be shown</h1>'
        f"<p>{html.escape(text)}</p></div></main></html>",
        status,
    )
