"""One call from its first request to its description, against a script of answers: no network, no sleep."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.errors import (
    AmbiguousCall,
    DescriberError,
    InvalidKey,
    RateLimited,
    RejectedImage,
    RequestExpired,
    UnexpectedAnswer,
    VendorUnavailable,
)
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import Flow, Sleep, VendorCalls
from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.http.retry import RetryPolicy
from airflow_provider_describer.models import Description, Picture, Running
from airflow_provider_describer.vendors import get_vendor

NOW = 1_763_708_820.0
PICTURE = Picture("image/jpeg", b"\xff\xd8\xff picture")
RESET = "x-rate-limit-reset-at-utc"
Answer = httpx.Response | Exception


@dataclass
class Script:
    """A vendor that gives these answers in turn, the last one for ever, and what was done about them."""

    answers: Sequence[Answer]
    requests: list[httpx.Request] = field(default_factory=list)
    turns: int = 0
    accepted_ids: list[str] = field(default_factory=list)
    failures: list[tuple[DescriberError, float]] = field(default_factory=list)
    """Announced since the last sleep."""
    sleeps: list[Sleep] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    async def before_call(self, picture: Picture) -> None:
        self.turns += 1

    async def signed_again(self, picture: Picture) -> None:
        raise AssertionError("no address is that old")

    async def accepted(self, running: Running) -> None:
        self.accepted_ids.append(running.request_id)

    def attempt_failed(self, error: DescriberError, seconds: float) -> None:
        self.failures.append((error, seconds))

    async def sleep(self, seconds: float) -> None:
        because = next((error for error, announced in self.failures if announced == seconds), None)
        self.failures.clear()
        self.sleeps.append(Sleep(seconds, because))
        assert len(self.sleeps) < 200, "goes on for ever"

    def drive(self, flow: Flow[Any]) -> Any:
        async def scene() -> Any:
            async with AsyncClient(timeout=1, transport=httpx.MockTransport(self.answer)) as client:
                return await client.arun(flow, self)

        return asyncio.run(scene())

    @property
    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]


def caller_of(vendor: str = "segmind", policy: RetryPolicy | None = None, **extra: Any) -> VendorCalls:
    found = get_vendor(vendor)
    account = account_from_connection(found.defaults(), conn_id="shop", password="sk-secret", extra=extra)
    return VendorCalls(found, account, policy or RetryPolicy(), clock=lambda: NOW, jitter=lambda: 0.0)


def describe(script: Script, vendor_calls: VendorCalls, *, upload: bool = False) -> Description:
    found = script.drive(vendor_calls.describe(vendor_calls.vendor.spec(), PICTURE, upload=upload))
    assert isinstance(found, Description)
    return found


def said(content: object, status: int = 200, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, content=json.dumps(content).encode())


GOOD = said({"descriptions": [{"text": "a red shoe"}]})
DOWN = said({"error": "down"}, 503)
BUSY = said({"error": "rate_limit_exceeded"}, 429)
LOST = httpx.ReadTimeout("late")
REFUSED = httpx.ConnectError("refused")
QUEUED = said({"request_id": "r1", "status": "QUEUED"})
PROCESSING = said({"request_id": "r1", "status": "PROCESSING"})
COMPLETED = said({"request_id": "r1", "status": "COMPLETED"})
RESULT = said({"request_id": "r1", "status": "COMPLETED", "output": "a red shoe", "metrics": {"cost": 0.015}})
FAILED = said({"request_id": "r1", "status": "FAILED", "error": "Inference failed"}, 422)
GONE = said({"error": "not found"}, 404)
UPLOADED = said({"file_urls": ["https://assets.example/a.jpg"]})


@pytest.mark.parametrize("trouble", [DOWN, REFUSED])
def test_what_was_not_billed_is_tried_again_and_every_pause_shown(trouble: Answer) -> None:
    script = Script([trouble, trouble, GOOD])
    assert describe(script, caller_of()).text == "a red shoe"
    assert [sleep.seconds for sleep in script.sleeps] == [0.5, 1.0]
    assert {type(sleep.because) for sleep in script.sleeps} == {VendorUnavailable}
    assert script.turns == len(script.requests) == 3


def test_attempts_run_out() -> None:
    script = Script([DOWN])
    with pytest.raises(VendorUnavailable):
        describe(script, caller_of(policy=RetryPolicy(attempts=3)))
    assert len(script.requests) == 3


def test_kinds_of_trouble_are_counted_apart() -> None:
    script = Script([DOWN, BUSY, DOWN, BUSY, DOWN, GOOD])
    describe(script, caller_of(policy=RetryPolicy(attempts=4, rate_limited_attempts=3)))
    assert [sleep.seconds for sleep in script.sleeps] == [0.5, 0.5, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({RESET: "2025-11-21T07:07:30Z"}, 30.0),
        ({RESET: str(NOW + 12)}, 12.0),
        ({RESET: "Fri, 21 Nov 2025 07:07:05 GMT"}, 5.0),
        ({RESET: "2025-11-21T07:07:30Z", "retry-after": "Fri, 21 Nov 2025 07:08:00 GMT"}, 60.0),
        ({RESET: "soon"}, 0.5),
    ],
)
def test_the_vendors_moment_is_waited_for(headers: dict[str, str], wait: float) -> None:
    script = Script([said({"error": "slow down"}, 429, **headers), GOOD])
    describe(script, caller_of())
    assert [sleep.seconds for sleep in script.sleeps] == [wait]
    assert isinstance(script.sleeps[0].because, RateLimited)


def test_a_wait_longer_than_max_wait_is_given_up_and_told() -> None:
    script = Script([said({"error": "slow down"}, 429, **{RESET: str(NOW + 86400)})])
    with pytest.raises(RateLimited) as caught:
        describe(script, caller_of())
    assert caught.value.retry_at == NOW + 86400
    assert (len(script.requests), script.sleeps) == (1, [])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (said({"error": "invalid_api_key"}, 401), InvalidKey),
        (said({"error": "Image failed the safety check"}, 422), RejectedImage),
        (said({"odd": True}), UnexpectedAnswer),
        (LOST, AmbiguousCall),
        (httpx.RemoteProtocolError("cut"), AmbiguousCall),
        (httpx.WriteTimeout("stuck"), AmbiguousCall),
    ],
)
def test_what_a_retry_would_not_mend_or_might_pay_twice_is_sent_once(
    answer: Answer, error: type[DescriberError]
) -> None:
    script = Script([answer])
    with pytest.raises(error):
        describe(script, caller_of())
    assert (len(script.requests), script.sleeps) == (1, [])


def test_a_lost_call_is_sent_again_as_often_as_asked() -> None:
    script = Script([LOST])
    with pytest.raises(AmbiguousCall):
        describe(script, caller_of(policy=RetryPolicy(resend_unknown=2)))
    assert script.turns == len(script.requests) == 3


def test_v2_polls_until_it_is_done() -> None:
    script = Script([QUEUED, QUEUED, PROCESSING, COMPLETED, RESULT])
    found = describe(script, caller_of(api_version="v2"))
    assert (found.text, found.request_id, found.cost_usd) == ("a red shoe", "r1", 0.015)
    status, result = "GET /v2/requests/r1/status", "GET /v2/requests/r1"
    assert script.paths == ["POST /v2/ideogram-describe", status, status, status, result]
    assert script.turns == 1
    assert script.accepted_ids == ["r1"]
    assert [sleep.seconds for sleep in script.sleeps] == [1.0, 1.5, 2.25, 0.0]


@pytest.mark.parametrize(
    ("answers", "error", "billed"),
    [
        ([QUEUED, FAILED], RejectedImage, "no"),
        ([QUEUED, GONE], RequestExpired, "unknown"),
        ([QUEUED, DOWN], VendorUnavailable, "unknown"),
        ([QUEUED, REFUSED], VendorUnavailable, "unknown"),
        ([QUEUED, LOST], VendorUnavailable, "unknown"),
        ([QUEUED, said({"error": "invalid_api_key"}, 401)], InvalidKey, "unknown"),
        ([QUEUED, said({"odd": True})], VendorUnavailable, "unknown"),
        ([QUEUED, COMPLETED, said({"status": "COMPLETED", "output": 7})], UnexpectedAnswer, "yes"),
    ],
)
def test_v2_trouble_after_acceptance_keeps_the_id_and_is_never_sent_again(
    answers: list[Answer], error: type[DescriberError], billed: str
) -> None:
    script = Script(answers)
    with pytest.raises(error) as caught:
        describe(script, caller_of(policy=RetryPolicy(resend_unknown=3), api_version="v2"))
    assert script.turns == 1
    assert (caught.value.request_id, caught.value.billed) == ("r1", billed)


def test_v2_is_polled_on_through_trouble() -> None:
    script = Script([QUEUED, DOWN, REFUSED, LOST, BUSY, PROCESSING, DOWN, RESULT])
    assert describe(script, caller_of(api_version="v2")).text == "a red shoe"
    assert script.turns == 1


def test_v2_is_not_given_up_in_an_outage_of_minutes_nor_asked_for_at_long_intervals() -> None:
    script = Script([QUEUED, *[DOWN] * 15, *[PROCESSING] * 30, RESULT])
    describe(script, caller_of(api_version="v2"))
    assert sum(sleep.seconds for sleep in script.sleeps if sleep.because) > 120
    assert max(sleep.seconds for sleep in script.sleeps if not sleep.because) == 15.0


def test_a_running_request_can_be_fetched_by_another_process() -> None:
    script = Script([PROCESSING, RESULT])
    vendor_calls = caller_of(api_version="v2")
    found = script.drive(vendor_calls.fetch(vendor_calls.vendor.spec(), Running("r1", NOW - 60)))
    assert (found.text, script.turns, script.accepted_ids) == ("a red shoe", 0, [])


def test_an_upload_comes_before_the_call_and_its_address_is_sent() -> None:
    script = Script([UPLOADED, GOOD])
    describe(script, caller_of(), upload=True)
    assert script.paths == ["POST /upload-asset", "POST /v1/ideogram-describe"]
    assert json.loads(script.requests[1].content) == {"image_file": "https://assets.example/a.jpg"}


def test_an_upload_is_tried_again_without_being_a_billable_call() -> None:
    script = Script([DOWN, LOST, httpx.RemoteProtocolError("cut"), UPLOADED, GOOD])
    describe(script, caller_of(), upload=True)
    assert script.paths == [*["POST /upload-asset"] * 4, "POST /v1/ideogram-describe"]
    assert script.turns == 1


@pytest.mark.parametrize("answer", [said({"urls": []}), said({"urls": ["ftp://x"]}), said([]), said("")])
def test_no_call_is_made_after_an_upload_that_gave_no_address(answer: httpx.Response) -> None:
    script = Script([answer])
    with pytest.raises(UnexpectedAnswer) as caught:
        describe(script, caller_of(), upload=True)
    assert (caught.value.billed, script.turns) == ("no", 0)


def test_asking_for_credits_and_for_the_key_is_never_billable() -> None:
    script = Script([said({"credits": 1.5, "free-credits": 0.018})])
    assert script.drive(caller_of().credits()) == pytest.approx(1.518)
    assert "accepts the API key" in script.drive(caller_of().check())
    assert script.turns == 0


class Enough(Exception): ...


TROUBLES: dict[str, Answer] = {
    "down": DOWN,
    "busy": BUSY,
    "lost": LOST,
    "refused": REFUSED,
    "good": GOOD,
    "odd": said(7),
}


@settings(deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(TROUBLES)), min_size=1, max_size=30),
    attempts=st.integers(1, 6),
    limited=st.integers(1, 6),
    resend=st.integers(0, 2),
)
def test_no_more_is_sent_than_the_policy_allows(names: list[str], attempts: int, limited: int, resend: int) -> None:
    script = Script([*(TROUBLES[name] for name in names), Enough()])
    policy = RetryPolicy(attempts=attempts, rate_limited_attempts=limited, resend_unknown=resend)
    with contextlib.suppress(DescriberError, Enough):
        describe(script, caller_of(policy=policy))
    sent = names[: len(script.requests)]
    assert sum(name in ("down", "refused") for name in sent) <= attempts
    assert sent.count("busy") <= limited
    assert sum(name in ("lost", "good", "odd") for name in sent) <= 1 + resend, "each of these may have been paid for"
    assert script.turns == len(script.requests)
    if {"busy", "lost"}.isdisjoint(sent):
        assert len(sent) <= attempts
