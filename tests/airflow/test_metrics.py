"""A run's metrics as a statsd server on loopback gets them, and its spans as a tracer provider exports them."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.engine.meter import EndedCall
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.operators import traces
from airflow_provider_describer.operators.metrics import StatsMeter, meter_of, send_deferred, sends_metrics
from airflow_provider_describer.operators.traces import SpanMeter
from airflow_provider_describer.store.rows import TaskInstanceKey

Run = Callable[..., Any]
RUN = TaskInstanceKey("shop", "nightly", "describe")
TAGS = "dag_id=metered,task_id={},vendor=image_describer"
KEY = "sk-Very.Secret_0123456789"


class Statsd:
    """A statsd server: keeps the lines that it gets."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket, self._lines = listening, list[str]()

    def lines(self) -> list[str]:
        """All lines so far that are ours. What was sent on loopback is there already."""
        while True:
            try:
                self._lines += self._socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return [line for line in self._lines if ".describer." in line]

    def sums(self, task: str) -> Counter[str]:
        """The sum of each counter that has the tags of a task."""
        found: Counter[str] = Counter()
        for line in self.lines():
            if match := re.fullmatch(rf"airflow\.describer\.(\w+),{re.escape(TAGS.format(task))}:([\d.]+)\|c", line):
                found[match[1]] += float(match[2])  # type: ignore[assignment]  # USD
        return found

    def timings(self, name: str) -> list[tuple[str, float]]:
        """The tags and the milliseconds of each timing of that name."""
        found = (re.fullmatch(rf"airflow\.describer\.{name},(.*):([\d.]+)\|ms", line) for line in self.lines())
        return [(match[1], float(match[2])) for match in found if match]


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Statsd]:
    """A statsd server to which Airflow's Stats send, with tags in their names."""
    pytest.importorskip("statsd")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)
        settings = {"on": "True", "host": "127.0.0.1", "port": listening.getsockname()[1], "influxdb_enabled": "True"}
        for name, value in settings.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{name.upper()}", str(value))
        client = _begin_stats(monkeypatch)
        yield Statsd(listening)
        client.close()


def _begin_stats(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let Airflow's Stats read their settings again, as at the start of a task's process; return their client."""
    try:
        from airflow.sdk._shared.observability.metrics import stats
        from airflow.sdk.observability.metrics import stats_utils
    except ImportError:
        get_statsd_logger = import_module("airflow.metrics.statsd_logger").get_statsd_logger
        stats_of_3_1 = import_module("airflow.stats").Stats

        monkeypatch.setattr(type(stats_of_3_1), "factory", staticmethod(lambda: get_statsd_logger(stats_of_3_1)))
        monkeypatch.setattr(stats_of_3_1, "instance", None)
        stats_of_3_1.incr("begun")
        return stats_of_3_1.instance.statsd
    for name in ("_factory", "_backend", "_export_legacy_names"):
        monkeypatch.setattr(stats, name, getattr(stats, name))
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
    return stats._get_backend().statsd  # type: ignore[union-attr]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[ReadableSpan]]:
    """What a tracer provider that the process has set up exports."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer", provider.get_tracer)
    return lambda: list(exporter.get_finished_spans())


@pytest.fixture
def shop(emulator: EmulatorProcess, connect: Callable[..., None]) -> EmulatorProcess:
    connect(
        "image_describer_default",
        conn_type="image_describer",
        password=emulator.keys["image_describer"],
        host=emulator.url,
        extra={"price_per_call": 0.015},
    )
    return emulator


