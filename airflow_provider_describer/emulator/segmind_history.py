"""Segmind's request history, as its SDK reads it: what the ledger says of each call, with its inputs as sent."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from starlette.responses import JSONResponse, Response

from airflow_provider_describer.emulator.bad_responses import html_page
from airflow_provider_describer.emulator.calls import EmulatorState, RefusedError
from airflow_provider_describer.emulator.fault_settings import SEGMIND, VendorSettings
from airflow_provider_describer.emulator.ledger import ENTRIES_KEPT, Entry, to_micro_usd, to_usd

PATH = "/inference-request/request-history"
MODEL = "ideogram-describe"
LONGEST = timedelta(days=31)
SORTED_BY = ("model_created", "model_name", "credits_deduction")
STATUSES = ("COMPLETED", "FAILED", "PENDING")


@dataclass(slots=True)
class Inputs:
    """What a call was sent with, and what the model has written for it."""

    body: Mapping[str, object]
    number: int
    price: int
    output: object = None


class RequestHistory:
    """The books of all calls whose body was read. Status, cost and times are those of the ledger's entries."""

    def __init__(self, state: EmulatorState) -> None:
        self.state = state
        self.inputs: dict[str, Inputs] = {}

    def note_inputs(self, entry: Entry, body: Mapping[str, object]) -> None:
        """Keep the inputs of a call."""
        if len(self.inputs) >= ENTRIES_KEPT:
            del self.inputs[next(iter(self.inputs))]
        self.inputs[entry.request_id] = Inputs(body, len(self.inputs), to_micro_usd(self.settings.price))

    def note_output(self, entry: Entry, output: object) -> None:
        """Keep what the model writes for a call."""
        self.inputs[entry.request_id].output = output

    @property
    def settings(self) -> VendorSettings:
        return self.state.faults.plan.vendors[SEGMIND]

    def page(self, parameters: Mapping[str, str]) -> Response:
        """Return one page, read strictly; raise RefusedError for a parameter that the SDK does not have."""
        settings = self.settings
        if settings.history == "none":
            return html_page(404)
        if self.state.faults.history_fails(SEGMIND):
            return html_page(502)
        wanted = read_parameters(parameters)
        rows = [row for entry in self.state.ledger.entries for row in self.rows(entry)]
        rows = [row for row in rows if wanted.takes(row)]
        rows.sort(key=lambda row: str(row[wanted.sort_by]), reverse=wanted.descending)
        start = (wanted.page - 1) * wanted.per_page
        return JSONResponse(envelope(settings.history_form, rows[start : start + wanted.per_page], wanted, len(rows)))

    def rows(self, entry: Entry) -> list[dict[str, object]]:
        """Return the rows of a call that has arrived in the books by now: one for each output."""
        inputs, settings, now = self.inputs.get(entry.request_id), self.settings, time.time()
        if inputs is None or entry.outcome == "drop_before_bill":
            return []
        if self.state.faults.is_history_gap(SEGMIND, entry.image_sha256 or "", inputs.number):
            return []
        ended = entry.ended_at is not None and now >= entry.ended_at + settings.history_lag_s
        if not ended and now < entry.at + settings.history_lag_s:
            return []
        status = "PENDING" if not ended else "COMPLETED" if entry.billed else "FAILED"
        body: object = json.dumps(inputs.body) if settings.history_form == "body_as_text" else inputs.body
        row = {
            "request_id": entry.request_id,
            "model_name": MODEL,
            "model_status": status,
            "credits_deduction": to_usd(inputs.price) if status == "COMPLETED" else 0.0,
            "request_body": body,
            "generation_url": None,
            "latency_ms": round(((entry.ended_at or now) - entry.at) * 1000),
            "model_created": iso(entry.at),
            "model_updated": iso(entry.ended_at or entry.at),
            "error": entry.outcome if status == "FAILED" else None,
        }
        if status != "COMPLETED":
            return [row]
        output = inputs.output if settings.history == "text" else None
        return [{**row, "output": output} for _ in range(settings.history_rows)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The parameters of a request for a page."""

    page: int
    per_page: int
    from_date: date
    to_date: date
    model_name: str
    status: str | None
    sort_by: str
    descending: bool

    def takes(self, row: Mapping[str, object]) -> bool:
        day = date.fromisoformat(str(row["model_created"])[:10])
        is_named = self.model_name in str(row["model_name"])
        return is_named and self.from_date <= day <= self.to_date and self.status in (None, row["model_status"])


def read_parameters(given: Mapping[str, str]) -> Wanted:
    """Return the parameters of a request; raise RefusedError for one that is unknown or out of its range."""
    known = ("page", "per_page", "from_date", "to_date", "model_name", "status", "sort_by", "sort_order")
    today = datetime.now(UTC).date()
    for name in given:
        if name not in known:
            raise RefusedError("bad_request", f"unknown parameter {name}")
    try:
        wanted = Wanted(
            page=int(given.get("page", "1")),
            per_page=int(given.get("per_page", "20")),
            from_date=date.fromisoformat(given.get("from_date", str(today - timedelta(days=7)))),
            to_date=date.fromisoformat(given.get("to_date", str(today))),
            model_name=given.get("model_name", ""),
            status=given.get("status"),
            sort_by=given.get("sort_by", "model_created"),
            descending=given.get("sort_order", "desc") == "desc",
        )
    except ValueError as error:
        raise RefusedError("bad_request", str(error)) from error
    is_known = wanted.status in (None, *STATUSES) and wanted.sort_by in SORTED_BY
    is_known = is_known and given.get("sort_order", "desc") in ("desc", "asc")
    if not is_known or wanted.page < 1 or not 1 <= wanted.per_page <= 100:
        raise RefusedError("bad_request", "page, per_page, status, sort_by or sort_order is out of its range")
    if not timedelta(0) <= wanted.to_date - wanted.from_date <= LONGEST:
        raise RefusedError("bad_request", f"the window may span at most {LONGEST.days} days")
    return wanted


def envelope(form: str, rows: list[dict[str, object]], wanted: Wanted, count: int) -> object:
    """Return a page in one of the forms that the SDK leaves open."""
    pages = -(-count // wanted.per_page)
    forms: dict[str, object] = {
        "results": {"results": rows, "page": wanted.page, "per_page": wanted.per_page, "total": count},
        "nested": {"data": {"items": rows, "pagination": {"page": wanted.page, "total_pages": pages}}},
        "list": rows,
    }
    return forms.get(form, {"data": rows, "page": wanted.page, "total_pages": pages, "total_count": count})


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
