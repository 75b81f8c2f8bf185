"""What the store says of each identity, folded from events and rows of the table: a few dozen bytes a key. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from airflow_provider_describer.errors import TextNotKept
from airflow_provider_describer.store.columns import FACTS, KEY_COLUMNS, call_key, is_unread_answer, iso
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.shard import Event

_Key = TypeVar("_Key", str, int)


class StoredOutcome(NamedTuple):
    """An identity's outcome and where its row is. The greatest counts: what a call has described or a reviewer has
    decided beats the vendor's rejection, then the later one."""

    is_decided: bool
    """Whether it is described, or withdrawn by a reviewer."""
    described_at: str
    status: str
    """``described``, ``rejected`` or ``withdrawn``. Of two at the same moment, the withdrawal counts."""
    shard: str
    """Empty where the row is in the table."""
    offset: int
    length: int
    call: int = 0
    """The `call_key` of the call."""

    @property
    def described(self) -> bool:
        """Whether there is a text."""
        return self.status == "described"


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
    """A call that was sent and has no answer here. ``by`` is the task instance that has sent it.

    ``shown`` holds the digests by which the vendor's books know it, if it keeps any; ``lost_at`` is the epoch second at
    which its answer was seen to be lost, 0.0 where its end is not in the journal. ``is_asked``: the books have shown
    that it was paid for, and keep no text of it. ``conn_id`` is the connection that has sent it, where it is of a chain
    of several.
    """

    keys: tuple[str, ...] = ()
    by: str = ""
    uri: str = ""
    sent_at: float = 0.0
    request_id: str | None = None
    accepted_at: float = 0.0
    shown: frozenset[str] = frozenset()
    lost_at: float = 0.0
    is_asked: bool = False
    conn_id: str = ""
    shards: set[str] = field(default_factory=set, compare=False)
    """Where its events are."""


def link(aliases: dict[_Key, list[_Key]], keys: Sequence[_Key]) -> None:
    """Note that these are identities of one image: each of them leads to the same list of all."""
    names = max((aliases.get(key, []) for key in keys), key=len, default=[])
    for key in keys:
        group = aliases.get(key) or [key]
        if group is not names:
            names.extend(group)
            aliases.update(dict.fromkeys(group, names))


