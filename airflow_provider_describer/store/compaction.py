"""Many shards made into few, at any time and by anybody: beside writers, readers and other merges, killed or not.

What makes it safe: new shards are complete before an old one is removed, events are known by their call so that one
told twice is told once, and no end of a call is ever dropped: wherever a copy of its beginning is left, it is known to
have ended.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.shard import FOLDER, SUFFIX, encode_shard, peek, shard_lines, shard_name

SHARD_BYTES = 16 * 1024 * 1024
"""About how large a merged shard becomes."""
GROUP_BYTES = 2 * SHARD_BYTES
"""How much is merged at a time, which bounds the memory that it takes."""
BEGINNINGS = ("sent", "accepted")
ENDS = ("closed", "lost", "outcome")
MAX_ATTEMPTS = 10


class ShardVanished(StoreError):
    """A shard was merged away by somebody else meanwhile; what it told stands in another one now."""


def merge_shards(folder: Folder, names: Sequence[str], new_name: Callable[[], str]) -> list[str]:
    """Merge shards into few and return the new ones' names. What has ended leaves only its end behind.

    Lines are taken over as they are, each once. All of them are in memory meanwhile.

    :raises ShardVanished: where another merge was faster; nothing has been removed then.
    """
    begins: dict[bytes, str] = {}
    ended: set[str] = set()
    for line in _lines(folder, names):
        kind, call = peek(line)
        if kind in ENDS:
            ended.add(call)
        begins[line] = call if kind in BEGINNINGS else ""
    made: list[str] = []
    lines: list[bytes] = []
    size = 0
    for line, call in begins.items():
        if call in ended:
            continue
        lines.append(line)
        size += len(line)
        if size >= SHARD_BYTES:
            made.append(_create(folder, new_name(), lines))
            lines, size = [], 0
    if lines:
        made.append(_create(folder, new_name(), lines))
    for name in names:
        folder.delete(name)
    return made


def compact(folder: Folder, *, clock: Callable[[], float] = time.time) -> tuple[int, int]:
    """Merge all small shards of the journal and return how many shards there were and are now.

    :raises CorruptShard: naming a damaged shard; it and its neighbours are then left as they are.
    """
    before = len(shard_names(folder))
    writer = secrets.token_hex(6)
    number = iter(range(1, 1_000_000))
    for _ in range(MAX_ATTEMPTS):
        try:
            for group in _groups(folder):
                merge_shards(folder, group, lambda: shard_name(clock(), f"{writer}-{next(number):06d}"))
        except ShardVanished:
            continue
        return before, len(shard_names(folder))
    raise StoreError(f"The journal {folder.where(FOLDER)} is being merged by somebody else; try again.")


def shard_names(folder: Folder) -> list[str]:
    """Return the names of all shards there are now."""
    return [name for name in folder.names(FOLDER) if name.endswith(SUFFIX)]


def _groups(folder: Folder) -> Iterator[list[str]]:
    """Yield the small shards, in groups of several that are merged together."""
    group: list[str] = []
    size = 0
    for name in shard_names(folder):
        length = len(folder.read(name) or b"")
        if length >= SHARD_BYTES // 2:
            continue
        group.append(name)
        size += length
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if len(group) > 1:
        yield group


def _create(folder: Folder, name: str, lines: Sequence[bytes]) -> str:
    folder.create(name, encode_shard(lines))
    return name


def _lines(folder: Folder, names: Sequence[str]) -> Iterator[bytes]:
    for name in names:
        content = folder.read(name)
        if content is None:
            raise ShardVanished(f"{folder.where(name)} vanished while it was merged; another merge is at work.")
        for _, line in shard_lines(folder.where(name), content):
            yield line
