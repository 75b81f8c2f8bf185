"""One request and its whole answer over an httpx transport, and whether the request was sent."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow_provider_describer.http.library import httpx

PIECE = 256 * 1024
"""Bytes that are sent at a time, each within the write timeout."""
PACKED_PIECE = 4 * 1024
"""Bytes that are unpacked at a time; unpacked, they may be a thousand times as many."""


class TooLarge(Exception):
    """The answer is larger than the request allows."""


class Upload(httpx.AsyncByteStream):
    """A request's body, which can be read once and is not kept. Knows whether the whole request was sent.

    A retry needs a new one. ``trace`` goes into the request's extensions.
    """

    def __init__(self, chunks: tuple[bytes, ...]) -> None:
        self._chunks = chunks
        self._at_last_piece = not chunks
        self._handed_over = False
        self._is_tunnel = False
        self._traced_as_sent: bool | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks, self._chunks = self._chunks, ()
        for number, chunk in enumerate(chunks, 1):
            for start in range(0, len(chunk) or 1, PIECE):
                self._at_last_piece = number == len(chunks) and start + PIECE >= len(chunk)
                yield chunk[start : start + PIECE]
        self._handed_over = True

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Note httpcore's steps, as the type of its errors does not tell whether the request was sent."""
        if event == "http11.send_request_headers.started":
            # The request to a proxy for a tunnel is traced like our own.
            self._is_tunnel = info["request"].method == b"CONNECT"
            self._traced_as_sent = False
        elif event == "http11.send_request_body.complete":
            self._traced_as_sent = not self._is_tunnel

    def may_have_arrived(self, error: Exception) -> bool:
        """Whether all of the request was sent before this error."""
        if self._at_last_piece and isinstance(error, httpx.WriteTimeout):
            # The last bytes may have left at the very moment of the timeout.
            return True
        if self._traced_as_sent is not None:
            return self._traced_as_sent
        # There was no connection, or the transport is not one of httpcore's.
        return self._handed_over and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


async def read_whole(response: httpx.Response, limit: int) -> bytes:
    """Return the answer's content, unpacked.

    :raises TooLarge: it has more than ``limit`` bytes.
    :raises httpx.DecodingError: it cannot be unpacked, or ends early.
    """
    packed = None
    if encoding := response.headers.get("content-encoding"):
        assert isinstance(response.stream, httpx.AsyncByteStream)
        packed = _Packed(response.stream)
        response = httpx.Response(response.status_code, headers=response.headers, stream=packed)
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > limit:
            raise TooLarge(f"the answer is larger than {limit} bytes")
    if packed and packed.is_cut(encoding, content):
        raise httpx.DecodingError(f"the {encoding} stream ends early")
    return bytes(content)


class _Packed(httpx.AsyncByteStream):
    """A packed body in small pieces; keeps its first and last bytes, which tell whether it is whole."""

    def __init__(self, body: httpx.AsyncByteStream) -> None:
        self._body = body
        self._head = self._tail = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            self._head = self._head or chunk[:1]
            self._tail = (self._tail + chunk[-8:])[-8:]
            for start in range(0, len(chunk), PACKED_PIECE):
                yield chunk[start : start + PACKED_PIECE]

    def is_cut(self, encoding: str, content: bytes | bytearray) -> bool:
        """Whether the checksum at its end is missing, which zlib does not report."""
        match encoding.strip().lower():
            case "gzip" if self._tail:
                return self._tail != struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
            case "deflate" if self._tail and self._head[0] & 0x0F == 8:  # in zlib's format; a bare one has no checksum
                return self._tail[-4:] != struct.pack(">I", zlib.adler32(content))
        return False