def test_the_metrics_and_spans_of_two_tasks(
    statsd: Statsd,
    spans: Callable[[], list[ReadableSpan]],
    shop: EmulatorProcess,
    run: Run,
    pictures: list[str],
    tmp_path: Path,
) -> None:
    """One run, as it takes long: five pictures and a file that is none, described and then known."""
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    ran = run("metered", file="watched.py", images=[*pictures[:5], str(bad)], store=str(tmp_path / "store"))
    assert set(ran.states.values()) == {"success"}
    ledger = shop.ledger()
    assert statsd.sums("first") == {"calls": 5, "described": 5, "rejected": 1, "cost_usd": pytest.approx(0.075)}
    assert statsd.sums("again") == {"reused": 5, "rejected": 1}
    assert ledger["billed"] == 5
    timings = statsd.timings("call_duration")
    assert [tags for tags, _ in timings] == [f"{TAGS.format('first')},result=described"] * 5
    assert all(milliseconds > 0 for _, milliseconds in timings)
    key = shop.keys["image_describer"]
    assert not [line for line in statsd.lines() if key in line]

    by_name: dict[str, list[ReadableSpan]] = {}
    for span in spans():
        by_name.setdefault(span.name, []).append(span)
    first, again = by_name["describer.run"]
    assert first.attributes is not None and again.attributes is not None
    assert (first.attributes["describer.described"], first.attributes["describer.calls"]) == (5, 5)
    assert first.attributes["describer.cost_usd"] == pytest.approx(0.075)
    assert (again.attributes["describer.reused"], again.attributes["describer.calls"]) == (5, 0)
    calls = by_name["describer.call"]
    assert {call.parent and call.parent.span_id for call in calls} == {first.context and first.context.span_id}
    assert {call.attributes and call.attributes["describer.image"] for call in calls} == set(pictures[:5])
    assert key not in str([span.to_json() for span in spans()])


def meter_that_has_begun(known: Totals | None = None) -> StatsMeter:
    meter = StatsMeter("segmind", RUN)
    meter.begin(known or Totals())
    return meter


def values(statsd: Statsd, name: str) -> list[float]:
    tags = "dag_id=shop,task_id=describe,vendor=segmind"
    lines = [line.partition(f"airflow.describer.{name},{tags}:")[2] for line in statsd.lines()]
    return [float(line.removesuffix("|c")) for line in lines if line]


def test_only_what_has_grown_is_counted(statsd: Statsd) -> None:
    meter, totals = meter_that_has_begun(), Totals(calls=3, cost_usd=0.045)
    meter.count(totals)
    meter.count(totals)
    totals.calls, totals.cost_usd = 5, 0.075
    meter.end(totals, None)
    assert values(statsd, "calls") == [3, 2]
    assert values(statsd, "cost_usd") == [0.045, 0.03]


def test_what_was_told_before_a_task_waited_is_not_counted_again(statsd: Statsd) -> None:
    known = Totals(calls=7, cost_usd=0.105)
    known.counts["described"] = 7
    meter = meter_that_has_begun(known)
    known.calls, known.counts["described"] = 8, 8
    meter.end(known, None)
    assert (values(statsd, "calls"), values(statsd, "described"), values(statsd, "cost_usd")) == ([1], [1], [])


def test_a_call_that_was_not_sent_after_all_is_not_counted_twice(statsd: Statsd) -> None:
    meter, totals = meter_that_has_begun(), Totals(calls=2)
    meter.count(totals)
    totals.calls = 1
    meter.count(totals)
    totals.calls = 3
    meter.count(totals)
    assert sum(values(statsd, "calls")) == 3


def test_a_run_that_ends_before_it_has_begun_counts_nothing(statsd: Statsd) -> None:
    StatsMeter("segmind", RUN).end(Totals(calls=7), OSError("the store"))
    assert statsd.lines() == []


def test_a_wait_is_a_timing(statsd: Statsd) -> None:
    meter_that_has_begun().waited(1.5)
    assert statsd.timings("waiting") == [("dag_id=shop,task_id=describe,vendor=segmind", 1500)]


def test_a_failed_call_has_its_kind_as_a_tag(statsd: Statsd) -> None:
    meter_that_has_begun().call(EndedCall("s3://shop/a.jpg", 0.25, None, "unknown", error="lost_answer"))
    assert statsd.timings("call_duration") == [
        (
            "dag_id=shop,task_id=describe,vendor=segmind,result=lost_answer",
            timedelta(seconds=0.25) / timedelta(milliseconds=1),
        )
    ]


