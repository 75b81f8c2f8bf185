"""Which descriptions a reviewer is shown: a sample of a store, or of what some tasks have had described."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.images.listing_file import read_listing
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.columns import instance_key
from airflow_provider_describer.store.description_store import DATED, name_of, newest_of_each, one_of
from airflow_provider_describer.store.reviews import read_calls, review_id
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.shard import Event
from airflow_provider_describer.store.table import SettledTable
from airflow_provider_describer.store.unsettled import only, open_tables, read_tables

if TYPE_CHECKING:
    import pyarrow as pa

_READ = (*DATED, "call", "failed_rules", "review")


@dataclass(frozen=True, slots=True)
class SampleTerms:
    """What is asked for.

    :param share: of the descriptions, above 0 to 1. Which ones depends on ``seed`` and the description alone.
    :param failed_rules: True for those that failed any rule, or rules of which they failed one: ``MinWords(8)``, or
        ``MinWords`` for whatever number.
    :param most: the most descriptions.
    """

    share: float = 1.0
    failed_rules: bool | tuple[str, ...] = False
    most: int = 10
    seed: str = ""

    def takes(self, failed: Collection[str] | None) -> bool:
        """Return whether a description that failed these rules is asked for."""
        if isinstance(self.failed_rules, bool):
            return bool(failed) or not self.failed_rules
        named = {name for rule in failed or () for name in (rule, rule.partition("(")[0])}
        return not named.isdisjoint(self.failed_rules)

    def rank(self, call: str) -> float:
        """Return a number from 0 to 1, evenly spread and always the same: the smallest are chosen."""
        digest = blake2b(f"{self.seed}\0{call}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64


def choose(candidates: Iterable[tuple[str, Collection[str] | None]], terms: SampleTerms) -> list[str]:
    """Return the calls that are chosen from pairs of a call and the rules that its text failed. Pure.

    The order of the candidates makes no difference, and a call that comes twice counts once.
    """

    def ranked() -> Iterator[tuple[float, str]]:
        seen: set[str] = set()
        for call, failed in candidates:
            if terms.takes(failed) and call not in seen and (rank := terms.rank(call)) < terms.share:
                seen.add(call)
                yield rank, call

    return [call for _, call in heapq.nsmallest(terms.most, ranked())]


def take_sample(
    folder: Folder,
    terms: SampleTerms,
    reviewer: TaskInstanceKey,
    *,
    made_by: Collection[TaskInstanceKey] | None = None,
    prompt: str | None = None,
) -> list[Event]:
    """Return the rows of the descriptions that are to be reviewed; blocking.

    Descriptions that others have reviewed are left out first. What this reviewing task itself has reviewed, at an
    earlier try, takes its place in the sample and is left out last, so that another try asks about the same images. In
    memory are the names of the images, and no texts but those that are returned.

    :param made_by: the task instances whose descriptions are meant; by default the current ones of the whole store.
    :param prompt: only descriptions of this prompt.
    :raises StoreError: naming what cannot be read.
    """
    wanted = {"status": "described", "prompt": prompt}
    condition = " AND ".join(one_of(name, [value]) for name, value in wanted.items() if value is not None)
    with open_tables(folder) as tables:
        reviewed = _Reviewed(tables, reviewer)
        if made_by is None:
            newest = newest_of_each(_by_review(tables, (*DATED, "review"), condition, is_reviewed=False))
            rows = only(_by_review(tables, _READ, condition, is_reviewed=False), newest)
        else:
            keys = [key for one in made_by if (key := instance_key(one.instance)) is not None]
            condition += f" AND {one_of('instance_key', keys)}" if keys else " AND FALSE"
            rows = _by_review(tables, _READ, condition, is_reviewed=False)
        found = (row for batch in rows for row in batch.to_pylist())
        chosen = choose(((row["call"], row["failed_rules"]) for row in found if not reviewed.by_others(row)), terms)
        ids = {call: review_id(reviewer, call) for call in chosen}
        events = read_calls(tables, [*ids, *ids.values()])
    return [events[call] for call in chosen if ids[call] not in events]


def author_of(results: str, open_bucket: OpenBucket | None = None) -> TaskInstanceKey | None:
    """Return the task instance that has written a result file; None where the file has no row.

    :raises BadInput: if it is no result file, or is not there.
    :raises UnreadableImage, BucketError: if it cannot be read now.
    """
    expected = "expected the manifest of a DescribeImagesOperator with a store, or the path of its result file"
    try:
        for _, item in read_listing(results, open_bucket):
            about = {**(item.get("fields") or {}), **item} if isinstance(item, dict) else {}
            if not {"dag_id", "run_id", "task_id", "map_index"} <= about.keys():
                raise BadInput(f"results is {results!r}, whose rows name no task; {expected}.")
            dag_id, run_id, task_id = (str(about[name]) for name in ("dag_id", "run_id", "task_id"))
            return TaskInstanceKey(dag_id, run_id, task_id, int(about["map_index"]))
    except BadInput as error:
        text = str(error)
        raise BadInput(text if text.startswith("results") else f"results is {results!r}; {expected}. {text}") from None
    return None


class _Reviewed:
    """What others than this reviewing task have reviewed."""

    def __init__(self, tables: Sequence[SettledTable], reviewer: TaskInstanceKey) -> None:
        own = instance_key(reviewer.instance)
        self._until: dict[int | tuple[str, str], datetime] = {}
        for batch in _by_review(tables, (*DATED, "review", "instance_key"), None, is_reviewed=True):
            for row in batch.to_pylist():
                if own is None or row["instance_key"] != own:
                    name = name_of(row)
                    self._until[name] = max(row["described_at"], self._until.get(name, row["described_at"]))

    def by_others(self, row: dict[str, Any]) -> bool:
        """Return whether a row of `DATED` was reviewed by others after it was described."""
        until = self._until.get(name_of(row))
        return until is not None and until >= row["described_at"]


def _by_review(
    tables: Sequence[SettledTable], names: Sequence[str], condition: str | None, *, is_reviewed: bool
) -> Iterator[pa.RecordBatch]:
    """Yield these columns, with ``review`` among them, of the rows that are reviews, or of those that are not."""
    from pyarrow import compute

    for batch in read_tables(tables, names, condition):
        is_review = compute.is_valid(batch.column("review"))
        yield batch.filter(is_review if is_reviewed else compute.invert(is_review))
