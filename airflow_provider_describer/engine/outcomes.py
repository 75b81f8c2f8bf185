"""What becomes of each image, recorded once: its row, and the run's totals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from airflow_provider_describer.engine.plan import IdentifiedImage
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.errors import DescriberError
from airflow_provider_describer.models import Description
from airflow_provider_describer.store.rows import Row, Status, TaskInstanceKey, known_row, new_row

_ROW = tuple(field.name for field in fields(Row))


@dataclass(frozen=True, slots=True)
class OutcomeRecorder:
    """Hands each row to ``record`` and counts it. ``clock`` gives epoch seconds."""

    run: TaskInstanceKey
    totals: Totals
    record: Callable[[IdentifiedImage, Row], None]
    clock: Callable[[], float]

    def row(
        self,
        image: IdentifiedImage,
        status: Status,
        *,
        description: Description | None = None,
        error: DescriberError | None = None,
        lost: int = 0,
    ) -> Row:
        """Return the row of an image, as of now."""
        return new_row(
            image.request,
            self.run,
            status,
            self.clock(),
            description=description,
            error=error,
            sha256=image.sha256,
            version=image.version,
            lost_calls=lost,
        )

    def keep(self, image: IdentifiedImage, row: Row, why: DescriberError | None = None) -> None:
        """Record and count a row.

        :param why: the error of an image that this very run has found to be at fault.
        """
        self.record(image, row)
        self.totals.counts[row.status] += 1
        if why is not None and row.status == "rejected":
            self.totals.count_rejected(str(why))

    def without_call(
        self,
        image: IdentifiedImage,
        status: Status,
        description: Description | None = None,
        error: DescriberError | None = None,
    ) -> None:
        """Record an image for which no call was made of its own."""
        row = self.row(image, status, description=description, error=error)
        row = replace(row, cost_usd=0.0 if description else None, billed="no", elapsed_s=None)
        self.keep(image, row, error)

    def known(self, image: IdentifiedImage, status: Status, stored: Mapping[str, Any]) -> None:
        """Record an image whose outcome was known: it costs nothing now."""
        self.keep(image, known_row(image.request, self.run, status, stored, image.sha256, image.version))

    def is_own(self, stored: Mapping[str, Any]) -> bool:
        """Whether this very try of this task instance has made the row: before it was resumed, then."""
        return all(stored[name] == getattr(self.run, name) for name in TaskInstanceKey.__slots__)

    def own(self, image: IdentifiedImage, stored: Mapping[str, Any]) -> None:
        """Record an outcome that this task instance has paid for before it was resumed, as if it had just been."""
        row = Row(**{name: stored[name] for name in _ROW})
        if row.status == "described":
            self.totals.count_paid(row.cost_usd)
        else:
            self.totals.count_rejected((row.error or {}).get("message"))
        self.keep(image, row)
