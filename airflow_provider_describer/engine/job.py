"""One task's whole work: remember, plan, call, publish. What the operators call; knows no Airflow."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, get_args

from airflow_provider_describer.engine.deferral import CarriedTotals, ResumeCondition
from airflow_provider_describer.engine.identify import identify_all
from airflow_provider_describer.engine.limits import TaskLimits, check_limits
from airflow_provider_describer.engine.outcomes import OutcomeRecorder, unknown_outcome
from airflow_provider_describer.engine.plan import IdentifiedImage, OnUnknown, Plan, PlannedImage, decide, make_plan
from airflow_provider_describer.engine.progress import Totals, manifest_of, too_many_rejected, verdict
from airflow_provider_describer.engine.runner import Runner
from airflow_provider_describer.errors import BadInput, DescriberError
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.prepare import Transport, choose_transport, needs_visibility
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.images.scaling import require_pillow
from airflow_provider_describer.images.trust import Trust, guard_of
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.quota.shared import SharedLimits, open_quota
from airflow_provider_describer.storage.address import LocalFile, parse_uri
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.index import JournalIndex, load_index
from airflow_provider_describer.store.journal import Journal
from airflow_provider_describer.store.results import ResultFiles, ResultsFormat, check_results_format
from airflow_provider_describer.store.rows import Row, TaskInstanceKey

MAX_INLINE = 500
"""Rows that are returned without a store; about 2 KB each, more would bloat Airflow's database."""