def test_a_statsd_that_cannot_be_reached_ends_no_run(
    statsd: Statsd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(StatsMeter, "count", unreachable)
    meter = meter_of("segmind", RUN)
    meter.begin(Totals())
    meter.end(Totals(calls=1), None)
    assert "StatsMeter is left out of this run: OSError: no route to host" in caplog.text
    assert statsd.lines() == []


@pytest.mark.parametrize("switch", ["statsd_on", "statsd_datadog_enabled", "otel_on"])
def test_nothing_is_counted_where_airflow_sends_no_metrics(monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.setenv(f"AIRFLOW__METRICS__{switch.upper()}", "True")
    assert sends_metrics()
    monkeypatch.setenv(f"AIRFLOW__METRICS__{switch.upper()}", "False")
    assert not sends_metrics()


def test_a_task_that_has_waited_outside_its_worker_says_how_long(statsd: Statsd) -> None:
    job: Any = SimpleNamespace(
        vendor_calls=SimpleNamespace(account=SimpleNamespace(vendor="segmind")), task_instance=RUN
    )
    send_deferred(job, 90.0)
    # The clock was set back meanwhile.
    send_deferred(job, -3.0)
    tags = "dag_id=shop,task_id=describe,vendor=segmind"
    assert statsd.timings("deferred") == [(tags, 90_000), (tags, 0)]


def test_a_run_that_fails_has_a_span_that_says_so(spans: Callable[[], list[ReadableSpan]]) -> None:
    from airflow_provider_describer.errors import InsufficientCredits

    meter = SpanMeter("segmind")
    meter.call(EndedCall("s3://shop/a.jpg", 0.25, 0.0, "no", error="insufficient_credits"))
    meter.end(Totals(requested=1), InsufficientCredits("The account is empty."))
    call, run = spans()
    assert (call.status.status_code, run.status.status_code) == (StatusCode.ERROR, StatusCode.ERROR)
    assert call.attributes is not None and call.attributes["error.type"] == "insufficient_credits"
    assert run.status.description == "The account is empty."
    assert call.end_time and call.start_time and call.end_time - call.start_time == 250_000_000


def test_a_run_is_below_the_span_of_its_task(spans: Callable[[], list[ReadableSpan]]) -> None:
    """Airflow 3.3 has one around each task, in the thread that builds the meter and not in the run's own."""
    with trace.get_tracer("airflow").start_as_current_span("worker.describe") as of_the_task:
        meter = SpanMeter("segmind")
        with ThreadPoolExecutor(1) as thread:
            thread.submit(meter.end, Totals(), None).result()
    run = spans()[0]
    assert run.parent is not None and run.parent.span_id == of_the_task.get_span_context().span_id


def test_an_error_that_is_not_ours_is_named_and_not_quoted(spans: Callable[[], list[ReadableSpan]]) -> None:
    SpanMeter("segmind").end(Totals(), RuntimeError(f"Authorization: Bearer {KEY}"))
    (run,) = spans()
    assert run.status.description == "RuntimeError" and KEY not in run.to_json()


def test_of_very_many_calls_the_first_have_spans_and_those_that_fail(
    spans: Callable[[], list[ReadableSpan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "MOST_CALL_SPANS", 3)
    meter = SpanMeter("segmind")
    for number in range(10):
        meter.call(EndedCall(f"/{number}.jpg", 0.1, 0.015, "yes", error="unavailable" if number == 7 else None))
    images = [span.attributes and span.attributes["describer.image"] for span in spans()]
    assert images == ["/0.jpg", "/1.jpg", "/2.jpg", "/7.jpg"]


def test_where_nothing_is_traced_there_are_no_spans() -> None:
    meter = SpanMeter("segmind")
    meter.call(EndedCall("/a.jpg", 0.1, 0.015, "yes"))
    meter.end(Totals(), None)
    assert meter._opened is not None and not meter._opened.is_recording()
