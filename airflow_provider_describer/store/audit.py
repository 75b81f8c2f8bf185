"""What a store's journal holds, for people: is it whole, which calls are open, and what did all calls cost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import bucket_from_environment
from airflow_provider_describer.store.index import JournalIndex, load_index, read_history
from airflow_provider_describer.store.settling import shard_names
from airflow_provider_describer.store.shard import FOLDER, SUFFIX, Event, json_line


def open_store(path: str) -> Folder:
    """Return the existing store at a path; a bucket is opened with the environment's credentials.

    :raises BadInput: if there is no journal, because an empty report would look like an empty store.
    """
    # Relative to where the command is typed; a task's store is not.
    typed = Path(path).absolute() if path.strip() and "://" not in path else path
    folder = open_folder(typed, bucket_from_environment)
    if not folder.names(FOLDER):
        is_journal = os.path.basename(path.rstrip("/")) == FOLDER  # noqa: PTH119  # may be an address
        hint = "give the folder above it" if is_journal else "give the folder that the task names as its store"
        raise BadInput(f"{path!r} is no description store: there is nothing in {folder.where(FOLDER)}; {hint}.")
    return folder


@dataclass(frozen=True, slots=True)
class UnfinishedCall:
    """A call whose end is not in the journal; with a ``request_id``, it runs at the vendor as far as is known."""

    call: str
    uri: str
    sent_at: float
    request_id: str | None


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """The result of `check`. ``unknown_images`` have no description, but calls that may have been paid for."""

    store: str
    shards: int
    damaged: list[str]
    ignored: list[str]
    open_calls: list[UnfinishedCall]
    unknown_images: int
    unknown_calls: int


def check(folder: Folder) -> StoreCheck:
    """Read every shard and return everything that is damaged or open."""
    damaged: list[StoreError] = []
    index = load_index(folder, damaged)
    unknown = [keys for keys in index.unanswered().values() if not _is_described(index, keys)]
    return StoreCheck(
        folder.where(),
        shards=len(shard_names(folder)),
        damaged=[str(error) for error in damaged],
        ignored=[folder.where(name) for name in folder.names(FOLDER) if not name.endswith(SUFFIX)],
        open_calls=[
            UnfinishedCall(call, opened.uri, opened.sent_at, opened.request_id)
            for call, opened in sorted(index.open_calls.items(), key=lambda item: item[1].sent_at)
        ],
        unknown_images=_count_images(index, unknown),
        unknown_calls=len(unknown),
    )


@dataclass(slots=True)
class CallTotals:
    """Ended calls and their cost. ``unpriced`` calls were billed, or may have been, at an unknown price."""

    described: int = 0
    rejected: int = 0
    unknown: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0

    def add(self, row: Event) -> None:
        self.described += row["status"] == "described"
        self.rejected += row["status"] == "rejected"
        self.unknown += row["status"] == "unknown"
        if row.get("cost_usd") is not None:
            self.cost_usd += row["cost_usd"]
        elif row.get("billed") != "no":
            self.unpriced += 1


@dataclass(slots=True)
class StoreSummary:
    """The result of `summarize`. ``lost_calls`` were sent and have no response here.

    ``described_again`` counts descriptions of images that had one already; ``perhaps_twice`` counts lost calls for
    images that another call has described. Together they may have been paid for twice, for ``twice_cost_usd`` at most,
    by the highest price of any call; None if no price is known.
    """

    store: str
    total: CallTotals = field(default_factory=CallTotals)
    by_vendor: dict[str, CallTotals] = field(default_factory=dict)
    by_prompt: dict[str, CallTotals] = field(default_factory=dict)
    by_day: dict[str, CallTotals] = field(default_factory=dict)
    lost_calls: int = 0
    described_again: int = 0
    perhaps_twice: int = 0
    twice_cost_usd: float | None = 0.0

    def add(self, row: Event) -> None:
        prompt = "(none)" if row.get("prompt") is None else row["prompt"]
        language = f" [{row['lang']}]" if row.get("lang") else ""
        self.total.add(row)
        self.by_vendor.setdefault(row["vendor"], CallTotals()).add(row)
        self.by_prompt.setdefault(prompt + language, CallTotals()).add(row)
        self.by_day.setdefault(row["described_at"][:10], CallTotals()).add(row)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; the totals are sorted by name."""
        values = asdict(self)
        return values | {name: dict(sorted(values[name].items())) for name in ("by_vendor", "by_prompt", "by_day")}


def summarize(folder: Folder) -> StoreSummary:
    """Return the totals of all runs.

    :raises StoreError: naming a shard that cannot be read.
    """
    summary, index = StoreSummary(folder.where()), JournalIndex()
    highest_cost: float | None = None
    described: Counter[str] = Counter()
    counted: set[bytes] = set()
    for event in read_history(folder):
        index.apply("", 0, 0, event)
        if event["event"] != "outcome":
            continue
        digest = blake2b(json_line(event), digest_size=12).digest()
        if digest in counted:
            # Settling that was killed leaves copies.
            continue
        counted.add(digest)
        summary.add(event)
        if event.get("cost_usd") is not None:
            highest_cost = max(highest_cost or 0.0, event["cost_usd"])
        # An image that its vendor has fetched, from a server that names no version, has no identity.
        if event["status"] == "described" and event.get("keys"):
            described[event["keys"][0]] += 1
    index.finish()
    unanswered = index.unanswered().values()
    summary.lost_calls = len(unanswered)
    summary.perhaps_twice = sum(_is_described(index, keys) for keys in unanswered)
    summary.described_again = described.total() - _count_images(index, ((key,) for key in described))
    twice = summary.described_again + summary.perhaps_twice
    summary.twice_cost_usd = 0.0 if not twice else None if highest_cost is None else twice * highest_cost
    return summary


def _is_described(index: JournalIndex, keys: tuple[str, ...]) -> bool:
    outcome = index.outcome(keys)
    return outcome is not None and outcome.described


def _count_images(index: JournalIndex, calls: Iterable[tuple[str, ...]]) -> int:
    """Return how many images the calls' keys stand for; all identities of an image count once, each without one too."""
    found = [min(index.aliases(keys[:1]), default="") for keys in calls]
    return len(set(filter(None, found))) + found.count("")
