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

from airflow_provider_describer.batch import Batch
from airflow_provider_describer.buckets.opening import OpenBucket
from airflow_provider_describer.client.flow import Caller
from airflow_provider_describer.client.transport import AsyncClient
from airflow_provider_describer.errors import (
    BadInput,
    DescriberError,
)
from airflow_provider_describer.images.identifying import identify_all
from airflow_provider_describer.images.reading import Reader, is_local
from airflow_provider_describer.images.reference import Ask
from airflow_provider_describer.images.scaling import require_pillow
from airflow_provider_describer.images.showing import Transport, choose_transport, reach_matters
from airflow_provider_describer.images.trust import Trust, guard_of
from airflow_provider_describer.limits.opening import open_limits
from airflow_provider_describer.limits.shared import SharedLimits
from airflow_provider_describer.progress import Totals, manifest_of, too_many_rejected, verdict
from airflow_provider_describer.recording import Recorder
from airflow_provider_describer.settling import Settling, count_plan
from airflow_provider_describer.store.folder import Folder, open_folder
from airflow_provider_describer.store.index import Memory, remember
from airflow_provider_describer.store.journal import Journal
from airflow_provider_describer.store.plan import Identified, OnUnknown, Plan, Planned, decide, make_plan
from airflow_provider_describer.store.results import ResultFiles, ResultsFormat, check_results_format
from airflow_provider_describer.store.rows import Row, Run
from airflow_provider_describer.task_limits import Limits, check_limits
from airflow_provider_describer.waiting import SoFar, Wait

MAX_INLINE = 500
"""Rows that are returned without a store; about 2 KB each, more would bloat Airflow's database."""


