"""A PNG without what is not its picture: Pillow refuses a whole file for a large text or a flaw in what nobody sees."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

LARGEST_PROFILE = 4_000_000
"""Bytes of a colour profile; a larger one is left out. The largest of printing presses have 3 MB."""

_TRANSPARENCY_SIZES = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}
"""By the header's colour type, which other types have no such chunk."""


def readable_png(content: bytes) -> tuple[bytes, bytes | None]:
    """Return the PNG with only its picture, transparency and orientation, and its colour profile, if it has one.

    Decoders pass over any other chunk that they do not know or whose checksum is wrong. Pure; never raises: what is no
    PNG is returned as it is.
    """
    kept, profile, colour = [content[:8]], None, -1
    for name, start, end in _chunks(content):
        body = memoryview(content)[start + 8 : end - 4]
        if name == b"IHDR" and len(body) == 13:
            colour = body[9]
        # The third bit of the second nibble says that a picture can be shown without the chunk.
        if name[0] & 0x20:
            if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(content[end - 4 : end], "big"):
                continue
            if name == b"iCCP":
                profile = _profile(body)
            if name != b"eXIf" and not (name == b"tRNS" and len(body) in _TRANSPARENCY_SIZES.get(colour, ())):
                continue
        kept.append(content[start:end])
        if name == b"IEND":
            break
    return b"".join(kept), profile


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's name, and where it begins and ends; the last one may be cut."""
    at = 8
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        yield content[at + 4 : at + 8], at, end
        at = end


def _profile(body: memoryview) -> bytes | None:
    """Return what is packed behind a name, a zero and the method; None if it cannot be unpacked or is too large."""
    packed = bytes(body).partition(b"\0")[2][1:]
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(packed, LARGEST_PROFILE)
    except zlib.error:
        return None
    return profile if unpacking.eof and profile else None
