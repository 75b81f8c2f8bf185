"""A run's spans, through the OpenTelemetry API: they go where the process sends its traces, and nowhere else."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from airflow_provider_describer import __version__
from airflow_provider_describer.engine.meter import EndedCall
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.errors import DescriberError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MOST_CALL_SPANS = 1000
"""The most calls of a run that have a span each. Calls that fail have one in any case."""
NS_PER_S = 1_000_000_000


def can_trace() -> bool:
    """Whether the OpenTelemetry API is installed, as it is with Airflow."""
    return find_spec("opentelemetry") is not None


class SpanMeter:
    """One span for the run, below the task's own where Airflow has one; below it, one for each call.

    It costs nothing where no tracer provider is set up, or where the trace is not sampled.
    """

    def __init__(self, vendor: str) -> None:
        from opentelemetry import context, trace

        self._trace = trace
        self._tracer = trace.get_tracer("airflow_provider_describer", __version__)
        # Of the thread that runs the task: the run itself has another one.
        self._above = context.get_current()
        self._vendor, self._began, self._calls = vendor, time.time_ns(), 0
        self._opened: Span | None = None

    def begin(self, known: Totals) -> None:
        """Nothing to trace: the span has the totals when it ends."""

    def waited(self, seconds: float) -> None:
        """Nothing to trace: it shows between the calls."""

    def count(self, totals: Totals) -> None:
        """Nothing to trace: the span has the totals when it ends."""

    def call(self, ended: EndedCall) -> None:
        """Add the call's span."""
        run = self._run()
        self._calls += 1
        if not run.is_recording() or (self._calls > MOST_CALL_SPANS and not ended.error):
            return
        now = time.time_ns()
        attributes: dict[str, str | float] = {
            "describer.vendor": self._vendor,
            "describer.image": ended.uri,
            "describer.billed": ended.billed,
        }
        if ended.cost_usd is not None:
            attributes["describer.cost_usd"] = ended.cost_usd
        if ended.request_id is not None:
            attributes["describer.request_id"] = ended.request_id
        span = self._tracer.start_span(
            "describer.call",
            self._trace.set_span_in_context(run, self._above),
            self._trace.SpanKind.CLIENT,
            attributes,
            start_time=now - int(ended.seconds * NS_PER_S),
        )
        if ended.error:
            self._fail(span, ended.error, ended.error)
        span.end(now)

    def end(self, totals: Totals, error: BaseException | None) -> None:
        """End the run's span, with what the run has done."""
        run = self._run()
        counts = {f"describer.{name}": count for name, count in totals.counts.items()}
        run.set_attributes({"describer.requested": totals.requested, "describer.calls": totals.calls, **counts})
        if totals.cost_usd is not None:
            run.set_attribute("describer.cost_usd", round(totals.cost_usd, 6))
        if isinstance(error, DescriberError):
            self._fail(run, error.kind, str(error))
        elif error is not None:
            self._fail(run, type(error).__name__, type(error).__name__)
        run.end()

    def _run(self) -> Span:
        if self._opened is None:
            attributes = {"describer.vendor": self._vendor}
            self._opened = self._tracer.start_span(
                "describer.run", self._above, attributes=attributes, start_time=self._began
            )
        return self._opened

    def _fail(self, span: Span, kind: str, message: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, message))