@dataclass(slots=True)
class Job:
    """What one task is to do. ``report`` gets the plan, and a line of progress about every five seconds.

    :param so_far: what this task instance has done before it was resumed; None where it has just begun.
    :param open_bucket: for images and stores at s3:// and gs://.
    :param images_base: the folder that the listing of images is for: no local file outside it is read.
    :param results_format: of the result files in the store; the journal is JSONL in any case.
    """

    caller: Caller
    asks: Sequence[Ask]
    limits: Limits = field(default_factory=Limits)
    store: str | os.PathLike[str] | None = None
    run: Run = field(default_factory=Run)
    on_unknown: OnUnknown = "retry"
    retry_rejected: bool = False
    dry_run: bool = False
    return_rows: bool = False
    """Return the rows also where there is a store; without one they always are."""
    report: Callable[[str], None] = print
    new_client: Callable[[int], AsyncClient] | None = None
    so_far: SoFar | None = None
    open_bucket: OpenBucket | None = None
    images_base: str | None = None
    results_format: ResultsFormat = "jsonl"
    _stop: Callable[[], object] | None = field(default=None, init=False)
    _stop_asked: bool = field(default=False, init=False)

    def check(self) -> None:
        """Find what would fail for certain, before anything is read or called.

        :raises BadInput: naming the argument or the connection's field.
        """
        if not self.asks:
            raise BadInput("images is empty: there is nothing to describe.")
        check_limits(self.limits, self.caller.account)
        if self.on_unknown not in get_args(OnUnknown):
            raise BadInput(f"on_unknown is {self.on_unknown!r}, expected one of {', '.join(get_args(OnUnknown))}.")
        check_results_format(self.results_format)
        if self.store is None and len(self.asks) > MAX_INLINE:
            raise BadInput(
                f"{len(self.asks)} descriptions do not fit XCom ({MAX_INLINE} at most): give a store (a folder)."
            )
        if any(ask.spec.preprocessing for ask in self.asks):
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
        began, so_far = time.monotonic(), self.so_far or SoFar()
        folder = None if self.store is None else await asyncio.to_thread(open_folder, self.store, self.open_bucket)
        memory = await asyncio.to_thread(remember, folder)
        rows: dict[Ask, Row] = {}
        inline = (folder is None or self.return_rows) and not self.dry_run
        totals = self._totals(so_far)
        with ExitStack() as files:
            results = None
            if folder and not self.dry_run:
                results = files.enter_context(ResultFiles(folder, self.run, self.results_format))

            def record(image: Identified, row: Row) -> None:
                if results is not None:
                    results.write(row)
                if inline:
                    rows[image.ask] = row

            recorder = Recorder(self.run, totals, record, self.caller.clock)
            error, wait = await self._work(folder, memory, recorder, rows)
        elapsed = so_far.elapsed_s + time.monotonic() - began
        manifest = manifest_of(
            totals,
            vendor=self.caller.account.vendor,
            store=None if self.store is None else os.fspath(self.store),
            results=results.results if results else None,
            failures=results.failures if results else None,
            elapsed_s=elapsed,
        )
        if inline:
            manifest["descriptions"] = [rows[ask].to_dict() for ask in self.asks]
        done = SoFar(totals.calls, totals.failed_cost_usd, totals.unknown_calls, totals.unknown_cost_usd, elapsed)
        return Outcome(manifest, error, wait, done)

    def _totals(self, so_far: SoFar) -> Totals:
        return Totals(
            requested=len(self.asks),
            cost_usd=None if self.caller.account.price_per_call is None else so_far.cost_usd,
            failed_cost_usd=so_far.cost_usd,
            calls=so_far.calls,
            unknown_calls=so_far.unknown_calls,
            unknown_cost_usd=so_far.unknown_cost_usd,
        )

    async def _work(
        self, folder: Folder | None, memory: Memory, recorder: Recorder, rows: Mapping[Ask, Row]
    ) -> tuple[DescriberError | None, Wait | None]:
        totals = recorder.totals
        async with AsyncExitStack() as opened:
            reader = await self._reader(opened)
            await asyncio.to_thread(self._check_transports, reader)
            plan = await self._plan(reader, memory)
            self.report(plan.summary(self.caller.account.price_per_call))
            if self.dry_run:
                count_plan(plan, totals)
                return None, None
            settling = Settling(plan.entries, recorder, resumed=self.so_far is not None)
            await asyncio.to_thread(settling.known, memory)
            if self.on_unknown == "fail" and (error := settling.unknown()):
                settling.leave()
                return error, None
            if too_many := too_many_rejected(totals, self.limits.max_failure_ratio):
                settling.leave()
                return too_many, None
            # Around the client: what calls have cost is told when they are over.
            shared = await self._shared_limits(opened)
            new = self.new_client or self._client
            client = await opened.enter_async_context(new(self.limits.concurrency))
            journal = await opened.enter_async_context(Journal(folder)) if folder else None
            batch = Batch(
                self._caller(),
                client,
                reader,
                self.limits,
                recorder,
                self.report,
                partial(self._reconsider, plan, memory),
                journal,
                self.on_unknown,
                shared,
            )
            # What runs at the vendor comes first: it costs nothing more, and is forgotten after an hour.
            entries = [entry for action in ("attach", "call") for entry in plan.entries if entry.action == action]
            await self._describe(batch, entries)
        await asyncio.to_thread(self._settle_found, batch, folder, memory, rows)
        if wait := batch.wait():
            return None, wait
        return verdict(totals, self.limits, batch.stopped_by, self.on_unknown), None

    def _caller(self) -> Caller:
        resend = int(self.on_unknown == "retry")
        return replace(self.caller, policy=replace(self.caller.policy, resend_unknown=resend))

    async def _shared_limits(self, opened: AsyncExitStack) -> SharedLimits | None:
        account = self.caller.account
        if not account.limits_path:
            return None
        return await opened.enter_async_context(open_limits(account, self.open_bucket, clock=self.caller.clock))

    async def _reader(self, opened: AsyncExitStack) -> Reader:
        private = self.caller.account.allow_private_hosts
        new = self.new_client or partial(self._client, guard=guard_of(private))
        client = await opened.enter_async_context(new(self.limits.concurrency))
        return Reader(client, trust=Trust(self.images_base, private), open_bucket=self.open_bucket)

    def _check_transports(self, reader: Reader) -> None:
        """Find a connection's image_transport that does not fit, and say what ``auto`` has chosen.

        :raises BadInput: naming the connection and an image.
        """
        vendor, account = self.caller.vendor, self.caller.account
        chosen: Counter[Transport] = Counter()
        for ask in self.asks:
            uri, scaled = ask.image.uri, bool(ask.spec.preprocessing)
            reach = reader.reach(uri) if reach_matters(vendor, account, uri) else None
            transport = choose_transport(vendor, account, uri, reach, scaled=scaled)
            if not is_local(uri):
                chosen[transport] += 1
        for transport, count in chosen.items():
            self.report(f"{count} images go to {self.caller.vendor.title} as {transport.way}: {transport.why}")

    def _reconsider(self, plan: Plan, memory: Memory, entry: Planned, image: Identified) -> Planned:
        """Decide again on an image of which more is known than when it was planned."""
        owner = plan.owner(entry, image.keys)
        return self._decide(image, memory) if owner is entry else owner

    def _decide(self, image: Identified, memory: Memory) -> Planned:
        return decide(image, memory, self.on_unknown, retry_rejected=self.retry_rejected)

    def _settle_found(self, batch: Batch, folder: Folder | None, memory: Memory, rows: Mapping[Ask, Row]) -> None:
        """Record the images of which reading has shown that they needed no call; blocking."""
        Settling(batch.known_after_all, batch.recorder).known(memory)
        if batch.copies and folder is not None:
            again = remember(folder)
            settling = Settling([self._decide(image, again) for _, image in batch.copies], batch.recorder)
            settling.known(again)
            settling.leave()
        elif batch.copies:
            for owner, image in batch.copies:
                row = rows[owner.first.ask]
                if row.status in ("described", "reused", "rejected"):
                    batch.recorder.known(image, "rejected" if row.status == "rejected" else "reused", row.to_dict())
                else:
                    batch.recorder.without_call(image, "pending")

    async def _describe(self, batch: Batch, entries: list[Planned]) -> None:
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(partial(batch.stop, leave_running=True))
        if self._stop_asked:
            batch.stop(leave_running=True)
        batch.totals.known_before, batch.totals.began = batch.totals.done, time.monotonic()
        try:
            await batch.describe(entries)
        finally:
            self._stop = None

    async def _plan(self, reader: Reader, memory: Memory) -> Plan:
        images = await identify_all(
            reader,
            self.caller.vendor,
            self.caller.account,
            self.asks,
            together=self.limits.concurrency,
            stopped=lambda: self._stop_asked,
        )
        return make_plan(images, memory, on_unknown=self.on_unknown, retry_rejected=self.retry_rejected)

    def _client(self, connections: int, guard: Callable[[str], bool] | None = None) -> AsyncClient:
        return AsyncClient(timeout=self.caller.account.timeout, connections=connections, guard=guard)

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

    ``wait`` is what a run waits for that had no patience for it: the task is to be resumed then, with ``so_far``.
    """

    manifest: dict[str, Any]
    error: DescriberError | None
    wait: Wait | None = None
    so_far: SoFar = field(default_factory=SoFar)
