"""Asks the vendor's own books what has become of calls whose answers were lost, before ``on_unknown`` decides.

Asking is free. A call that completed is paid for and is not sent again where its text is kept; one that failed cost
nothing; one that still runs is fetched. One that the books do not show may appear later: until `SETTLING_S` has passed
nothing is paid for its image. Where the books cannot be read, ``on_unknown`` decides as if there were none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from airflow_provider_describer.engine.history_match import UnclearCall, candidates, match
from airflow_provider_describer.errors import DescriberError, RejectedImage, TextNotKept
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import RESULTS_KEPT_S, VendorCalls
from airflow_provider_describer.models import Description, HistoryRecord, Spec
from airflow_provider_describer.store.index import OpenCall, StoreIndex

SETTLING_S = 180.0
"""Seconds until a record that has not appeared will not come any more. How long the vendor takes is not documented."""
REMEMBERED_S = 29 * 86400.0
"""How far back the books are read: a window may span 31 days, and it begins a day early."""

Verdict = Literal["described", "paid", "failed", "running", "unsettled", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one image after the books were asked about its calls.

    ``described``: a call has brought a description. ``running``: a call goes on at the vendor. ``unsettled``: a record
    may still appear. ``unknown``: ``on_unknown`` decides. ``failed``: every call has ended, unbilled. ``call`` and
    ``record`` are those that the verdict is about. ``paid`` are calls that were billed and whose text is not kept;
    ``ended`` are calls that have failed.
    """

    verdict: Verdict
    call: str = ""
    record: HistoryRecord | None = None
    paid: Mapping[str, HistoryRecord] = field(default_factory=dict)
    ended: Mapping[str, HistoryRecord] = field(default_factory=dict)


def judge(calls: Mapping[str, OpenCall], found: Mapping[str, HistoryRecord], now: float) -> Finding:
    """Return what the records say of an image with these calls. Pure.

    :param now: epoch seconds.
    """
    records = {call: found[call] for call in calls if call in found}
    verdict, about = _verdict(calls, records, now)
    return Finding(
        verdict,
        about,
        records.get(about),
        paid={call: record for call, record in records.items() if record.status == "completed" and not record.text},
        ended={call: record for call, record in records.items() if record.status == "failed"},
    )


def _verdict(calls: Mapping[str, OpenCall], records: Mapping[str, HistoryRecord], now: float) -> tuple[Verdict, str]:
    described = next((call for call, record in records.items() if record.status == "completed" and record.text), None)
    if described is not None:
        return "described", described
    running = next((call for call, record in records.items() if record.status == "running"), None)
    if running is not None:
        return "running", running
    missing = {call: opened for call, opened in calls.items() if call not in records}
    if missing and now < settled_at(missing):
        return "unsettled", ""
    return ("failed" if not missing and all(one.status == "failed" for one in records.values()) else "unknown"), ""


def settled_at(calls: Mapping[str, OpenCall]) -> float:
    """Return the epoch second from which no record of these calls will appear any more."""
    return max(UnclearCall.of(call, opened).last_seen for call, opened in calls.items()) + SETTLING_S


@dataclass(slots=True)
class VendorHistory:
    """The books of one account, for one run.

    ``is_readable`` is false once they could not be read: they are not asked again in this run.
    """

    vendor_calls: VendorCalls
    client: AsyncClient
    index: StoreIndex
    report: Callable[[str], None]
    is_readable: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_readable = self.vendor_calls.vendor.keeps_history

    @property
    def can_fetch(self) -> bool:
        """Whether a request that runs at the vendor can be polled. A v1 call cannot: the books are asked again."""
        return self.vendor_calls.vendor.runs_in_background(self.vendor_calls.account)

    @property
    def now(self) -> float:
        """Epoch seconds; the end of time where the books cannot be read, as waiting for them is of no use."""
        return self.vendor_calls.clock() if self.is_readable else inf

    @property
    def next_settled(self) -> float:
        """The epoch second from which the books will show a call that ends now."""
        return self.now + SETTLING_S

    async def unclear_calls(self, images: Sequence[tuple[str, ...]]) -> list[Mapping[str, OpenCall]]:
        """Return each image's calls that the books could tell about, given its identities.

        :raises StoreError: the store cannot be read.
        """
        if not self.is_readable:
            return [{} for _ in images]
        await asyncio.to_thread(self.index.read_lost, images)
        return [self._own(self.index.unclear_calls(keys)) for keys in images]

    def _own(self, calls: Mapping[str, OpenCall]) -> Mapping[str, OpenCall]:
        """Return the calls that may be in these books, and not in those of another account."""
        conn_ids = ("", self.vendor_calls.account.conn_id)
        return {call: opened for call, opened in calls.items() if opened.conn_id in conn_ids}

    async def find(self, calls: Mapping[str, OpenCall]) -> Mapping[str, HistoryRecord]:
        """Return the record of each call that has one, with one lookup for all; none where the books cannot be read.

        :raises StoreError: the store cannot be read.
        """
        now = self.vendor_calls.clock()
        wanted = [UnclearCall.of(call, opened) for call, opened in calls.items()]
        wanted = [call for call in wanted if call.earliest > now - REMEMBERED_S]
        if not wanted or not self.is_readable:
            return {}
        try:
            records = await self.client.arun(self.vendor_calls.history(min(call.earliest for call in wanted)))
        except DescriberError as error:
            self.is_readable = False
            self.report(
                f"Warning: {self.vendor_calls.vendor.title}'s own history of calls cannot be read, so on_unknown "
                f"decides about calls whose answers were lost: {error}"
            )
            return {}
        taken: set[str] = set()
        if possible := candidates(wanted, records):
            taken = await asyncio.to_thread(self.index.known_requests, possible, calls.keys())
        found = match(wanted, records, taken)
        return {call: self._as_fetched(record, now) for call, record in found.items()}

    def _as_fetched(self, record: HistoryRecord, now: float) -> HistoryRecord:
        """Return the record, as that of a running request where only the request itself still has the text."""
        is_kept = self.can_fetch and now < record.created_at + RESULTS_KEPT_S
        if record.status == "completed" and not record.text and is_kept:
            return replace(record, status="running")
        return record

    def description(self, spec: Spec, record: HistoryRecord) -> Description:
        """Return the description that a record holds."""
        vendor, account = self.vendor_calls.vendor, self.vendor_calls.account
        return vendor.description(
            account,
            spec,
            record.text or "",
            request_id=record.request_id,
            elapsed_s=record.elapsed_s,
            cost=record.cost_usd,
        )

    def cost(self, record: HistoryRecord) -> float | None:
        """Return what a completed call has cost, in USD."""
        return self.vendor_calls.account.price_per_call if record.cost_usd is None else record.cost_usd


def failed(record: HistoryRecord, title: str) -> RejectedImage:
    """Return the error for a call that has failed, unbilled. It says nothing about its image: that is asked again."""
    return RejectedImage(
        f"{title}'s own history says that request {record.request_id} has failed.",
        kind="failed",
        request_id=record.request_id,
    )


def paid_without_text(record: HistoryRecord, title: str) -> TextNotKept:
    """Return the error for a call that was billed and whose description is lost."""
    return TextNotKept(
        f"{title}'s own history says that the call was completed and billed as request {record.request_id}, and keeps "
        "no text of it; its description is lost.",
        request_id=record.request_id,
    )
