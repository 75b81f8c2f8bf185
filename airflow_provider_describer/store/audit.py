"""What a store holds, for people: is it whole, which calls are open, and what did all calls cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.columns import call_key, key_of
from airflow_provider_describer.store.folding import JournalIndex, OpenCall
from airflow_provider_describer.store.known_calls import Keys, KnownCalls
from airflow_provider_describer.store.settling import ENDS, STARTS, shard_names
from airflow_provider_describer.store.shard import FOLDER, SETTLED, SUFFIX, Event
from airflow_provider_describer.store.table import NAME
from airflow_provider_describer.store.table_check import TableCheck, check_table
from airflow_provider_describer.store.totals import TOTALED, Totals, sum_up
from airflow_provider_describer.store.unsettled import only, open_tables, read_tables


@dataclass(frozen=True, slots=True)
class UnfinishedCall:
    """A call whose end is not in the store; with a ``request_id``, it runs at the vendor as far as is known."""

    call: str
    uri: str
    sent_at: float
    request_id: str | None


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """The result of `check`. ``unknown_images`` have no description, but calls that may have been paid for.

    ``damaged`` names what is damaged in journal and table; ``damaged_shards`` of it are shards of the journal.
    ``table`` is None where nothing was settled yet, or it cannot be opened. ``copies`` of rows, as kills leave them
    while calls are settled, count once.
    """

    store: str
    shards: int
    damaged: list[str]
    damaged_shards: int
    ignored: list[str]
    table: TableCheck | None
    copies: int
    open_calls: list[UnfinishedCall]
    unknown_images: int
    unknown_calls: int


def check(folder: Folder) -> StoreCheck:
    """Read every shard and the whole table, and return everything that is damaged or open.

    Memory: about 40 bytes a row of the table.
    """
    damaged: list[StoreError] = []
    opened, table = _OpenCalls(), None
    with open_tables(folder, opened.see, damaged) as tables:
        in_journal = sum(str(error).startswith(folder.where(FOLDER)) for error in damaged)
        for one in tables:
            if one.where == folder.where(NAME):
                table = check_table(one)
        unread: list[StoreError] = []
        calls = KnownCalls(tables, unread)
    found = [*map(str, damaged), *(table.damaged if table else ())]
    # What the table's check has said is not said again.
    found += map(str, unread if table is None or not table.damaged else ())
    shards = shard_names(folder)
    if table and table.rows and not shards and folder.read(SETTLED) is None:
        found.append(
            f"{folder.where(SETTLED)} is missing: without it, older releases, which know no {NAME}, pay for all images "
            "again. Restore it from a backup."
        )
    open_calls = opened.but(calls)
    unanswered = calls.unanswered(_keys_of(open_calls))
    unknown = [keys for keys, described in zip(unanswered, calls.described(unanswered), strict=True) if not described]
    return StoreCheck(
        folder.where(),
        shards=len(shards),
        damaged=found,
        damaged_shards=in_journal,
        ignored=[folder.where(name) for name in folder.names(FOLDER) if not name.endswith(SUFFIX)],
        table=table,
        copies=calls.copies,
        open_calls=sorted(
            (UnfinishedCall(call, one.uri, one.sent_at, one.request_id) for call, one in open_calls.items()),
            key=lambda call: call.sent_at,
        ),
        unknown_images=calls.count_images(unknown),
        unknown_calls=len(unknown),
    )


class _OpenCalls:
    """The calls of the journal whose end is not in the journal."""

    def __init__(self) -> None:
        self._index = JournalIndex()

    def see(self, event: Event) -> None:
        if event["event"] in ENDS:
            # That it has ended is all that is asked here.
            event = {"event": "closed", "call": event["call"]}
        if event["event"] in (*STARTS, "closed"):
            self._index.apply("", 0, 0, event)

    def but(self, calls: KnownCalls) -> dict[str, OpenCall]:
        """Return those whose end is nowhere, by their ids."""
        names = {call_key(name): name for name in self._index.open_calls}
        ended = calls.ended(names)
        return {name: self._index.open_calls[name] for number, name in names.items() if number not in ended}


def _keys_of(open_calls: Mapping[str, OpenCall]) -> dict[int, Keys]:
    return {call_key(name): tuple(map(key_of, call.keys)) for name, call in open_calls.items()}


@dataclass(slots=True)
class StoreSummary(Totals):
    """The result of `summarize`. ``lost_calls`` were sent and have no response here.

    ``described_again`` counts descriptions of images that had one already; ``perhaps_twice`` counts lost calls for
    images that another call has described. Together they may have been paid for twice, for ``twice_cost_usd`` at most,
    by the highest price of any call; None if no price is known.
    """

    store: str = ""
    lost_calls: int = 0
    described_again: int = 0
    perhaps_twice: int = 0
    twice_cost_usd: float | None = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; the totals are sorted by name."""
        values = asdict(self)
        del values["highest_cost"]
        return values | {name: dict(sorted(values[name].items())) for name in ("by_vendor", "by_prompt", "by_day")}


def summarize(folder: Folder) -> StoreSummary:
    """Return the totals of all runs. Memory: about 40 bytes a row of the table.

    :raises StoreError: naming what cannot be read.
    """
    opened = _OpenCalls()
    with open_tables(folder, opened.see) as tables:
        calls = KnownCalls(tables)
        totals = sum_up(only(read_tables(tables, TOTALED), calls.is_first))
    unanswered = calls.unanswered(_keys_of(opened.but(calls)))
    again, perhaps = calls.described_again(), sum(calls.described(unanswered))
    highest = totals.highest_cost
    return StoreSummary(
        **{one.name: getattr(totals, one.name) for one in fields(totals)},
        store=folder.where(),
        lost_calls=len(unanswered),
        described_again=again,
        perhaps_twice=perhaps,
        twice_cost_usd=0.0 if not again + perhaps else None if highest is None else (again + perhaps) * highest,
    )