@dataclass(slots=True)
class Job:
    """What one task is to do. ``report`` gets the plan, and a line of progress about every five seconds.

    :param carried: what this task instance has done before it was resumed; None where it has just begun.
    :param open_bucket: for images and stores at s3:// and gs://.
    :param images_base: the folder that the listing of images is for: no local file outside it is read.
    :param results_format: of the result files in the store; the journal is JSONL in any case.
    """

    vendor_calls: VendorCalls
    requests: Sequence[DescribeRequest]
    limits: TaskLimits = field(default_factory=TaskLimits)
    store: str | os.PathLike[str] | None = None
    run: TaskInstanceKey = field(default_factory=TaskInstanceKey)
    on_unknown: OnUnknown = "retry"
    retry_rejected: bool = False
    dry_run: bool = False
    return_rows: bool = False
    """Return the rows also where there is a store; without one they always are."""
    report: Callable[[str], None] = print
    new_client: Callable[[int], AsyncClient] | None = None
    carried: CarriedTotals | None = None
    open_bucket: OpenBucket | None = None
    images_base: str | None = None
    results_format: ResultsFormat = "jsonl"
    _stop: Callable[[], object] | None = field(default=None, init=False)
    _stop_asked: bool = field(default=False, init=False)

    def check(self) -> None:
        """Find what would fail for certain, before anything is read or called.

        :raises BadInput: naming the argument or the connection's field.
        """
        if not self.requests:
            raise BadInput("images is empty: there is nothing to describe.")
        check_limits(self.limits, self.vendor_calls.account)
        if self.on_unknown not in get_args(OnUnknown):
            raise BadInput(f"on_unknown is {self.on_unknown!r}, expected one of {', '.join(get_args(OnUnknown))}.")
        check_results_format(self.results_format)
        if self.store is None and len(self.requests) > MAX_INLINE:
            raise BadInput(
                f"{len(self.requests)} descriptions do not fit XCom ({MAX_INLINE} at most): give a store (a folder)."
            )
        if any(request.spec.preprocessing for request in self.requests):
            require_pillow()

    def work(self) -> Outcome:
        """Do the work as `arun` does, from blocking code.

        The event loop has a thread of its own: what interrupts this one (a signal's exception, a task's timeout) stops
        the work in good order, as answers under way may be paid for, and is raised when they are in.
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
        """Do the work. What ends the run early is in the outcome and not raised, as what is done is worth keeping.

        :raises BadInput: before anything is called.
        :raises StoreError: where the store cannot be read or written.
        """
        self.check()
        began, carried = time.monotonic(), self.carried or CarriedTotals()
        folder = None if self.store is None else await asyncio.to_thread(open_folder, self.store, self.open_bucket)
        index = await asyncio.to_thread(load_index, folder)
        rows: dict[DescribeRequest, Row] = {}
        inline = (folder is None or self.return_rows) and not self.dry_run
        totals = self._totals(carried)
        with ExitStack() as files:
            results = None
            if folder and not self.dry_run:
                results = files.enter_context(ResultFiles(folder, self.run, self.results_format))

            def record(image: IdentifiedImage, row: Row) -> None:
                if results is not None:
                    results.write(row)
                if inline:
                    rows[image.request] = row

            recorder = OutcomeRecorder(self.run, totals, record, self.vendor_calls.clock)
            error, wait = await self._work(folder, index, recorder, rows)
        elapsed = carried.elapsed_s + time.monotonic() - began
        manifest = manifest_of(
            totals,
            vendor=self.vendor_calls.account.vendor,
            store=None if self.store is None else os.fspath(self.store),
            results=results.results if results else None,
            failures=results.failures if results else None,
            elapsed_s=elapsed,
        )
        if inline:
            manifest["descriptions"] = [rows[request].to_dict() for request in self.requests]
        done = CarriedTotals(
            totals.calls, totals.failed_cost_usd, totals.unknown_calls, totals.unknown_cost_usd, elapsed
        )
        return Outcome(manifest, error, wait, done)

    def _totals(self, carried: CarriedTotals) -> Totals:
        return Totals(
            requested=len(self.requests),
            cost_usd=None if self.vendor_calls.account.price_per_call is None else carried.cost_usd,
            failed_cost_usd=carried.cost_usd,
            calls=carried.calls,
            unknown_calls=carried.unknown_calls,
            unknown_cost_usd=carried.unknown_cost_usd,
        )

    async def _work(
        self,
        folder: Folder | None,
        index: JournalIndex,
        recorder: OutcomeRecorder,
        rows: Mapping[DescribeRequest, Row],
    ) -> tuple[DescriberError | None, ResumeCondition | None]:
        totals = recorder.totals
        async with AsyncExitStack() as opened:
            reader = await self._reader(opened)
            await asyncio.to_thread(self._check_transports, reader)
            plan = await self._plan(reader, index)
            self.report(plan.summary(self.vendor_calls.account.price_per_call))
            if self.dry_run:
                for entry in plan.entries:
                    totals.counts[entry.status] += len(entry.all)
                return None, None
            resumed = self.carried is not None
            await asyncio.to_thread(recorder.all_known, plan.entries, index, resumed=resumed)
            if error := self._refusal(plan, totals):
                recorder.all_pending(plan.entries)
                return error, None
            # Around the client: what calls have cost is told when they are over.
            shared = await self._shared_limits(opened)
            new = self.new_client or self._client
            client = await opened.enter_async_context(new(self.limits.concurrency))
            journal = await opened.enter_async_context(Journal(folder)) if folder else None
            batch = Runner(
                self._caller(),
                client,
                reader,
                self.limits,
                recorder,
                self.report,
                partial(self._reconsider, plan, index),
                journal,
                self.on_unknown,
                shared,
            )
            # What runs at the vendor comes first: it costs nothing more, and is forgotten after an hour.
            entries = [entry for action in ("attach", "call") for entry in plan.entries if entry.action == action]
            await self._describe(batch, entries)
        await asyncio.to_thread(self._settle_found, batch, folder, index, rows)
        if wait := batch.wait():
            return None, wait
        return verdict(totals, self.limits, batch.stopped_by, self.on_unknown), None

    def _refusal(self, plan: Plan, totals: Totals) -> DescriberError | None:
        """Return why no call may be made at all, or None."""
        lost = sum(entry.lost for entry in plan.entries if entry.action == "unknown")
        if lost and self.on_unknown == "fail":
            return unknown_outcome(lost)
        return too_many_rejected(totals, self.limits.max_failure_ratio)

    def _caller(self) -> VendorCalls:
        resend = int(self.on_unknown == "retry")
        return replace(self.vendor_calls, policy=replace(self.vendor_calls.policy, resend_unknown=resend))

    async def _shared_limits(self, opened: AsyncExitStack) -> SharedLimits | None:
        account = self.vendor_calls.account
        if not account.limits_path:
            return None
        return await opened.enter_async_context(open_quota(account, self.open_bucket, clock=self.vendor_calls.clock))

    async def _reader(self, opened: AsyncExitStack) -> Reader:
        private = self.vendor_calls.account.allow_private_hosts
        new = self.new_client or partial(self._client, guard=guard_of(private))
        client = await opened.enter_async_context(new(self.limits.concurrency))
        return Reader(client, trust=Trust(self.images_base, private), open_bucket=self.open_bucket)

    def _check_transports(self, reader: Reader) -> None:
        """Find a connection's image_transport that does not fit, and say what ``auto`` has chosen.

        :raises BadInput: naming the connection and an image.
        """
        vendor, account = self.vendor_calls.vendor, self.vendor_calls.account
        chosen: Counter[Transport] = Counter()
        for request in self.requests:
            location, scaled = parse_uri(request.image.uri), bool(request.spec.preprocessing)
            visibility = reader.visibility(location) if needs_visibility(vendor, account, location) else None
            transport = choose_transport(vendor, account, location, visibility, scaled=scaled)
            if not isinstance(location, LocalFile):
                chosen[transport] += 1
        for transport, count in chosen.items():
            self.report(f"{count} images go to {self.vendor_calls.vendor.title} as {transport.way}: {transport.why}")

    def _reconsider(self, plan: Plan, index: JournalIndex, entry: PlannedImage, image: IdentifiedImage) -> PlannedImage:
        """Decide again on an image of which more is known than when it was planned."""
        owner = plan.owner(entry, image.keys)
        return self._decide(image, index) if owner is entry else owner

    def _decide(self, image: IdentifiedImage, index: JournalIndex) -> PlannedImage:
        return decide(image, index, self.on_unknown, retry_rejected=self.retry_rejected)

    def _settle_found(
        self, batch: Runner, folder: Folder | None, index: JournalIndex, rows: Mapping[DescribeRequest, Row]
    ) -> None:
        """Record the images of which reading has shown that they needed no call; blocking."""
        batch.recorder.all_known(batch.known_after_all, index)
        if batch.copies and folder is not None:
            again = load_index(folder)
            entries = [self._decide(image, again) for _, image in batch.copies]
            batch.recorder.all_known(entries, again)
            batch.recorder.all_pending(entries)
        elif batch.copies:
            for owner, image in batch.copies:
                row = rows[owner.first.request]
                if row.status in ("described", "reused", "rejected"):
                    batch.recorder.known(image, "rejected" if row.status == "rejected" else "reused", row.to_dict())
                else:
                    batch.recorder.without_call(image, "pending")

    async def _describe(self, batch: Runner, entries: list[PlannedImage]) -> None:
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(partial(batch.stop, leave_running=True))
        if self._stop_asked:
            batch.stop(leave_running=True)
        batch.totals.known_before, batch.totals.began = batch.totals.done, time.monotonic()
        try:
            await batch.describe(entries)
        finally:
            self._stop = None

    async def _plan(self, reader: Reader, index: JournalIndex) -> Plan:
        images = await identify_all(
            reader,
            self.vendor_calls.vendor,
            self.vendor_calls.account,
            self.requests,
            together=self.limits.concurrency,
            stopped=lambda: self._stop_asked,
        )
        return make_plan(images, index, on_unknown=self.on_unknown, retry_rejected=self.retry_rejected)

    def _client(self, connections: int, guard: Callable[[str], bool] | None = None) -> AsyncClient:
        return AsyncClient(timeout=self.vendor_calls.account.timeout, connections=connections, guard=guard)

    def stop(self) -> None:
        """Start no further call; from any thread or signal handler. What is under way is awaited and recorded."""
        self._stop_asked = True
        if stop := self._stop:
            # The loop may have ended this very moment.
            with contextlib.suppress(RuntimeError):
                stop()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The manifest, and the error that the task should end with, if any.

    ``wait`` is what a run waits for that had no patience for it: the task is to be resumed then, with ``carried``.
    """

    manifest: dict[str, Any]
    error: DescriberError | None
    wait: ResumeCondition | None = None
    carried: CarriedTotals = field(default_factory=CarriedTotals)
