"""The journal in memory, folded by identity: a few dozen bytes a key. Descriptions stay in their shards."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_describer.errors import StoreError, UnexpectedAnswer
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.compaction import MAX_ATTEMPTS
from airflow_provider_describer.store.journal import read_events
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.shard import Event


class StoredOutcome(NamedTuple):
    """An identity's outcome and where its row is. The greatest counts: described beats rejected, then the later one."""

    described: bool
    described_at: str
    shard: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What the calls of one task instance have cost, in all of its tries.

    :param calls: ended calls that were billed, or may have been; ``unpriced`` of them have no known cost.
    :param cost_usd: known cost in USD.
    :param open_calls: ids of calls whose end is not in the journal.
    """

    calls: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    open_calls: frozenset[str] = frozenset()


@dataclass(slots=True)
class OpenCall:
    """A call that was sent and whose end is not in the journal. ``by`` is the task instance that has sent it."""

    keys: tuple[str, ...] = ()
    by: str = ""
    uri: str = ""
    sent_at: float = 0.0
    request_id: str | None = None
    accepted_at: float = 0.0


@dataclass(slots=True)
class JournalIndex:
    """What the journal says about each identity. The order in which events are applied makes no difference.

    ``folder`` is the store, or None for a run without one. The spending of
    ``task_instance`` is summed up.
    """

    folder: Folder | None = None
    task_instance: TaskInstanceKey = field(default_factory=TaskInstanceKey)
    outcomes: dict[str, StoredOutcome] = field(default_factory=dict)
    open_calls: dict[str, OpenCall] = field(default_factory=dict)
    lost: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The keys of each call whose response was lost."""
    unanswered_by_key: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The ids of open and lost calls by key; filled by `finish`."""
    _aliases: dict[str, list[str]] = field(default_factory=dict)
    """For an image with several identities: all of them, in one list that each of them maps to."""
    _ended: set[str] = field(default_factory=set)
    _own_costs: dict[str, float | None] = field(default_factory=dict)
    """The cost of each ended call of the task instance; None where it is not known."""
    _own_ends: dict[str, float] = field(default_factory=dict)
    """When each of them ended, in epoch seconds."""
    _shard: tuple[str, bytes] = ("", b"")
    """Name and content of the shard that was read last."""

    def apply(self, shard: str, offset: int, length: int, event: Event) -> None:
        """Fold one event in."""
        call: str = event["call"]
        match event["event"]:
            case "sent" | "accepted" if call not in self._ended:
                opened = self.open_calls.setdefault(call, OpenCall())
                if event["event"] == "sent":
                    opened.keys, opened.uri, opened.sent_at = tuple(event["keys"]), event["uri"], event["at"]
                    opened.by = event.get("by", "")
                else:
                    opened.keys = opened.keys or tuple(event["keys"])
                    opened.request_id, opened.accepted_at = event["request_id"], event["at"]
            case "closed" | "lost" | "outcome" as kind:
                self._ended.add(call)
                self.open_calls.pop(call, None)
                self._count_cost(event)
                status = event["status"] if kind == "outcome" else None
                if kind == "lost" or status == "unknown" or _is_unread_answer(event):
                    # Two runs may report the end of one call, each with the keys that it knows.
                    self.lost[call] = tuple(dict.fromkeys((*self.lost.get(call, ()), *event["keys"])))
                elif status in ("described", "rejected"):
                    found = StoredOutcome(status == "described", event["described_at"], shard, offset, length)
                    for key in event["keys"]:
                        self.outcomes[key] = max(found, self.outcomes.get(key, found))
            case "same":
                self._link(event["keys"])

    def _count_cost(self, event: Event) -> None:
        """Count the end of a call of the task instance: one that it has sent, or one whose result it has fetched."""
        run = self.task_instance
        if not run.instance or event["event"] == "closed":
            return
        if event["event"] == "outcome":
            if event["billed"] == "no":
                return
            found = (event["dag_id"], event["run_id"], event["task_id"], event["map_index"])
            is_own = found == (run.dag_id, run.run_id, run.task_id, run.map_index)
        else:
            is_own = False
        if is_own or event.get("by") == run.instance:
            # Two runs may report the end of one call; the one that has seen its cost counts.
            costs = (event.get("cost_usd"), self._own_costs.get(event["call"]))
            self._own_costs[event["call"]] = max((cost for cost in costs if cost is not None), default=None)
            is_row = event["event"] == "outcome"
            at = datetime.fromisoformat(event["described_at"]).timestamp() if is_row else event.get("at", 0.0)
            self._own_ends[event["call"]] = max(at, self._own_ends.get(event["call"], 0.0))

    def spending(self, since: float = 0.0) -> Spending:
        """Return what the task instance has spent so far, in all of its tries.

        :param since: epoch seconds; calls that ended earlier, and open ones that were sent earlier, are left out.
        """
        costs = [cost for call, cost in self._own_costs.items() if self._own_ends[call] >= since]
        own = self.task_instance.instance
        return Spending(
            len(costs),
            sum(cost for cost in costs if cost is not None),
            sum(cost is None for cost in costs),
            frozenset(
                call
                for call, opened in self.open_calls.items()
                if own and opened.by == own and max(opened.sent_at, opened.accepted_at) >= since
            ),
        )

    def _link(self, keys: Sequence[str]) -> None:
        names = max((self._aliases.get(key, []) for key in keys), key=len, default=[])
        for key in keys:
            group = self._aliases.get(key) or [key]
            if group is not names:
                names.extend(group)
                self._aliases.update(dict.fromkeys(group, names))

    def finish(self) -> None:
        """Prepare the lookups once all events are applied, and free what only folding needs."""
        self._ended.clear()
        for call, keys in self.unanswered().items():
            for key in keys:
                self.unanswered_by_key[key].add(call)

    def unanswered(self) -> dict[str, tuple[str, ...]]:
        """Return the keys of each call without a response, which may have been paid for."""
        return {call: opened.keys for call, opened in self.open_calls.items()} | self.lost

    def aliases(self, keys: tuple[str, ...]) -> Iterable[str]:
        """Return these identities and all others of the same image."""
        if self._aliases.keys().isdisjoint(keys):
            return keys
        return {other for key in keys for other in self._aliases.get(key, (key,))}

    def outcome(self, keys: tuple[str, ...]) -> StoredOutcome | None:
        """Return the best outcome of any of the identities, or None."""
        return max((self.outcomes[key] for key in self.aliases(keys) if key in self.outcomes), default=None)

    def open_call(self, keys: tuple[str, ...]) -> tuple[str, OpenCall] | None:
        """Return id and content of the latest open call of any of the identities; one with a request id goes first."""
        calls = [(call, self.open_calls[call]) for call in self._unanswered(keys) if call in self.open_calls]
        return max(calls, key=lambda one: (one[1].request_id is not None, one[1].sent_at, one[0]), default=None)

    def lost_calls(self, keys: tuple[str, ...]) -> int:
        """Return how many calls of any of the identities were sent and never answered."""
        return len(self._unanswered(keys))

    def lost_answers(self, keys: tuple[str, ...]) -> int:
        """Return how many of them a run has seen to be lost; the others ended with their process."""
        return sum(call in self.lost for call in self._unanswered(keys))

    def _unanswered(self, keys: tuple[str, ...]) -> set[str]:
        return {call for key in self.aliases(keys) for call in self.unanswered_by_key.get(key, ())}

    def row(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """Return the stored row of an outcome. To read each shard only once, ask in the order of `StoredOutcome`.

        :raises StoreError: if the row can no longer be read.
        """
        folder = self.folder
        assert folder is not None
        for _ in range(MAX_ATTEMPTS):
            found = self.outcome(keys)
            if found is None:
                raise StoreError(f"{folder.where()}: a stored description vanished while it was read.")
            if self._shard[0] != found.shard:
                content = folder.read(found.shard)
                if content is None:
                    # Another task has compacted the shard, so the row is in a newer one.
                    self._take_over(load_index(folder))
                    continue
                self._shard = (found.shard, content)
            row: dict[str, Any] = json.loads(self._shard[1][found.offset : found.offset + found.length])
            return row
        raise StoreError(f"{folder.where()} is being compacted faster than it can be read; try again.")

    def _take_over(self, newer: JournalIndex) -> None:
        self.outcomes, self.open_calls, self.lost = newer.outcomes, newer.open_calls, newer.lost
        self.unanswered_by_key, self._aliases = newer.unanswered_by_key, newer._aliases


def _is_unread_answer(event: Event) -> bool:
    """Whether the row says "rejected" for an answer that was paid for and not understood, as older versions wrote."""
    return event.get("status") == "rejected" and (event.get("error") or {}).get("kind") == UnexpectedAnswer.kind


def load_index(
    folder: Folder | None, damaged: list[StoreError] | None = None, task_instance: TaskInstanceKey | None = None
) -> JournalIndex:
    """Read the whole journal and return its index; an empty index without a store.

    :param damaged: as for `read_events`.
    :param task_instance: whose spending is summed up.
    :raises StoreError: naming a shard that cannot be read.
    """
    index = JournalIndex(folder, task_instance or TaskInstanceKey())
    if folder is not None:
        for shard, offset, length, event in read_events(folder, damaged):
            index.apply(shard, offset, length, event)
        index.finish()
    return index
