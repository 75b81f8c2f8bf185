"""One task's whole work: load the journal, plan, call, publish. What the operators run; knows no Airflow."""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import get_args

from airflow_provider_describer.engine.chained import ChainedPasses
from airflow_provider_describer.engine.connections import Connection, PassEnd, Shared, open_connection
from airflow_provider_describer.engine.deferral import CarriedTotals
from airflow_provider_describer.engine.failover import (
    LONGEST_OUTAGE_S,
    Fallback,
    check_chain,
    fails_over,
    link_requests,
)
from airflow_provider_describer.engine.limits import Budget, TaskLimits, check_limits
from airflow_provider_describer.engine.meter import CallMeter, Meter, Meters, PartMeter
from airflow_provider_describer.engine.outcomes import OutcomeRecorder
from airflow_provider_describer.engine.passes import Pass
from airflow_provider_describer.engine.plan import OnClaimed, OnUnknown
from airflow_provider_describer.engine.progress import Outcome, Totals, rules_line, run_warning
from airflow_provider_describer.engine.second_tries import SecondTries
from airflow_provider_describer.engine.stop_switch import StopSwitch
from airflow_provider_describer.errors import (
    AmbiguousCall,
    BadInput,
    RateLimited,
    UnexpectedAnswer,
    Unfinished,
    VendorUnavailable,
)
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.scaling import require_pillow
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.rules import Rule
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.results import ResultFiles, ResultsFormat, check_results_format
from airflow_provider_describer.store.rows import Row, TaskInstanceKey

MAX_INLINE = 500
"""Rows that are returned without a store; about 2 KB each, more would bloat Airflow's database."""
_PASSING = (AmbiguousCall, RateLimited, UnexpectedAnswer, Unfinished, VendorUnavailable)
"""What ends second tries early and nothing else: every image has a description."""


