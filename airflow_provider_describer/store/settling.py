"""Settling: calls that have ended move from the journal into the table, and their shards go.

It may be killed at any point, because the table's rows are durable before a shard is removed; a call that is in the
table and in a shard counts once; and shards are removed oldest first, so a leftover start of a call has its end beside
it or in the table.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.shard import (
    FOLDER,
    SETTLED,
    SUFFIX,
    Event,
    encode_shard,
    peek,
    settled_mark,
    shard_lines,
    shard_namer,
)
from airflow_provider_describer.store.table import SettledTable

GROUP_BYTES = 16 * 1024 * 1024
"""How much of the journal is settled in one step; this bounds the memory."""
STARTS = ("sent", "accepted")
ENDS = ("closed", "lost", "outcome")
SETTLED_EVENTS = ("lost", "outcome", "same")
"""Events that become rows of the table."""
MAX_ATTEMPTS = 10


class ShardVanished(StoreError):
    """Another process has settled a shard; its events are in the table or in a newer shard."""


@dataclass(slots=True)
class SettledLines:
    """Lines of the journal, sorted by what is to become of them."""

    events: list[Event]
    """For the table."""
    kept: list[bytes]
    """For a new shard: calls that are open, and ends of calls that began elsewhere."""


def sort_lines(lines: Iterable[bytes]) -> SettledLines:
    """Return what is to become of each line. Of a call that has ended, unbilled, nothing is left."""
    begun: dict[str, list[bytes]] = {}
    closed: dict[str, bytes] = {}
    ended: set[str] = set()
    events: dict[bytes, Event] = {}
    unknown: list[bytes] = []
    for line in dict.fromkeys(lines):
        kind, call = peek(line)
        if kind in STARTS:
            begun.setdefault(call, []).append(line)
            continue
        if kind in ENDS:
            ended.add(call)
        if kind in SETTLED_EVENTS:
            events[line] = json.loads(line)
        elif kind == "closed":
            closed[call] = line
        else:
            unknown.append(line)
    kept = unknown + [line for call, starts in begun.items() if call not in ended for line in starts]
    in_table = {event["call"] for event in events.values()}
    kept += [line for call, line in closed.items() if call not in begun and call not in in_table]
    return SettledLines(list(events.values()), kept)


def settle(
    folder: Folder,
    table: SettledTable,
    lines: Iterable[bytes],
    names: Sequence[str],
    new_name: Callable[[], str],
    *,
    is_new: bool,
) -> str | None:
    """Settle these lines, which are all that these shards hold; return the shard of what is not settled yet, if any.

    :param is_new: as for `SettledTable.add`.
    """
    lines = list(lines)
    found = sort_lines(lines)
    if not is_new:
        # Their ends may have been settled by a process that was killed before it removed these shards.
        begun = {call for kind, call in map(peek, found.kept) if kind in STARTS}
        ended = table.calls_in(begun)
        found.kept = [line for line in found.kept if peek(line)[0] not in STARTS or peek(line)[1] not in ended]
    if len(names) == 1 and len(found.kept) == len(lines):
        return names[0]
    table.add(found.events, is_new=is_new)
    if table.exists and folder.read(SETTLED) is None:
        # From here on, releases that know no table refuse the store, and this one refuses it without its table.
        folder.create(SETTLED, settled_mark())
    name = None
    if found.kept:
        name = new_name()
        folder.create(name, encode_shard(found.kept))
    folder.delete(*names)
    return name


def settle_shards(
    folder: Folder,
    table: SettledTable,
    names: Callable[[], Iterable[str]],
    before_each: Callable[[], None] = lambda: None,
    *,
    clock: Callable[[], float] = time.time,
) -> int:
    """Settle shards, of writers that are not at work any more; return how many there were.

    :param names: of the shards; asked again where another process has settled one meanwhile.
    :param before_each: called before each group of shards.
    :raises CorruptShard: naming a damaged shard; it and the shards of its group stay as they are.
    """
    new_name, settled = shard_namer(clock), 0
    for _ in range(MAX_ATTEMPTS):
        try:
            for group, lines in _groups(folder, names()):
                before_each()
                settle(folder, table, lines, group, new_name, is_new=False)
                settled += len(group)
        except ShardVanished:
            continue
        return settled
    raise StoreError(f"The journal {folder.where(FOLDER)} is being settled by another process; try again.")


def compact(
    folder: Folder, is_live: Callable[[str], bool] = lambda name: False, *, clock: Callable[[], float] = time.time
) -> tuple[int, int]:
    """Settle the journal and bring the table up to date; return the number of shards before and after.

    :param is_live: whether the writer of the shard of this name may still be at work: it settles its own.
    :raises StoreError: naming what cannot be read or written.
    """
    before = len(shard_names(folder))
    table = SettledTable(folder)
    settle_shards(folder, table, lambda: [name for name in shard_names(folder) if not is_live(name)], clock=clock)
    if folder.read(SETTLED) is not None:
        table.maintain(at_once=True)
    return before, len(shard_names(folder))


def has_ended_calls(folder: Folder, names: Iterable[str]) -> bool:
    """Return whether any of these shards holds something to settle; one that has vanished counts."""
    for name in names:
        content = folder.read(name)
        if content is None or any(
            peek(line)[0] in SETTLED_EVENTS for _, line in shard_lines(folder.where(name), content)
        ):
            return True
    return False


def shard_names(folder: Folder) -> list[str]:
    """Return the names of all current shards."""
    return [name for name in folder.names(FOLDER) if name.endswith(SUFFIX) and name != SETTLED]


def _groups(folder: Folder, names: Iterable[str]) -> Iterator[tuple[list[str], list[bytes]]]:
    """Yield shards in groups that are settled in one step, with their lines."""
    group: list[str] = []
    lines: list[bytes] = []
    size = 0
    for name in names:
        content = folder.read(name)
        if content is None:
            raise ShardVanished(f"{folder.where(name)} vanished while it was settled; another process settles it.")
        group.append(name)
        lines += (line for _, line in shard_lines(folder.where(name), content))
        size += len(content)
        if size >= GROUP_BYTES:
            yield group, lines
            group, lines, size = [], [], 0
    if group:
        yield group, lines
