"""Undoes the Content-Encoding that an object is stored with: the image is what a browser would show. Pure."""

from __future__ import annotations

from airflow_provider_describer.errors import RejectedImage
from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.http.unpacking import TooLarge, is_packed, unpack


def packings(encoding: str) -> list[str]:
    """Return the codings that a Content-Encoding names, without those that change nothing, in order."""
    return [name for one in encoding.split(",") if is_packed(name := one.strip().lower())]


def unpack_object(uri: str, content: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return the image in the bytes of an object.

    :param uri: the image as messages name it.
    :param max_bytes: no layer is unpacked any further.
    :raises RejectedImage: ``undecodable`` for bytes that are not packed as it says, cut short, or packed in a way that
        cannot be undone here; ``too_large``.
    """
    try:
        return unpack(content, packings(encoding), max_bytes)
    except TooLarge:
        message = f"{uri}: unpacked ({encoding}), it is more than the {max_bytes / 1e6:.1f} MB that are taken."
        raise RejectedImage(message, kind="too_large") from None
    except httpx.DecodingError as error:
        raise RejectedImage(
            f"{uri}: its Content-Encoding is {encoding[:80]!r}, which cannot be undone ({error}). Store it unpacked or "
            "as gzip, or correct that property.",
            kind="undecodable",
        ) from None
