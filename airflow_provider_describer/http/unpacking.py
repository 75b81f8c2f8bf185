"""Unpacks answers (``Content-Encoding``) and notices those that end early, which zlib and httpx do not report."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_describer.http.library import httpx

Unpacker = Callable[[bytes, int], bytes]
_PIECE = 4 * 1024
"""Bytes that are unpacked at a time; unpacked, they may be a thousand times as many."""
_TRANSFERS = ("", "identity", "aws-chunked", "base64", "binary", "7bit", "8bit", "none", "null", "undefined", "raw")
_CHARSETS = ("utf-8", "utf8", "utf-16", "ascii", "us-ascii", "iso-8859-1", "latin1", "windows-1252")


def is_packed(encoding: str) -> bool:
    """Whether a word of a Content-Encoding, in lower case, names a coding: others change nothing, as in browsers.

    ``aws-chunked`` and ``base64`` are how an object was uploaded, and programs write a charset or a media type there;
    stores keep the word, and the bytes as they are.
    """
    return encoding not in _TRANSFERS and encoding not in _CHARSETS and "/" not in encoding


class TooLarge(Exception):
    """The answer is larger than the request allows."""


def unpack(content: bytes, encodings: Sequence[str], limit: int) -> bytes:
    """Return the content without its encodings, named in the order in which they were applied, in lower case.

    :raises TooLarge: it unpacks to more than ``limit`` bytes.
    :raises httpx.DecodingError: an encoding cannot be read, or the content is damaged or ends early.
    """
    for encoding in reversed(encodings):
        if not is_packed(encoding) or not content:
            continue
        if encoding not in _UNPACKERS:
            raise httpx.DecodingError(f"the answer is packed as {encoding[:40]!r}, which cannot be read here")
        try:
            content = _UNPACKERS[encoding](content, limit)
        except (TooLarge, httpx.DecodingError):
            raise
        except Exception as error:  # noqa: BLE001  each library has an error of its own
            raise httpx.DecodingError(f"the answer is no valid {encoding} ({error})") from None
    return content


def _gzip(content: bytes, limit: int) -> bytes:
    # A gzip file may have several members; what follows the last one is padding.
    whole = bytearray()
    while True:
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        whole += _whole(member, content, limit - len(whole))
        content = member.unused_data
        if not content or not b"\x1f\x8b".startswith(content[:2]):
            return bytes(whole)


def _deflate(content: bytes, limit: int) -> bytes:
    try:
        return _whole(zlib.decompressobj(), content, limit)
    except zlib.error:
        # Some servers leave out zlib's head and checksum.
        return _whole(zlib.decompressobj(wbits=-zlib.MAX_WBITS), content, limit)


def _whole(stream: Any, content: bytes, limit: int) -> bytes:
    """Unpack up to the end of the stream, which checks its checksum."""
    unpacked: bytes = stream.decompress(content, limit + 1)
    if len(unpacked) > limit:
        raise TooLarge(f"the answer is larger than {limit} bytes, unpacked")
    if not stream.eof:
        raise httpx.DecodingError("the packed answer ends early")
    return unpacked


def _in_pieces(new: Callable[[], Any], feed: str, is_whole: Callable[[Any], bool]) -> Unpacker:
    def unpack_pieces(content: bytes, limit: int) -> bytes:
        stream, unpacked = new(), bytearray()
        for start in range(0, len(content), _PIECE):
            unpacked += getattr(stream, feed)(content[start : start + _PIECE])
            if len(unpacked) > limit:
                raise TooLarge(f"the answer is larger than {limit} bytes, unpacked")
        if not is_whole(stream):
            raise httpx.DecodingError("the packed answer ends early")
        return bytes(unpacked)

    return unpack_pieces


def _find_unpackers() -> dict[str, Unpacker]:
    """Return what can be unpacked: with the standard library, and with libraries that happen to be installed."""
    found: dict[str, Unpacker] = {"gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate}
    for name in ("brotli", "brotlicffi"):
        try:
            brotli = importlib.import_module(name)
        except ImportError:
            continue
        found["br"] = _in_pieces(brotli.Decompressor, "process", lambda stream: bool(stream.is_finished()))
    for name, decompressor in (("compression.zstd", "ZstdDecompressor"), ("zstandard", "ZstdDecompressor")):
        try:
            zstd = getattr(importlib.import_module(name), decompressor)
        except ImportError:
            continue
        new = zstd if name != "zstandard" else lambda zstd=zstd: zstd().decompressobj()
        found["zstd"] = _in_pieces(new, "decompress", lambda stream: bool(stream.eof))
        break
    return found


_UNPACKERS = _find_unpackers()
ACCEPTED = ", ".join(name for name in _UNPACKERS if name != "x-gzip")
"""The value of ``Accept-Encoding``: what can be read here."""
