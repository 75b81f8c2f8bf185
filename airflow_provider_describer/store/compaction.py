"""Compaction: many small shards become few large ones, safely beside writers, readers and other compactions.

It may be killed at any point, because new shards are complete before an old one is removed; an event that is there
twice counts once, by its call; and no end of a call is ever dropped, so a leftover copy of its start is known to have
ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.shard import FOLDER, SUFFIX, encode_shard, peek, shard_lines, shard_namer

SHARD_BYTES = 16 * 1024 * 1024
"""The approximate size of a compacted shard."""
GROUP_BYTES = 2 * SHARD_BYTES
"""How much is compacted in one step; this bounds the memory."""
STARTS = ("sent", "accepted")
ENDS = ("closed", "lost", "outcome")
MAX_ATTEMPTS = 10


class ShardVanished(StoreError):
    """Another compaction has removed a shard; its events are in a newer one."""


def merge_shards(folder: Folder, names: Sequence[str], new_name: Callable[[], str]) -> None:
    """Replace shards by as few as possible. Of a call that has ended only its end is kept.

    Lines stay byte for byte as they are, each once. All of them are in memory at the same time.

    :raises ShardVanished: if another compaction was faster; no shard was removed then.
    """
    lines: dict[bytes, str | None] = {}
    """Each distinct line, with the call that it starts."""
    ended: set[str | None] = set()
    for name in names:
        content = folder.read(name)
        if content is None:
            raise ShardVanished(f"{folder.where(name)} vanished during compaction; another compaction is running.")
        for _, line in shard_lines(folder.where(name), content):
            kind, call = peek(line)
            if kind in ENDS:
                ended.add(call)
            lines[line] = call if kind in STARTS else None
    kept: list[bytes] = []
    size = 0
    for line, started in lines.items():
        if started in ended:
            continue
        kept.append(line)
        size += len(line)
        if size >= SHARD_BYTES:
            folder.create(new_name(), encode_shard(kept))
            kept, size = [], 0
    if kept:
        folder.create(new_name(), encode_shard(kept))
    for name in names:
        folder.delete(name)


def compact(folder: Folder, *, clock: Callable[[], float] = time.time) -> tuple[int, int]:
    """Compact all small shards of the journal and return the number of shards before and after.

    :raises CorruptShard: naming a damaged shard; it and the shards of its group stay as they are.
    """
    before = len(shard_names(folder))
    new_name = shard_namer(clock)
    for _ in range(MAX_ATTEMPTS):
        try:
            for group in _groups(folder):
                merge_shards(folder, group, new_name)
        except ShardVanished:
            continue
        return before, len(shard_names(folder))
    raise StoreError(f"The journal {folder.where(FOLDER)} is being compacted by another process; try again.")


def shard_names(folder: Folder) -> list[str]:
    """Return the names of all current shards."""
    return [name for name in folder.names(FOLDER) if name.endswith(SUFFIX)]


def _groups(folder: Folder) -> Iterator[list[str]]:
    """Yield the small shards in groups of at least two, each to be merged in one step."""
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
