"""One pass over images: claim them, plan, call, record. A job is one pass, and a second one where texts fail its rules.

A pass owns its images from its plan to its end, and owns none before or after: two jobs never wait for each other.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from airflow_provider_describer.engine.admission import Admission
from airflow_provider_describer.engine.claimed import OthersImages, claim_plan
from airflow_provider_describer.engine.connections import (
    Connection,
    PassEnd,
    Shared,
    asked_elsewhere,
    may_fail_over,
)
from airflow_provider_describer.engine.identify import identify_all
from airflow_provider_describer.engine.learned import LearnedIdentities
from airflow_provider_describer.engine.limits import Budget, TaskLimits, days_allowance, tightest
from airflow_provider_describer.engine.meter import Meter
from airflow_provider_describer.engine.outcomes import OutcomeRecorder, unknown_outcome
from airflow_provider_describer.engine.ownership import Ownership
from airflow_provider_describer.engine.plan import (
    RUNS_ELSEWHERE,
    OnClaimed,
    OnUnknown,
    Plan,
    decide,
)
from airflow_provider_describer.engine.progress import Totals, too_many_rejected, verdict
from airflow_provider_describer.engine.runner import Runner
from airflow_provider_describer.engine.second_tries import count_second_calls, failing_images
from airflow_provider_describer.engine.transports import report_transports
from airflow_provider_describer.engine.unclear import UnclearImage, UnclearImages, ask_about
from airflow_provider_describer.engine.vendor_history import VendorHistory
from airflow_provider_describer.errors import DescriberError, Unfinished
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.quota.days_money import calls_left_today
from airflow_provider_describer.quota.shared import SharedLimits, open_quota
from airflow_provider_describer.storage.cas_document import open_document
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.abandoned import LOCK
from airflow_provider_describer.store.claim_files import open_claims
from airflow_provider_describer.store.claims import FOLDER
from airflow_provider_describer.store.index import StoreIndex, open_index
from airflow_provider_describer.store.journal import Journal


@dataclass(slots=True)
class Pass:
    """One pass of a job, over its requests, with one connection.

    :param recorder: gets each image's outcome; what a second pass calls counts in totals of its own.
    :param begin: called once the store has been read, before anything is recorded.
    :param is_resumed: whether the task instance has worked before; what it has paid for counts as its own.
    :param looks_elsewhere: end at once where other connections are to be asked first about calls of earlier runs.
    :param only_known: send no call; fetch what runs at the vendor, and ask its books.
    """

    connection: Connection
    requests: Sequence[DescribeRequest]
    limits: TaskLimits
    store: str | os.PathLike[str] | None
    folder: Folder | None
    recorder: OutcomeRecorder
    shared: Shared
    open_bucket: OpenBucket | None
    report: Callable[[str], None]
    on_unknown: OnUnknown
    on_claimed: OnClaimed
    retry_rejected: bool
    meter: Meter
    dry_run: bool = False
    is_resumed: bool = False
    begin: Callable[[], object] = field(default=lambda: None)
    looks_elsewhere: bool = False
    only_known: bool = False

    @property
    def vendor_calls(self) -> VendorCalls:
        """The calls with the pass's connection."""
        return self.connection.vendor_calls

    async def run(self) -> PassEnd:
        """Do the work; raises as `Job.arun`."""
        async with self._open_ownership() as ownership:
            if self.folder is not None and ownership.id is not None:
                address = f"{os.fspath(self.store or '').rstrip('/')}/{FOLDER}"
                lock = open_document("store", address, LOCK, self.open_bucket)
                await ownership.settle_abandoned(self.folder, lock)
            await ownership.look()
            index = await asyncio.to_thread(open_index, self.folder, task_instance=self.recorder.task_instance)
            self.begin()
            async with AsyncExitStack() as opened:
                return await self._describe(opened, index, ownership)

    def _open_ownership(self) -> Ownership:
        if self.folder is None or self.store is None or self.dry_run or not self.requests:
            return Ownership(None, self.report)
        claims = open_claims(self.store, self.folder, self.open_bucket, self.recorder.task_instance)
        return Ownership(claims, self.report)

    async def _describe(self, opened: AsyncExitStack, index: StoreIndex, ownership: Ownership) -> PassEnd:
        """Plan, record what needs no call, and run the rest."""
        recorder, shared, reader = self.recorder, self.shared, self.connection.reader
        totals = recorder.totals
        await asyncio.to_thread(report_transports, self.requests, self.vendor_calls, reader, self.report)
        plan = await self._plan(index, ownership)
        if self.looks_elsewhere:
            asked = await asyncio.to_thread(asked_elsewhere, plan, index, shared.connections)
            if asked:
                return PassEnd(elsewhere=asked)
        client = await opened.enter_async_context(self.connection.new_client(1))
        history = VendorHistory(self.vendor_calls, client, index, self.report)
        unclear = [] if self.dry_run else await self._ask_about(plan, history)
        budget = self._budget(plan, index)
        if self.dry_run:
            recorder.count_planned(plan.entries, on_unknown=self.on_unknown)
        else:
            record_known = partial(recorder.record_known, on_unknown=self.on_unknown, resumed=self.is_resumed)
            await asyncio.to_thread(record_known, plan.entries, index)
            recorder.record_pending(plan.having("elsewhere"), RUNS_ELSEWHERE)
            self.meter.begin(totals if self.is_resumed else Totals())
        # What a resumed run knows and the journal does not: calls that cost nothing.
        budget.count_at_least(totals.calls, (totals.cost_usd or 0.0) + totals.unknown_cost_usd)
        error = self._refusal(plan)
        await self._report_plan(plan, budget, index, error)
        if self.dry_run or not self.requests:
            return PassEnd()
        if error:
            why = Unfinished(f"The run was stopped before its first call: {error}", kind="stopped")
            recorder.record_pending(plan.entries, why)
            return PassEnd(error, cut_short=True, stopped_by=error)
        runner = await self._open_runner(opened, plan, index, ownership, history)
        runner.unclear.waiting += unclear
        others = OthersImages(
            plan.having("claimed"), index, ownership, runner, self.on_claimed, self._terms, self.report
        )
        others.announce()
        await self._run(runner, others)
        shared.note_idle(self.connection, runner.admission.idle_at)
        await asyncio.to_thread(self._record_found, runner, index)
        if condition := runner.admission.resume_condition(runner.left_running):
            conn_id = self.connection.account.conn_id if self.connection.place else ""
            return PassEnd(condition=replace(condition, conn_id=conn_id), cut_short=True)
        stopped_by = runner.admission.stopped_by
        error = verdict(totals, self.limits, stopped_by, self.on_unknown)
        return PassEnd(error, cut_short=runner.admission.is_cut_short, stopped_by=stopped_by)

    async def _plan(self, index: StoreIndex, ownership: Ownership) -> Plan:
        images = await identify_all(
            self.connection.reader,
            self.vendor_calls.vendor,
            self.vendor_calls.account,
            self.requests,
            concurrency=self.limits.concurrency,
            stopped=lambda: self.shared.stop.asked,
        )
        await asyncio.to_thread(index.look_up, [key for image in images for key in image.all_keys])
        return await claim_plan(images, index, ownership, self._terms, may_ask=self.vendor_calls.vendor.keeps_history)

    @property
    def _terms(self) -> dict[str, Any]:
        """What the task says about images that have had a call."""
        return {
            "on_unknown": self.on_unknown,
            "retry_rejected": self.retry_rejected,
            "max_lost_calls": self.limits.max_lost_calls,
            "conn_ids": self.shared.conn_ids,
        }

    async def _ask_about(self, plan: Plan, history: VendorHistory) -> list[UnclearImage]:
        return await ask_about(plan.entries, history, self.on_unknown, self.limits.max_lost_calls)

    def _budget(self, plan: Plan, index: StoreIndex) -> Budget:
        """Return what is left to the task instance, with the calls reserved that are going to be fetched."""
        attached = [entry.open_call[0] for entry in plan.having("attach") if entry.open_call]
        price = self.connection.price
        if self.shared.budget is None:
            highest = max((one.price or 0.0 for one in self.shared.connections), default=0.0) or None
            self.shared.budget = Budget.of_task(self.limits, price, index.spending(), attached, highest)
        else:
            # No call is under way between passes.
            self.shared.budget.price = price
            for call in attached:
                self.shared.budget.attach(call)
        return self.shared.budget

    async def _report_plan(self, plan: Plan, budget: Budget, index: StoreIndex, refusal: DescriberError | None) -> None:
        """Say what the run is going to do, and what it may call and spend as far as its limits allow."""
        account, days = self.vendor_calls.account, None
        second = await asyncio.to_thread(self._second_calls, plan, index)
        # What a second pass has to itself is in the account's limits already.
        if plan.calls + second and not refusal and self.connection.quota is None:
            left_today = partial(calls_left_today, spent=self._spent_today(index), clock=self.vendor_calls.clock)
            days = days_allowance(account, await asyncio.to_thread(left_today, account, self.open_bucket))
        allowed = tightest(budget, self.limits, days)
        is_refused = refusal is not None
        self.report(plan.summary(account.price_per_call, allowed, second=second, is_refused=is_refused))
        if refusal and self.dry_run:
            self.report(f"A run would stop before its first call: {refusal}")
        for fallback in self.shared.connections[1:] if self.dry_run else ():
            self.report(may_fail_over(plan, self.connection, fallback))

    def _second_calls(self, plan: Plan, index: StoreIndex) -> int:
        """Return how many calls a second pass makes at most; blocking."""
        if not any(request.stricter for request in self.requests):
            return 0
        if self.dry_run:
            failing = failing_images(plan, index, self.recorder.rules)
        else:
            known = (image for entry in plan.having("reuse") for image in entry.all)
            tries = self.recorder.second_tries
            failing = [image for image in known if tries and tries.holds(image.request)]
        return count_second_calls(plan, failing, index, self._terms)

    def _spent_today(self, index: StoreIndex) -> float:
        return self.shared.spent_before(index)[self.connection.place]

    def _refusal(self, plan: Plan) -> DescriberError | None:
        """Return why no call may be made at all, or None."""
        lost = sum(entry.lost for entry in plan.having("unknown"))
        if lost and self.on_unknown == "fail":
            return unknown_outcome(lost, self.on_unknown)
        return too_many_rejected(self.recorder.totals, self.limits.max_failure_ratio)

    async def _open_runner(
        self, opened: AsyncExitStack, plan: Plan, index: StoreIndex, ownership: Ownership, history: VendorHistory
    ) -> Runner:
        recorder, shared, budget = self.recorder, self.shared, self.shared.budget
        assert budget is not None, "it was made with the plan"
        quota, client = await self._open_calls(index)
        account, clock = self.vendor_calls.account, self.vendor_calls.clock
        admission = Admission(account, self.limits, budget, shared.totals, clock, quota, ownership.holds)
        admission.meter, admission.only_known = self.meter, self.only_known
        ownership.stop_with(partial(admission.stop, leave_running=True))
        journal = None
        if index.folder is not None:
            journal = Journal(index.folder, writer=ownership.id, is_alone=ownership.holds)
            await opened.enter_async_context(journal)
        return Runner(
            plan,
            self.vendor_calls,
            client,
            self.connection.reader,
            self.limits,
            admission,
            recorder,
            journal,
            LearnedIdentities(index),
            self.report,
            UnclearImages(history, admission, recorder, journal, self.on_unknown, self.limits.max_lost_calls),
            self.on_unknown,
        )

    async def _open_calls(self, index: StoreIndex) -> tuple[SharedLimits, AsyncClient]:
        """Return the account's limits and the client, the same for each pass of the connection."""
        shared, own = self.shared, self.connection
        if own.quota is None or own.client is None:
            own.quota = open_quota(
                self.vendor_calls.account,
                self.open_bucket,
                in_bursts=self.limits.max_wait is not None,
                spent=self._spent_today(index),
                not_before=shared.idle_at(own),
                clock=self.vendor_calls.clock,
            )
            await shared.opened.enter_async_context(own.quota)
            new = own.new_client(self.limits.concurrency)
            own.client = await shared.opened.enter_async_context(new)
        return own.quota, own.client

    async def _run(self, runner: Runner, others: OthersImages) -> None:
        loop, stop = asyncio.get_running_loop(), partial(runner.admission.stop, leave_running=True)
        if self.shared.stop.asked:
            stop()
        self.shared.stop.connect(partial(loop.call_soon_threadsafe, stop))
        totals = runner.recorder.totals
        totals.known_before, totals.began = totals.done, time.monotonic()
        try:
            await runner.describe(runner.plan.entries)
            await others.finish()
        finally:
            self.shared.stop.connect(None)

    def _record_found(self, runner: Runner, index: StoreIndex) -> None:
        """Record the images that needed no call after all; blocking."""
        recorder = runner.recorder
        recorder.record_known(runner.known_after_all, index, on_unknown=self.on_unknown)
        recorder.record_pending([one for one in runner.known_after_all if one.action == "elsewhere"], RUNS_ELSEWHERE)
        if runner.copies and self.folder is not None:
            index.refresh()
            index.look_up(key for _, image in runner.copies for key in image.all_keys)
            entries = [decide(image, index, **self._terms) for _, image in runner.copies]
            recorder.record_known(entries, index, on_unknown=self.on_unknown)
            recorder.record_pending(entries, runner.admission.why_left())
        elif runner.copies:
            for owner, image in runner.copies:
                recorder.record_copy(image, owner.first)
