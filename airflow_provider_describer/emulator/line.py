"""A client's TCP connection, and the two ways of leaving a client without an answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

LINE = "describer_emulator.line"


@dataclass(frozen=True, slots=True)
class Line:
    """One TCP connection; `number` is never used twice."""

    number: int
    transport: asyncio.Transport

    @property
    def is_open(self) -> bool:
        return not self.transport.is_closing()


def line_of(scope: Scope) -> Line:
    """Return the connection a request came in on."""
    line: Line = scope[LINE]
    return line


class Cut:
    """Close the TCP connection without a byte of an answer."""

    status_code: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line_of(scope).transport.abort()
        await until_gone(receive)


class Hang:
    """Never answer; return when the client has given up."""

    status_code: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(receive)


async def until_gone(receive: Receive) -> None:
    # uvicorn answers 500 for a handler that returns while the client is still there.
    while (await receive())["type"] != "http.disconnect":
        pass