@dataclass(slots=True)
class Job:
    """What one task is to do.

    :param return_rows: return the rows even with a store; without one they always are.
    :param report: gets the plan, and a line of progress about every five seconds.
    :param carried: what this task instance has done before it was resumed; None if it has just begun.
    :param open_bucket: for images and stores at s3:// and gs://.
    :param images_base: the folder that the listing of images is for: no local file outside it is read.
    :param results_format: of the result files in the store; the journal is always JSONL.
    :param on_claimed: whether images that another live run is paying for are waited for or left pending.
    :param rules: what each text is judged by, one that is reused too; failing one fails nothing.
    :param meter: is told what the run does; not of a dry run. ``outcome`` is what has come of it, once it has ended.
    :param fallbacks: further connections, in this order: they describe what those before leave because of their vendor.
    """

    vendor_calls: VendorCalls
    requests: Sequence[DescribeRequest]
    limits: TaskLimits = field(default_factory=TaskLimits)
    store: str | os.PathLike[str] | None = None
    task_instance: TaskInstanceKey = field(default_factory=TaskInstanceKey)
    on_unknown: OnUnknown = "retry"
    retry_rejected: bool = False
    dry_run: bool = False
    return_rows: bool = False
    report: Callable[[str], None] = print
    new_client: Callable[[int], AsyncClient] | None = None
    carried: CarriedTotals | None = None
    open_bucket: OpenBucket | None = None
    images_base: str | None = None
    results_format: ResultsFormat = "jsonl"
    on_claimed: OnClaimed = "wait"
    rules: Sequence[Rule] = ()
    meter: Meter = field(default_factory=Meters)
    fallbacks: Sequence[Fallback] = ()
    outcome: Outcome | None = field(default=None, init=False)
    _stop: StopSwitch = field(default_factory=StopSwitch, init=False)

    def check(self) -> None:
        """Find arguments that cannot work, before anything is read or called.

        :raises BadInput: naming the argument or the connection's field.
        """
        check_chain(self.vendor_calls, self.fallbacks, self.requests)
        for vendor_calls in self._chain:
            check_limits(self.limits, vendor_calls.account)
        if self.on_unknown not in get_args(OnUnknown):
            raise BadInput(f"on_unknown is {self.on_unknown!r}, expected one of {', '.join(get_args(OnUnknown))}.")
        if self.on_claimed not in get_args(OnClaimed):
            raise BadInput(f"on_claimed is {self.on_claimed!r}, expected one of {', '.join(get_args(OnClaimed))}.")
        check_results_format(self.results_format)
        if self.store is None and len(self.requests) > MAX_INLINE:
            raise BadInput(
                f"{len(self.requests)} descriptions do not fit XCom ({MAX_INLINE} at most): give a store (a folder)."
            )
        if any(request.spec.preprocessing for request in self.requests):
            require_pillow()
        if not self.rules and any(request.stricter for request in self.requests):
            raise BadInput("stricter_prompt is given without rules: it asks again about images whose text fails one.")
        for rule in self.rules:
            rule.require()

    def run(self) -> Outcome:
        """Do the work as `arun` does, from blocking code.

        The event loop has a thread of its own: an interrupt of this one (a signal's exception, a task's timeout) stops
        the work in good order, as answers under way may be paid for, and is raised when they have been recorded.
        """
        context = contextvars.copy_context()
        with ThreadPoolExecutor(1, "describe") as thread:
            working = thread.submit(context.run, asyncio.run, self.arun())
            try:
                return working.result()
            except BaseException:
                self.stop()
                raise

    async def arun(self) -> Outcome:
        """Do the work. An error that ends the run early is in the outcome and not raised, so that no result is lost.

        :raises BadInput: before anything is called.
        :raises StoreError: where the store cannot be read or written.
        """
        self.check()
        is_priced = any(calls.account.price_per_call is not None for calls in self._chain)
        carried = self.carried or CarriedTotals()
        totals = Totals.resumed(len(self.requests), carried, is_priced=is_priced)
        meters = [] if self.dry_run else self._meters()
        try:
            self.outcome = await self._arun(totals, carried, meters)
        except BaseException as error:
            for meter in meters:
                meter.end(totals, error)
            raise
        for meter in meters:
            meter.end(totals, self.outcome.error)
        return self.outcome

    @property
    def _chain(self) -> list[VendorCalls]:
        return [self.vendor_calls, *(fallback.vendor_calls for fallback in self.fallbacks)]

    def _meters(self) -> Sequence[Meter]:
        """Return by place of the connection what is told of its part."""
        if not self.fallbacks:
            return [self.meter]
        meters = (self.meter, *(fallback.meter for fallback in self.fallbacks))
        return [PartMeter(meter, is_first=not place) for place, meter in enumerate(meters)]

    async def _arun(self, totals: Totals, carried: CarriedTotals, meters: Sequence[Meter]) -> Outcome:
        began = time.monotonic()
        folder = None if self.store is None else await asyncio.to_thread(open_folder, self.store, self.open_bucket)
        if self.rules and not self.dry_run:
            totals.failed_rules = {rule.name: 0 for rule in self.rules}
        if self.fallbacks:
            totals.fallbacks = {}
            self.requests = link_requests(self.requests, self.fallbacks)
        rows: dict[int, Row] | None = {} if self.store is None or self.return_rows else None
        results = None
        if folder and not self.dry_run:
            results = ResultFiles(folder, self.task_instance, self.results_format)
        recorder = OutcomeRecorder(self.task_instance, totals, results, rows, self.vendor_calls.clock, self.rules)
        async with AsyncExitStack() as opened:
            shared = await self._open_shared(opened, totals, meters)
            begin = partial(opened.enter_context, results) if results else lambda: None
            end, budget, left = await self._passes(folder, recorder, shared, begin)
        if totals.failed_rules is not None:
            self.report(rules_line(totals))
        elapsed = carried.elapsed_s + time.monotonic() - began
        manifest = totals.manifest(
            vendor=self.vendor_calls.account.vendor,
            store=None if self.store is None else os.fspath(self.store),
            results=results.results if results else None,
            failures=results.failures if results else None,
            elapsed_s=elapsed,
        )
        if rows is not None and not self.dry_run:
            manifest["descriptions"] = [rows[id(request)].to_dict() for request in self.requests]
        warning = run_warning(totals, self.limits)
        carried = totals.carry(elapsed)
        reached = totals.limit_reached if totals.counts["pending"] > totals.skipped else ""
        return Outcome(
            manifest, end.error, end.condition, carried, warning, budget, totals.refusal, totals.skipped, reached, left
        )

    async def _passes(
        self, folder: Folder | None, recorder: OutcomeRecorder, shared: Shared, begin: Callable[[], object]
    ) -> tuple[PassEnd, Budget, int]:
        """Go over all images, and once more over those whose text fails a rule and that have a stricter prompt."""
        tries, left = None, 0
        if not self.dry_run and any(request.stricter for request in self.requests):
            tries = SecondTries()
            recorder = replace(recorder, second_tries=tries)
        try:
            new = partial(self._new_pass, folder=folder, shared=shared)
            end, out = await self._first_passes(new, recorder, shared, begin)
            if tries:
                end, left = await self._second_passes(end, out, tries, new, recorder, shared)
        finally:
            await asyncio.to_thread(recorder.finish)
        return end, shared.budget or Budget(), left

    async def _first_passes(
        self, new: Callable[..., Pass], recorder: OutcomeRecorder, shared: Shared, begin: Callable[[], object]
    ) -> tuple[PassEnd, Collection[int]]:
        """Go over all images; return the end, and the places of the connections that nothing more is asked of."""
        first, everyone = shared.connections[0], range(len(shared.connections))
        if not self.fallbacks or self.dry_run:
            end = await replace(new(self.requests, recorder, first), begin=begin, dry_run=self.dry_run).run()
            return end, everyone if end.cut_short else ()
        passes = ChainedPasses(self.requests, recorder, shared, new, self.report)
        end = await passes.run(begin)
        may_go_on = end.condition is None and (end.stopped_by is None or fails_over(end.stopped_by))
        return end, passes.out if may_go_on else everyone

    async def _second_passes(
        self,
        end: PassEnd,
        out: Collection[int],
        tries: SecondTries,
        new: Callable[..., Pass],
        recorder: OutcomeRecorder,
        shared: Shared,
    ) -> tuple[PassEnd, int]:
        """Ask each connection once more about the images that it has described; return the end, and what is left."""
        left = 0
        for place, requests in tries.by_place(out):
            second = await self._second_pass(requests, tries, new, recorder, shared, shared.connections[place])
            end, left = PassEnd(second.error or end.error, second.condition), tries.left
            if second.error or second.condition:
                break
        return end, left

    async def _second_pass(
        self,
        requests: Sequence[DescribeRequest],
        tries: SecondTries,
        new: Callable[..., Pass],
        recorder: OutcomeRecorder,
        shared: Shared,
        connection: Connection,
    ) -> PassEnd:
        """Ask once more. What becomes of a call changes no image's status: it keeps the description that it has.

        Its calls are within the same budget and the same limits. One whose answer is lost is never sent again with
        ``on_unknown="fail"``, as nothing is to be decided: the image is left as it is.
        """
        totals = Totals(requested=len(requests), waits=shared.totals.waits)
        own = replace(recorder, totals=totals, results=None, rows=tries.rows, second_tries=None)
        second = replace(new(requests, own, connection), meter=CallMeter(connection.meter))
        on_unknown: OnUnknown = "hold" if self.on_unknown == "fail" else self.on_unknown
        limits = replace(self.limits, max_failure_ratio=1.0)
        calls = shared.totals.calls
        try:
            end = await replace(second, report=self._report_second, on_unknown=on_unknown, limits=limits).run()
        finally:
            if isinstance(connection.meter, PartMeter):
                connection.meter.add_calls(shared.totals.calls - calls, totals)
            shared.totals.add_calls(totals)
        # Where there are further connections, one that is out has left nothing undone.
        is_passing = isinstance(end.error, _PASSING) or (self.fallbacks and fails_over(end.error))
        if end.error is None or not is_passing or end.error.kind == "claim_lost":
            return end
        limit = shared.totals.limit_reached
        why = f"{limit} allows no further call" if limit else str(end.error)
        self._report_second(f"not all could be made now, a later run goes on with them: {why}")
        return PassEnd(condition=end.condition)

    def _report_second(self, line: str) -> None:
        self.report(f"second tries: {line}")

    def _new_pass(
        self,
        requests: Sequence[DescribeRequest],
        recorder: OutcomeRecorder,
        connection: Connection,
        *,
        folder: Folder | None,
        shared: Shared,
    ) -> Pass:
        return Pass(
            connection,
            requests,
            self.limits,
            self.store,
            folder,
            recorder,
            shared,
            self.open_bucket,
            self.report,
            self.on_unknown,
            self.on_claimed,
            self.retry_rejected,
            connection.meter,
            is_resumed=self.carried is not None,
        )

    async def _open_shared(self, opened: AsyncExitStack, totals: Totals, meters: Sequence[Meter]) -> Shared:
        new = self.new_client
        connections = [
            await open_connection(opened, calls, self.limits, self.images_base, self.open_bucket, new)
            for calls in self._chain
        ]
        for place, one in enumerate(connections):
            one.place, one.meter = place, meters[place] if meters else one.meter
            if place < len(self.fallbacks):
                policy = replace(one.vendor_calls.policy, longest_outage=LONGEST_OUTAGE_S)
                one.vendor_calls = replace(one.vendor_calls, policy=policy)
        return Shared(opened, totals, self._stop, connections)

    def stop(self) -> None:
        """Start no further call; from any thread or signal handler. Calls under way are awaited and recorded."""
        self._stop.stop()
