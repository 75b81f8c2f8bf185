"""A line to a server: the address it is opened to, TLS over it, bytes there and back. Knows no HTTP.

What it knows exactly, because money hangs on it: whether bytes that were to be sent have left this process.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Guard = Callable[[str], bool]
"""Asked with an IP address, as text, whether it may be connected to."""

STAGGER_S = 0.25
"""So long is an address tried before the next one is tried beside it (RFC 8305)."""
MOST_UNREAD = 1024 * 1024
"""Bytes that are taken in while nobody reads them."""


class Broken(Exception):
    """The line has broken, or never came about. The text says how."""


class Refused(Exception):
    """The guard allows none of the host's addresses."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for a connection with its TLS handshake, for the next bytes, and for bytes to be taken."""

    connect: float
    read: float
    write: float


class Server(NamedTuple):
    """Where a line leads. ``host`` is a name in ASCII or an IP address without brackets."""

    tls: bool
    host: str
    port: int


class Line(asyncio.Protocol):
    """An open connection. One task at a time reads or writes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received: list[bytes] = []
        self._unread = 0
        self._waiter: asyncio.Future[bool] | None = None
        self._ended = self._gone = self._unsent = False
        self._why: Exception | None = None

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._socket = self._transport = transport
        # From here on "paused" means: the system has not taken all bytes yet.
        transport.set_write_buffer_limits(0)

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        self._unread += len(data)
        if self._unread > MOST_UNREAD:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._gone = True
        self._why = exc
        self._wake()

    def pause_writing(self) -> None:
        self._unsent = True

    def resume_writing(self) -> None:
        self._unsent = False
        self._wake()

    # --- what its user calls ---

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        transport = await self._loop.start_tls(self._socket, self, context, server_hostname=host)
        if transport is None:
            raise Broken("the server closed the connection during the TLS handshake")
        self._transport = transport
        # 0 would pause for good: this layer compares with >=.
        transport.set_write_buffer_limits(high=1, low=0)

    async def write(self, data: bytes | memoryview, seconds: float) -> None:
        """Send the bytes; returns when the system has taken them.

        :raises Broken: it has not taken all of them, and will not.
        :raises TimeoutError: likewise, as the server does not read.
        """
        # A closing transport would drop them without a word.
        if self._ended or self._transport.is_closing() or self._socket.is_closing():
            raise Broken(self._how())
        self._transport.write(data)
        if self._unsent:
            deadline = self._loop.time() + seconds
            while self._unsent:
                if self._gone:
                    raise Broken(self._how())
                if await self._is_late(deadline) and self._unsent:
                    raise TimeoutError
        elif self._socket.is_closing():
            # It was not before: the system has refused these bytes.
            raise Broken(self._how())

    async def read(self, seconds: float) -> bytes:
        """Return the next bytes, none where the server has ended.

        :raises Broken: where the connection was reset.
        :raises TimeoutError: where none come.
        """
        if not self._received:
            deadline = self._loop.time() + seconds
            while not self._received:
                if self._why:
                    raise Broken(self._how())
                if self._ended:
                    return b""
                if await self._is_late(deadline) and not self._received:
                    raise TimeoutError
        data = self._received[0] if len(self._received) == 1 else b"".join(self._received)
        self._received.clear()
        if self._unread > MOST_UNREAD:
            self._transport.resume_reading()
        self._unread = 0
        return data

    def is_silent(self) -> bool:
        """Whether it is open and nothing has come: what an idle line must be to be used again."""
        if self._ended or self._received or self._transport.is_closing() or self._socket.is_closing():
            return False
        # The end may lie in the system's buffer, where the event loop has not looked yet.
        poll = select.poll()
        poll.register(self._socket.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close at once; what is not sent yet is thrown away."""
        self._transport.abort()

    def _how(self) -> str:
        return f"{type(self._why).__name__}: {self._why}" if self._why else "the server closed the connection"

    def _wake(self) -> None:
        if self._waiter:
            _settle(self._waiter, False)

    async def _is_late(self, deadline: float) -> bool:
        """Wait until anything happens, and say whether that was the deadline; other things may have happened since."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiter = waiter
        timer = self._loop.call_at(deadline, _settle, waiter, True)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiter = None


def _settle(waiter: asyncio.Future[bool], late: bool) -> None:
    if not waiter.done():
        waiter.set_result(late)


async def open_line(
    server: Server, context: Callable[[], ssl.SSLContext], patience: Patience, guard: Guard | None = None
) -> Line:
    """Open a line to the first of the host's addresses that answers and that the guard allows.

    :raises Refused: the guard allows none; nobody was connected to.
    :raises Broken: the name is not known, or nobody answers there, or TLS fails.
    """
    line = None
    try:
        async with asyncio.timeout(patience.connect):
            addresses = allowed(await addresses_of(server), server.host, guard)
            connected = await _first(addresses)
            _, line = await asyncio.get_running_loop().create_connection(Line, sock=connected)
            if server.tls:
                await line.start_tls(context(), server.host)
            return line
    except BaseException as error:
        if line:
            line.close()
        if isinstance(error, TimeoutError):
            raise Broken(f"no connection within {patience.connect:g} s") from None
        if isinstance(error, OSError):
            raise Broken(f"{type(error).__name__}: {error}") from None
        raise


Address = tuple[int, Any]
"""A family and a socket address in it, which begins with the IP address."""


def literal(server: Server) -> list[Address]:
    """Return the address where the host is an IP address, in any form that the system takes for one (``127.1``)."""
    try:
        found = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError):
        return []
    return [(found_at[0], found_at[4]) for found_at in found]


async def addresses_of(server: Server) -> list[Address]:
    """Return the host's addresses, in the system's order of preference."""
    if addresses := literal(server):
        return addresses
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise Broken(f"{error}: no host can have this name") from None
    return [(found_at[0], found_at[4]) for found_at in found]


def allowed(addresses: Sequence[Address], host: str, guard: Guard | None) -> list[Address]:
    """Return those that the guard allows.

    :raises Refused: where there are some and it allows none.
    """
    if guard is None:
        return list(addresses)
    found = [address for address in addresses if guard(str(address[1][0]))]
    if addresses and not found:
        raise Refused(f"{host} is at {addresses[0][1][0]}")
    return found


async def _first(addresses: Sequence[Address]) -> socket.socket:
    """Connect to whichever answers first, each given a start before the next."""
    if len(addresses) == 1:
        return await _connected(*addresses[0])
    attempts: list[asyncio.Task[socket.socket]] = []
    try:
        for family, address in addresses:
            attempts.append(asyncio.create_task(_connected(family, address)))
            start = STAGGER_S if len(attempts) < len(addresses) else None
            while trying := [attempt for attempt in attempts if not attempt.done()]:
                await asyncio.wait(trying, timeout=start, return_when=asyncio.FIRST_COMPLETED)
                for attempt in attempts:
                    if attempt.done() and not attempt.exception():
                        attempts.remove(attempt)
                        return attempt.result()
                if start:
                    break
        raise (attempts and attempts[-1].exception()) or OSError("the host has no address")
    finally:
        for loser in attempts:
            if not loser.cancel() and not loser.exception():
                loser.result().close()


async def _connected(family: int, address: Any) -> socket.socket:
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, address)
    except BaseException:
        connected.close()
        raise
    return connected