@dataclass(slots=True)
class JournalIndex:
    """What the journal says about each identity. The order in which events are applied makes no difference.

    The spending of ``task_instance`` is summed up. Calls that have ended are known by their `call_key`.
    """

    task_instance: TaskInstanceKey = field(default_factory=TaskInstanceKey)
    outcomes: dict[str, StoredOutcome] = field(default_factory=dict)
    open_calls: dict[str, OpenCall] = field(default_factory=dict)
    lost: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """The keys of each call whose response was lost."""
    lost_calls_known: dict[int, tuple[str, OpenCall]] = field(default_factory=dict)
    """Id and content of those of them that the vendor's books could tell about."""
    unanswered_by_key: dict[str, set[int]] = field(default_factory=dict)
    """The open and lost calls by key; filled by `finish`."""
    _open_names: dict[int, str] = field(default_factory=dict)
    _aliases: dict[str, list[str]] = field(default_factory=dict)
    """For an image with several identities: all of them, in one list that each of them maps to."""
    _ended: set[int] = field(default_factory=set)
    _answered: set[int] = field(default_factory=set)
    """Calls that are known to have been answered: an earlier report that the answer was lost is out of date."""
    _own_costs: dict[int, float | None] = field(default_factory=dict)
    """The cost of each ended call of the task instance; None where it is not known."""
    _own_ends: dict[int, float] = field(default_factory=dict)
    """When each of them ended, in epoch seconds."""
    _own_vendors: dict[int, str] = field(default_factory=dict)

    def apply(self, shard: str, offset: int, length: int, event: Event) -> None:
        """Fold one event in; ``shard`` is empty for one that was made from a row of the table."""
        self._apply(call_key(event["call"]), (shard, offset, length), event)
        if event["event"] in ("lost", "outcome"):
            self._count_cost(event)
            self.note_lost(event)

    def apply_row(self, row: Mapping[str, Any], asked: Mapping[int, str] | None = None) -> None:
        """Fold in a row that a lookup has found.

        :param asked: the identities that were looked for, for rows without all of theirs.
        """
        keys = row.get("identities")
        if keys is None:
            keys = [(asked or {})[row[name]] for name in KEY_COLUMNS if row[name] in (asked or {})]
        what = row["status"] if row["status"] in FACTS else "outcome"
        event = {"event": what, "keys": keys, "status": row["status"], "described_at": iso(row["described_at"])}
        self._apply(row["call_key"], ("", 0, 0), event)

    def _apply(self, call: int, place: tuple[str, int, int], event: Event) -> None:
        match event["event"]:
            case "sent" | "accepted" if call not in self._ended:
                self._open(call, place[0], event)
            case "closed" | "lost" | "outcome" as kind:
                self._ended.add(call)
                self.open_calls.pop(self._open_names.pop(call, ""), None)
                status = event["status"] if kind == "outcome" else kind
                if status in ("lost", "unknown") or is_unread_answer(event):
                    # Two runs may report the end of one call, each with the keys that it knows.
                    self.lost[call] = tuple(dict.fromkeys((*self.lost.get(call, ()), *event["keys"])))
                elif status in ("described", "rejected", "withdrawn"):
                    self._answered.add(call)
                    found = StoredOutcome(status != "rejected", event["described_at"], status, *place, call)
                    for key in event["keys"]:
                        self.outcomes[key] = max(found, self.outcomes.get(key, found))
                else:
                    self._answered.add(call)
            case "same":
                link(self._aliases, event["keys"])

    def note_lost(self, event: Event) -> None:
        """Keep what it takes to look a lost call up in the vendor's books."""
        call, shown = call_key(event["call"]), _shown(event)
        if call not in self.lost or not (shown or event.get("request_id")):
            return
        at = event["at"] if "at" in event else datetime.fromisoformat(event["described_at"]).timestamp()
        _, lost = self.lost_calls_known.setdefault(call, (event["call"], OpenCall()))
        lost.keys, lost.by, lost.uri = self.lost[call], event.get("by") or lost.by, event["uri"]
        lost.conn_id = event.get("conn_id") or lost.conn_id
        lost.sent_at = event.get("sent_at", lost.sent_at)
        lost.request_id = event.get("request_id") or lost.request_id
        lost.shown |= shown
        lost.lost_at = max(lost.lost_at, at)
        lost.is_asked |= (event.get("error") or {}).get("kind") == TextNotKept.kind

    def unclear_calls(self, keys: tuple[str, ...]) -> dict[str, OpenCall]:
        """Return the calls of any of the identities without an answer that the vendor's books could tell about.

        Calls that run at the vendor, as far as is known here, are fetched and not among them.
        """
        found = {}
        for call in self._unanswered(keys):
            if name := self._open_names.get(call):
                opened = self.open_calls[name]
                if opened.shown and not opened.request_id:
                    found[name] = opened
            elif call in self.lost_calls_known:
                name, lost = self.lost_calls_known[call]
                if not lost.is_asked:
                    found[name] = lost
        return found

    def _open(self, call: int, shard: str, event: Event) -> None:
        name = self._open_names.setdefault(call, event["call"])
        opened = self.open_calls.setdefault(name, OpenCall())
        opened.shards.add(shard)
        opened.conn_id = event.get("conn_id") or opened.conn_id
        if event["event"] == "sent":
            opened.keys, opened.uri, opened.sent_at = tuple(event["keys"]), event["uri"], event["at"]
            opened.by = event.get("by", "")
            # An address that was signed again is in a second event.
            opened.shown |= _shown(event)
        else:
            opened.keys = opened.keys or tuple(event["keys"])
            opened.request_id, opened.accepted_at = event["request_id"], event["at"]

    def _count_cost(self, event: Event) -> None:
        """Count the end of a call of the task instance: one that it has sent, or one whose result it has fetched."""
        run = self.task_instance
        is_row = event["event"] == "outcome"
        if not run.instance or (is_row and event["billed"] == "no"):
            return
        found = tuple(event.get(name) for name in ("dag_id", "run_id", "task_id", "map_index"))
        if event.get("by") == run.instance or found == (run.dag_id, run.run_id, run.task_id, run.map_index):
            at = datetime.fromisoformat(event["described_at"]).timestamp() if is_row else event.get("at", 0.0)
            self.count_own(call_key(event["call"]), event.get("cost_usd"), at, event.get("vendor") or "")

    def count_own(self, call: int, cost: float | None, at: float, vendor: str = "") -> None:
        """Count a call of the task instance that may have been billed, and ended at ``at`` (epoch seconds).

        :param vendor: empty where it is not known.
        """
        if vendor:
            self._own_vendors[call] = vendor
        # Two runs may report the end of one call; the one that has seen its cost counts.
        costs = (cost, self._own_costs.get(call))
        self._own_costs[call] = max((one for one in costs if one is not None), default=None)
        self._own_ends[call] = max(at, self._own_ends.get(call, 0.0))

    def spending(self, since: float = 0.0, vendor: str = "", conn_id: str = "") -> Spending:
        """Return what the task instance has spent so far, in all of its tries.

        :param since: epoch seconds; calls that ended earlier, and open ones that were sent earlier, are left out.
        :param vendor: leave out calls that are known to be another vendor's.
        :param conn_id: leave out open calls that are known to be another connection's.
        """
        vendors = {"", vendor, *(self._own_vendors.values() if not vendor else ())}
        costs = [
            cost
            for call, cost in self._own_costs.items()
            if self._own_ends[call] >= since and self._own_vendors.get(call, "") in vendors
        ]
        own, conn_ids = self.task_instance.instance, ("", conn_id)
        return Spending(
            len(costs),
            sum(cost for cost in costs if cost is not None),
            sum(cost is None for cost in costs),
            frozenset(
                call
                for call, opened in self.open_calls.items()
                if own
                and opened.by == own
                and max(opened.sent_at, opened.accepted_at) >= since
                and (not conn_id or opened.conn_id in conn_ids)
            ),
        )

    def forget_open_calls(self, shards: AbstractSet[str]) -> None:
        """Forget open calls whose events are in none of these shards any more: they have ended, and cost nothing."""
        for call, name in list(self._open_names.items()):
            if self.open_calls[name].shards.isdisjoint(shards):
                del self.open_calls[name], self._open_names[call]

    def finish(self) -> None:
        """Prepare the lookups once events were applied."""
        found: defaultdict[str, set[int]] = defaultdict(set)
        for call, keys in self.unanswered().items():
            for key in keys:
                found[key].add(call)
        self.unanswered_by_key = found

    def unanswered(self) -> dict[int, tuple[str, ...]]:
        """Return the keys of each call without a response, which may have been paid for."""
        opened = {call: self.open_calls[name].keys for call, name in self._open_names.items()}
        return opened | {call: keys for call, keys in self.lost.items() if call not in self._answered}

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
        names = (self._open_names.get(call) for call in self._unanswered(keys))
        calls = [(name, self.open_calls[name]) for name in names if name is not None]
        return max(calls, key=lambda one: (one[1].request_id is not None, one[1].sent_at, one[0]), default=None)

    def lost_calls(self, keys: tuple[str, ...]) -> int:
        """Return how many calls of any of the identities were sent and never answered."""
        return len(self._unanswered(keys))

    def lost_answers(self, keys: tuple[str, ...]) -> int:
        """Return how many of them a run has seen to be lost; the others ended with their process."""
        return sum(call in self.lost for call in self._unanswered(keys))

    def _unanswered(self, keys: tuple[str, ...]) -> set[int]:
        return {call for key in self.aliases(keys) for call in self.unanswered_by_key.get(key, ())}


def _shown(event: Event) -> frozenset[str]:
    return frozenset((event.get("shown") or "").split())
