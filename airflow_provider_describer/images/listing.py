"""Lists the images below a bucket's prefix or a folder, page by page, by a pattern and by size and time."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_describer.arguments import parse_int
from airflow_provider_describer.errors import BadInput, UnreadableImage
from airflow_provider_describer.storage.address import bucket_address, local_path, masked

if TYPE_CHECKING:
    from airflow_provider_describer.storage.bucket import Bucket
    from airflow_provider_describer.storage.open_bucket import OpenBucket

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif")
_WILDCARD = re.compile(r"[*?]")
# "**/" matches any number of folders, also none; any other "**" matches any text.
_TOKENS = re.compile(r"(?P<folders>(?:(?<=/)|^)(?:\*\*/)+)|(?P<any>\*\*+)|(?P<name>\*)|(?P<one>\?)")


class ListedImage(NamedTuple):
    """An image in a listing. ``version`` is None for local files; ``modified`` is in epoch seconds."""

    uri: str
    version: str | None
    size: int
    modified: float

    def to_dict(self) -> dict[str, Any]:
        """Return the item that an operator takes in ``images``."""
        return {"uri": self.uri, "version": self.version, "size": self.size}


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which of the files below a path are listed.

    :param types: suffixes of names, such as ``("jpg", "png")``, in any case; None for those of images; ``("*",)`` for
        every name.
    :param min_size: bytes.
    :param max_size: bytes.
    :param modified_after: epoch second of the earliest last change, inclusive.
    :param modified_before: epoch second of the latest last change, exclusive; so intervals can follow each other.
    :param limit: the most images.
    :raises BadInput: naming an argument that cannot match anything.
    """

    types: Sequence[str] | None = None
    min_size: int | None = None
    max_size: int | None = None
    modified_after: float | None = None
    modified_before: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.types, str) or (self.types is not None and not (self.types and all(self.types))):
            raise BadInput(f"types is {self.types!r}, expected a list of suffixes such as ['jpg', 'png'], or ['*'].")
        for name, least in (("min_size", 0), ("max_size", 0), ("limit", 1)):
            parse_int(name, getattr(self, name), least)
        if None not in (self.min_size, self.max_size) and self.min_size > self.max_size:  # type: ignore[operator]
            raise BadInput(f"min_size is {self.min_size} and max_size {self.max_size}: no image is of such a size.")
        after, before = self.modified_after, self.modified_before
        if after is not None and before is not None and after >= before:
            raise BadInput(
                f"modified_after is {_time(after)} and modified_before {_time(before)}: no image was changed then."
            )

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The ends of matching names, in lower case."""
        types = IMAGE_SUFFIXES if self.types is None else self.types
        return tuple("" if suffix == "*" else "." + suffix.lower().lstrip(".") for suffix in types)

    def matches(self, image: ListedImage) -> bool:
        """Whether the image's size and time of change match."""
        return (
            (self.min_size is None or image.size >= self.min_size)
            and (self.max_size is None or image.size <= self.max_size)
            and (self.modified_after is None or image.modified >= self.modified_after)
            and (self.modified_before is None or image.modified < self.modified_before)
        )


def list_images(
    path: str, open_bucket: OpenBucket | None = None, image_filter: ImageFilter | None = None
) -> Iterator[ListedImage]:
    """Yield the images below a path, sorted by name, as they are found.

    Pages are requested as they are needed: a limit of 10 takes one page of a bucket of millions.

    :param path: ``s3://bucket/catalog``, ``gs://…``, a folder or ``file://``, for all images below it. Or a pattern,
        such as ``s3://bucket/catalog/**/front-??.jpg``: ``**`` stands for folders of any depth, ``*`` for any text
        within one name, ``?`` for one character. Names are compared literally, without unquoting.
    :param open_bucket: opens buckets; None to list local folders only.
    :raises BadInput: for a path that cannot be listed, or a folder that does not exist. Raised at once, not when the
        first image is taken.
    :raises BucketError: for a bucket that does not exist or refuses; raised while listing.
    :raises UnreadableImage: for a folder that cannot be read now.
    """
    image_filter = image_filter or ImageFilter()
    if not path.strip():
        raise BadInput("path is blank, expected something like 's3://bucket/catalog/**' or '/data/catalog'.")
    address = bucket_address(path)
    if address is None:
        folder = local_path(path)
        if folder is None:
            raise BadInput(
                f"path is {masked(path)!r}: a web address has no listing; expected s3://, gs:// or a folder."
            )
        found = _local_files(path if "://" not in path else str(folder), image_filter.suffixes)
    elif open_bucket is None:
        raise BadInput(f"path is {path!r}, but no bucket can be opened here; expected a local folder.")
    elif _WILDCARD.search(address.bucket):
        raise BadInput(f"path is {path!r}: a pattern matches keys within one bucket; write the bucket's name in full.")
    else:
        found = _objects(open_bucket(address.scheme, address.bucket), address.key, image_filter.suffixes)
    return islice((image for image in found if image_filter.matches(image)), image_filter.limit)


