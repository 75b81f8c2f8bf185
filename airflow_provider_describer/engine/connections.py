"""The connections of a job, one or a chain of several, and what its passes have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

from airflow_provider_describer.account import Account
from airflow_provider_describer.engine.deferral import ResumeCondition
from airflow_provider_describer.engine.limits import Budget, TaskLimits, spent_today
from airflow_provider_describer.engine.meter import Meter, Meters
from airflow_provider_describer.engine.plan import Plan, place_of_call
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.engine.stop_switch import StopSwitch
from airflow_provider_describer.errors import DescriberError
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.images.trust import Trust, guard_of
from airflow_provider_describer.models import DescribeRequest, format_usd, plural
from airflow_provider_describer.quota.shared import SharedLimits
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.index import StoreIndex

NewClient = Callable[[int], AsyncClient]


@dataclass(slots=True)
class Connection:
    """One connection of a job, with what belongs to its account; its limits and its client are opened when needed.

    :param place: in the chain of connections; 0 for the first one, or the only one.
    """

    vendor_calls: VendorCalls
    reader: Reader
    new_client: NewClient
    meter: Meter
    place: int = 0
    quota: SharedLimits | None = None
    client: AsyncClient | None = None

    @property
    def account(self) -> Account:
        """Who pays."""
        return self.vendor_calls.account

    @property
    def shown(self) -> str:
        """The connection for people."""
        return f"connection {self.account.conn_id!r} ({self.vendor_calls.vendor.title})"

    @property
    def price(self) -> float | None:
        """What a call costs, in USD."""
        return self.vendor_calls.account.price_per_call


@dataclass(slots=True)
class Shared:
    """What the passes of a job have in common; each part is opened by the first pass that needs it.

    :param opened: what is left when the job ends, the account's limits last: then the cost of every call is known.
    :param totals: of the job: its calls, and the limit that allows no more.
    :param spent_today: by place of the connection, what the task instance had spent before the job, in USD.
    """

    opened: AsyncExitStack
    totals: Totals
    stop: StopSwitch
    connections: Sequence[Connection]
    budget: Budget | None = None
    spent_today: Sequence[float] = ()

    @property
    def conn_ids(self) -> Sequence[str]:
        """The connections of the chain."""
        return [connection.account.conn_id for connection in self.connections]

    def spent_before(self, index: StoreIndex) -> Sequence[float]:
        """Return by place of the connection what the task instance had spent before the job, today, in USD.

        Of two accounts at one vendor, each counts what both have spent: the store tells only the vendor.
        """
        if not self.spent_today:
            self.spent_today = [self._spent_today(index, one) for one in self.connections]
        return self.spent_today

    def _spent_today(self, index: StoreIndex, one: Connection) -> float:
        now = one.vendor_calls.clock()
        if len(self.connections) == 1:
            return spent_today(index, one.price, now)
        return spent_today(index, one.price, now, vendor=one.account.vendor, conn_id=one.account.conn_id)

    def idle_at(self, one: Connection) -> float:
        """Return the epoch second from which the connection's rate allows a burst of calls, as far as is known."""
        return self.totals.idle_at_of.get(one.account.conn_id, 0.0) if one.place else self.totals.idle_at

    def note_idle(self, one: Connection, moment: float) -> None:
        """Keep that second for the next pass, or for the task when it is resumed."""
        if one.place:
            self.totals.idle_at_of[one.account.conn_id] = moment
        else:
            self.totals.idle_at = moment


@dataclass(frozen=True, slots=True)
class PassEnd:
    """How a pass has ended. ``cut_short``: no further pass of the connection may begin.

    ``stopped_by`` has stopped its calls. ``elsewhere`` are the images that other connections of the chain are asked
    about first, by their place; nothing was done then.
    """

    error: DescriberError | None = None
    condition: ResumeCondition | None = None
    cut_short: bool = False
    stopped_by: DescriberError | None = None
    elsewhere: Mapping[int, Sequence[DescribeRequest]] = field(default_factory=dict)


def asked_elsewhere(
    plan: Plan, index: StoreIndex, connections: Sequence[Connection]
) -> Mapping[int, Sequence[DescribeRequest]]:
    """Return the images with calls at other connections than the plan's, which can tell about them, by their place.

    These are requests that run there, and calls whose answer was lost if the vendor keeps books. Blocking.
    """
    conn_ids = [one.account.conn_id for one in connections]
    lost = [one for one in plan.entries if one.lost and one.action in ("call", "unknown") and one.first.chain_keys]
    index.read_lost([entry.first.all_keys for entry in lost])
    found: dict[int, list[DescribeRequest]] = {}
    for entry in [*lost, *plan.having("elsewhere")]:
        image = entry.first
        calls = [entry.open_call[1]] if entry.action == "elsewhere" and entry.open_call else []
        places = {place_of_call(opened, image, conn_ids) for opened in calls}
        if not calls:
            unclear = index.unclear_calls(image.all_keys).values()
            places = {place_of_call(opened, image, conn_ids) for opened in unclear}
            places = {place for place in places if connections[place].vendor_calls.vendor.keeps_history}
        for place in sorted(places - {image.request.place})[:1]:
            found.setdefault(place, []).extend(one.at(place).request for one in entry.all)
    return found


def may_fail_over(plan: Plan, first: Connection, fallback: Connection) -> str:
    """Return what a further connection would do at most, in one line, for a run that only plans."""
    calls = sum(entry.first.request.chain[fallback.place] is not None for entry in plan.having("call"))
    cost = "" if fallback.price is None else f", {format_usd(calls * fallback.price)}"
    return (
        f"Should {first.shown} be out of credits, retired or down, {fallback.shown} would be asked: at most {calls} "
        f"{plural(calls, 'call')}{cost}"
    )


async def open_connection(
    opened: AsyncExitStack,
    vendor_calls: VendorCalls,
    limits: TaskLimits,
    images_base: str | None,
    open_bucket: OpenBucket | None,
    new_client: NewClient | None = None,
) -> Connection:
    """Return a connection that reads images as its account allows.

    :param opened: what is left when the job ends.
    :param images_base: as for `Job`.
    :param new_client: makes its clients; by default they are its own.
    """
    account = vendor_calls.account
    new: NewClient = new_client or partial(_client, account)
    guarded = new_client or partial(_client, account, guard=guard_of(account.allow_private_hosts))
    client = await opened.enter_async_context(guarded(limits.concurrency))
    reader = Reader(client, trust=Trust(images_base, account.allow_private_hosts), open_bucket=open_bucket)
    return Connection(vendor_calls, reader, new, Meters())


def _client(account: Account, connections: int, guard: Callable[[str], bool] | None = None) -> AsyncClient:
    return AsyncClient(timeout=account.timeout, connections=connections, guard=guard)
