"""Segmind's storage: uploaded files, each kept once and served again under a lasting URL."""

from __future__ import annotations

from dataclasses import dataclass
from mimetypes import guess_extension

MOST_BYTES = 2 * 1024**3


class StorageFullError(Exception):
    """Nothing is ever dropped from the storage, because its URLs are promised to last."""


@dataclass(frozen=True, slots=True)
class Asset:
    data: bytes
    media_type: str


class Assets:
    """Files by name, which is made of what they contain: the same file uploaded twice is stored once."""

    def __init__(self) -> None:
        self.by_name: dict[str, Asset] = {}
        self.bytes = 0

    def keep(self, data: bytes, media_type: str, sha256: str) -> str:
        """Store a file and return the name it can be had by."""
        name = sha256[:32] + extension(media_type)
        if name not in self.by_name:
            if self.bytes + len(data) > MOST_BYTES:
                raise StorageFullError(f"the emulator keeps {MOST_BYTES} bytes of uploads at most")
            self.by_name[name] = Asset(data, media_type)
            self.bytes += len(data)
        return name


def extension(media_type: str) -> str:
    # Not every platform's table knows WebP.
    known = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}
    return known.get(media_type) or guess_extension(media_type) or ".bin"
