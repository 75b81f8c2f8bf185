"""What a run records without a call: known outcomes, images that cannot be used, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from airflow_provider_describer.errors import DescriberError, RejectedImage, UnknownOutcome
from airflow_provider_describer.progress import Totals
from airflow_provider_describer.store.index import Memory
from airflow_provider_describer.store.plan import Identified, Plan, Planned
from airflow_provider_describer.store.rows import Row, Run, Status, known_row, row_of


@dataclass(frozen=True, slots=True)
class Settling:
    """Records and counts the entries of a plan that need no call. ``now`` is in epoch seconds."""

    plan: Plan
    totals: Totals
    record: Callable[[Identified, Row], None]
    run: Run
    now: float

    def known(self, memory: Memory) -> None:
        """Record every image that needs no call."""
        stored = [entry for entry in self.plan.entries if entry.known and entry.action in ("reuse", "rejected")]
        # In shard order, so that each shard is read once.
        for entry in sorted(stored, key=lambda entry: entry.known or ()):
            row = memory.row(entry.first.keys)
            # As it is stored: what was rejected when the plan was made may have been described since.
            status: Status = "reused" if row["status"] == "described" else "rejected"
            for image in entry.all:
                self._count(image, known_row(image.ask, self.run, status, row, image.sha256, image.version))
        for entry in self.plan.entries:
            if entry.action == "unknown":
                self._settle(entry, "unknown", unknown_outcome(entry.lost))
            elif entry.action == "unusable":
                status = status_of_unusable(entry)
                if status == "rejected":
                    for _ in entry.all:
                        self.totals.count_rejected(str(entry.first.error))
                self._settle(entry, status, entry.first.error)

    def leave(self) -> None:
        """Record every image that would need a call as pending."""
        for entry in self.plan.entries:
            if entry.action in ("call", "attach"):
                self._settle(entry, "pending", None)

    def unknown(self) -> UnknownOutcome | None:
        """Return the error for calls of earlier tries whose answers were never seen, if there are any."""
        lost = sum(entry.lost for entry in self.plan.entries if entry.action == "unknown")
        return unknown_outcome(lost) if lost else None

    def _settle(self, entry: Planned, status: Status, error: DescriberError | None) -> None:
        for image in entry.all:
            row = row_of(image.ask, self.run, status, self.now, error=error, sha256=image.sha256, version=image.version)
            # Of one identity one row alone speaks of its calls, so that rows can be added up.
            own = image is entry.first
            self._count(image, replace(row, lost_calls=entry.lost) if own else replace(row, billed="no"))

    def _count(self, image: Identified, row: Row) -> None:
        self.record(image, row)
        self.totals.counts[row.status] += 1


def status_of_unusable(entry: Planned) -> Status:
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
