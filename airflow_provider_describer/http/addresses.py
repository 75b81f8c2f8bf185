"""Resolves a host, checks its addresses, and connects to one that was checked: no other look-up comes between.

Which addresses are allowed is decided in ``images/trust.py``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import anyio

from airflow_provider_describer.http.library import httpcore

Guard = Callable[[str], bool]
"""Called with an IP address, as text; returns whether it may be connected to."""

READ_BYTES = 64 * 1024
HEAD_START_S = 0.25
"""How long an address is tried before the next one is tried beside it (RFC 8305)."""


class AddressRefused(Exception):
    """The guard allows none of the host's addresses; nothing was connected to."""


def literal_addresses(host: str) -> list[str]:
    """Return the address if the host is one, in any form that the system accepts (``127.1``); otherwise nothing."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return _addresses(found)


def check_addresses(host: str, addresses: Sequence[str], guard: Guard | None) -> list[str]:
    """Return the addresses that the guard allows.

    :raises AddressRefused: there are some, and the guard allows none of them.
    """
    allowed = [address for address in addresses if guard is None or guard(address)]
    if addresses and not allowed:
        raise AddressRefused(f"{host} is at {addresses[0]}")
    return allowed


async def connect(host: str, port: int, guard: Guard | None = None) -> httpcore.AsyncNetworkStream:
    """Connect to the first of the host's addresses that answers.

    :raises AddressRefused: the guard allows none.
    :raises httpcore.ConnectError: the name is unknown, or no address accepts the connection.
    """
    addresses = check_addresses(host, await _resolve(host, port), guard)
    # AnyIO reports bytes as sent once the system has taken them, not when they are only buffered.
    backend = httpcore.AnyIOBackend()
    answered: list[httpcore.AsyncNetworkStream] = []
    errors: list[Exception] = [httpcore.ConnectError("no address of the host has answered")]

    async def attempt(address: str, ended: anyio.Event) -> None:
        try:
            answered.append(await backend.connect_tcp(address, port))
            attempts.cancel_scope.cancel()
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            errors.append(error)
        finally:
            ended.set()

    try:
        async with anyio.create_task_group() as attempts:
            for address in addresses:
                ended = anyio.Event()
                attempts.start_soon(attempt, address, ended)
                with anyio.move_on_after(HEAD_START_S):
                    await ended.wait()
        if not answered:
            raise errors[-1]
        return _Stream(answered.pop(0))
    finally:
        for unused in answered:
            await unused.aclose()


async def _resolve(host: str, port: int) -> list[str]:
    """Return the host's addresses in the system's order of preference."""
    if addresses := literal_addresses(host):
        return addresses
    try:
        return _addresses(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except UnicodeError as error:
        raise httpcore.ConnectError(f"{error}: no host can have this name") from None
    except OSError as error:
        raise httpcore.ConnectError(error) from error


def _addresses(found: Iterable[tuple[Any, ...]]) -> list[str]:
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Stream(httpcore.AsyncNetworkStream):
    """A stream that reads while it writes, so that an early answer is not lost if the connection breaks then.

    Unlike AnyIO's, `write` also fails if the system refuses the last bytes, and a cancelled `start_tls` closes it.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._socket = stream.get_extra_info("socket")
        self._reading: asyncio.Task[bytes] | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  httpcore's
        if self._reading is None:
            return await self._stream.read(max_bytes, timeout)
        if not self._reading.done():
            await asyncio.wait([self._reading], timeout=timeout)
            if not self._reading.done():
                raise httpcore.ReadTimeout
        reading, self._reading = self._reading, None
        return reading.result()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  httpcore's
        if not buffer:
            return
        if self._reading is None:
            self._reading = asyncio.create_task(self._stream.read(READ_BYTES))
            # asyncio logs the error of a task that nothing waits for, unless it is retrieved.
            self._reading.add_done_callback(lambda reading: reading.cancelled() or reading.exception())
        await self._stream.write(buffer, timeout)
        if self._socket.fileno() < 0:
            # asyncio closes the socket when a write fails and reports it to the next write only.
            raise httpcore.WriteError("the connection broke")

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            # httpcore closes it too, unless it is cancelled.
            await self.aclose()
            raise

    async def aclose(self) -> None:
        if self._reading:
            self._reading.cancel()
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        found = self._stream.get_extra_info(info)
        if info == "is_readable" and not found and (tls := self._stream.get_extra_info("ssl_object")) is not None:
            # TLS may hold bytes that have left the socket already. Takes one: the connection is closed then.
            try:
                return tls.read(1) is not None
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLError:
                return True
        return found
