"""The emulator's HTTP server: its routes, its socket, and how it stops at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from airflow_provider_describer.emulator.bad_responses import CONNECTION, ClientConnection, html_page
from airflow_provider_describer.emulator.calls import EmulatorState
from airflow_provider_describer.emulator.fault_settings import FaultError, read_plan
from airflow_provider_describer.emulator.image_describer import ImageDescriber
from airflow_provider_describer.emulator.openai_compatible import OpenAICompatible
from airflow_provider_describer.emulator.segmind import FreeEndpoints, Segmind
from airflow_provider_describer.emulator.segmind_history import RequestHistory
from airflow_provider_describer.emulator.segmind_v2 import SegmindV2

SECONDS_TO_STOP = 1.5
connection_numbers = itertools.count(1)


def build_app(keys: Mapping[str, str]) -> Starlette:
    """Return the emulator as an ASGI application; `keys` has each vendor's accepted key."""
    state = EmulatorState(keys)
    history = RequestHistory(state)
    image_describer, segmind, segmind_v2 = ImageDescriber(state), Segmind(state, history), SegmindV2(state, history)
    openai_compatible = OpenAICompatible(state)
    controls = Controls(state)
    return Starlette(
        routes=[
            *(
                Route(vendor.path, vendor, methods=["POST"])
                for vendor in (image_describer, segmind, segmind_v2, openai_compatible)
            ),
            openai_compatible.models_route(),
            *segmind_v2.poll_routes(),
            *FreeEndpoints(segmind).routes(),
            Route("/_emulator/ledger", controls.ledger, methods=["GET", "DELETE"]),
            Route("/_emulator/faults", controls.faults, methods=["GET", "POST", "DELETE"]),
        ],
        exception_handlers={404: not_found, 405: wrong_method},
    )


async def not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"Nothing is served at {request.url.path}"}, 404)


async def wrong_method(request: Request, error: Exception) -> Response:
    response = html_page(405)
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response


class Controls:
    """The endpoints for tests: the ledger and the faults."""

    def __init__(self, state: EmulatorState) -> None:
        self.state = state

    async def ledger(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.state.ledger.clear()
            return JSONResponse({"cleared": True})
        with_entries = request.query_params.get("entries", "1") != "0"
        return JSONResponse(self.state.ledger.as_json(with_entries=with_entries))

    async def faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.state.use(read_plan({}))
        elif request.method == "POST":
            try:
                self.state.use(read_plan(json.loads(await request.body())))
            except FaultError as error:
                return JSONResponse({"error": str(error)}, 400)
            except ValueError:
                return JSONResponse({"error": "the body is not JSON"}, 400)
        return JSONResponse(self.state.faults.plan.source)


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol; it also puts the connection into the scope, so that a handler can close it."""

    connection: ClientConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self.connection = ClientConnection(next(connection_numbers), cast(asyncio.Transport, transport))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[CONNECTION] = self.connection


class Server(uvicorn.Server):
    """A uvicorn server that prints its address and keys, and that stops without waiting for slow answers."""

    def __init__(self, config: uvicorn.Config, url: str, keys: Mapping[str, str]) -> None:
        super().__init__(config)
        self.url = url
        self.keys = keys

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for vendor, key in self.keys.items():
            print(f"{vendor} key: {key}")
        print(f"ledger: GET {self.url}/_emulator/ledger, faults: POST {self.url}/_emulator/faults")
        # The last line, because a program that waits for it also needs the keys.
        print(f"emulator listening on {self.url}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.stop_at_once()

    def stop_at_once(self) -> None:
        self.should_exit = True
        self.force_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn would log each cancelled handler as a crash, and there may be thousands.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        # The interpreter would wait for a thread that fetches a slow URL.
        timer = threading.Timer(SECONDS_TO_STOP, os._exit, (0,))
        timer.daemon = True
        timer.start()
        await super().shutdown(sockets=sockets)


def serve(host: str, port: int, keys: dict[str, str], *, stop_with_parent: bool = False) -> None:
    """Serve the vendors on `host:port` until SIGTERM, SIGINT or, with `stop_with_parent`, the end of stdin."""
    allow_many_connections()
    listener = listen(host, port)
    url_host = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        build_app(keys),
        http=Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        backlog=8192,
        access_log=False,
        log_level="error",
        # Longer than a client keeps an idle connection; otherwise a paid request could meet a closing connection.
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
        proxy_headers=False,
        server_header=False,
    )
    server = Server(config, f"http://{url_host}:{listener.getsockname()[1]}", keys)
    if stop_with_parent:
        threading.Thread(target=stop_after_stdin, args=(server,), daemon=True).start()
    server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only if the protocol is named; with it, an answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SystemExit(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def stop_after_stdin(server: Server) -> None:
    """Stop the server when stdin ends: the parent process has closed it or has died."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.stop_at_once()
    time.sleep(2 * SECONDS_TO_STOP)
    # Only reached if the event loop hangs; the process would keep the port.
    os._exit(1)


def allow_many_connections() -> None:
    """Raise the limit of open files as far as possible: each slow request holds a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses its own "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
