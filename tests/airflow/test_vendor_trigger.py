"""What the trigger of a deferred task does: waits, and looks at what runs at the vendor. Time passes when it sleeps."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.engine.deferral import FETCH_WITHIN_S, QUIET_S, SHORTEST_S, CarriedTotals
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.http.flow import RESULTS_KEPT_S
from airflow_provider_describer.triggers import describe as triggers
from airflow_provider_describer.triggers.describe import POLL_EVERY_S, VendorTrigger

if TYPE_CHECKING:
    from tests.conftest import Loopback, Visit

Connect = Callable[..., None]
Run = Callable[..., Any]
KEY = "sk-Very.Secret_0123456789"
SO_FAR = CarriedTotals(calls=7, cost_usd=0.015, unknown_calls=1, unknown_cost_usd=0.015, elapsed_s=21.5).to_dict()
STARTED = 1_800_000_000.0


@dataclass
class Clock:
    """Time that passes only in sleeps."""

    now: float = STARTED
    slept: list[float] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        # For real, a moment: a vendor gets on with its requests meanwhile.
        await asyncio.sleep(0.01)
        self.now += seconds
        self.slept.append(seconds)

    @property
    def elapsed(self) -> float:
        return self.now - STARTED


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(triggers, "time", SimpleNamespace(time=clock.time))
    real = {name: getattr(asyncio, name) for name in ("gather", "shield", "timeout")}
    monkeypatch.setattr(triggers, "asyncio", SimpleNamespace(sleep=clock.sleep, **real))
    return clock


@dataclass
class Vendor:
    """Answers polls with what it is given, the last for ever; nothing else may be asked."""

    answers: list[Any]
    polled: list[str] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.method == "GET", f"{request.method} {request.url}"
        self.polled.append(request.url.path)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        return httpx.Response(status, json=body)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, connect: Connect) -> Callable[..., Vendor]:
    """Put a vendor behind the connection `shop`."""

    def stand_in(*answers: Any) -> Vendor:
        connect("shop", conn_type="segmind", password=KEY, host="http://127.0.0.1:9", extra='{"api_version": "v2"}')
        vendor = Vendor(list(answers))
        monkeypatch.setattr(triggers, "DescriberHook", partial(DescriberHook, transport=httpx.MockTransport(vendor)))
        return vendor

    return stand_in


def trigger(*requests: str, until: float | None = None, submitted: float = STARTED) -> VendorTrigger:
    return VendorTrigger(
        describer_conn_id="shop",
        until=until,
        requests=[(request, submitted) for request in requests],
        carried=SO_FAR,
        began=STARTED - 60,
    )


def fired(*waiting: VendorTrigger) -> list[Any]:
    """Run triggers, at once, to their ends; return the payloads of their events."""

    async def events(one: VendorTrigger) -> list[Any]:
        return [event.payload async for event in one.run()]

    async def together() -> list[Any]:
        return [event for found in await asyncio.gather(*map(events, waiting)) for event in found]

    return asyncio.run(together())


RUNS = (200, {"request_id": "one", "status": "PROCESSING"})
DONE = (200, {"request_id": "one", "status": "COMPLETED"})
EVENT = {"carried": SO_FAR, "began": STARTED - 60}


def test_a_trigger_survives_the_metadata_database() -> None:
    from airflow.models.trigger import Trigger

    classpath, given = trigger("one", "two", until=STARTED + 5).serialize()
    kept = Trigger._decrypt_kwargs(Trigger.encrypt_kwargs(json.loads(json.dumps(given))))
    module, _, name = classpath.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**kept)
    assert again.serialize() == (classpath, given)
    assert isinstance(again, VendorTrigger)


@pytest.mark.parametrize(
    ("until", "waits"),
    [(STARTED + 100, 100), (STARTED + 16, 16), (STARTED + 3, SHORTEST_S), (STARTED - 900, SHORTEST_S), (None, 15)],
)
def test_it_waits_for_its_moment_and_never_less_than_airflow_can_bear(
    clock: Clock, until: float | None, waits: float
) -> None:
    assert fired(trigger(until=until)) == [EVENT]
    assert clock.elapsed == waits


def test_a_moment_is_not_waited_for_longer_than_results_are_kept(clock: Clock, vendor: Callable[..., Vendor]) -> None:
    asked = vendor(RUNS)
    fired(trigger("one", until=STARTED + 9000, submitted=STARTED - 600))
    assert clock.elapsed == FETCH_WITHIN_S - 600
    assert asked.polled == [], "there is nothing to resume for before the moment"


def test_running_requests_are_polled_at_a_pace_until_all_have_ended(
    clock: Clock, vendor: Callable[..., Vendor]
) -> None:
    asked = vendor(*[RUNS] * 6, DONE)
    assert fired(trigger("one", "two")) == [EVENT]
    # Three rounds of two that run, then two that are done: a round every 15 s.
    assert len(asked.polled) == 8
    assert set(asked.polled) == {"/v2/requests/one/status", "/v2/requests/two/status"}
    assert clock.elapsed == 4 * POLL_EVERY_S


class Stuck:
    """Of its requests these never end; the others have ended."""

    def __init__(self, *stuck: str) -> None:
        self.stuck = stuck
        self.polled: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.method == "GET", f"{request.method} {request.url}"
        self.polled.append(request.url.path.split("/")[3])
        return httpx.Response(200, json=(RUNS if self.polled[-1] in self.stuck else DONE)[1])


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch, connect: Connect) -> Callable[..., Stuck]:
    def stand_in(*requests: str) -> Stuck:
        connect("shop", conn_type="segmind", password=KEY, host="http://127.0.0.1:9", extra='{"api_version": "v2"}')
        vendor = Stuck(*requests)
        monkeypatch.setattr(triggers, "DescriberHook", partial(DescriberHook, transport=httpx.MockTransport(vendor)))
        return vendor

    return stand_in


def test_one_stuck_request_keeps_99_results_for_a_minute(clock: Clock, stuck: Callable[..., Stuck]) -> None:
    asked = stuck("r7")
    assert fired(trigger(*(f"r{number}" for number in range(100)))) == [EVENT]
    assert clock.elapsed == POLL_EVERY_S + QUIET_S
    assert len(asked.polled) == 100 + QUIET_S / POLL_EVERY_S


@pytest.mark.parametrize("until", [None, STARTED + 6 * 3600])
def test_a_stuck_request_is_waited_for_to_its_end(
    clock: Clock, stuck: Callable[..., Stuck], until: float | None
) -> None:
    """Past the moment at which it was to be fetched at the latest, and not in steps of 15 s."""
    stuck("r7")
    fired(trigger("r7", submitted=STARTED - FETCH_WITHIN_S, until=until))
    assert clock.elapsed == RESULTS_KEPT_S - FETCH_WITHIN_S


def test_polls_that_drip_hold_no_results_of_others(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, connect: Connect, loopback: type[Loopback]
) -> None:
    """With real sockets: a server that answers about some requests a byte at a time, without an end."""
    for name, seconds in (("POLL_TIMEOUT_S", 0.2), ("ROUND_S", 0.5)):
        monkeypatch.setattr(triggers, name, seconds)

    async def answer(visit: Visit) -> None:
        with contextlib.suppress(ConnectionError):
            while received := await visit.request():
                body = json.dumps(DONE[1]).encode()
                if "/drips" not in received.line:
                    visit.answer(body)
                    continue
                visit.answer(b"", length=1_000_000)
                while True:
                    visit.writer.write(b" ")
                    await visit.writer.drain()
                    await asyncio.sleep(0.02)

    async def scene() -> list[Any]:
        async with loopback(answer) as server:
            connect("shop", conn_type="segmind", password=KEY, host=server.url, extra='{"api_version": "v2"}')
            waiting = trigger("drips-1", "drips-2", *(f"r{number}" for number in range(8)))
            return [event.payload async for event in waiting.run()]

    assert asyncio.run(scene()) == [EVENT]
    assert clock.elapsed == POLL_EVERY_S + QUIET_S


def test_a_request_that_has_ended_is_not_asked_about_again(clock: Clock, vendor: Callable[..., Vendor]) -> None:
    asked = vendor(DONE, RUNS, RUNS, DONE)
    fired(trigger("one", "two"))
    assert len(asked.polled) == 4


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"error": "Request not found"}),
        (422, {"request_id": "one", "status": "FAILED", "error": "Inference failed"}),
        (401, {"error": "Unauthorized"}),
        (403, {"error": "Forbidden"}),
        DONE,
    ],
    ids=["expired", "failed", "unauthorized", "forbidden", "done"],
)
def test_a_request_that_is_not_worth_waiting_for_is_left_to_the_worker(
    clock: Clock, vendor: Callable[..., Vendor], answer: Any
) -> None:
    asked = vendor(answer)
    assert fired(trigger("one")) == [EVENT]
    assert (len(asked.polled), clock.elapsed) == (1, POLL_EVERY_S)


@pytest.mark.parametrize(
    "trouble",
    [
        (500, {"error": "An internal server error occurred"}),
        (503, {}),
        (429, {"error": "Too many requests"}),
        (200, {"status": ["COMPLETED"]}),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("no answer"),
        httpx.ReadError("reset"),
    ],
    ids=["500", "503", "429", "wrong types", "refused", "timeout", "reset"],
)
def test_a_poll_in_trouble_says_nothing_about_the_request(
    clock: Clock, vendor: Callable[..., Vendor], trouble: Any
) -> None:
    asked = vendor(trouble, trouble, DONE)
    assert fired(trigger("one")) == [EVENT]
    assert (len(asked.polled), clock.elapsed) == (3, 3 * POLL_EVERY_S)


def test_a_vendor_in_trouble_is_waited_for_while_its_results_can_be_fetched(
    clock: Clock, vendor: Callable[..., Vendor]
) -> None:
    asked = vendor((502, {}))
    assert fired(trigger("one", submitted=STARTED - 2000)) == [EVENT]
    assert FETCH_WITHIN_S - 2000 <= clock.elapsed < FETCH_WITHIN_S - 2000 + POLL_EVERY_S
    assert len(asked.polled) == clock.elapsed / POLL_EVERY_S


@pytest.mark.parametrize("fields", [None, {"conn_type": "segmind"}, {"conn_type": "http", "password": KEY}])
def test_a_connection_that_cannot_be_used_is_left_to_the_worker(
    clock: Clock, connect: Connect, fields: dict[str, Any] | None
) -> None:
    if fields:
        connect("shop", **fields)
    assert fired(trigger("one")) == [EVENT]
    assert clock.elapsed == SHORTEST_S


def test_a_trigger_that_is_cancelled_lets_its_question_to_airflow_be_answered(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    said: list[str] = []

    async def slowly(self: DescriberHook) -> None:
        said.append("asked")
        await asyncio.sleep(0.05)
        said.append("answered")

    async def cancelled() -> None:
        waiting = asyncio.ensure_future(anext(trigger("one").run()))
        while not said:  # noqa: ASYNC110  # a step of the loop at a time
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0.1)

    monkeypatch.setattr(DescriberHook, "aload", slowly)
    asyncio.run(cancelled())
    assert said == ["asked", "answered"]


# --- with the vendor itself ---


def submitted(emulator: EmulatorProcess, pictures: list[str]) -> list[str]:
    """Have requests run at the vendor; return their ids."""
    ids = []
    for picture in pictures:
        content = base64.b64encode(Path(picture).read_bytes()).decode()
        request = urllib.request.Request(
            f"{emulator.url}/v2/ideogram-describe",
            data=json.dumps({"image_file": f"data:image/png;base64,{content}"}).encode(),
            headers={"content-type": "application/json", "x-api-key": emulator.keys["segmind"]},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
            ids.append(json.load(response)["request_id"])
    return ids


@pytest.mark.parametrize(
    "faults",
    [{}, {"v2_poll_errors": 0.6}, {"v2_fail_share": 1.0}, {"v2_expire_s": 0.05}],
    ids=["well", "polls fail", "requests fail", "expired"],
)
def test_a_trigger_that_runs_twice_at_once_sends_nothing(
    emulator: EmulatorProcess, connect: Connect, pictures: list[str], clock: Clock, faults: dict[str, float]
) -> None:
    connect(
        "shop",
        conn_type="segmind",
        password=emulator.keys["segmind"],
        host=emulator.url,
        extra=json.dumps({"api_version": "v2"}),
    )
    emulator.faults({"segmind": {"v2_delay_s": 0.3, **faults}})
    ids = submitted(emulator, pictures)
    assert fired(trigger(*ids), trigger(*ids)) == [EVENT, EVENT]
    ledger = emulator.ledger()
    assert ledger["requests"] == len(pictures)
    assert ledger["free_requests"] >= 2 * len(pictures)
    assert all(seconds == POLL_EVERY_S for seconds in clock.slept if seconds)
