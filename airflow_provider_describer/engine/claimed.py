"""The images that other live runs are paying for: found in a plan, waited for, and described here if nobody has."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from airflow_provider_describer.engine.admission import RunStopping
from airflow_provider_describer.engine.outcomes import unknown_outcome
from airflow_provider_describer.engine.ownership import Ownership
from airflow_provider_describer.engine.plan import (
    RUNS_ELSEWHERE,
    IdentifiedImage,
    OnClaimed,
    Plan,
    PlannedImage,
    decide,
    make_plan,
)
from airflow_provider_describer.engine.runner import Runner
from airflow_provider_describer.errors import DescriberError, Unfinished
from airflow_provider_describer.models import plural
from airflow_provider_describer.store.index import StoreIndex

FIRST_POLL_S, POLL_SHARE, LONGEST_POLL_S = 1.0, 0.1, 15.0
"""Seconds between two looks at what other runs have done: a tenth of the time that was waited so far, within bounds."""
REPORT_EVERY_S = 60.0
RESUME_AFTER_S = 60.0
LONGEST_RESUME_S = 300.0
"""Seconds for which a run is left that only waits for others: longer each time."""


async def claim_plan(
    images: Sequence[IdentifiedImage],
    index: StoreIndex,
    ownership: Ownership,
    terms: dict[str, Any],
    *,
    may_ask: bool = False,
) -> Plan:
    """Return a plan in which each image that may need a call is this run's own, or ``claimed`` by another run.

    :param index: of the store, read after `Ownership.look`; it is read again where it may be old by now.
    :param may_ask: whether images of unknown outcome may be called after all, when the vendor was asked about them.
    :raises StoreError: as `Ownership.claim`.
    """

    def may_need_call(entry: PlannedImage) -> bool:
        return entry.may_need_call or (may_ask and entry.action == "unknown")

    plan = make_plan(images, index, **terms)
    wanted = [key for entry in plan.entries if may_need_call(entry) for key in _keys(entry, index)]
    if not wanted:
        return plan
    if not await ownership.claim(wanted):
        await asyncio.to_thread(index.refresh)
        plan = make_plan(images, index, **terms)
    for entry in plan.entries:
        if may_need_call(entry) and (owner := ownership.owner_of(_keys(entry, index))):
            # A rejection that this run does not accept: what its owner gets counts instead.
            known = index.outcome(entry.first.keys)
            entry.take_over(PlannedImage("claimed", entry.first, known=known, owner=owner))
    return plan


def _keys(entry: PlannedImage, index: StoreIndex) -> Iterable[str]:
    """Return the identities of an entry's images for all connections of the chain: nobody else may pay for any."""
    return index.aliases(tuple(dict.fromkeys(key for image in entry.all for key in image.all_keys)))


