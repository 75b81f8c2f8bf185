"""What becomes of each image, recorded once: its row, and the run's totals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from airflow_provider_describer.engine.failover import Failover, known_elsewhere
from airflow_provider_describer.engine.plan import IdentifiedImage, OnUnknown, PlannedImage
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.engine.second_tries import SecondTries, SpooledRows
from airflow_provider_describer.errors import DescriberError, Unfinished, UnknownOutcome
from airflow_provider_describer.models import DescribeRequest, Description, plural
from airflow_provider_describer.rules import Rule, failed_rules
from airflow_provider_describer.storage.address import masked
from airflow_provider_describer.store.index import StoredOutcome, StoreIndex
from airflow_provider_describer.store.results import ResultFiles
from airflow_provider_describer.store.rows import Row, Status, TaskInstanceKey, known_row, new_row, row_fields

_ROW = row_fields()


@dataclass(frozen=True, slots=True)
class OutcomeRecorder:
    """Writes each row to the result files, keeps it in ``rows`` where there are any, and counts it.

    :param rows: by `id` of the request, as an image may be listed twice.
    :param clock: epoch seconds.
    :param rules: what a text is judged by, one that is reused too.
    :param second_tries: holds rows back whose text fails, until `finish`.
    :param failover: holds rows back of images that another connection of the chain may describe, and says of each row
        why it is not the first connection's.
    """

    task_instance: TaskInstanceKey
    totals: Totals
    results: ResultFiles | None
    rows: dict[int, Row] | SpooledRows | None
    clock: Callable[[], float]
    rules: Sequence[Rule] = ()
    second_tries: SecondTries | None = None
    failover: Failover | None = None

    def row(
        self,
        image: IdentifiedImage,
        status: Status,
        result: Description | DescriberError | None = None,
        *,
        lost: int = 0,
        known: StoredOutcome | None = None,
    ) -> Row:
        """Return the row of an image, as of now.

        :param known: what the store has of it. A row that follows a reviewer's rejection is later than that, whatever
            the clocks of their machines say: else it would not count, and be paid for again.
        """
        now = self.clock()
        if known is not None and known.status == "withdrawn":
            now = max(now, datetime.fromisoformat(known.described_at).timestamp() + 0.001)
        row = new_row(
            image.request,
            self.task_instance,
            status,
            now,
            description=result if isinstance(result, Description) else None,
            error=result if isinstance(result, DescriberError) else None,
            sha256=image.sha256,
            version=image.version,
            lost_calls=lost,
        )
        if self.failover is not None:
            row = replace(row, fallback=self.failover.reason_of(image.request))
        return self._judged(row)

    def _judged(self, row: Row) -> Row:
        """Return the row with the rules that its text fails."""
        failed = failed_rules(self.rules, row.text)
        return row if failed == row.failed_rules else replace(row, failed_rules=failed)

    def record(self, image: IdentifiedImage, row: Row, why: object = None, *, was_asked: bool = False) -> None:
        """Record and count a row.

        :param why: the error of an image that this run has rejected.
        :param was_asked: whether the vendor was asked: its rejection is the image's, that of our own checks only says
            that this connection cannot be asked.
        """
        if self.failover is not None and self.failover.hold(image.request, row, why, was_asked=was_asked):
            self._keep(image.request, row)
            self.totals.counts["pending"] += 1
            return
        if self.second_tries is not None and self.second_tries.hold(image.request, row):
            # Without a store, copies are recorded by its row.
            self._keep(image.request, row)
            self.totals.counts[row.status] += 1
        else:
            self._publish(image.request, row)
        if why is not None and row.status == "rejected":
            self.totals.count_rejected(str(why))

    def _keep(self, request: DescribeRequest, row: Row) -> None:
        if self.rows is not None:
            self.rows[id(request.first)] = row

    def publish_left(self, request: DescribeRequest, row: Row) -> None:
        """Record a row that ``failover`` has held back, as no connection has described its image."""
        self.totals.counts["pending"] -= 1
        self._publish(request, row)

    def _publish(self, request: DescribeRequest, row: Row) -> None:
        if self.results is not None:
            self.results.write(row)
        self._keep(request, row)
        self.totals.counts[row.status] += 1
        self.totals.count_failed_rules(row.failed_rules)
        if row.fallback and row.status in ("described", "reused"):
            self.totals.count_fallback(row.vendor, row.status, row.fallback["kind"])

    def finish(self) -> None:
        """Record the rows that were held back, each with the better one of its texts; blocking."""
        for request, first, shown in self.second_tries.take() if self.second_tries else ():
            self.totals.counts[first.status] -= 1
            self._publish(request, shown)

    def record_without_call(
        self,
        image: IdentifiedImage,
        status: Status,
        result: Description | DescriberError | None = None,
        *,
        was_asked: bool = False,
    ) -> None:
        """Record an image that had no call of its own, by the result of another one with the same content."""
        cost_usd = 0.0 if isinstance(result, Description) else None
        row = replace(self.row(image, status, result), cost_usd=cost_usd, billed="no", elapsed_s=None)
        self.record(image, row, result, was_asked=was_asked)

    def record_stored(self, image: IdentifiedImage, status: Status, stored: Mapping[str, Any]) -> None:
        """Record an image whose outcome was known before: it costs nothing now."""
        row = known_row(image.request, self.task_instance, status, stored, image.sha256, image.version)
        if image.request.place and row.fallback is None:
            row = replace(row, fallback=known_elsewhere(image.request.first))
        self.record(image, self._judged(row), was_asked=True)

    def record_known(
        self,
        planned: Iterable[PlannedImage],
        index: StoreIndex,
        *,
        on_unknown: OnUnknown = "retry",
        resumed: bool = False,
    ) -> None:
        """Record every planned image that needs no call.

        :param on_unknown: with ``retry``, an image of unknown outcome is held, as too many of its answers were lost.
        :param resumed: whether this try has worked before; outcomes that it has paid for then count as its own.
        """
        planned = list(planned)
        stored = [entry for entry in planned if entry.known and entry.action in ("reuse", "rejected")]
        # In shard order, so that each shard is read once.
        stored.sort(key=lambda entry: entry.known or ())
        for entry, row in zip(stored, index.rows(entry.first.keys for entry in stored), strict=True):
            self._stored(entry, row, resumed=resumed)
        for entry in planned:
            self._count_held_or_rejected(entry, on_unknown)
            if entry.action == "unknown":
                self._undescribed(entry, unknown_outcome(entry.lost, on_unknown))
            elif entry.action == "unusable":
                self._undescribed(entry, entry.first.error)

    def count_planned(self, planned: Iterable[PlannedImage], *, on_unknown: OnUnknown = "retry") -> None:
        """Count every planned image and record none: what needs a call is pending."""
        for entry in planned:
            self._count_held_or_rejected(entry, on_unknown)
            self.totals.counts[entry.status] += len(entry.all)

    def _count_held_or_rejected(self, entry: PlannedImage, on_unknown: OnUnknown) -> None:
        if entry.action == "unknown" and on_unknown == "retry":
            self.totals.held += len(entry.all)
        elif entry.action == "unusable" and entry.status == "rejected" and not self._may_be_unfit:
            for _ in entry.all:
                self.totals.count_rejected(str(entry.first.error))

    @property
    def _may_be_unfit(self) -> bool:
        """Whether a check that rejects an image rejects it for this connection only."""
        return self.failover is not None and self.failover.place > 0

    def record_held(self, entry: PlannedImage, on_unknown: OnUnknown) -> None:
        """Record a planned image that is left alone, as calls for it were never answered."""
        self._count_held_or_rejected(entry, on_unknown)
        self._undescribed(entry, unknown_outcome(entry.lost, on_unknown))

    def record_pending(self, planned: Iterable[PlannedImage], why: Unfinished) -> None:
        """Record every planned image that would need a call as pending."""
        for entry in planned:
            if entry.action in ("call", "attach", "ask", "claimed", "elsewhere"):
                self._undescribed(entry, why)

    def record_copy(self, image: IdentifiedImage, original: IdentifiedImage) -> None:
        """Record an image without a call of its own by the row of another image with the same content."""
        assert self.rows is not None, "without a store all rows are kept"
        row = self.rows[id(original.request.first)]
        if row.status in ("described", "reused", "rejected"):
            self.record_stored(image, "rejected" if row.status == "rejected" else "reused", row.to_dict())
        else:
            error = row.error or {"kind": "stopped", "message": "no call was made for it"}
            message = f"It has the content of {row.uri}, which has no description: {error['message']}"
            self.record_without_call(image, "pending", Unfinished(message, kind=error["kind"]))

    def _stored(self, entry: PlannedImage, row: Mapping[str, Any], *, resumed: bool) -> None:
        # As it is stored now: an image that was rejected when the plan was made may have been described since.
        status: Status = "reused" if row["status"] == "described" else "rejected"
        paid_here = resumed and all(
            row[name] == getattr(self.task_instance, name) for name in TaskInstanceKey.__slots__
        )
        for image in entry.all:
            if paid_here and (masked(image.request.image.uri), image.request.id) == (row["uri"], row["id"]):
                self._own(image, row)
                paid_here = False
            else:
                self.record_stored(image, status, row)

    def _own(self, image: IdentifiedImage, stored: Mapping[str, Any]) -> None:
        """Record an outcome that this task instance has paid for before it was resumed, as if it were new."""
        row = Row(**{name: stored[name] for name in _ROW if name in stored})
        if row.status == "described":
            self.totals.count_paid(row.cost_usd)
        else:
            self.totals.count_rejected((row.error or {}).get("message"))
        self.record(image, self._judged(row), was_asked=True)

    def _undescribed(self, entry: PlannedImage, error: DescriberError | None) -> None:
        for image in entry.all:
            row = self.row(image, entry.status, error)
            # One row of an identity counts its lost calls, so that rows can be added up.
            own = image is entry.first
            self.record(image, replace(row, lost_calls=entry.lost) if own else replace(row, billed="no"))


def unknown_outcome(calls: int, on_unknown: OnUnknown) -> UnknownOutcome:
    """Return the error for calls of earlier tries whose answers were never seen."""
    next_step = (
        "A higher max_lost_calls sends the image again."
        if on_unknown == "retry"
        else "on_unknown='retry' sends the image again, 'hold' leaves it alone."
    )
    return UnknownOutcome(
        f"{calls} {plural(calls, 'call')} {plural(calls, 'was', 'were')} sent and never answered; "
        f"{plural(calls, 'it', 'they')} may have been paid for. {next_step}",
        billed="unknown",
    )
