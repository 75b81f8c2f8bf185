"""What a journal holds, for people: whether it is whole, what is open in it, and what it has cost."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.store.compaction import shard_names
from airflow_provider_describer.store.index import JournalIndex
from airflow_provider_describer.store.journal import read_events
from airflow_provider_describer.store.shard import FOLDER, SUFFIX, Event, json_line

if TYPE_CHECKING:
    from airflow_provider_describer.storage.open_bucket import OpenBucket


def open_store(path: str, open_bucket: OpenBucket | None = None) -> Folder:
    """Return the store at a path where there is one; ``open_bucket`` as in `open_folder`.

    :raises BadInput: where there is no journal: an empty answer would look like an empty store.
    """
    folder = open_folder(path, open_bucket)
    if not folder.names(FOLDER):
        inside = os.path.basename(path.rstrip("/")) == FOLDER  # noqa: PTH119  # may be an address
        hint = "give the folder above it" if inside else "give the folder that the task names as its store"
        raise BadInput(f"{path!r} is no description store: there is nothing in {folder.where(FOLDER)}; {hint}.")
    return folder


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call whose end is not in the journal. ``request_id`` where it runs at the vendor, as far as is known."""

    call: str
    uri: str
    sent_at: float
    request_id: str | None


@dataclass(slots=True)
class Check:
    """What `check` finds. ``unknown_images`` have no description, and calls that may have been paid for."""

    store: str
    shards: int = 0
    damaged: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    open_calls: list[OpenCall] = field(default_factory=list)
    unknown_images: int = 0
    unknown_calls: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self)


class Doubts:
    """Folds events and knows the calls that may have been paid for without an answer."""

    def __init__(self) -> None:
        self.index = JournalIndex()
        self._lost: dict[str, tuple[str, ...]] = {}

    def apply(self, shard: str, offset: int, length: int, event: Event) -> None:
        """Fold one event in."""
        self.index.apply(shard, offset, length, event)
        if event["event"] == "lost" or event.get("status") == "unknown":
            self._lost[event["call"]] = tuple(event["keys"])

    def calls(self, *, described: bool) -> dict[str, tuple[str, ...]]:
        """Return the keys of each call without an answer whose image has a description, or has none."""
        unanswered = {call: opened.keys for call, opened in self.index.open_calls.items()} | self._lost
        return {call: keys for call, keys in unanswered.items() if self._is_described(keys) == described}

    def _is_described(self, keys: tuple[str, ...]) -> bool:
        outcome = self.index.outcome(keys)
        return outcome is not None and outcome.described

    def image(self, keys: tuple[str, ...]) -> str:
        """Return what stands for the image that the identities name, whatever other names it has."""
        return min(self.index.aliases(keys[:1]), default="")


def check(folder: Folder) -> Check:
    """Read every shard and return all that is wrong or open."""
    damaged: list[StoreError] = []
    doubts = Doubts()
    for shard, offset, length, event in read_events(folder, damaged):
        doubts.apply(shard, offset, length, event)
    found = Check(folder.where(), len(shard_names(folder)), [str(error) for error in damaged])
    found.ignored = [folder.where(name) for name in folder.names(FOLDER) if not name.endswith(SUFFIX)]
    found.open_calls = [
        OpenCall(call, opened.uri, opened.sent_at, opened.request_id)
        for call, opened in sorted(doubts.index.open_calls.items(), key=lambda item: item[1].sent_at)
    ]
    unknown = doubts.calls(described=False)
    found.unknown_calls = len(unknown)
    found.unknown_images = len({doubts.image(keys) for keys in unknown.values()})
    return found


@dataclass(slots=True)
class Sums:
    """Calls that have ended, and what they cost: ``unpriced`` ones were billed, or may have been, at no known price."""

    described: int = 0
    rejected: int = 0
    unknown: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0

    def add(self, row: Event) -> None:
        """Count an outcome."""
        match row["status"]:
            case "described":
                self.described += 1
            case "rejected":
                self.rejected += 1
            case "unknown":
                self.unknown += 1
        if row.get("cost_usd") is not None:
            self.cost_usd += row["cost_usd"]
        elif row.get("billed") != "no":
            self.unpriced += 1


@dataclass(slots=True)
class Show:
    """What `show` tells. ``lost_calls`` were sent and have no answer here.

    ``described_again`` are descriptions of images that had one; ``perhaps_twice`` are lost calls for images that
    another call has described. Together they are what may have been paid for twice, at most ``twice_cost_usd``.
    """

    store: str
    total: Sums = field(default_factory=Sums)
    by_vendor: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))
    by_prompt: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))
    by_day: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))
    lost_calls: int = 0
    described_again: int = 0
    perhaps_twice: int = 0
    twice_cost_usd: float = 0.0

    def tables_of(self, row: Event) -> tuple[Sums, ...]:
        """Return the sums that an outcome belongs to."""
        prompt = "(none)" if row.get("prompt") is None else row["prompt"]
        language = f" [{row['lang']}]" if row.get("lang") else ""
        return (
            self.total,
            self.by_vendor[row["vendor"]],
            self.by_prompt[prompt + language],
            self.by_day[row["described_at"][:10]],
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        sums = {name: {key: asdict(one) for key, one in sorted(getattr(self, name).items())} for name in _TABLES}
        rest = ("lost_calls", "described_again", "perhaps_twice", "twice_cost_usd")
        return {
            "store": self.store,
            "total": asdict(self.total),
            **sums,
            **{name: getattr(self, name) for name in rest},
        }


_TABLES = ("by_vendor", "by_prompt", "by_day")


def show(folder: Folder) -> Show:
    """Return the totals of all runs.

    :raises StoreError: naming a shard that cannot be read.
    """
    found, doubts, dearest = Show(folder.where()), Doubts(), 0.0
    described: Counter[str] = Counter()
    for shard, offset, length, event in _once(folder):
        doubts.apply(shard, offset, length, event)
        if event["event"] == "outcome":
            for sums in found.tables_of(event):
                sums.add(event)
            dearest = max(dearest, event.get("cost_usd") or 0.0)
            if event["status"] == "described":
                described[event["keys"][0]] += 1
    twice = doubts.calls(described=True)
    found.lost_calls = len(twice) + len(doubts.calls(described=False))
    found.described_again = described.total() - len({doubts.image((key,)) for key in described})
    found.perhaps_twice = len(twice)
    found.twice_cost_usd = (found.described_again + found.perhaps_twice) * dearest
    return found


def _once(folder: Folder) -> Iterator[tuple[str, int, int, Event]]:
    """Yield each outcome once: a merge that was killed has left copies. Other events are folded anyway."""
    seen: set[bytes] = set()
    for shard, offset, length, event in read_events(folder):
        if event["event"] == "outcome":
            mark = blake2b(json_line(event), digest_size=12).digest()
            if mark in seen:
                continue
            seen.add(mark)
        yield shard, offset, length, event
