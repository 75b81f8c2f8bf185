"""The journal: the store's write-ahead log. A call's intent is durable before it is sent, its outcome before it counts.

Each writer writes shards of its own. It gathers the events of some milliseconds, writes them as one shard (group
commit), then wakes the tasks that wait for them. The engine's `ImageCall` writes these events:

``sent``      a call is about to be sent: ``call`` (its id), ``keys`` (the image's identities), ``uri``, ``at``
``accepted``  the vendor runs the call as ``request_id``
``closed``    the call ended, known unbilled; the image has no description from it
``lost``      the call's response was lost; the run means to send another call
``outcome``   the call ended: its row, with ``call`` and ``keys``
``same``      all ``keys`` are identities of one image: what is known of one applies to all
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.compaction import ENDS, MAX_ATTEMPTS, merge_shards, shard_names
from airflow_provider_describer.store.shard import FOLDER, Event, encode_shard, json_line, shard_lines, shard_namer

WINDOW_S = 0.01
"""The shortest time between two shards, in seconds."""
CALL_SHARE = 12
"""With slow calls, shards are 1/12 of a call's duration apart. Images are prepared ahead for longer than that."""
MAX_WINDOWS = 5
"""The longest time between two shards, in windows: events that are not on disk are lost with the process."""
COMPACT_SHARDS = 256
"""A writer compacts its own shards when it has this many of them."""
COMPACT_BYTES = 1024 * 1024
"""It compacts them earlier when they have this many bytes: compaction holds all of them in memory."""


def new_call_id() -> str:
    """Return a call id that no other call of any writer has."""
    return secrets.token_hex(12)


class CommitInterval:
    """Chooses the time between shards from how long calls take: few shards, without making a call wait for one."""

    def __init__(self, window: float = WINDOW_S) -> None:
        self._window = window
        self._call_s = 0.0
        self.sent_at: dict[str, float] = {}
        """When each open call was sent."""

    def observe(self, event: Event, now: float) -> None:
        """Learn from an event how long calls take; ``now`` in seconds of any clock."""
        if event["event"] == "sent":
            self.sent_at[event["call"]] = now
        elif event["event"] in ENDS and (sent_at := self.sent_at.pop(event["call"], None)) is not None:
            elapsed = now - sent_at
            self._call_s = elapsed if not self._call_s else (7 * self._call_s + elapsed) / 8

    @property
    def seconds(self) -> float:
        """Seconds from one shard to the next."""
        return min(max(self._window, self._call_s / CALL_SHARE), MAX_WINDOWS * self._window)


class Journal:
    """One writer of the journal: an async context manager, bound to one event loop.

    Events that could not be written are kept and written with the next ones, at the latest on exit: their calls may
    have been paid for.
    """

    def __init__(self, folder: Folder, *, clock: Callable[[], float] = time.time, window: float = WINDOW_S) -> None:
        self._folder = folder
        self._new_name = shard_namer(clock)
        self._interval = CommitInterval(window)
        self._buffer: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._last_flush = float("-inf")
        self._closing = False
        self._own_shards: list[str] = []
        self._own_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: asyncio.Task[None] | None = None
        self._compaction: asyncio.Task[None] | None = None
        # Two threads: shards are written during a compaction too. Not the event loop's pool: spreading this work over
        # many threads uses more memory.
        self._threads = ThreadPoolExecutor(2, "journal")

    def append(self, event: Event) -> None:
        """Write the event with the next shard, without waiting for it."""
        self._buffer.append(json_line(event))
        if self._loop is not None:
            self._interval.observe(event, self._loop.time())
            if self._timer is None:
                self._timer = self._loop.call_at(self._last_flush + self._interval.seconds, self._due.set)

    async def commit(self, event: Event) -> None:
        """Write the event and return once it would survive the loss of this process.

        :raises StoreError: if it could not be written; it must not be relied on then.
        """
        if self._writer is None or self._writer.done():
            raise StoreError(f"The journal {self._folder.where(FOLDER)} is not open.")
        self.append(event)
        # A future of this waiter alone: the event goes to disk even if the waiter is cancelled.
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(written)
        await written

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._writer = self._loop.create_task(self._write_groups())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._due.set()
        assert self._writer is not None
        try:
            await asyncio.shield(self._writer)
            if self._compaction is not None:
                await asyncio.shield(self._compaction)
            await self._compact_own()
        finally:
            self._threads.shutdown(wait=False)

    async def _write_groups(self) -> None:
        try:
            while not self._closing:
                await self._due.wait()
                await self._flush()
                enough = len(self._own_shards) >= COMPACT_SHARDS or self._own_bytes >= COMPACT_BYTES
                if enough and (self._compaction is None or self._compaction.done()):
                    self._compaction = asyncio.create_task(self._compact_own())
            await self._flush()
        finally:
            # No task may wait for ever, however this ended.
            _wake(self._waiting, StoreError(f"The journal {self._folder.where(FOLDER)} has been closed."))

    async def _flush(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        self._last_flush = loop.time()
        lines, self._buffer = self._buffer, []
        waiting, self._waiting = self._waiting, []
        failure: StoreError | None = None
        try:
            if lines:
                name = self._new_name()
                self._own_bytes += await loop.run_in_executor(self._threads, self._write, name, lines)
                self._own_shards.append(name)
        except StoreError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # a folder's own error; every waiting task gets it
            failure = StoreError(f"The journal {self._folder.where(FOLDER)} cannot be written: {error!r}.")
        except BaseException:
            self._waiting = waiting + self._waiting
            raise
        if failure is not None:
            self._buffer = lines + self._buffer
        _wake(waiting, failure)

    def _write(self, name: str, lines: Sequence[bytes]) -> int:
        content = encode_shard(lines)
        self._folder.create(name, content)
        return len(content)

    async def _compact_own(self) -> None:
        names, self._own_shards, self._own_bytes = tuple(self._own_shards), [], 0
        if len(names) > 1:
            # Nothing is lost if this fails, because another compaction was faster or the disk is full.
            with contextlib.suppress(Exception):
                await asyncio.get_running_loop().run_in_executor(
                    self._threads, merge_shards, self._folder, names, self._new_name
                )


def _wake(waiting: Sequence[asyncio.Future[None]], failure: StoreError | None) -> None:
    for written in waiting:
        if written.done():
            continue
        if failure is not None:
            written.set_exception(failure)
        else:
            written.set_result(None)


def read_events(folder: Folder, damaged: list[StoreError] | None = None) -> Iterator[tuple[str, int, int, Event]]:
    """Yield ``(shard, offset, length, event)`` of the whole journal, in any order.

    A shard that vanishes meanwhile was compacted, so the shards are listed again until none is missing.

    :param damaged: collects the error of each unreadable shard, and the other shards are read. For diagnosis only: a
        plan must never be made from the readable part.
    :raises CorruptShard: naming a shard that is damaged or newer.
    :raises StoreError: naming what cannot be read.
    """
    seen: set[str] = set()
    for attempt in range(MAX_ATTEMPTS):
        # Listed at least twice: a listing taken during a compaction may miss both the old shards and the new one.
        again = attempt == 0
        for name in shard_names(folder):
            if name in seen:
                continue
            try:
                content = folder.read(name)
                if content is None:
                    again = True
                    continue
                seen.add(name)
                for offset, line in shard_lines(folder.where(name), content):
                    yield name, offset, len(line), json.loads(line)
            except StoreError as error:
                if damaged is None:
                    raise
                seen.add(name)
                damaged.append(error)
        if not again:
            return
    raise StoreError(f"The journal {folder.where(FOLDER)} is being compacted faster than it can be read; try again.")
