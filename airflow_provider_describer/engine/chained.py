"""A job's passes over a chain of connections: what one leaves because of its vendor, the next one describes."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from airflow_provider_describer.engine.connections import Connection, PassEnd, Shared
from airflow_provider_describer.engine.failover import SENT_BEFORE, Failover, fails_over, reason
from airflow_provider_describer.engine.meter import PartMeter
from airflow_provider_describer.engine.outcomes import OutcomeRecorder
from airflow_provider_describer.engine.passes import Pass
from airflow_provider_describer.engine.plan import IdentifiedImage
from airflow_provider_describer.engine.second_tries import SpooledRows
from airflow_provider_describer.errors import (
    AccountError,
    BadInput,
    DescriberError,
    RetryLater,
    StoreError,
    Unfinished,
    one_line,
)
from airflow_provider_describer.models import DescribeRequest, plural

_OF_CONNECTION = (AccountError, BadInput, RetryLater)
"""What ends the pass of a further connection and says nothing about the store or the images."""


class NewPass(Protocol):
    """Makes a pass of a job over requests to one connection."""

    def __call__(
        self, requests: Sequence[DescribeRequest], recorder: OutcomeRecorder, connection: Connection
    ) -> Pass: ...


@dataclass(slots=True)
class ChainedPasses:
    """The passes over all images of a job with a chain of connections.

    ``out`` are the places of the connections that ended early: nothing more is asked of them.

    :param requests: to the first connection, linked with the others'.
    """

    requests: Sequence[DescribeRequest]
    recorder: OutcomeRecorder
    shared: Shared
    new_pass: NewPass
    report: Callable[[str], None]
    out: set[int] = field(default_factory=set, init=False)
    _reasons: dict[int, dict[str, str]] = field(default_factory=dict, init=False)
    """By `id` of the request to the first connection, why that has not described the image."""
    _each_reason: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict, init=False)
    """Each of them once: many images have the same."""
    _rows: SpooledRows = field(default_factory=SpooledRows, init=False)
    """The first connection's rows of the images that it has left."""
    _waiting: dict[int, list[DescribeRequest]] = field(default_factory=dict, init=False)
    """By place, what a further connection is going to be asked."""
    _why: dict[int, str] = field(default_factory=dict, init=False)
    """By place, why a connection has left images."""
    _first_error: DescriberError | None = field(default=None, init=False)
    _last: int = field(default=0, init=False)
    """The place of the connection that was asked last."""
    _undescribed: int = field(default=0, init=False)
    """How many images no connection has described, because of the vendors."""

    async def run(self, begin: Callable[[], object]) -> PassEnd:
        """Go over all images; ``begin`` is called once the store has been read. Raises as `Job.arun`.

        The end is that of the last pass. Its error names each connection with its reason; its class is the first one's.
        """
        try:
            end = await self._over_first(begin)
            for place in range(1, len(self.shared.connections)):
                requests = self._waiting.pop(place, [])
                if not requests:
                    continue
                if end.condition or self.shared.stop.asked or self.shared.totals.budget_reached:
                    await asyncio.to_thread(self._leave, requests)
                else:
                    end = await self._go_on(place, requests)
        finally:
            self._rows.close()
        return replace(end, error=self._error(end))

    async def _over_first(self, begin: Callable[[], object]) -> PassEnd:
        """Go over all images with the first connection, once others were asked about calls of earlier runs."""
        requests = self.requests
        end, left = await self._over(0, requests, begin=begin, looks_elsewhere=True)
        if end.elsewhere:
            left.close()
            for place, asked in end.elsewhere.items():
                known = await self._ask(place, asked, requests)
                if isinstance(known, PassEnd):
                    return known
                requests = [one for one in requests if id(one) not in known]
            end, left = await self._over(0, requests)
        await asyncio.to_thread(self._sort, left, end)
        return end

    async def _ask(
        self, place: int, asked: Sequence[DescribeRequest], requests: Sequence[DescribeRequest]
    ) -> set[int] | PassEnd:
        """Let a connection fetch, and ask its vendor's books about, what earlier runs have sent to it.

        Return the `id` of the first connection's requests that have an outcome then; or the end, where no other
        connection may be asked, and all ``requests`` to the first one are recorded.
        """
        for request in asked:
            message = "An earlier run has sent the image to this connection."
            self._reasons[id(request.first)] = self._reason(request.first, SENT_BEFORE, message)
        end, left = await self._over(place, asked, only_known=True)
        unknown, ends = set(), end.condition or (end.stopped_by and not fails_over(end.stopped_by))
        for request, row, _ in left.take(None):
            self.shared.totals.counts["pending"] -= 1
            unknown.add(id(request.first))
            if ends:
                self.recorder.record(IdentifiedImage(request.first), row)
        known = {id(request.first) for request in asked} - unknown
        if not ends and not self.shared.stop.asked:
            return known
        why = Unfinished("The run has ended before this image's call.", kind="stopped")
        for request in requests:
            if id(request) not in known and (not ends or id(request) not in unknown):
                self.recorder.record_without_call(IdentifiedImage(request), "pending", why)
        return end

    async def _go_on(self, place: int, requests: Sequence[DescribeRequest]) -> PassEnd:
        """Let a further connection describe what those before it have left."""
        totals, one = self.shared.totals, self.shared.connections[place]
        count = len(requests)
        why = " ".join(self._why[out] for out in sorted(self._why))
        self.report(f"{count} {plural(count, 'image goes', 'images go')} to {one.shown}. {why}")
        totals.counts["pending"] -= count
        before, self._last = totals.recorded, place
        try:
            end, left = await self._over(place, requests)
        except (BadInput, StoreError) as error:
            if totals.recorded > before:
                raise
            # Nothing was done yet: what the others have done is kept.
            totals.counts["pending"] += count
            await asyncio.to_thread(self._leave, requests)
            self.out.add(place)
            return PassEnd(error, cut_short=True)
        await asyncio.to_thread(self._sort, left, end)
        return end

    async def _over(
        self, place: int, requests: Sequence[DescribeRequest], **options: object
    ) -> tuple[PassEnd, Failover]:
        """Make a pass of one connection; return its end and what it has left."""
        one, totals = self.shared.connections[place], self.shared.totals
        left = Failover(place, self._reasons)
        new = self.new_pass(requests, replace(self.recorder, failover=left), one)
        if place:
            new = replace(new, report=partial(self._report, one.account.conn_id))
        meter = one.meter
        assert isinstance(meter, PartMeter), "each connection of a chain has one"
        meter.start(totals, len(requests))
        try:
            end = await replace(new, **options).run()  # type: ignore[arg-type]  # they are fields of a pass
        except BaseException:
            left.close()
            raise
        meter.stop(totals)
        if end.cut_short:
            self.out.add(place)
        return end, left

    def _report(self, conn_id: str, line: str) -> None:
        self.report(f"{conn_id}: {line}")

    def _sort(self, left: Failover, end: PassEnd) -> None:
        """Let images wait for the next connection that takes them, and record what else a pass has left; blocking."""
        place, stop = left.place, end.stopped_by if fails_over(end.stopped_by) else None
        may_go_on = end.stopped_by is None or stop is not None
        for request, row, goes_on in left.take(end.stopped_by):
            if not (goes_on and may_go_on):
                self.recorder.publish_left(request, row)
                continue
            first, error = request.first, row.error or {"kind": "unavailable", "message": ""}
            if stop is not None and error["kind"] == "stopped":
                error = {"kind": stop.kind, "message": str(stop)}
            self._why[place] = f"{self.shared.connections[place].shown}: {error['message']}"
            self._reasons[id(first)] = self._reason(first, error["kind"], error["message"])
            if id(first) not in self._rows:
                self._rows[id(first)] = row
            after = (next_one for next_one in first.chain[place + 1 :] if next_one is not None)
            if (next_one := next(after, None)) is not None:
                self._waiting.setdefault(next_one.place, []).append(next_one)
            else:
                self._undescribed += 1
                self._record_undescribed(first)
        if place == 0:
            self._first_error = stop

    def _reason(self, first: DescribeRequest, kind: str, message: str) -> dict[str, str]:
        """Return why the first connection has not described an image, with what those after it have said."""
        before = self._reasons.get(id(first))
        if before is not None and before["kind"] != SENT_BEFORE:
            kind, message = before["kind"], f"{before['message']} {message}"
        key = (first.spec.vendor, first.spec.model, kind, message)
        return self._each_reason.setdefault(key, reason(first, kind, message))

    def _leave(self, requests: Sequence[DescribeRequest]) -> None:
        """Record images that are asked of no further connection now; blocking."""
        for request in requests:
            self.recorder.publish_left(request.first, self._rows[id(request.first)])

    def _record_undescribed(self, first: DescribeRequest) -> None:
        found = self._reasons[id(first)]
        error = {"kind": found["kind"], "message": found["message"]}
        self.recorder.publish_left(first, replace(self._rows[id(first)], error=error))

    def _error(self, end: PassEnd) -> DescriberError | None:
        """Return the error of the job: that of its last pass, or one that names what each connection has said."""
        error, why = end.error, dict(self._why)
        if end.condition is not None or not why or not self._last:
            return error
        if isinstance(error, _OF_CONNECTION):
            why.setdefault(self._last, f"{self.shared.connections[self._last].shown}: {error}")
        elif not self._undescribed or not (
            error is None or (type(error) is Unfinished and error is not end.stopped_by)
        ):
            return error
        found = copy.copy(self._first_error or Unfinished(""))
        said = " ".join(why[place] for place in sorted(why))
        found.args = (one_line(f"No connection of the chain could describe all images. {said}"),)
        return found
