"""Finds an image's size, whether it is animated and whether it is complete, from its headers and its end.

Undecoded, but for a JPEG or a GIF without an end. Pure and lenient: it reports a flaw only where image data is missing
or no program could read the file.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

_MOST_TO_DECODE = 178_956_970
"""Pixels; Pillow's own limit."""
_MOST_PARTS = 100_000
"""Segments, chunks or blocks that are read: images have fewer, and a hostile file with more would take long."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an image's headers say.

    ``width`` and ``height`` are in pixels as stored (before an EXIF orientation is applied), None where unknown;
    ``frames`` counts the pictures of an animation, up to 2 where counting further would cost; ``flaw`` says what is
    missing or broken, None where nothing is.
    """

    width: int | None = None
    height: int | None = None
    frames: int = 1
    flaw: str | None = None

    @property
    def pixels(self) -> int | None:
        """Width times height, where both are known."""
        return None if self.width is None or self.height is None else self.width * self.height


def measure(content: bytes, kind: str) -> Measured:
    """Return what the headers of this whole file say; never raises. Nothing is known of other types than the four."""
    measurer = _MEASURERS.get(kind)
    try:
        measured = measurer(content) if measurer else Measured()
    except IndexError:
        return Measured(flaw="it ends within its headers")
    if measured.flaw is None and measured.pixels == 0:
        return Measured(flaw=f"its size is {measured.width} x {measured.height} pixels")
    return measured


def _number(content: bytes, at: int, size: int, order: Literal["big", "little"] = "big") -> int:
    part = content[at : at + size]
    if len(part) < size:
        raise IndexError
    return int.from_bytes(part, order)


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
            # Thumbnails in the metadata come before this; padding, a film or more pictures may follow the end.
            whole = content.rfind(b"\xff\xd9", at) >= 0 or _is_whole_without_end(content, at)
            return Measured(width, height, flaw=None if whole else "it ends before its picture does (no end marker)")
        if marker in _LONE_MARKERS:
            continue
        if marker in _FRAME_MARKERS and width is None:
            height, width = _number(content, at + 3, 2), _number(content, at + 5, 2)
        at += max(_number(content, at, 2), 2)
    return Measured(width, height, flaw="it holds no picture data")


# In a picture's data, FF is followed by 00 or by a restart marker; and zeros are what an unfinished download leaves.
_END_OF_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]|\x00{16}")
_LOOKAHEAD = 12
"""Bytes behind the last block that a decoder wants to see before it takes that one for whole."""
_SHORTEST_TRAILER = 8
"""Fewer bytes are the rest of what was cut."""


def _is_whole_without_end(content: bytes, at: int) -> bool:
    """Whether a JPEG's picture can be decoded in full, and something else follows it instead of the end marker.

    Some cameras and tools write such files, and every program shows them. Only decoding tells them from one that is
    cut; where Pillow is not installed they count as cut.

    :param at: where the first scan begins.
    """
    found = _END_OF_DATA.search(content, at)
    data = content[: found.start() if found else len(content)].rstrip(b"\0\xff")
    filler = content[len(data) : len(data) + _LOOKAHEAD].replace(b"\xff", b"\0")
    if 0 < len(filler) < _SHORTEST_TRAILER:
        return False
    # As it is, for what decoders make of the rest; and its data alone, as a decoder makes up what a marker cuts off.
    return _decodes(content, "Jpeg") and (not filler or _decodes(data + filler, "Jpeg"))


def _decodes(content: bytes, form: Literal["Jpeg", "Gif"]) -> bool:
    """Whether Pillow, where it is installed, decodes the (first) picture in full."""
    try:
        plugin = import_module(f"PIL.{form}ImagePlugin")
        with getattr(plugin, f"{form}ImageFile")(io.BytesIO(content)) as picture:
            if picture.width * picture.height > _MOST_TO_DECODE:
                return False
            # An eighth of the size, for speed; all data is read.
            picture.draft("L", (1, 1))
            picture.load()
    except Exception:  # noqa: BLE001  # a damaged file makes Pillow raise nearly any class
        return False
    return True


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
        elif name == b"acTL" and size == 8:
            # With any other number the picture is shown as a still one.
            number = _number(content, at + 8, 4)
            frames = number if 0 < number < 1 << 31 else 1
        elif name in (b"IDAT", b"IEND"):
            break
        at += 12 + size
    # Of its checksum only the presence counts: decoders do not look at it.
    whole = 0 <= content.rfind(b"IEND", at) <= len(content) - 8
    return Measured(width, height, frames, None if whole else "it ends before its picture does (no IEND chunk)")


_GIF_BLOCK = re.compile(rb"[!,;]")


def _gif(content: bytes) -> Measured:
    width, height = _number(content, 6, 2, "little"), _number(content, 8, 2, "little")
    frames = 0
    try:
        for introducer, at in _gif_blocks(content):
            if introducer == 0x2C:
                frames += 1
                if not (width and height):
                    # A screen without a size has that of its picture.
                    width, height = _number(content, at + 5, 2, "little"), _number(content, at + 7, 2, "little")
            if frames > 1:
                break
    except IndexError:
        return Measured(width, height, max(1, frames), "it ends before its picture does")
    return Measured(width, height, max(1, frames), None if frames else "it holds no picture")


def _gif_blocks(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield each block's introducer and where it begins; its end is found only when the next block is asked for.

    Many files end without a trailer: the picture is complete once its own data has ended. If anything but a block
    follows, such as the zeros of a download that broke off, only decoding tells.
    """
    at = 13 + _colours(content[10])
    # Data is in pieces of at most 255 bytes.
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
    if pieces_left > 0 and at != len(content) and not _decodes(content, "Gif"):
        raise IndexError


def _colours(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


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


_MEASURERS: dict[str, Callable[[bytes], Measured]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/gif": _gif,
    "image/webp": _webp,
}
