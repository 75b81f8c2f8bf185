"""Segmind v2's queue: requests that run on their own, are billed when done, and are forgotten in time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from airflow_provider_describer.emulator.faults import VendorFaults
from airflow_provider_describer.emulator.ledger import Entry, usd
from airflow_provider_describer.emulator.state import World

# The part of a request's time that it spends in the queue.
QUEUED = 0.3


@dataclass(slots=True)
class Job:
    """One v2 request; `failure` says why it will fail, or None."""

    entry: Entry
    price: int
    output: object
    failure: str | None
    delay_s: float
    state: str = "QUEUED"
    polls: int = 0
    remaining: float = 0.0
    submitted: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        return self.entry.request_id

    def metrics(self) -> dict[str, object]:
        """Return the times of a finished request, and what it cost where it cost anything."""
        if self.state not in ("COMPLETED", "FAILED"):
            return {}
        queued = self.delay_s * QUEUED
        times: dict[str, object] = {
            "inference_time": round(self.delay_s - queued, 3),
            "queue_time": round(queued, 3),
            "total_time": round(self.delay_s, 3),
        }
        if self.state == "COMPLETED":
            times |= {"cost": usd(self.price), "remaining_credits": self.remaining}
        return times


class Jobs:
    """All requests of the last hour. Timers move them on, so they are billed whether anybody asks or not."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.by_id: dict[str, Job] = {}

    def submit(self, entry: Entry, price: int, output: object, failure: str | None, faults: VendorFaults) -> Job:
        """Queue a request whose price is already held."""
        job = Job(entry, price, output, failure, faults.v2_delay_s)
        entry.outcome = "queued"
        self.by_id[job.id] = job
        loop = asyncio.get_running_loop()
        loop.call_later(job.delay_s * QUEUED, self.start, job)
        loop.call_later(job.delay_s, self.finish, job)
        loop.call_later(faults.v2_expire_s, self.by_id.pop, job.id, None)
        return job

    def start(self, job: Job) -> None:
        # With no delay both timers are due at once, in any order.
        if job.state == "QUEUED":
            job.state = "PROCESSING"

    def finish(self, job: Job) -> None:
        """Bill a request, or give back what was held for one that failed."""
        ledger = self.world.ledger
        vendor = job.entry.vendor
        if job.failure is None:
            ledger.bill(job.entry, job.price)
            job.state = "COMPLETED"
        else:
            ledger.release(vendor, job.price)
            job.state = "FAILED"
        job.remaining = usd(ledger.accounts[vendor].balance or 0)
        # A lost or garbled answer to the POST stays what the ledger says of it.
        if job.entry.outcome == "queued":
            job.entry.outcome = "described" if job.failure is None else "failed"

    def urls(self, job: Job, base: str) -> dict[str, str]:
        return {
            "poll_url": f"{base}v1/requests/{job.id}",
            "status_url": f"{base}v2/requests/{job.id}/status",
            "response_url": f"{base}v2/requests/{job.id}",
        }

    def shown(self, job: Job, base: str, *, with_output: bool) -> dict[str, object]:
        """Return what a poll answers with."""
        answer: dict[str, object] = {"status": job.state, "request_id": job.id}
        if job.state == "FAILED":
            answer["error"] = job.failure
        elif job.state != "COMPLETED":
            answer |= self.urls(job, base)
        elif with_output:
            answer["output"] = job.output
        answer["metrics"] = job.metrics()
        return answer
