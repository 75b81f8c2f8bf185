"""One task's whole work: load the journal, plan, call, publish. What the operators run; knows no Airflow."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

from airflow_provider_describer.engine.admission import Admission
from airflow_provider_describer.engine.claimed import OthersImages, claim_plan
from airflow_provider_describer.engine.deferral import CarriedTotals, ResumeCondition
from airflow_provider_describer.engine.identify import identify_all
from airflow_provider_describer.engine.learned import LearnedIdentities
from airflow_provider_describer.engine.limits import (
    Budget,
    TaskLimits,
    check_limits,
    days_allowance,
    spent_today,
    tightest,
)
from airflow_provider_describer.engine.meter import Meter, Meters
from airflow_provider_describer.engine.outcomes import OutcomeRecorder, unknown_outcome
from airflow_provider_describer.engine.ownership import Ownership
from airflow_provider_describer.engine.plan import OnClaimed, OnUnknown, Plan, decide
from airflow_provider_describer.engine.progress import (
    Outcome,
    Totals,
    rules_line,
    run_warning,
    too_many_rejected,
    verdict,
)
from airflow_provider_describer.engine.runner import Runner
from airflow_provider_describer.engine.transports import report_transports
from airflow_provider_describer.engine.unclear import UnclearImage, UnclearImages, ask_about
from airflow_provider_describer.engine.vendor_history import VendorHistory
from airflow_provider_describer.errors import BadInput, DescriberError, Unfinished
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.images.scaling import require_pillow
from airflow_provider_describer.images.trust import Trust, guard_of
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.quota.days_money import calls_left_today
from airflow_provider_describer.quota.shared import open_quota
from airflow_provider_describer.rules import Rule
from airflow_provider_describer.storage.cas_document import CasDocument, open_document
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.abandoned import LOCK
from airflow_provider_describer.store.claim_files import open_claims
from airflow_provider_describer.store.claims import FOLDER
from airflow_provider_describer.store.index import StoreIndex, open_index
from airflow_provider_describer.store.journal import Journal
from airflow_provider_describer.store.results import ResultFiles, ResultsFormat, check_results_format
from airflow_provider_describer.store.rows import Row, TaskInstanceKey

MAX_INLINE = 500
"""Rows that are returned without a store; about 2 KB each, more would bloat Airflow's database."""


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
    outcome: Outcome | None = field(default=None, init=False)
    _stop: Callable[[], object] | None = field(default=None, init=False)
    _stop_asked: bool = field(default=False, init=False)

    def check(self) -> None:
        """Find arguments that cannot work, before anything is read or called.

        :raises BadInput: naming the argument or the connection's field.
        """
        check_limits(self.limits, self.vendor_calls.account)
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
        account, carried = self.vendor_calls.account, self.carried or CarriedTotals()
        totals = Totals.resumed(len(self.requests), carried, is_priced=account.price_per_call is not None)
        meter = Meters() if self.dry_run else self.meter
        try:
            self.outcome = await self._arun(totals, carried)
        except BaseException as error:
            meter.end(totals, error)
            raise
        meter.end(totals, self.outcome.error)
        return self.outcome

    async def _arun(self, totals: Totals, carried: CarriedTotals) -> Outcome:
        began = time.monotonic()
        if self.rules and not self.dry_run:
            totals.failed_rules = {rule.name: 0 for rule in self.rules}
        folder = None if self.store is None else await asyncio.to_thread(open_folder, self.store, self.open_bucket)
        rows: dict[int, Row] | None = {} if self.store is None or self.return_rows else None
        async with self._open_ownership(folder) as ownership:
            if folder is not None and ownership.id is not None:
                await ownership.settle_abandoned(folder, self._lock())
            await ownership.look()
            index = await asyncio.to_thread(open_index, folder, task_instance=self.task_instance)
            with ExitStack() as files:
                results = None
                if folder and not self.dry_run:
                    results = files.enter_context(ResultFiles(folder, self.task_instance, self.results_format))
                recorder = OutcomeRecorder(
                    self.task_instance, totals, results, rows, self.vendor_calls.clock, self.rules
                )
                error, condition, budget = await self._describe(folder, index, recorder, ownership)
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
        return Outcome(manifest, error, condition, carried, warning, budget, totals.refusal, totals.skipped, reached)

    def _open_ownership(self, folder: Folder | None) -> Ownership:
        if folder is None or self.store is None or self.dry_run or not self.requests:
            return Ownership(None, self.report)
        return Ownership(open_claims(self.store, folder, self.open_bucket, self.task_instance), self.report)

    def _lock(self) -> CasDocument:
        return open_document("store", f"{os.fspath(self.store or '').rstrip('/')}/{FOLDER}", LOCK, self.open_bucket)

    async def _describe(
        self, folder: Folder | None, index: StoreIndex, recorder: OutcomeRecorder, ownership: Ownership
    ) -> tuple[DescriberError | None, ResumeCondition | None, Budget]:
        """Plan, record what needs no call, and run the rest."""
        totals = recorder.totals
        async with AsyncExitStack() as opened:
            reader = await self._open_reader(opened)
            await asyncio.to_thread(report_transports, self.requests, self.vendor_calls, reader, self.report)
            plan = await self._plan(reader, index, ownership)
            history = await self._open_history(opened, index)
            unclear = [] if self.dry_run else await self._ask_about(plan, history)
            budget = self._budget(plan, index)
            if self.dry_run:
                recorder.count_planned(plan.entries, on_unknown=self.on_unknown)
            else:
                resumed = self.carried is not None
                record_known = partial(recorder.record_known, on_unknown=self.on_unknown, resumed=resumed)
                await asyncio.to_thread(record_known, plan.entries, index)
                self.meter.begin(totals if resumed else Totals())
            # What a resumed run knows and the journal does not: calls that cost nothing.
            budget.count_at_least(totals.calls, (totals.cost_usd or 0.0) + totals.unknown_cost_usd)
            error = self._refusal(plan, totals)
            await self._report_plan(plan, budget, index, error)
            if self.dry_run or not self.requests:
                return None, None, budget
            if error:
                why = Unfinished(f"The run was stopped before its first call: {error}", kind="stopped")
                recorder.record_pending(plan.entries, why)
                return error, None, budget
            runner = await self._open_runner(opened, plan, reader, recorder, budget, index, ownership, history)
            runner.unclear.waiting += unclear
            others = OthersImages(
                plan.having("claimed"), index, ownership, runner, self.on_claimed, self._terms, self.report
            )
            others.announce()
            await self._run(runner, others)
        totals.idle_at = runner.admission.idle_at
        await asyncio.to_thread(self._record_found, runner, folder, index)
        if condition := runner.admission.resume_condition(runner.left_running):
            return None, condition, budget
        return verdict(totals, self.limits, runner.admission.stopped_by, self.on_unknown), None, budget

    def _budget(self, plan: Plan, index: StoreIndex) -> Budget:
        """Return what is left to the task instance, with the calls reserved that are going to be fetched."""
        attached = (entry.open_call[0] for entry in plan.having("attach") if entry.open_call)
        return Budget.of_task(self.limits, self.vendor_calls.account.price_per_call, index.spending(), attached)

    async def _report_plan(self, plan: Plan, budget: Budget, index: StoreIndex, refusal: DescriberError | None) -> None:
        """Say what the run is going to do, and what it may call and spend as far as its limits allow."""
        account, days = self.vendor_calls.account, None
        if plan.calls and not refusal:
            left_today = partial(calls_left_today, spent=self._spent_today(index), clock=self.vendor_calls.clock)
            days = days_allowance(account, await asyncio.to_thread(left_today, account, self.open_bucket))
        allowed = tightest(budget, self.limits, days)
        self.report(plan.summary(account.price_per_call, allowed, is_refused=refusal is not None))
        if refusal and self.dry_run:
            self.report(f"A run would stop before its first call: {refusal}")

    def _spent_today(self, index: StoreIndex) -> float:
        return spent_today(index, self.vendor_calls.account.price_per_call, self.vendor_calls.clock())

    def _refusal(self, plan: Plan, totals: Totals) -> DescriberError | None:
        """Return why no call may be made at all, or None."""
        lost = sum(entry.lost for entry in plan.having("unknown"))
        if lost and self.on_unknown == "fail":
            return unknown_outcome(lost, self.on_unknown)
        return too_many_rejected(totals, self.limits.max_failure_ratio)

    async def _open_reader(self, opened: AsyncExitStack) -> Reader:
        private = self.vendor_calls.account.allow_private_hosts
        new = self.new_client or partial(self._client, guard=guard_of(private))
        client = await opened.enter_async_context(new(self.limits.concurrency))
        return Reader(client, trust=Trust(self.images_base, private), open_bucket=self.open_bucket)

    async def _open_runner(
        self,
        opened: AsyncExitStack,
        plan: Plan,
        reader: Reader,
        recorder: OutcomeRecorder,
        budget: Budget,
        index: StoreIndex,
        ownership: Ownership,
        history: VendorHistory,
    ) -> Runner:
        account, clock = self.vendor_calls.account, self.vendor_calls.clock
        totals = recorder.totals
        quota = open_quota(
            account,
            self.open_bucket,
            in_bursts=self.limits.max_wait is not None,
            spent=self._spent_today(index),
            not_before=totals.idle_at,
            clock=clock,
        )
        # Entered before the client, and so left after it: then the cost of every call is known.
        await opened.enter_async_context(quota)
        new = self.new_client or self._client
        client = await opened.enter_async_context(new(self.limits.concurrency))
        admission = Admission(account, self.limits, budget, totals, clock, quota, ownership.holds)
        admission.meter = self.meter
        ownership.stop_with(partial(admission.stop, leave_running=True))
        journal = None
        if index.folder is not None:
            journal = Journal(index.folder, writer=ownership.id, is_alone=ownership.holds)
            await opened.enter_async_context(journal)
        return Runner(
            plan,
            self.vendor_calls,
            client,
            reader,
            self.limits,
            admission,
            recorder,
            journal,
            LearnedIdentities(index),
            self.report,
            UnclearImages(history, admission, recorder, journal, self.on_unknown, self.limits.max_lost_calls),
            self.on_unknown,
        )

    async def _open_history(self, opened: AsyncExitStack, index: StoreIndex) -> VendorHistory:
        client = await opened.enter_async_context((self.new_client or self._client)(1))
        return VendorHistory(self.vendor_calls, client, index, self.report)

    async def _ask_about(self, plan: Plan, history: VendorHistory) -> list[UnclearImage]:
        return await ask_about(plan.entries, history, self.on_unknown, self.limits.max_lost_calls)

    async def _run(self, runner: Runner, others: OthersImages) -> None:
        loop, stop = asyncio.get_running_loop(), partial(runner.admission.stop, leave_running=True)
        self._stop = partial(loop.call_soon_threadsafe, stop)
        if self._stop_asked:
            stop()
        totals = runner.recorder.totals
        totals.known_before, totals.began = totals.done, time.monotonic()
        try:
            await runner.describe(runner.plan.entries)
            await others.finish()
        finally:
            self._stop = None

    async def _plan(self, reader: Reader, index: StoreIndex, ownership: Ownership) -> Plan:
        images = await identify_all(
            reader,
            self.vendor_calls.vendor,
            self.vendor_calls.account,
            self.requests,
            concurrency=self.limits.concurrency,
            stopped=lambda: self._stop_asked,
        )
        await asyncio.to_thread(index.look_up, [key for image in images for key in image.keys])
        return await claim_plan(images, index, ownership, self._terms, may_ask=self.vendor_calls.vendor.keeps_history)

    @property
    def _terms(self) -> dict[str, Any]:
        """What the task says about images that have had a call."""
        return {
            "on_unknown": self.on_unknown,
            "retry_rejected": self.retry_rejected,
            "max_lost_calls": self.limits.max_lost_calls,
        }

    def _record_found(self, runner: Runner, folder: Folder | None, index: StoreIndex) -> None:
        """Record the images that needed no call after all; blocking."""
        recorder = runner.recorder
        recorder.record_known(runner.known_after_all, index, on_unknown=self.on_unknown)
        if runner.copies and folder is not None:
            index.refresh()
            index.look_up(key for _, image in runner.copies for key in image.keys)
            entries = [decide(image, index, **self._terms) for _, image in runner.copies]
            recorder.record_known(entries, index, on_unknown=self.on_unknown)
            recorder.record_pending(entries, runner.admission.why_left())
        elif runner.copies:
            for owner, image in runner.copies:
                recorder.record_copy(image, owner.first)

    def _client(self, connections: int, guard: Callable[[str], bool] | None = None) -> AsyncClient:
        return AsyncClient(timeout=self.vendor_calls.account.timeout, connections=connections, guard=guard)

    def stop(self) -> None:
        """Start no further call; from any thread or signal handler. Calls under way are awaited and recorded."""
        self._stop_asked = True
        if stop := self._stop:
            # The loop may have just ended.
            with contextlib.suppress(RuntimeError):
                stop()
