"""Compares a listing with what was seen before, and decides when its new images can be handed over."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_describer.arguments import check_seconds, parse_whole
from airflow_provider_describer.errors import one_line
from airflow_provider_describer.images.listing import ImageFilter, ListedImage, list_images
from airflow_provider_describer.models import plural
from airflow_provider_describer.storage.address import is_local

if TYPE_CHECKING:
    from airflow_provider_describer.storage.open_bucket import OpenBucket

KEY_LENGTH = 11
"""Characters of an image's key: 64 bits, so that a hundred thousand images have different keys."""
LOOK_AGAIN_S = 2.0
"""Seconds between two looks at local files, to notice those whose time stays the same while they grow."""


@dataclass(frozen=True, slots=True)
class SeenImages:
    """The images of a folder that were seen: each of them, or in a large folder those that were changed last.

    :param keys: of the images that were last changed at ``since`` or later.
    :param since: epoch seconds; all images last changed before it count as seen. None where ``keys`` has every image.
    """

    keys: frozenset[str] = frozenset()
    since: float | None = None

    def has(self, image: ListedImage) -> bool:
        """Whether the image was seen with its present content."""
        return (self.since is not None and image.modified < self.since) or _key(_digest(image)) in self.keys

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; the same images give the same dict."""
        return {"since": self.since, "keys": sorted(self.keys)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` was called on."""
        return cls(frozenset(values["keys"]), values["since"])


class ListingPass:
    """Remembers the images of a listing while a caller iterates over it: of more than ``limit`` those changed last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._prune_at = 2 * limit
        self._latest: list[tuple[float, str]] = []
        self._since: float | None = None
        self._all = blake2b(digest_size=16)

    def record(self, listed: Iterable[ListedImage]) -> Iterator[ListedImage]:
        """Yield the images unchanged, and remember each."""
        for image in listed:
            digest = _digest(image)
            self._all.update(digest)
            if self._since is None or image.modified >= self._since:
                self._latest.append((image.modified, _key(digest)))
                if len(self._latest) >= self._prune_at:
                    self._prune()
            yield image

    @property
    def seen(self) -> SeenImages:
        """The images recorded so far."""
        self._prune()
        return SeenImages(frozenset(key for _, key in self._latest), self._since)

    @property
    def fingerprint(self) -> str:
        """A text that differs once any image is new, changed or gone."""
        return self._all.hexdigest()

    def _prune(self) -> None:
        if len(self._latest) > self._limit:
            self._latest.sort(reverse=True)
            # Keep all images of the oldest moment, however many: one that was not seen must not count as seen.
            self._since = self._latest[self._limit - 1][0]
            self._latest = [entry for entry in self._latest if entry[0] >= self._since]
        self._prune_at = 2 * max(self._limit, len(self._latest))


def fingerprint_of(path: str, open_bucket: OpenBucket | None, types: Sequence[str] | None) -> str:
    """Return the fingerprint of the images below a path; blocking. Raises as `list_images`."""
    listing = ListingPass(limit=1)
    for _ in listing.record(list_images(path, open_bucket, ImageFilter(types))):
        pass
    return listing.fingerprint


@dataclass(frozen=True, slots=True)
class ArrivalTerms:
    """When new images are handed over.

    :param min_images: the fewest images.
    :param settle_seconds: how long ago the youngest of them was changed, at least; local files must not change either
        between two looks.
    :raises BadInput: naming an argument that cannot work.
    """

    min_images: int = 1
    settle_seconds: float = 0.0

    def __post_init__(self) -> None:
        parse_whole("min_images", self.min_images, 1)
        check_seconds("settle_seconds", self.settle_seconds)

    def reason_to_wait(self, images: Sequence[ListedImage], now: float, pause: Callable[[float], object]) -> str | None:
        """Return why the new images of a listing are not handed over yet, or None. Looks at local files twice.

        :param now: epoch second at which the listing began.
        :param pause: sleeps for that many seconds.
        """
        if len(images) < self.min_images:
            return f"{len(images)} new {plural(len(images), 'image')}, waiting for {self.min_images}"
        if not self.settle_seconds:
            return None
        youngest = max(images, key=lambda image: image.modified)
        if (age := now - youngest.modified) < self.settle_seconds:
            age_s, wanted_s = max(age, 0.0), self.settle_seconds
            return f"{one_line(youngest.uri)} was changed {age_s:.0f} s ago, waiting for {wanted_s:.0f} s"
        local = [image for image in images if is_local(image.uri)]
        if not local:
            return None
        pause(min(self.settle_seconds, LOOK_AGAIN_S))
        changing = next((image.uri for image in local if not _is_as_listed(image)), None)
        return changing and f"{one_line(changing)} is still changing"

    def settles_at(self, images: Sequence[ListedImage]) -> float | None:
        """Return the epoch second at which these images may be handed over; None where they are too few."""
        if len(images) < self.min_images:
            return None
        return max(image.modified for image in images) + self.settle_seconds


def merge_deltas(deltas: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the images of several deltas, each once: of one in several deltas the latest."""
    images: dict[str, dict[str, Any]] = {}
    for delta in deltas:
        images.update((image["uri"], image) for image in delta)
    return list(images.values())


def _is_as_listed(image: ListedImage) -> bool:
    try:
        about = os.stat(image.uri)  # noqa: PTH116  # as the listing does
    except OSError:
        return False
    return (about.st_size, about.st_mtime) == (image.size, image.modified)


def _digest(image: ListedImage) -> bytes:
    state = image.version or f"{image.size} {image.modified!r}"
    return blake2b(f"{image.uri}\0{state}".encode(errors="surrogateescape"), digest_size=8).digest()


def _key(digest: bytes) -> str:
    return urlsafe_b64encode(digest)[:KEY_LENGTH].decode()
