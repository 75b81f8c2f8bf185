"""The listening socket, the connections on it, and stopping at once when told to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import resource
import socket
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from airflow_provider_describer.emulator.app import build_app
from airflow_provider_describer.emulator.line import LINE, Line

SECONDS_TO_STOP = 1.5
line_numbers = itertools.count(1)


class LineProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the connection itself in the scope, so that a handler can cut it."""

    line: Line | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self.line = Line(next(line_numbers), cast(asyncio.Transport, transport))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[LINE] = self.line


@dataclass(frozen=True)
class Welcome:
    """What is printed once the port answers."""

    url: str
    keys: dict[str, str]

    def show(self) -> None:
        for vendor, key in self.keys.items():
            print(f"{vendor} key: {key}")
        print(f"ledger: GET {self.url}/_emulator/ledger, faults: POST {self.url}/_emulator/faults")
        # Last, because whoever waits for this line wants the keys as well.
        print(f"emulator listening on {self.url}", flush=True)


class Server(uvicorn.Server):
    """A uvicorn server that cuts its connections when stopped, instead of waiting for slow answers."""

    def __init__(self, config: uvicorn.Config, welcome: Welcome) -> None:
        super().__init__(config)
        self.welcome = welcome

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.welcome.show()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.stop_at_once()

    def stop_at_once(self) -> None:
        self.should_exit = True
        self.force_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Cancelled handlers would be logged as crashes, and there may be thousands of them.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        # The interpreter would wait for a thread that is fetching a slow URL.
        hurry = threading.Timer(SECONDS_TO_STOP, os._exit, (0,))
        hurry.daemon = True
        hurry.start()
        await super().shutdown(sockets=sockets)


def serve(host: str, port: int, keys: dict[str, str], *, stop_with_parent: bool = False) -> None:
    """Serve both vendors on `host:port` until SIGTERM, SIGINT or, if asked, the end of stdin."""
    allow_many_connections()
    listener = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        build_app(keys),
        http=LineProtocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        backlog=8192,
        access_log=False,
        log_level="error",
        # Shorter than a client's own limit, and a reused connection would be cut under a paid request.
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
        proxy_headers=False,
        server_header=False,
    )
    server = Server(config, Welcome(url, keys))
    if stop_with_parent:
        threading.Thread(target=stop_after_stdin, args=(server,), daemon=True).start()
    server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, an answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SystemExit(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def stop_after_stdin(server: Server) -> None:
    """Stop the server when stdin ends, which is when the parent process has closed it or died."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.stop_at_once()
    time.sleep(2 * SECONDS_TO_STOP)
    # Only reached where the event loop is stuck; a process left behind would hold the port.
    os._exit(1)


def allow_many_connections() -> None:
    """Raise the limit of open files as far as it goes: every slow request holds a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses its own "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
