"""What the journal says about each identity: a few dozen bytes a key, texts stay in their shards."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.compaction import TRIES
from airflow_provider_describer.store.journal import read_events
from airflow_provider_describer.store.shard import Event


class StoredOutcome(NamedTuple):
    """The outcome of an identity and where its row stands. The greater of two is the one that counts."""

    described: bool
    described_at: str
    shard: str
    offset: int
    length: int


@dataclass(slots=True)
class OpenCall:
    """A call that was sent and whose end is not in the journal."""

    keys: tuple[str, ...] = ()
    uri: str = ""
    sent_at: float = 0.0
    request_id: str | None = None
    accepted_at: float = 0.0


@dataclass(slots=True)
class Index:
    """The journal's events, folded. The order in which they are applied makes no difference."""

    known: dict[str, StoredOutcome] = field(default_factory=dict)
    open_calls: dict[str, OpenCall] = field(default_factory=dict)
    lost: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Calls whose answer was lost and recorded as lost, by key."""
    _same: dict[str, list[str]] = field(default_factory=dict)
    """All names of an image that has several, by each of them. One list for all of them."""
    _ended: set[str] = field(default_factory=set)

    def apply(self, shard: str, offset: int, length: int, event: Event) -> None:
        """Fold one event in."""
        call: str = event["call"]
        match event["event"]:
            case "sent" | "accepted" if call not in self._ended:
                opened = self.open_calls.setdefault(call, OpenCall())
                if event["event"] == "sent":
                    opened.keys, opened.uri, opened.sent_at = tuple(event["keys"]), event["uri"], event["at"]
                else:
                    opened.keys = opened.keys or tuple(event["keys"])
                    opened.request_id, opened.accepted_at = event["request_id"], event["at"]
            case "closed" | "lost" | "outcome" as kind:
                self._ended.add(call)
                self.open_calls.pop(call, None)
                if kind == "lost":
                    for key in event["keys"]:
                        self.lost[key].add(call)
                elif kind == "outcome":
                    self._outcome(shard, offset, length, event)
            case "same":
                self._link(event["keys"])

    def linked(self, keys: tuple[str, ...]) -> Iterable[str]:
        """Return the identities and all others that name the same image as one of them."""
        if self._same.keys().isdisjoint(keys):
            return keys
        return {other for key in keys for other in self._same.get(key, (key,))}

    def _link(self, keys: Sequence[str]) -> None:
        names = max((self._same.get(key, []) for key in keys), key=len, default=[])
        for key in keys:
            group = self._same.get(key) or [key]
            if group is not names:
                names.extend(group)
                self._same.update(dict.fromkeys(group, names))

    def _outcome(self, shard: str, offset: int, length: int, event: Event) -> None:
        status = event["status"]
        for key in event["keys"]:
            if status == "unknown":
                self.lost[key].add(event["call"])
            elif status in ("described", "rejected"):
                found = StoredOutcome(status == "described", event["described_at"], shard, offset, length)
                self.known[key] = max(found, self.known.get(key, found))

    def finished(self) -> dict[str, list[str]]:
        """Forget what only folding needs and return the ids of the calls still open, by key."""
        self._ended.clear()
        by_key: dict[str, list[str]] = defaultdict(list)
        for call, opened in self.open_calls.items():
            for key in opened.keys:
                by_key[key].append(call)
        return by_key


@dataclass(slots=True)
class JournalIndex:
    """What a run knows from the journal when it plans."""

    folder: Folder | None = None
    index: Index = field(default_factory=Index)
    open_by_key: dict[str, list[str]] = field(default_factory=dict)
    _shard: tuple[str, bytes] = ("", b"")

    def known(self, keys: tuple[str, ...]) -> StoredOutcome | None:
        """Return the best outcome of any of the identities, or None."""
        found = [self.index.known[key] for key in self.index.linked(keys) if key in self.index.known]
        return max(found) if found else None

    def open_call(self, keys: tuple[str, ...]) -> tuple[str, OpenCall] | None:
        """Return the latest open call of any of the identities, one with a request id before one without."""
        calls = {call for key in self.index.linked(keys) for call in self.open_by_key.get(key, ())}
        if not calls:
            return None
        call = max(
            calls,
            key=lambda one: (
                self.index.open_calls[one].request_id is not None,
                self.index.open_calls[one].sent_at,
                one,
            ),
        )
        return call, self.index.open_calls[call]

    def lost_calls(self, keys: tuple[str, ...]) -> int:
        """Return how many calls of any of the identities were sent and never answered."""
        linked = self.index.linked(keys)
        lost = {call for key in linked for call in self.index.lost.get(key, ())}
        return len(lost | {call for key in linked for call in self.open_by_key.get(key, ())})

    def row(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """Return the stored row of a known outcome. Rows asked for in shard order read each shard once.

        :raises StoreError: where it can no longer be read.
        """
        folder, known = self.folder, self.known(keys)
        assert folder is not None
        for _ in range(TRIES):
            if known is None:
                raise StoreError(f"{folder.where()}: a stored description vanished while it was read.")
            if self._shard[0] != known.shard:
                content = folder.read(known.shard)
                if content is None:
                    # Somebody has merged the shard: the row stands in another one now.
                    again = load_index(folder)
                    self.index, self.open_by_key = again.index, again.open_by_key
                    known = self.known(keys)
                    continue
                self._shard = (known.shard, content)
            row: dict[str, Any] = json.loads(self._shard[1][known.offset : known.offset + known.length])
            return row
        raise StoreError(f"{folder.where()} is being merged faster than it can be read; try again.")


def load_index(folder: Folder | None) -> JournalIndex:
    """Read the whole journal; an empty memory where there is no store.

    :raises StoreError: naming a shard that cannot be read.
    """
    memory = JournalIndex(folder)
    if folder is not None:
        for shard, offset, length, event in read_events(folder):
            memory.index.apply(shard, offset, length, event)
        memory.open_by_key = memory.index.finished()
    return memory
