"""The journal: the store's write-ahead log. A call's intent is durable before it is sent, its outcome before it counts.

Each writer writes shards of its own. It gathers the events of some milliseconds, writes them as one shard (group
commit), then wakes the tasks that wait for them. The engine's `ImageCall` writes these events:

``sent``      a call is about to be sent: ``call`` (its id), ``keys`` (the image's identities), ``uri``, ``at``
``accepted``  the vendor runs the call as ``request_id``
``closed``    the call ended, known unbilled; the image has no description from it
``lost``      the call's response was lost; the run means to send another call
``outcome``   the call ended: its row, with ``call`` and ``keys``
``same``      all ``keys`` are identities of one image: what is known of one applies to all

A writer settles its own shards into the store's table as it goes, and at its end (store/settling.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.settling import ENDS, MAX_ATTEMPTS, settle, sort_lines
from airflow_provider_describer.store.shard import (
    FOLDER,
    SUFFIX,
    Event,
    encode_shard,
    json_line,
    shard_lines,
    shard_namer,
)
from airflow_provider_describer.store.table import SettledTable

logger = logging.getLogger(__name__)

WINDOW_S = 0.01
"""The shortest time between two shards, in seconds."""
CALL_SHARE = 12
"""With slow calls, shards are 1/12 of a call's duration apart. Images are prepared ahead for longer than that."""
MAX_WINDOWS = 5
"""The longest time between two shards, in windows: events that are not on disk are lost with the process."""
SETTLE_BYTES = 4 * 1024 * 1024
"""A writer settles its own shards when they have this many bytes, which it holds in memory until then."""


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

    :param writer: id of this writer, of letters and digits, which no other one has; by default a new one.
    :param is_alone: whether, at that moment, nobody can have taken this writer for dead and settled its shards.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        writer: str | None = None,
        is_alone: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        window: float = WINDOW_S,
    ) -> None:
        self._folder = folder
        self._new_name = shard_namer(clock, writer)
        self._is_alone = is_alone
        self._interval = CommitInterval(window)
        self._buffer: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._last_flush = float("-inf")
        self._closing = False
        self._table = SettledTable(folder)
        self._own_shards: list[str] = []
        self._own_lines: list[bytes] = []
        self._own_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        # Two threads: shards are written while others are settled. Not the event loop's pool: spreading this work over
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
            if self._settling is not None:
                await asyncio.shield(self._settling)
            await self._settle_own()
        finally:
            self._threads.shutdown(wait=False)

    async def _write_groups(self) -> None:
        try:
            while not self._closing:
                await self._due.wait()
                await self._flush()
                if self._own_bytes >= SETTLE_BYTES and (self._settling is None or self._settling.done()):
                    self._settling = asyncio.create_task(self._settle_own())
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
                await loop.run_in_executor(self._threads, self._folder.create, name, encode_shard(lines))
                self._own_shards.append(name)
                self._own_lines += lines
                self._own_bytes += sum(map(len, lines))
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

    async def _settle_own(self) -> None:
        names, lines = tuple(self._own_shards), tuple(self._own_lines)
        self._own_shards, self._own_lines, self._own_bytes = [], [], 0
        if names:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._settle, names, lines)

    def _settle(self, names: Sequence[str], lines: Sequence[bytes]) -> None:
        try:
            rest = settle(self._folder, self._table, lines, names, self._new_name, is_new=self._is_alone())
        except Exception as error:  # noqa: BLE001  # nothing is lost: what is not settled is in the journal
            logger.warning("Outcomes stay in the journal for now, a later run settles them: %s", error)
            return
        if rest is not None:
            self._own_shards.append(rest)
            self._own_lines += sort_lines(lines).kept
        self._maintain()

    def _maintain(self) -> None:
        try:
            self._table.maintain()
        except Exception as error:  # noqa: BLE001  # another process may do the same at the same time
            logger.info("%s is maintained by a later run: %s", self._table.where, error)


def _wake(waiting: Sequence[asyncio.Future[None]], failure: StoreError | None) -> None:
    for written in waiting:
        if written.done():
            continue
        if failure is not None:
            written.set_exception(failure)
        else:
            written.set_result(None)


@dataclass(slots=True)
class JournalReader:
    """Reads the journal, and later what is new in it.

    ``read`` are the shards that were read, and ``listed`` those that were there at the end of the last reading.
    """

    folder: Folder
    read: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)

    def events(self, damaged: list[StoreError] | None = None) -> Iterator[tuple[str, int, int, Event]]:
        """Yield ``(shard, offset, length, event)`` of all shards that were not read before, in any order.

        A shard that vanishes meanwhile was settled, so the shards are listed again until none is missing: what it held
        that is not settled yet is in a newer shard.

        :param damaged: collects the error of each unreadable shard, and the other shards are read. For diagnosis only:
            a plan must never be made from the readable part.
        :raises CorruptShard: naming a shard that is damaged or newer.
        :raises StoreError: naming what cannot be read.
        """
        for attempt in range(MAX_ATTEMPTS):
            # Listed at least twice: a listing taken while others settle may miss both the old shards and the new one.
            again = attempt == 0
            self.listed = {name for name in self.folder.names(FOLDER) if name.endswith(SUFFIX)}
            for name in sorted(self.listed - self.read):
                try:
                    content = self.folder.read(name)
                    if content is None:
                        again = True
                        continue
                    self.read.add(name)
                    for offset, line in shard_lines(self.folder.where(name), content):
                        yield name, offset, len(line), json.loads(line)
                except StoreError as error:
                    if damaged is None:
                        raise
                    self.read.add(name)
                    damaged.append(error)
            if not again:
                return
        where = self.folder.where(FOLDER)
        raise StoreError(f"The journal {where} is being settled faster than it can be read; try again.")


def read_events(folder: Folder, damaged: list[StoreError] | None = None) -> Iterator[tuple[str, int, int, Event]]:
    """Yield ``(shard, offset, length, event)`` of the whole journal, as `JournalReader.events` does."""
    return JournalReader(folder).events(damaged)
