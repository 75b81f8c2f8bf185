"""What has come into a bucket or a folder since somebody last looked there, and whether it has come whole."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_describer.arguments import parse_int
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.images.listing import ImageFilter, ListedImage, list_images
from airflow_provider_describer.storage.address import is_local

if TYPE_CHECKING:
    from airflow_provider_describer.storage.open_bucket import OpenBucket

KEY_LENGTH = 11
"""Characters of an image's key: 64 bits, of which a hundred thousand images share none."""
LOOK_AGAIN_S = 2.0
"""Between two looks at local files, for those that keep their time while they grow."""


def key_of(image: ListedImage) -> str:
    """Return a short name of an image as it is now; once it is changed, it has another one."""
    return _key(_digest(image))


@dataclass(frozen=True, slots=True)
class SeenImages:
    """What somebody has seen of a folder: each image, or of a large folder those that were changed last.

    :param keys: of the images that were last changed at ``since`` or later.
    :param since: epoch seconds; images last changed before it all count as seen. None where ``keys`` has every one.
    """

    keys: frozenset[str] = frozenset()
    since: float | None = None

    def has(self, image: ListedImage) -> bool:
        """Whether the image, as it is now, has been seen."""
        return (self.since is not None and image.modified < self.since) or key_of(image) in self.keys

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it; always the same for the same images."""
        return {"since": self.since, "keys": sorted(self.keys)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` gave."""
        return cls(frozenset(values["keys"]), values["since"])


class ListingPass:
    """One pass over a listing, which is remembered while somebody else goes through it.

    :param most: images that are remembered each; of more, those that were changed last.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._prune_at = 2 * most
        self._latest: list[tuple[float, str]] = []
        self._since: float | None = None
        self._all = blake2b(digest_size=16)

    def over(self, listed: Iterable[ListedImage]) -> Iterator[ListedImage]:
        """Yield the listing as it is; what is yielded has been seen."""
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
        """What has been gone through so far."""
        self._prune()
        return SeenImages(frozenset(key for _, key in self._latest), self._since)

    @property
    def fingerprint(self) -> str:
        """A text that is another one once any image is new, changed or gone."""
        return self._all.hexdigest()

    def _prune(self) -> None:
        if len(self._latest) > self._most:
            self._latest.sort(reverse=True)
            # Images of one moment stay together, however many: nothing of theirs may pass for seen that was not.
            self._since = self._latest[self._most - 1][0]
            self._latest = [one for one in self._latest if one[0] >= self._since]
        self._prune_at = 2 * max(self._most, len(self._latest))


def fingerprint_of(path: str, open_bucket: OpenBucket | None, types: Sequence[str] | None) -> str:
    """Return the fingerprint of what lies below a path; blocking.

    :raises BadInput, BucketError, UnreadableImage: as `list_images`.
    """
    look = ListingPass(most=1)
    for _ in look.over(list_images(path, open_bucket, filter_of(types))):
        pass
    return look.fingerprint


def check_seconds(name: str, seconds: object, least: float = 0.0) -> None:
    """Find what is no time span.

    :raises BadInput: naming the argument.
    """
    if not isinstance(seconds, int | float) or not least <= seconds < float("inf"):
        raise BadInput(f"{name} is {seconds!r}, expected seconds of {least:g} or more.")


def filter_of(types: Sequence[str] | None) -> ImageFilter:
    """Return the filter for these suffixes; by default those of images."""
    return ImageFilter() if types is None else ImageFilter(types)


@dataclass(frozen=True, slots=True)
class ArrivalTerms:
    """When new images are handed on.

    :param min_images: so many of them at least.
    :param settle_seconds: none of them was changed later than so many seconds ago, nor is seen to be changing now.
    :raises BadInput: naming what cannot be.
    """

    min_images: int = 1
    settle_seconds: float = 0.0

    def __post_init__(self) -> None:
        if parse_int("min_images", self.min_images, 1) is None:
            raise BadInput(f"min_images is {self.min_images!r}, expected a whole number of 1 or more.")
        check_seconds("settle_seconds", self.settle_seconds)

    def why_not(self, images: Sequence[ListedImage], now: float) -> str | None:
        """Return why the new images of a listing that was begun ``now`` (epoch seconds) are not handed on yet."""
        if len(images) < self.min_images:
            return f"{len(images)} new images, waiting for {self.min_images}"
        youngest = max(images, key=lambda image: image.modified)
        if self.settle_seconds and (age := now - youngest.modified) < self.settle_seconds:
            return f"{youngest.uri} was changed {max(age, 0.0):.0f} s ago, waiting for {self.settle_seconds:.0f} s"
        return None

    def settled_at(self, images: Sequence[ListedImage]) -> float | None:
        """Return the epoch second from which on these may have settled; None where they are too few."""
        if len(images) < self.min_images:
            return None
        return max(image.modified for image in images) + self.settle_seconds

    def held_back(self, images: Sequence[ListedImage], now: float, pause: Callable[[float], object]) -> str | None:
        """Return why these are not handed on yet, as `why_not`; local files are looked at twice.

        :param pause: sleeps for so many seconds.
        """
        if (reason := self.why_not(images, now)) or not self.settle_seconds:
            return reason
        local = [image for image in images if is_local(image.uri)]
        if not local:
            return None
        pause(min(self.settle_seconds, LOOK_AGAIN_S))
        changing = next((image.uri for image in local if not _is_as_listed(image)), None)
        return changing and f"{changing} is still changing"


def merged(deltas: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the images of several deltas, each once: of one that has changed meanwhile the latest."""
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
