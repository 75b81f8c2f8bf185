"""A row: what became of one image, as it is in the journal and in the result files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from airflow_provider_describer.errors import Billed, DescriberError, UnexpectedAnswer
from airflow_provider_describer.models import DescribeRequest, Description
from airflow_provider_describer.storage.address import masked
from airflow_provider_describer.store.shard import json_line

Status = Literal["described", "reused", "rejected", "unknown", "pending", "failed"]
"""What became of an image. ``failed`` is in no result file: so ends, in the store, a call whose answer was lost and of
which the vendor's own history shows that it failed, unbilled."""
Review = Literal["approved", "edited", "rejected"]
"""What a reviewer has decided about a description."""
STATUSES: tuple[Status, ...] = ("described", "reused", "rejected", "unknown", "pending")
MAX_PART_BYTES = 200
"""The longest part of a path. File systems take 255 bytes, and a suffix is added."""


@dataclass(frozen=True, slots=True)
class TaskInstanceKey:
    """The task instance that a run belongs to; empty outside Airflow."""

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int = 1

    @property
    def instance(self) -> str:
        """A short id of the task instance, the same at every try; empty outside Airflow."""
        if not self.dag_id and not self.run_id:
            return ""
        ids = "\0".join((self.dag_id, self.run_id, self.task_id, str(self.map_index)))
        return hashlib.blake2b(ids.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

    def path(self, under: str) -> str:
        """Return ``<under>/<dag_id>/<run_id>/<task_id>[-<map_index>]``, whatever characters the ids have."""
        task = _path_part(self.task_id or "no_task") + (f"-{self.map_index}" if self.map_index >= 0 else "")
        return f"{under}/{_path_part(self.dag_id or 'no_dag')}/{_path_part(self.run_id or 'no_run')}/{task}"


def _path_part(name: str) -> str:
    """Return the name as exactly one part of a path: without slashes, neither '.' nor '..', and not too long."""
    part = re.sub(r"[/\\\0]", "_", name) if name.strip(".") else name.replace(".", "_")
    if len(part.encode()) <= MAX_PART_BYTES:
        return part
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{part.encode()[: MAX_PART_BYTES - 17].decode(errors='ignore')}-{digest}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a result file. Costs are in USD, durations in seconds, ``described_at`` is ISO 8601 in UTC.

    The uri of a web image has no query, because that may be a presigned secret. ``error`` is ``{"kind", "message"}``,
    and also has ``"answer"`` if an unreadable response may have been paid for. ``lost_calls`` were sent for this image
    before and never answered; each of them may have been paid for too.

    ``failed_rules`` are the names of the caption rules that the text fails: empty if it meets all of them, None where
    none were asked for. ``review`` is what a reviewer has decided about the text, and ``reviewed_by`` who it was.
    ``fields`` are the parts of a structured answer. ``fallback`` is ``{"instead_of", "model", "kind", "message"}``
    where another vendor or account would have been asked first: its vendor and model, and the error that kept it from
    answering.
    """

    uri: str
    version: str | None
    sha256: str | None
    vendor: str
    model: str
    prompt: str | None
    lang: str | None
    status: Status
    text: str | None
    cost_usd: float | None
    request_id: str | None
    billed: Billed
    error: dict[str, str] | None
    described_at: str
    elapsed_s: float | None
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    id: str | None = None
    lost_calls: int = 0
    failed_rules: list[str] | None = None
    review: Review | None = None
    reviewed_by: str | None = None
    fields: dict[str, Any] | None = None
    fallback: dict[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values, in the order of its fields."""
        # Not asdict(): its deep copy costs more than writing the row.
        return {name: getattr(self, name) for name in self.__slots__}

    def to_line(self) -> str:
        """Return the row as one line of JSON, with its line break, that every reader accepts.

        A lone surrogate, as in a file name that is not UTF-8, becomes the text ``\\udcff``: pandas cannot hold it.
        """
        values = {
            name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
            for name, value in self.to_dict().items()
        }
        return json_line(values).decode()


def row_fields() -> tuple[str, ...]:
    """Return the names of a row's fields, in their order."""
    return Row.__slots__


def new_row(  # noqa: PLR0913  # a row has many sources
    request: DescribeRequest,
    task: TaskInstanceKey,
    status: Status,
    now: float,
    *,
    description: Description | None = None,
    error: DescriberError | None = None,
    sha256: str | None = None,
    version: str | None = None,
    lost_calls: int = 0,
) -> Row:
    """Return the row for what became of a request at ``now`` (epoch seconds)."""
    stored_error = None
    if error is not None:
        stored_error = {"kind": error.kind, "message": str(error)}
        if isinstance(error, UnexpectedAnswer) and error.billed != "no" and error.answer:
            stored_error["answer"] = error.answer
    return Row(
        uri=masked(request.image.uri),
        version=version or request.image.version,
        sha256=sha256,
        vendor=request.spec.vendor,
        model=request.spec.model,
        prompt=request.spec.prompt,
        lang=request.spec.lang,
        status=status,
        text=description.text if description else None,
        cost_usd=description.cost_usd if description else None,
        request_id=description.request_id if description else error.request_id if error else None,
        billed=description.billed if description else error.billed if error else "no",
        error=stored_error,
        described_at=datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        elapsed_s=round(description.elapsed_s, 3) if description else None,
        dag_id=task.dag_id,
        run_id=task.run_id,
        task_id=task.task_id,
        map_index=task.map_index,
        try_number=task.try_number,
        id=request.id,
        lost_calls=lost_calls,
        fields=dict(description.fields) if description and description.fields is not None else None,
    )


def known_row(
    request: DescribeRequest,
    task: TaskInstanceKey,
    status: Status,
    stored: Mapping[str, Any],
    sha256: str | None,
    version: str | None,
) -> Row:
    """Return the row of an image whose outcome is in the store already: it costs nothing now."""
    return replace(
        new_row(request, task, status, 0.0, sha256=sha256, version=version),
        text=stored.get("text"),
        cost_usd=0.0,
        request_id=stored.get("request_id"),
        error=stored.get("error"),
        described_at=stored["described_at"],
        review=stored.get("review"),
        reviewed_by=stored.get("reviewed_by"),
        fields=stored.get("fields"),
        fallback=stored.get("fallback"),
    )
