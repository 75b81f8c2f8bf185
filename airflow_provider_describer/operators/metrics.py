"""A run's metrics, through Airflow's Stats: to statsd, Datadog or OpenTelemetry, as ``[metrics]`` is configured."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import conf

from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.meter import EndedCall, Meter, Meters
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.operators.traces import SpanMeter, can_trace
from airflow_provider_describer.store.rows import TaskInstanceKey

COUNTED = ("described", "reused", "rejected", "unknown")
"""What becomes of images, counted under ``describer.<name>``. What is pending is counted when it no longer is."""


_SWITCHES = ("statsd_on", "statsd_datadog_enabled", "otel_on")


class StatsMeter:
    """Counts calls, images and cost every few seconds; times each call, and what held it back.

    :param vendor: a tag of each metric, as are the ids of the task and its DAG.
    """

    def __init__(self, vendor: str, run: TaskInstanceKey) -> None:
        from airflow.providers.common.compat.sdk import Stats

        self._stats = Stats
        self._tags = _tags(vendor, run)
        self._sent: dict[str, float] | None = None

    def begin(self, known: Totals) -> None:
        """Count from here on: ``known`` has been sent."""
        self._sent = _figures(known)

    def waited(self, seconds: float) -> None:
        """Send ``describer.waiting``."""
        self._stats.timing("describer.waiting", timedelta(seconds=seconds), tags=self._tags)

    def call(self, ended: EndedCall) -> None:
        """Send ``describer.call_duration``, with the error's kind or ``described`` as the tag ``result``."""
        tags = {**self._tags, "result": ended.error or "described"}
        self._stats.timing("describer.call_duration", timedelta(seconds=ended.seconds), tags=tags)

    def count(self, totals: Totals) -> None:
        """Send the counters that have grown."""
        if self._sent is None:
            return
        for name, figure in _figures(totals).items():
            # The count of calls goes back where one was admitted and not sent; the next one makes up for it.
            if (more := round(figure - self._sent[name], 6)) > 0:
                self._stats.incr(f"describer.{name}", more, tags=self._tags)  # type: ignore[arg-type]  # USD are no whole number
                self._sent[name] = figure

    def end(self, totals: Totals, error: BaseException | None) -> None:
        """Send what has not been."""
        self.count(totals)


def meter_of(vendor: str, run: TaskInstanceKey) -> Meter:
    """Return what is told of a run: its metrics where Airflow sends any, and its spans where they can be made."""
    meters: list[Meter] = [StatsMeter(vendor, run)] if sends_metrics() else []
    if can_trace():
        meters.append(SpanMeter(vendor))
    return Meters(meters)


def sends_metrics() -> bool:
    """Whether Airflow sends metrics anywhere. Its Stats that send nothing would take 40 µs a call all the same."""
    return any(conf.getboolean("metrics", name, fallback=False) for name in _SWITCHES)


def send_deferred(job: Job, seconds: float) -> None:
    """Send ``describer.deferred``: how long a task that has ended has waited outside its worker."""
    from airflow.providers.common.compat.sdk import Stats

    tags = _tags(job.vendor_calls.account.vendor, job.task_instance)
    Stats.timing("describer.deferred", timedelta(seconds=max(0.0, seconds)), tags=tags)


def _tags(vendor: str, run: TaskInstanceKey) -> dict[str, str]:
    return {"dag_id": run.dag_id, "task_id": run.task_id, "vendor": vendor}


def _figures(totals: Totals) -> dict[str, float]:
    images = {name: totals.counts[name] for name in COUNTED}
    return {"calls": totals.calls, "cost_usd": totals.cost_usd or 0.0, **images}
