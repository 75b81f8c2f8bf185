"""Which images lie in a bucket or a folder: found page by page, by a pattern, and filtered by what a listing tells."""

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
# "**/" is any number of folders, also none; a "**" elsewhere is any text.
_TOKENS = re.compile(r"(?P<folders>(?:(?<=/)|^)(?:\*\*/)+)|(?P<any>\*\*+)|(?P<name>\*)|(?P<one>\?)")


class ListedImage(NamedTuple):
    """An image as a listing names it. ``version`` is None for local files; ``modified`` is in epoch seconds."""

    uri: str
    version: str | None
    size: int
    modified: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as a list of images has it."""
        return {"uri": self.uri, "version": self.version, "size": self.size}


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which of the files below a path are wanted.

    :param types: suffixes of names, such as ``("jpg", "png")``, in any case; by default those of images; ``("*",)``
        takes every name.
    :param min_size: bytes at least.
    :param max_size: bytes at most.
    :param modified_after: epoch second from which on it was last changed, that second included.
    :param modified_before: epoch second before which it was last changed; so intervals can follow each other.
    :param limit: how many images at most.
    :raises BadInput: naming what could match nothing.
    """

    types: Sequence[str] = IMAGE_SUFFIXES
    min_size: int | None = None
    max_size: int | None = None
    modified_after: float | None = None
    modified_before: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.types, str) or not self.types or not all(self.types):
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
        """What wanted names end in, in lower case."""
        return tuple("" if one == "*" else "." + one.lower().lstrip(".") for one in self.types)

    def takes(self, size: int, modified: float) -> bool:
        """Whether a file of that size and time is wanted."""
        return (
            (self.min_size is None or size >= self.min_size)
            and (self.max_size is None or size <= self.max_size)
            and (self.modified_after is None or modified >= self.modified_after)
            and (self.modified_before is None or modified < self.modified_before)
        )


def list_images(
    path: str, open_bucket: OpenBucket | None = None, wanted: ImageFilter | None = None
) -> Iterator[ListedImage]:
    """Yield the images below a path, in the order of their names, as they are found.

    No more pages are asked for than are gone through: a limit of 10 takes one page of a bucket of millions.

    :param path: ``s3://bucket/catalog``, ``gs://…``, a folder or ``file://``: all below it. Or a pattern, such as
        ``s3://bucket/catalog/**/front-??.jpg``: ``**`` stands for folders of any depth, ``*`` for any text within one
        name, ``?`` for one character. Names are compared as they are: nothing in them is unquoted.
    :param open_bucket: what opens buckets; None where only local folders can be listed.
    :raises BadInput: for a path that cannot be listed, or a folder that is not there. At once, not when the first
        image is taken.
    :raises BucketError: for a bucket that is not there or refuses; while it is listed.
    :raises UnreadableImage: for a folder that cannot be read now.
    """
    wanted = wanted or ImageFilter()
    if not path.strip():
        raise BadInput("path is blank, expected something like 's3://bucket/catalog/**' or '/data/catalog'.")
    address = bucket_address(path)
    if address is None:
        folder = local_path(path)
        if folder is None:
            raise BadInput(
                f"path is {masked(path)!r}: a web address has no listing; expected s3://, gs:// or a folder."
            )
        found = _local_files(path if "://" not in path else str(folder), wanted)
    elif open_bucket is None:
        raise BadInput(f"path is {path!r}, but no bucket can be opened here; expected a local folder.")
    elif _WILDCARD.search(address.bucket):
        raise BadInput(f"path is {path!r}: a pattern stands for keys within one bucket, whose name is needed in full.")
    else:
        found = _objects(open_bucket(address.scheme, address.bucket), address.key, wanted)
    return islice(found, wanted.limit)


def _objects(bucket: Bucket, key: str, wanted: ImageFilter) -> Iterator[ListedImage]:
    prefix, matches = _pattern(key)
    suffixes = wanted.suffixes
    for page in bucket.entries(prefix):
        for entry in page:
            name = entry.key
            if not name.lower().endswith(suffixes) or not matches(name) or _is_marker(name, entry.size):
                continue
            if wanted.takes(entry.size, entry.modified):
                yield ListedImage(bucket.address(name), entry.version, entry.size, entry.modified)


def _is_marker(key: str, size: int) -> bool:
    """Whether it is what consoles create for a folder: an empty object, of whose slash a listing may not tell."""
    return not size and (key.endswith("/") or "." not in key.rpartition("/")[2])


def _pattern(text: str) -> tuple[str, Callable[[str], object]]:
    """Return what every match begins with, and the test for a whole name; a text without wildcards is a folder."""
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


# --- local folders ---


def _local_files(path: str, wanted: ImageFilter) -> Iterator[ListedImage]:
    prefix, matches = _pattern(path)
    root = prefix[: prefix.rfind("/") + 1]
    if _is_folder(root or ".") is not True:
        what = "that is a file" if _is_folder(path) is False else f"there is no folder {root!r}"
        raise BadInput(f"path is {path!r}, but {what}; expected a folder, or a pattern such as '/data/catalog/**'.")
    # Without "**" a match lies as deep as the pattern: deeper folders are not entered.
    depth = None if "**" in path or not _WILDCARD.search(path) else path.count("/") - root.count("/")
    suffixes = wanted.suffixes
    return (
        ListedImage(name, None, about.st_size, about.st_mtime)
        for name, about in _walk(root, depth, suffixes)
        if matches(name) and wanted.takes(about.st_size, about.st_mtime)
    )


def _walk(root: str, depth: int | None, suffixes: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files below, in the order in which a bucket would list their names.

    :param root: a path with a slash at its end; empty for the working directory.
    :param depth: how many folders may be entered below it; None for all.
    """
    # With each path the folders it was reached through, so that a link back to one of them is not followed.
    paths: list[tuple[str, tuple[tuple[int, int], ...]]] = [(root, ())]
    while paths:
        path, above = paths.pop()
        about = _stat(path or ".")
        if about is None:
            continue  # removed since its folder was listed, or a link that leads nowhere
        if stat.S_ISREG(about.st_mode):
            yield path, about
        elif stat.S_ISDIR(about.st_mode) and (depth is None or len(above) <= depth):
            here = (about.st_dev, about.st_ino)
            if here not in above:
                paths.extend((path + name, (*above, here)) for name in reversed(_names(path, suffixes)))


def _names(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the names in a folder that may be, or hold, what is looked for; a folder's with a slash at its end."""
    try:
        with os.scandir(folder or ".") as found:
            names = [f"{entry.name}/" if _holds_files(entry) else entry.name for entry in found]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error) from None
    return sorted(name for name in names if name.endswith("/") or name.lower().endswith(suffixes))


def _holds_files(entry: os.DirEntry[str]) -> bool:
    # Only of a link the disk is asked: a folder's listing tells the rest.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and _is_folder(entry.path) is True)


def _stat(path: str) -> os.stat_result | None:
    """Return what is known of a file; None where there is none."""
    try:
        return os.stat(path)  # noqa: PTH116  # millions of names: no Path for each
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise _unreadable(path, error) from None


def _is_folder(path: str) -> bool | None:
    """Whether it is a folder; None where nothing is there."""
    about = _stat(path)
    return None if about is None else stat.S_ISDIR(about.st_mode)


def _unreadable(path: str, error: OSError) -> UnreadableImage:
    return UnreadableImage(f"{path!r} cannot be listed: {type(error).__name__}: {error.strerror}.")


# --- paths and times, as users and templates write them ---


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat()
