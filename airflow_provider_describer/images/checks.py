"""Decides from an image's content, never its name, whether a vendor can take it. Pure; runs before money is spent."""

from __future__ import annotations

import re

from airflow_provider_describer.errors import RejectedImage
from airflow_provider_describer.images.dimensions import Measured, measure
from airflow_provider_describer.vendors.vendor import Vendor

HEAD = 4096
"""How many bytes from the start decide the type."""
MOST_PIXELS = 178_956_970
"""The most pixels of an image: 0.5 GB once decoded, and Pillow's own limit."""
LONG_EDGE = 50_000
"""With a longer edge, an image must have at least one byte per 1000 pixels."""
_PIXELS_PER_BYTE = 1000
"""A picture of one colour is compressed further than this, a photograph is not."""

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (b"\x00\x00\x00\x0cjP  ", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    (b"\x00\x00\x00\x0cJXL ", "image/jxl"),
    (b"\xff\x0a", "image/jxl"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"%PDF-", "application/pdf"),
)
_FTYP_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"), "image/heic"),
    **dict.fromkeys((b"mif1", b"msf1"), "image/heif"),
}
_BMP_HEADERS = frozenset(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
# A prolog, a comment, or a doctype with or without definitions of its own in brackets, as drawing programs write them.
_BEFORE_SVG = re.compile(
    rb"(?:<\?.*?\?>|<!--.*?-->|<!doctype\s+svg\b[^>\[]*(?:\[.*?\]\s*)?>)\s*", re.IGNORECASE | re.DOTALL
)


def media_type(head: bytes) -> str | None:
    """Return the media type of a file that begins with these bytes (the first 4 KiB), or None where it is unknown."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return _ftyp_type(head)
    # Texts begin with "BM", too; but not with these header sizes and zeros.
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[14:18] in _BMP_HEADERS:
        return "image/bmp"
    return _markup_type(head)


def _ftyp_type(head: bytes) -> str | None:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    # A file names every brand that it is compatible with; the major brand may be the vague "mif1".
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size, 4))]
    kinds = [_FTYP_BRANDS[brand] for brand in brands if brand in _FTYP_BRANDS]
    return next((kind for kind in kinds if kind != "image/heif"), kinds[0] if kinds else None)


def _markup_type(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    while before := _BEFORE_SVG.match(text):
        text = text[before.end() :]
    if text[:4].lower() == b"<svg":
        return "image/svg+xml"
    if text[:14].lower().startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "text/html"
    return None


def check_head(vendor: Vendor, uri: str, head: bytes, size: int | None) -> str:
    """Return the media type of an image, once its type and size are found to be ones that the vendor takes.

    :param uri: the image as messages name it.
    :param head: the file's first 4 KiB, or more.
    :param size: the whole file's size in bytes, where known.
    :raises RejectedImage: naming the image and what is wrong with it; kinds ``empty``, ``not_an_image``,
        ``unsupported_type``, ``too_large``.
    """
    if size == 0 or not head:
        raise RejectedImage(f"{uri}: the file is empty (0 bytes); expected an image.", kind="empty")
    kind = media_type(head)
    if kind is None or not kind.startswith("image/"):
        found = f"is {kind}" if kind else f"begins with {head[:16]!r}"
        raise RejectedImage(f"{uri}: not an image: the content {found}, whatever its name says.", kind="not_an_image")
    if kind not in vendor.media_types:
        raise RejectedImage(
            f"{uri}: {vendor.title} takes no {kind}, only {', '.join(sorted(vendor.media_types))}. Convert it first.",
            kind="unsupported_type",
        )
    if size is not None and size > vendor.max_bytes:
        limit = f"{vendor.max_bytes / 1e6:.1f} MB that {vendor.title} takes"
        raise RejectedImage(f"{uri}: {size / 1e6:.1f} MB is more than the {limit}. Scale it down.", kind="too_large")
    return kind


def check_content(vendor: Vendor, uri: str, content: bytes, kind: str) -> Measured:
    """Return what a whole file's headers say, once nothing is found that speaks against paying for it.

    Takes about 10 µs for a JPEG of any size. The picture is not decoded, so damage in its middle goes unseen.

    :param kind: the media type, as `check_head` returned it.
    :raises RejectedImage: naming the image and what is wrong with it; kinds ``corrupt``, ``too_many_pixels``,
        ``animated``.
    """
    measured = measure(content, kind)
    if measured.flaw:
        raise RejectedImage(
            f"{uri}: the {kind} is damaged or cut short: {measured.flaw}. Fetch or export it again.", kind="corrupt"
        )
    pixels, edge = measured.pixels or 0, max(measured.width or 0, measured.height or 0)
    if pixels > MOST_PIXELS or (edge > LONG_EDGE and pixels > len(content) * _PIXELS_PER_BYTE):
        raise RejectedImage(
            f"{uri}: {measured.width} x {measured.height} pixels in a file of {len(content):,} bytes are more than are "
            f"taken (at most {MOST_PIXELS / 1e6:.0f} million). Scale it down.",
            kind="too_many_pixels",
        )
    if measured.frames > 1:
        raise RejectedImage(
            f"{uri}: is animated, and {vendor.title} does not say which picture of it would be described. "
            "Extract a frame.",
            kind="animated",
        )
    return measured