def _objects(bucket: Bucket, key: str, suffixes: tuple[str, ...]) -> Iterator[ListedImage]:
    prefix, matches = _pattern(key)
    for page in bucket.entries(prefix):
        for entry in page:
            name = entry.key
            if name.rstrip("/").lower().endswith(suffixes) and matches(name) and not _is_marker(name, entry.size):
                yield ListedImage(bucket.address(name), entry.version, entry.size, entry.modified)


def _is_marker(key: str, size: int) -> bool:
    """Whether it is the empty object that consoles create for a folder; a listing by obstore leaves out its slash."""
    return not size and (key.endswith("/") or "." not in key.rpartition("/")[2])


def _pattern(text: str) -> tuple[str, Callable[[str], object]]:
    """Return the prefix of all matches, and the test for a whole name; a text without wildcards is a folder."""
    first = _WILDCARD.search(text)
    if first is None:
        folder = text if not text or text.endswith("/") else f"{text}/"
        return folder, lambda name: name.startswith(folder)
    parts, end = [], 0
    for token in _TOKENS.finditer(text):
        parts.append(re.escape(text[end : token.start()]))
        parts.append({"folders": "(?:.*/)?", "any": ".*", "name": "[^/]*", "one": "[^/]"}[str(token.lastgroup)])
        end = token.end()
    return text[: first.start()], re.compile("".join(parts) + re.escape(text[end:]), re.DOTALL).fullmatch


def _local_files(path: str, suffixes: tuple[str, ...]) -> Iterator[ListedImage]:
    prefix, matches = _pattern(path)
    root = prefix[: prefix.rfind("/") + 1]
    if not _is_folder(root or "."):
        problem = "that is a file" if _stat(path) else f"there is no folder {root!r}"
        raise BadInput(f"path is {path!r}, but {problem}; expected a folder, or a pattern such as '/data/catalog/**'.")
    # Without "**", matches are as deep as the pattern: deeper folders are not entered.
    depth = None if "**" in path or not _WILDCARD.search(path) else path.count("/") - root.count("/")
    return (
        ListedImage(name, None, about.st_size, about.st_mtime)
        for name, about in _walk(root, depth, suffixes)
        if matches(name)
    )


def _walk(root: str, depth: int | None, suffixes: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files below a folder, in the order in which a bucket would list their names.

    :param root: a path that ends in a slash; empty for the working directory.
    :param depth: how deep folders are entered; None for any depth.
    """
    # Each path with the folders above it, so that a link back to one of them is not followed.
    paths: list[tuple[str, tuple[tuple[int, int], ...]]] = [(root, ())]
    while paths:
        path, above = paths.pop()
        about = _stat(path or ".")
        if about is None:
            continue  # removed since its folder was listed, or a dangling link
        if stat.S_ISREG(about.st_mode):
            yield path, about
        elif stat.S_ISDIR(about.st_mode) and (depth is None or len(above) <= depth):
            here = (about.st_dev, about.st_ino)
            if here not in above:
                paths.extend((path + name, (*above, here)) for name in reversed(_names(path, suffixes)))


def _names(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the sorted names of a folder's subfolders, with a slash at the end, and of the files that may match."""
    try:
        with os.scandir(folder or ".") as entries:
            names = [f"{entry.name}/" if _is_subfolder(entry) else entry.name for entry in entries]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error) from None
    return sorted(name for name in names if name.endswith("/") or name.lower().endswith(suffixes))


def _is_subfolder(entry: os.DirEntry[str]) -> bool:
    # Only a link costs a system call: the listing knows the rest.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and _is_folder(entry.path))


def _stat(path: str) -> os.stat_result | None:
    """Return a file's status; None where there is no file."""
    try:
        return os.stat(path)  # noqa: PTH116  # a Path for each of millions of names is slow
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise _unreadable(path, error) from None


def _is_folder(path: str) -> bool:
    about = _stat(path)
    return about is not None and stat.S_ISDIR(about.st_mode)


def _unreadable(path: str, error: OSError) -> UnreadableImage:
    return UnreadableImage(f"{path!r} cannot be listed: {type(error).__name__}: {error.strerror}.")


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat()
