"""Which record of the vendor's books stands for which of our calls. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from airflow_provider_describer.models import HistoryRecord
from airflow_provider_describer.store.index import OpenCall

SKEW_S = 300.0
"""How far our clock and the vendor's may differ."""
LONGEST_S = 3600.0
"""A call ends, or is forgotten, within this time of its intent."""
FETCHED_WITHIN_S = 86400.0
"""One with an id was sent within this time of the moment at which its answer was given up."""
SENT_WITHIN_S = 900.0
"""A call whose end nobody has seen was sent within this time of its intent."""


@dataclass(frozen=True, slots=True)
class UnclearCall:
    """A call without an answer. A record is its own if it shows the same image and was made between these moments.

    Times are epoch seconds. A ``request_id``, where the vendor has given one, is enough.
    """

    call: str
    shown: frozenset[str]
    earliest: float
    latest: float
    last_seen: float
    """When it was last known to be under way: from then on a record may still take a while to appear."""
    request_id: str | None = None

    @classmethod
    def of(cls, call: str, opened: OpenCall) -> UnclearCall:
        """Return what is known of a call for this purpose."""
        sent_at = opened.sent_at or opened.lost_at - (LONGEST_S if not opened.request_id else FETCHED_WITHIN_S)
        latest = (opened.lost_at or sent_at + SENT_WITHIN_S) + SKEW_S
        last_seen = max(opened.sent_at, opened.lost_at)
        return cls(call, opened.shown, sent_at - SKEW_S, latest, last_seen, opened.request_id)

    def fits(self, record: HistoryRecord) -> bool:
        """Whether the record may be the call's."""
        if self.request_id:
            return record.request_id == self.request_id
        return record.shown in self.shown and self.earliest <= record.created_at <= self.latest


def candidates(calls: Iterable[UnclearCall], records: Iterable[HistoryRecord]) -> set[str]:
    """Return the request ids of all records that may stand for any of the calls."""
    calls = list(calls)
    shown = {digest for call in calls for digest in call.shown}
    named = {call.request_id for call in calls}
    return {record.request_id for record in records if record.shown in shown or record.request_id in named}


def match(
    calls: Collection[UnclearCall], records: Iterable[HistoryRecord], taken: AbstractSet[str] = frozenset()
) -> Mapping[str, HistoryRecord]:
    """Return the record of each call that has one, by call id. A record stands for one call at most.

    Records that were billed are given away first, then those that still run, then those that failed: a call counts as
    failed only where no other record could be its own, since such a call is sent again.

    :param taken: request ids that belong to other calls.
    """
    left = sorted(calls, key=lambda call: (call.latest, call.earliest, call.call))
    found: dict[str, HistoryRecord] = {}
    order = ("completed", "running", "failed")
    free = [record for record in records if record.request_id not in taken]
    for record in sorted(free, key=lambda one: (order.index(one.status), one.created_at, one.request_id)):
        # A call that is known by its id comes first: another one cannot have its record.
        fitting = sorted((call for call in left if call.fits(record)), key=lambda call: call.request_id is None)
        if fitting:
            found[fitting[0].call] = record
            left.remove(fitting[0])
    return found
