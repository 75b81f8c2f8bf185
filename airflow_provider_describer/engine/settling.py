"""What a run records without a call: known outcomes, images that cannot be used, and what is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from airflow_provider_describer.engine.outcomes import OutcomeRecorder
from airflow_provider_describer.engine.plan import Plan, PlannedImage
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.errors import DescriberError, RejectedImage, UnknownOutcome
from airflow_provider_describer.storage.address import masked
from airflow_provider_describer.store.index import JournalIndex
from airflow_provider_describer.store.rows import Status


@dataclass(frozen=True, slots=True)
class Settling:
    """Records the entries of a plan that need no call.

    :param resumed: whether this try has worked before, so that its own outcomes stand in the journal.
    """

    entries: Sequence[PlannedImage]
    recorder: OutcomeRecorder
    resumed: bool = False

    def known(self, index: JournalIndex) -> None:
        """Record every image that needs no call."""
        stored = [entry for entry in self.entries if entry.known and entry.action in ("reuse", "rejected")]
        # In shard order, so that each shard is read once.
        for entry in sorted(stored, key=lambda entry: entry.known or ()):
            self._stored(entry, index)
        for entry in self.entries:
            if entry.action == "unknown":
                self._settle(entry, "unknown", unknown_outcome(entry.lost))
            elif entry.action == "unusable":
                status = status_of_unusable(entry)
                if status == "rejected":
                    for _ in entry.all:
                        self.recorder.totals.count_rejected(str(entry.first.error))
                self._settle(entry, status, entry.first.error)

    def leave(self) -> None:
        """Record every image that would need a call as pending."""
        for entry in self.entries:
            if entry.action in ("call", "attach"):
                self._settle(entry, "pending", None)

    def unknown(self) -> UnknownOutcome | None:
        """Return the error for calls of earlier tries whose answers were never seen, if there are any."""
        lost = sum(entry.lost for entry in self.entries if entry.action == "unknown")
        return unknown_outcome(lost) if lost else None

    def _stored(self, entry: PlannedImage, index: JournalIndex) -> None:
        row = index.row(entry.first.keys)
        # As it is stored: what was rejected when the plan was made may have been described since.
        status: Status = "reused" if row["status"] == "described" else "rejected"
        paid_here = self.resumed and self.recorder.is_own(row)
        for image in entry.all:
            if paid_here and (masked(image.request.image.uri), image.request.id) == (row["uri"], row["id"]):
                self.recorder.own(image, row)
                paid_here = False
            else:
                self.recorder.known(image, status, row)

    def _settle(self, entry: PlannedImage, status: Status, error: DescriberError | None) -> None:
        for image in entry.all:
            row = self.recorder.row(image, status, error=error)
            # Of one identity one row alone speaks of its calls, so that rows can be added up.
            own = image is entry.first
            self.recorder.keep(image, replace(row, lost_calls=entry.lost) if own else replace(row, billed="no"))


def status_of_unusable(entry: PlannedImage) -> Status:
    """Return what becomes of an image that cannot be asked about: reading it again may help, or not."""
    return "rejected" if isinstance(entry.first.error, RejectedImage) else "pending"


def unknown_outcome(calls: int) -> UnknownOutcome:
    """Return the error for so many calls whose answers were never seen."""
    return UnknownOutcome(
        f"{calls} call(s) of an earlier try were sent and their answers never seen; they may have been paid for. "
        "on_unknown='retry' sends them again, 'hold' leaves these images alone.",
        billed="unknown",
    )


def count_plan(plan: Plan, totals: Totals) -> None:
    """Count a dry run: what would need a call is pending."""
    for entry in plan.entries:
        match entry.action:
            case "reuse":
                status: Status = "reused"
            case "rejected":
                status = "rejected"
            case "unknown":
                status = "unknown"
            case "unusable":
                status = status_of_unusable(entry)
            case "call" | "attach":
                status = "pending"
        totals.counts[status] += len(entry.all)
