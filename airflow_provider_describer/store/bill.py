"""One day's bill, as the vendor's own books have it, beside what the store says of the same calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.http.client import AsyncClient, run
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.models import HistoryRecord, format_usd, plural
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.index import read_history
from airflow_provider_describer.store.shard import Event
from airflow_provider_describer.vendors import get_vendor
from airflow_provider_describer.vendors.vendor import Vendor

LONGEST_AGE = timedelta(days=28)
SMALLEST_USD = 1e-6
"""Costs that differ by less are the same."""
DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class BilledCall:
    """A billed call. ``here`` and ``there`` are what it has cost in USD, by the store and by the vendor; None for
    nothing, or for an unknown sum."""

    request_id: str
    at: str
    here: float | None = None
    there: float | None = None
    uri: str | None = None


@dataclass(slots=True)
class BillCheck:
    """The result of `compare`. Calls without the vendor's id cannot be compared: ``without_id`` counts them."""

    day: str
    vendor: str
    calls_here: int = 0
    calls_there: int = 0
    cost_here_usd: float = 0.0
    cost_there_usd: float = 0.0
    only_there: list[BilledCall] = field(default_factory=list)
    only_here: list[BilledCall] = field(default_factory=list)
    other_cost: list[BilledCall] = field(default_factory=list)
    without_id: int = 0

    @property
    def differs(self) -> bool:
        """Whether the two name different calls or costs."""
        return bool(self.only_there or self.only_here or self.other_cost)


def compare(vendor: str, day: datetime, events: Iterable[Event], records: Iterable[HistoryRecord]) -> BillCheck:
    """Compare the calls that were billed on a UTC day. Pure.

    :param events: the store's whole history.
    :param records: the vendor's, of that day and the days around it: a call belongs to the day that the vendor names.
    """
    found, start = BillCheck(day.date().isoformat(), vendor), day.timestamp()
    billed = {record.request_id: record for record in records if record.status == "completed"}
    ours: dict[str, BilledCall] = {}
    for event in events:
        if event["event"] != "outcome" or event.get("vendor") != vendor or event.get("billed") == "no":
            continue
        at, request_id = event["described_at"], event.get("request_id")
        is_of_day = start <= datetime.fromisoformat(at).timestamp() < start + DAY_S
        if not request_id:
            found.without_id += is_of_day
        elif request_id in billed or (event["billed"] == "yes" and is_of_day):
            known = ours.get(request_id)
            cost = event.get("cost_usd") if event.get("cost_usd") is not None or known is None else known.here
            ours[request_id] = BilledCall(request_id, at, cost, uri=event.get("uri"))
    for request_id, record in sorted(billed.items(), key=lambda item: item[1].created_at):
        if not start <= record.created_at < start + DAY_S:
            ours.pop(request_id, None)
            continue
        found.calls_there += 1
        found.cost_there_usd += record.cost_usd or 0.0
        _add(found, record, ours.pop(request_id, None))
    found.only_here = sorted(ours.values(), key=lambda call: call.at)
    found.calls_here += len(ours)
    found.cost_here_usd += sum(call.here or 0.0 for call in ours.values())
    return found


def _add(found: BillCheck, record: HistoryRecord, call: BilledCall | None) -> None:
    if call is None:
        at = datetime.fromtimestamp(record.created_at, UTC).isoformat(timespec="milliseconds")
        found.only_there.append(BilledCall(record.request_id, at, there=record.cost_usd))
        return
    found.calls_here += 1
    found.cost_here_usd += call.here or 0.0
    here, there = call.here, record.cost_usd
    if there is not None and (here is None or abs(here - there) > SMALLEST_USD):
        found.other_cost.append(replace(call, there=there))


def check_bill(folder: Folder, vendor: str, day: str | None, host: str | None = None) -> BillCheck:
    """Compare the store's bill with the vendor's; blocking. The key is in the environment (`key_variable`).

    :param day: UTC, as 2026-01-31; None for today.
    :param host: base URL of a proxy, as on a connection.
    :raises BadInput: for a vendor without books, a missing key or another day.
    :raises DescriberError: the books or the store cannot be read.
    """
    start = _day(day)
    known = get_vendor(vendor)
    if not known.keeps_history:
        raise BadInput(f"{known.title} publishes no history of its calls, so there is no bill to compare with.")
    calls = VendorCalls(known, _account(known, host))

    async def read() -> Sequence[HistoryRecord]:
        async with AsyncClient(timeout=calls.account.timeout) as client:
            # Clocks and long calls: what ended here on that day may have begun on the day before.
            return await client.arun(calls.history(start.timestamp() - DAY_S))

    return compare(vendor, start, read_history(folder), run(read()))


def _day(day: str | None) -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        start = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) if day else today
    except ValueError:
        raise BadInput(f"--day is {day!r}, expected a date such as {today:%Y-%m-%d}.") from None
    if not today - LONGEST_AGE <= start <= today:
        raise BadInput(
            f"--day is {day}, expected one of the last {LONGEST_AGE.days} days: the vendor tells of no more."
        )
    return start


def key_variable(vendor: str) -> str:
    """Return the variable of the environment that has the vendor's key; Segmind's SDK takes it from there, too."""
    return f"{vendor.upper()}_API_KEY"


def _account(vendor: Vendor, host: str | None) -> Account:
    variable = key_variable(vendor.name)
    key = os.environ.get(variable, "").strip()
    if not key:
        raise BadInput(f"{variable} is not set. Put the vendor's API key into that variable of the environment.")
    return account_from_connection(vendor.defaults(), conn_id=variable, password=key, host=host)


def bill_lines(found: BillCheck, most: int) -> Iterable[str]:
    """Yield the result for people.

    :param most: calls that are listed of each kind.
    """
    there, here = format_usd(found.cost_there_usd), format_usd(found.cost_here_usd)
    calls_there = f"{found.calls_there:,} {plural(found.calls_there, 'call')} billed there ({there})"
    yield f"{found.day} (UTC), {found.vendor}: {calls_there}, {found.calls_here:,} paid for here ({here})"
    for calls, what in (
        (found.only_there, "billed there and not known here: of another store or program, or of unknown outcome"),
        (found.only_here, "paid for by this store and not billed there"),
        (found.other_cost, "of another cost there"),
    ):
        yield f"{len(calls):,} {plural(len(calls), 'call')} {what}"
        for call in calls[:most]:
            costs = f"here {_usd(call.here)}, there {_usd(call.there)}"
            yield f"  {call.at[:19]}  {call.request_id}  {costs}{f'  {call.uri}' if call.uri else ''}"
        if len(calls) > most:
            yield f"  … and {len(calls) - most:,} more (--json lists them all)"
    if found.without_id:
        yield f"{found.without_id:,} {plural(found.without_id, 'call')} here without the vendor's id: not compared"


def _usd(cost: float | None) -> str:
    return "-" if cost is None else format_usd(cost)
