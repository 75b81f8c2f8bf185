"""The journal: what was sent and what came of it, durable before anything is counted on.

Writers never share a shard: each gathers the events of some milliseconds (group commit), writes them as a new shard and
wakes whoever waits for them. Events:

``sent``      a call is about to be made: ``call`` (its id), ``keys`` (what it describes), ``uri``, ``at``
``accepted``  the vendor runs it as ``request_id``
``closed``    it ended known unbilled, and the image is still without a description
``lost``      its answer was lost, and the same run has sent another call
``outcome``   it ended: the row, with ``call`` and ``keys``
``same``      all the ``keys`` name one image: what is known of one is known of each
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.compaction import ENDS, MAX_ATTEMPTS, merge_shards, shard_names
from airflow_provider_describer.store.shard import FOLDER, Event, decode_shard, encode_shard, json_line, shard_name

WINDOW_S = 0.01
"""The least time between two shards, in which events are gathered."""
SHARE = 12
"""For calls that take longer it is this part of a call: a batch has images ready for a quarter of one."""
MOST_WINDOWS = 5
"""So many windows at most: answers that are not on disk yet are lost with the process."""
ROLL = 256
"""So many small shards of one writer are merged into one."""
ROLL_BYTES = 1024 * 1024
"""Or fewer, once they are this large together: a merge has them all in memory."""

T = TypeVar("T")


def new_call_id() -> str:
    """Return an id that no other call of any writer has."""
    return secrets.token_hex(12)


class Journal:
    """One writer's side of the journal. An async context manager; bound to one event loop.

    Events that could not be written are kept and tried again with the next ones, and a last time at the end: they may
    be of answers that were paid for.
    """

    def __init__(self, folder: Folder, *, clock: Callable[[], float] = time.time, window: float = WINDOW_S) -> None:
        self._folder = folder
        self._clock = clock
        self._window = window
        self._writer = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._buffer: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._begun: dict[str, float] = {}
        self._call_s = 0.0
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._last = float("-inf")
        self._closing = False
        self._parts: list[str] = []
        self._parts_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._rolling: asyncio.Task[None] | None = None
        # Two: shards go on being written during a merge. Own ones, as memory that many threads take in turn piles up.
        self._threads = ThreadPoolExecutor(2, "journal")

    def append(self, event: Event) -> None:
        """Write the event with the next shard; nobody waits for it."""
        self._buffer.append(json_line(event))
        if self._loop is not None:
            self._time(event, self._loop.time())
            if self._timer is None:
                self._timer = self._loop.call_at(self._last + self._interval(), self._due.set)

    async def commit(self, event: Event) -> None:
        """Write the event and return once it would survive the loss of this process.

        :raises StoreError: where it could not be written; it may not be counted on then.
        """
        if self._task is None or self._task.done():
            raise StoreError(f"The journal {self._folder.where(FOLDER)} is not open.")
        self.append(event)
        # Of one waiter alone: the row may be of a paid answer, and goes to disk whoever stops waiting for it.
        ready = asyncio.get_running_loop().create_future()
        self._waiting.append(ready)
        await ready

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._commit_groups())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._due.set()
        assert self._task is not None
        try:
            await asyncio.shield(self._task)
            if self._rolling is not None:
                await asyncio.shield(self._rolling)
            await self._roll()
        finally:
            self._threads.shutdown(wait=False)

    def _time(self, event: Event, now: float) -> None:
        """Learn how long calls take."""
        if event["event"] == "sent":
            self._begun[event["call"]] = now
        elif event["event"] in ENDS and (begun := self._begun.pop(event["call"], None)) is not None:
            taken = now - begun
            self._call_s = taken if not self._call_s else (7 * self._call_s + taken) / 8

    def _interval(self) -> float:
        """Seconds from one shard to the next: few shards, and no call that waits for them."""
        return min(max(self._window, self._call_s / SHARE), MOST_WINDOWS * self._window)

    async def _commit_groups(self) -> None:
        try:
            while not self._closing:
                await self._due.wait()
                await self._flush()
                if len(self._parts) >= ROLL or self._parts_bytes >= ROLL_BYTES:
                    self._roll_along()
            await self._flush()
        finally:
            # Nobody may be left waiting, whatever ended this.
            _wake_all(self._waiting, StoreError(f"The journal {self._folder.where(FOLDER)} has been closed."))

    async def _flush(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._last = asyncio.get_running_loop().time()
        lines, self._buffer = self._buffer, []
        waiting, self._waiting = self._waiting, []
        failed: StoreError | None = None
        try:
            if lines:
                name = self._name()
                size = await self._in_thread(self._write, name, lines)
                self._parts.append(name)
                self._parts_bytes += size
        except StoreError as error:
            failed = error
        except Exception as error:  # noqa: BLE001  # a folder's own; handed to everybody who waits
            failed = StoreError(f"The journal {self._folder.where(FOLDER)} cannot be written: {error!r}.")
        except BaseException:
            self._waiting = waiting + self._waiting
            raise
        if failed is not None:
            self._buffer = lines + self._buffer
        _wake_all(waiting, failed)

    def _in_thread(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _write(self, name: str, lines: Sequence[bytes]) -> int:
        content = encode_shard(lines)
        self._folder.create(name, content)
        return len(content)

    def _roll_along(self) -> None:
        """Merge what has been written, while more is written."""
        if self._rolling is None or self._rolling.done():
            self._rolling = asyncio.create_task(self._roll())

    async def _roll(self) -> None:
        parts, self._parts, self._parts_bytes = tuple(self._parts), [], 0
        if len(parts) > 1:
            # Merging is tidying up: where it cannot be done (another merge was faster, the disk is full), nothing is
            # lost.
            with contextlib.suppress(Exception):
                await self._in_thread(merge_shards, self._folder, parts, self._name)

    def _name(self) -> str:
        return shard_name(self._clock(), f"{self._writer}-{next(self._numbers):06d}")


def _wake_all(waiting: Sequence[asyncio.Future[None]], failed: StoreError | None) -> None:
    for ready in waiting:
        if ready.done():
            continue
        if failed is not None:
            ready.set_exception(failed)
        else:
            ready.set_result(None)


def read_events(folder: Folder, damaged: list[StoreError] | None = None) -> Iterator[tuple[str, int, int, Event]]:
    """Yield ``(shard, offset, length, event)`` of the whole journal, in no order that matters.

    A shard that vanishes while it is read has been merged: the listing is taken again until nothing is missing.

    :param damaged: gets the error of each shard that cannot be read, and the others are read all the same. For people
        who look what is wrong: a plan must never be made of what is left.
    :raises CorruptShard: naming a shard that is damaged or newer.
    :raises StoreError: naming what cannot be read.
    """
    seen: set[str] = set()
    for number in range(MAX_ATTEMPTS):
        # Listed twice at least: a listing taken during a merge may show neither the old shards nor the new one.
        again = number == 0
        for name in shard_names(folder):
            if name in seen:
                continue
            try:
                content = folder.read(name)
                if content is None:
                    again = True
                    continue
                seen.add(name)
                for offset, length, event in decode_shard(folder.where(name), content):
                    yield name, offset, length, event
            except StoreError as error:
                if damaged is None:
                    raise
                seen.add(name)
                damaged.append(error)
        if not again:
            return
    raise StoreError(f"The journal {folder.where(FOLDER)} is being merged faster than it can be read; try again.")