@dataclass(slots=True)
class OthersImages:
    """The claimed images of a run that makes its own calls with ``runner``."""

    entries: list[PlannedImage]
    index: StoreIndex
    ownership: Ownership
    runner: Runner
    on_claimed: OnClaimed
    terms: dict[str, Any]
    report: Callable[[str], None]

    def announce(self) -> None:
        """Say who describes them, and what this run does about it."""
        next_step = "waiting for them" if self.on_claimed == "wait" else "they are left pending"
        for owner, count in Counter(entry.owner for entry in self.entries for _ in entry.all).items():
            words = next_step if count > 1 else next_step.replace("them", "it").replace("they are", "it is")
            self.report(
                f"{count} {plural(count, 'image')} {plural(count, 'is', 'are')} being described by {owner}; {words}"
            )

    async def finish(self) -> None:
        """Record each as its owner has described it, or describe it once its owner has gone; return when none is left.

        With ``on_claimed="skip"``, and where the run makes no further call, those that are left then stay pending.
        """
        admission, began = self.runner.admission, time.monotonic()
        reported_at = began
        while self.entries and not admission.is_cut_short:
            self._adopt_copies()
            try:
                ready = await self._look()
            except DescriberError as error:
                admission.stop(error, leave_running=True)
                break
            if ready:
                await self._do(ready)
            if not self.entries or self.on_claimed == "skip" or admission.admits_no_more:
                break
            now = time.monotonic()
            if now > reported_at + REPORT_EVERY_S:
                self.announce()
                reported_at = now
            pause = min(max(FIRST_POLL_S, POLL_SHARE * (now - began)), LONGEST_POLL_S)
            resume_after = min(RESUME_AFTER_S * 2.0 ** min(self._totals.waits, 8), LONGEST_RESUME_S)
            try:
                await admission.wait_for_others(pause, resume_after)
            except RunStopping:
                self._totals.waits += 1
                break
        self._adopt_copies()
        await asyncio.to_thread(self._leave)

    def _adopt_copies(self) -> None:
        """Images that have turned out, when they were read, to have the content of a claimed one share its fate."""
        claimed = {id(entry) for entry in self.entries}
        for entry, image in self.runner.copies:
            if id(entry) in claimed:
                entry.others = [*entry.others, image]
        self.runner.copies = [copy for copy in self.runner.copies if id(copy[0]) not in claimed]

    async def _look(self) -> list[PlannedImage]:
        """See what others have done; return what has an outcome now, or is left to this run."""
        await self.ownership.poll()
        # After the poll: a run that has gone has written down all that it has paid for.
        await asyncio.to_thread(self.index.refresh)
        return await asyncio.to_thread(lambda: [entry for entry in [*self.entries] if self._is_ready(entry)])

    async def _do(self, ready: Sequence[PlannedImage]) -> None:
        self.entries = [entry for entry in self.entries if entry.action == "claimed"]
        admission, on_unknown = self.runner.admission, self.runner.on_unknown
        await self.runner.unclear.ask_about(ready)
        record = partial(self.runner.recorder.record_known, on_unknown=on_unknown)
        done = self._totals.done
        await asyncio.to_thread(record, ready, self.index)
        self._totals.known_before += self._totals.done - done
        self.runner.recorder.record_pending([one for one in ready if one.action == "elsewhere"], RUNS_ELSEWHERE)
        if on_unknown == "fail" and (lost := sum(entry.lost for entry in ready if entry.action == "unknown")):
            admission.stop(unknown_outcome(lost, on_unknown))
        for entry in ready:
            if entry.action == "attach" and entry.open_call:
                admission.budget.attach(entry.open_call[0])
        await self.runner.describe([entry for entry in ready if entry.action in ("call", "attach")])

    def _is_ready(self, entry: PlannedImage) -> bool:
        """Decide again about an image that has an outcome, or no owner any more; return False for all others."""
        known, terms = self.index.outcome(entry.first.keys), self.terms
        # A rejection may be in another place by now, and yet the same.
        if known is not None and (entry.known is None or known.call != entry.known.call):
            terms = {**terms, "retry_rejected": False}
        decided = decide(entry.first, self.index, **terms)
        if decided.action not in ("reuse", "rejected"):
            entry.owner = self.ownership.owner_of(_keys(entry, self.index))
            if entry.owner:
                return False
        # Of what another connection has described, this connection may know several images as one.
        self.entries += [PlannedImage("claimed", image) for image in entry.take_over(decided)]
        return True

    def _leave(self) -> None:
        recorder, admission = self.runner.recorder, self.runner.admission
        for entry in self.entries:
            if admission.is_cut_short:
                recorder.record_pending([entry], admission.why_left())
                continue
            if self.on_claimed == "skip":
                self._totals.skipped += len(entry.all)
            why = f"{entry.owner} is describing it. The next run that asks for the image finds it in the store."
            recorder.record_pending([entry], Unfinished(why, kind="claimed"))

    @property
    def _totals(self) -> Any:
        return self.runner.recorder.totals
