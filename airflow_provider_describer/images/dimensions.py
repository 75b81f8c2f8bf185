"""How large an image is, whether it moves, and whether all of it is there: from its headers and its end, undecoded.

Pure, and lenient: what is merely odd is left to whoever decodes it. A flaw is said only of a file of which image data
is missing, or which no program could read.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_MOST_PARTS = 100_000
"""Segments, chunks or blocks that are walked through: images have fewer, and a file made to have more takes long."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an image's headers say of it.

    ``width`` and ``height`` are in pixels as stored (before an EXIF orientation is applied), None where they are not
    told; ``frames`` counts pictures shown one after the other, and stops at 2 where counting on would cost;
    ``flaw`` says what is missing or broken, None where nothing was found to be.
    """

    width: int | None = None
    height: int | None = None
    frames: int = 1
    flaw: str | None = None

    @property
    def pixels(self) -> int | None:
        """Width times height, where both are told."""
        return None if self.width is None or self.height is None else self.width * self.height


def measure(content: bytes, kind: str) -> Measured:
    """Return what the headers of this whole file of this media type say; never raises.

    Of a type that is not known here, nothing is said.
    """
    measurer = _MEASURERS.get(kind)
    try:
        measured = measurer(content) if measurer else Measured()
    except IndexError:
        return Measured(flaw="it ends within its headers")
    if measured.flaw is None and measured.pixels == 0:
        return Measured(flaw=f"its size is {measured.width} x {measured.height} pixels")
    return measured


def _number(content: bytes, at: int, size: int, order: str = "big") -> int:
    part = content[at : at + size]
    if len(part) < size:
        raise IndexError
    return int.from_bytes(part, "little" if order == "little" else "big")


# --- JPEG ---

# Neither a fill byte (FF FF) nor an escaped FF (FF 00).
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_LONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


def _jpeg(content: bytes) -> Measured:
    width = height = None
    at = 2
    for _ in range(_MOST_PARTS):
        found = _MARKER.search(content, at)
        if not found:
            break
        at = found.end()
        marker = content[at - 1]
        if marker == 0xDA:
            # Pictures within the metadata (thumbnails) lie before this; whatever follows the end (padding, a film,
            # more pictures) is no concern of this one.
            whole = content.rfind(b"\xff\xd9", at) >= 0
            return Measured(width, height, flaw=None if whole else "it ends before its picture does (no end marker)")
        if marker in _LONE_MARKERS:
            continue
        if marker in _FRAME_MARKERS and width is None:
            height, width = _number(content, at + 3, 2), _number(content, at + 5, 2)
        at += max(_number(content, at, 2), 2)
    return Measured(width, height, flaw="it holds no picture data")


# --- PNG ---

_PNG_END = b"IEND\xaeB\x60\x82"


def _png(content: bytes) -> Measured:
    width = height = None
    frames = 1
    at = 8
    for _ in range(_MOST_PARTS):
        size, name = _number(content, at, 4), content[at + 4 : at + 8]
        if name == b"IHDR":
            if zlib.crc32(content[at + 4 : at + 8 + size]) != _number(content, at + 8 + size, 4):
                return Measured(flaw="its header's checksum is wrong")
            width, height = _number(content, at + 8, 4), _number(content, at + 12, 4)
        elif name == b"acTL":
            # Half the numbers are invalid, and such a picture is shown still.
            told = _number(content, at + 8, 4)
            frames = told if 0 < told < 1 << 31 else 1
        elif name in (b"IDAT", b"IEND"):
            break
        at += 12 + size
    whole = content.rfind(_PNG_END, at) >= 0
    return Measured(width, height, frames, None if whole else "it ends before its picture does (no IEND chunk)")


# --- GIF ---

_GIF_BLOCK = re.compile(rb"[!,;]")


def _gif(content: bytes) -> Measured:
    width, height = _number(content, 6, 2, "little"), _number(content, 8, 2, "little")
    frames = 0
    try:
        for introducer, at in _gif_blocks(content):
            if introducer == 0x2C:
                frames += 1
                if not (width and height):
                    # A screen of no size takes that of its picture.
                    width, height = _number(content, at + 5, 2, "little"), _number(content, at + 7, 2, "little")
            if frames > 1:
                break
    except IndexError:
        return Measured(width, height, max(1, frames), "it ends before its picture does")
    return Measured(width, height, max(1, frames), None if frames else "it holds no picture")


def _gif_blocks(content: bytes) -> Iterator[tuple[int, int]]:
    """Where each block begins, and what it is; its end is looked for only when the next one is asked for.

    A file may end without a trailer, as many do: its picture is there once the picture's own data has ended. Where
    something else comes then, such as the zeros of a download that broke off, it is not.
    """
    at = 13 + _colours(content[10])
    # Data comes in pieces of at most 255 bytes.
    pieces_left = _MOST_PARTS
    while pieces_left > 0 and (found := _GIF_BLOCK.search(content, at)):
        at, introducer = found.start(), content[found.start()]
        if introducer == 0x3B:
            return
        yield introducer, at
        at += 2 if introducer == 0x21 else 11 + _colours(content[at + 9])
        while (size := content[at]) and pieces_left > 0:
            at += size + 1
            pieces_left -= 1
        at += 1
        pieces_left -= 1
    if pieces_left > 0 and at != len(content):
        raise IndexError


def _colours(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


# --- WebP ---


def _webp(content: bytes) -> Measured:
    end = 8 + _number(content, 4, 4, "little")
    width = height = None
    frames, at = 0, 12
    for _ in range(_MOST_PARTS):
        if at + 8 > min(end, len(content)):
            break
        name, size = content[at : at + 4], _number(content, at + 4, 4, "little")
        body = at + 8
        if name == b"VP8X":
            width, height = _number(content, body + 4, 3, "little") + 1, _number(content, body + 7, 3, "little") + 1
        elif name == b"VP8 " and width is None:
            width = _number(content, body + 6, 2, "little") & 0x3FFF
            height = _number(content, body + 8, 2, "little") & 0x3FFF
        elif name == b"VP8L" and width is None:
            bits = _number(content, body + 1, 4, "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        frames += name == b"ANMF"
        at = body + size + size % 2
    missing = end - len(content)
    flaw = f"{missing} bytes of it are missing" if missing > 0 else None if width else "it holds no picture"
    return Measured(width, height, max(1, frames), flaw)


# --- types whose size is cheap to tell; whether they are whole is not ---


def _bmp(content: bytes) -> Measured:
    if _number(content, 14, 4, "little") == 12:
        return Measured(_number(content, 18, 2, "little"), _number(content, 20, 2, "little"))
    # A negative height means that the rows come from the top down.
    width, height = (int.from_bytes(content[at : at + 4], "little", signed=True) for at in (18, 22))
    return Measured(abs(width), abs(height))


def _tiff(content: bytes) -> Measured:
    order = "little" if content[:2] == b"II" else "big"
    big = 43 in content[2:4]
    word, head, entry = (8, 8, 20) if big else (4, 2, 12)
    directory = _number(content, 8 if big else 4, word, order)
    sizes: dict[int, int] = {}
    for number in range(min(_number(content, directory, head, order), 1000)):
        at = directory + head + number * entry
        tag, kind = _number(content, at, 2, order), _number(content, at + 2, 2, order)
        if tag in (256, 257):
            sizes[tag] = _number(content, at + entry - word, {3: 2, 16: 8}.get(kind, 4), order)
    return Measured(sizes.get(256), sizes.get(257))


_EXTENT = re.compile(rb"ispe\0\0\0\0(.{4})(.{4})", re.DOTALL)


def _heif(content: bytes) -> Measured:
    # The picture's own, a thumbnail's and those of the tiles that it is laid of: it is the largest.
    extents = [
        (int.from_bytes(width, "big"), int.from_bytes(height, "big"))
        for width, height in _EXTENT.findall(content, 0, 1 << 20)
    ]
    frames = 2 if content[8:12] in (b"avis", b"hevc", b"msf1") else 1
    width, height = max(extents, key=lambda extent: extent[0] * extent[1], default=(None, None))
    return Measured(width, height, frames)


_MEASURERS: dict[str, Callable[[bytes], Measured]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/gif": _gif,
    "image/webp": _webp,
    "image/bmp": _bmp,
    "image/tiff": _tiff,
    "image/avif": _heif,
    "image/heic": _heif,
    "image/heif": _heif,
}
