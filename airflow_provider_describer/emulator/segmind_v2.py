"""Segmind's `ideogram-describe` v2: a call is queued and answered at once, and its result is polled for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_describer.emulator.bad_responses import html_page, packed
from airflow_provider_describer.emulator.calls import EmulatorState, RefusedError
from airflow_provider_describer.emulator.faults import Call, CallFaults
from airflow_provider_describer.emulator.ledger import Entry, to_usd
from airflow_provider_describer.emulator.segmind import UNSAFE, Segmind, json_error
from airflow_provider_describer.emulator.segmind_history import RequestHistory

# The part of a job's time that it waits in the queue.
QUEUED_SHARE = 0.3
LOOK_EVERY_S = 0.5
"""How soon a job notices that its delay was changed."""


@dataclass(slots=True)
class Job:
    """One v2 request. `failure` is the reason why it will fail, or None."""

    entry: Entry
    price: int
    output: object
    failure: str | None
    result_kind: str | None = None
    began: float = field(default_factory=time.monotonic)
    took_s: float = 0.0
    state: str = "QUEUED"
    polls: int = 0
    remaining_credits: float = 0.0

    @property
    def id(self) -> str:
        return self.entry.request_id

    def pending_answer(self, base: object) -> dict[str, object]:
        """Return the answer of a job that has not ended, without metrics: its state and its URLs."""
        return {
            "request_id": self.id,
            "status": self.state,
            "poll_url": f"{base}v1/requests/{self.id}",
            "status_url": f"{base}v2/requests/{self.id}/status",
            "response_url": f"{base}v2/requests/{self.id}",
        }

    def poll_answer(self, base: object, *, with_output: bool) -> dict[str, object]:
        if self.state not in ("COMPLETED", "FAILED"):
            return {**self.pending_answer(base), "metrics": {}}
        answer: dict[str, object] = {"status": self.state, "request_id": self.id}
        queued_s = self.took_s * QUEUED_SHARE
        times = {
            "inference_time": round(self.took_s - queued_s, 3),
            "queue_time": round(queued_s, 3),
            "total_time": round(self.took_s, 3),
        }
        if self.state == "FAILED":
            return {**answer, "error": self.failure, "metrics": times}
        if with_output:
            answer["output"] = self.output
        bill = {"cost": to_usd(self.price), "remaining_credits": self.remaining_credits}
        return {**answer, "metrics": {**times, **bill}}


class SegmindV2(Segmind):
    """v2: a timer finishes and bills each job, whether or not a client polls."""

    path = "/v2/ideogram-describe"
    result_kinds = ("error_in_200", "raw_newline", "broken_utf8", "byte_order_mark", "utf16", "stuck")
    is_queued = True
    wrong_types = ({"request_id": 17, "status": ["QUEUED"]}, {"status": "QUEUED"}, ["QUEUED"], "QUEUED", None)

    def __init__(self, state: EmulatorState, history: RequestHistory | None = None) -> None:
        super().__init__(state, history)
        self.jobs: dict[str, Job] = {}

    def poll_routes(self) -> list[Route]:
        return [
            Route(path, self.free(self.poll))
            for path in ("/v2/requests/{id}/status", "/v2/requests/{id}", "/v1/requests/{id}")
        ]

    async def work(self, request: Request, call: Call, faults: CallFaults, entry: Entry) -> Response:
        if faults.error and faults.error != "harmful":
            raise RefusedError(faults.error)
        fails = faults.fails_later or faults.kind == "drop_after_failure"
        failure = UNSAFE if faults.error else "Inference failed" if fails else None
        text = "" if faults.kind == "blank" else self.describe(call)
        output = self.false_output(text, faults.variant) if faults.kind == "error_in_200" else self.output(text)
        self.history.note_output(entry, output)
        job = Job(entry, self.reserve(call), output, failure, faults.kind)
        entry.outcome = "queued"
        self.jobs[job.id] = job
        loop = asyncio.get_running_loop()
        loop.call_soon(self.advance, job)
        loop.call_later(self.settings.v2_expire_s, self.jobs.pop, job.id, None)
        return JSONResponse(job.pending_answer(request.base_url), headers={"x-request-id": job.id})

    def advance(self, job: Job) -> None:
        """Start and finish a job when its time has come: by the delay that is set then, not by that of its call."""
        delay_s, passed_s = self.settings.v2_delay_s, time.monotonic() - job.began
        due_s = delay_s * QUEUED_SHARE
        if passed_s >= due_s:
            job.state, due_s = "PROCESSING", delay_s
            if job.result_kind == "stuck":
                return
        if passed_s >= delay_s:
            self.finish(job)
        else:
            asyncio.get_running_loop().call_later(min(due_s - passed_s, LOOK_EVERY_S), self.advance, job)

    def finish(self, job: Job) -> None:
        """Bill a job, or release the price of one that failed."""
        job.took_s = time.monotonic() - job.began
        if job.failure is None:
            self.ledger.bill(job.entry, job.price)
            job.state = "COMPLETED"
        else:
            self.ledger.release(self.name, job.price)
            job.entry.ended_at = time.time()
            job.state = "FAILED"
        job.remaining_credits = to_usd(self.balance)
        # If the answer to the POST was lost or damaged, that stays the outcome.
        if job.entry.outcome == "queued":
            job.entry.outcome = "described" if job.failure is None else "failed"

    async def poll(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return json_error(404, f"Request {request.path_params['id']} not found")
        job.polls += 1
        if self.state.faults.poll_fails(self.name, job.entry.image_sha256 or "", job.polls):
            return html_page(502)
        answer = job.poll_answer(request.base_url, with_output=not request.url.path.endswith("/status"))
        response = JSONResponse(answer, 422 if job.state == "FAILED" else 200)
        return (
            packed(job.result_kind, response)
            if "output" in answer and job.result_kind in self.result_kinds[1:]
            else response
        )
