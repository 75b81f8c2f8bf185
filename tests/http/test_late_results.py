"""Requests that run at the vendor for ever: polled until the vendor has forgotten them, then of unknown outcome."""

from __future__ import annotations

import json
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
from airflow_provider_describer.http.flow import LAST_POLLS_S, RESULTS_KEPT_S, Accepted, Admit, Flow, Sleep, VendorCalls
from airflow_provider_describer.http.retry import RetryPolicy
from airflow_provider_describer.models import Description, Picture, Running
from airflow_provider_describer.vendors import get_vendor
from airflow_provider_describer.vendors.wire import Request, Response

BEGAN = 1_800_000_000.0
PICTURE = Picture("image/jpeg", b"\xff\xd8\xff picture")


@dataclass
class Vendor:
    """A vendor whose request has a state at each moment; time passes in sleeps alone."""

    answer: Any
    """Called with the seconds since the request was submitted; returns an answer: its status, and JSON or an error."""
    now: float = BEGAN
    sent: list[str] = field(default_factory=list)

    def calls(self, **policy: Any) -> VendorCalls:
        segmind = get_vendor("segmind")
        account = account_from_connection(segmind.defaults(), conn_id="s", password="k", extra={"api_version": "v2"})
        return VendorCalls(segmind, account, RetryPolicy(**policy), clock=lambda: self.now, jitter=lambda: 0.0)

    def drive(self, flow: Flow[Any]) -> Any:
        try:
            step = next(flow)
            for _ in range(5000):
                match step:
                    case Sleep():
                        self.now += step.seconds
                        step = flow.send(None)
                    case Admit():
                        step = flow.send(step.picture)
                    case Accepted():
                        step = flow.send(None)
                    case Request():
                        self.sent.append(f"{step.method} {step.url.rpartition('/v2')[2]}")
                        try:
                            answered = self._answer(step)
                        except DescriberError as error:
                            step = flow.throw(error)
                        else:
                            step = flow.send(answered)
        except StopIteration as end:
            return end.value
        raise AssertionError("goes on for ever")

    def _answer(self, request: Request) -> Response:
        status: int
        body: Any
        status, body = (200, QUEUED) if request.method == "POST" else self.answer(self.now - BEGAN)
        if isinstance(body, Exception):
            raise body
        headers = dict(body).pop("headers", {})
        return Response(status, headers, json.dumps(body).encode(), self.now, 0.1)


QUEUED = {"request_id": "r1", "status": "QUEUED"}
RUNS = (200, {"request_id": "r1", "status": "PROCESSING"})
DONE = (200, {"request_id": "r1", "status": "COMPLETED"})
RESULT = (200, {"request_id": "r1", "status": "COMPLETED", "output": "a red shoe"})
SPEC = get_vendor("segmind").spec()


def fetch_of(vendor: Vendor, submitted: float = BEGAN, **policy: Any) -> Any:
    return vendor.drive(vendor.calls(**policy).fetch(SPEC, Running("r1", submitted)))


@pytest.mark.parametrize("status", ["QUEUED", "PROCESSING", "queued", " processing "])
def test_a_request_that_never_ends_is_given_up_once_its_result_could_not_be_kept(status: str) -> None:
    vendor = Vendor(lambda age: (200, {"request_id": "r1", "status": status}))
    with pytest.raises(RequestExpired, match=r"request r1 .* within 60 min .* may have been billed") as caught:
        vendor.drive(vendor.calls(resend_unknown=3).describe(SPEC, PICTURE))
    error = caught.value
    assert issubclass(RequestExpired, AmbiguousCall) and (error.request_id, error.billed) == ("r1", "unknown")
    assert RESULTS_KEPT_S <= vendor.now - BEGAN <= RESULTS_KEPT_S + 15
    assert [one.split()[0] for one in vendor.sent].count("POST") == 1


@pytest.mark.parametrize("ends_after", [5.0, 1800.0, RESULTS_KEPT_S - 31])
def test_a_slow_request_is_fetched(ends_after: float) -> None:
    vendor = Vendor(lambda age: RUNS if age < ends_after else RESULT)
    assert vendor.drive(vendor.calls().describe(SPEC, PICTURE)).text == "a red shoe"


@pytest.mark.parametrize("age", [RESULTS_KEPT_S - 1, RESULTS_KEPT_S, RESULTS_KEPT_S * 2, RESULTS_KEPT_S * 24])
@pytest.mark.parametrize("answers", [[RESULT], [DONE, RESULT]], ids=["at once", "in two steps"])
def test_an_old_request_is_asked_for_before_it_is_given_up(age: float, answers: list[Any]) -> None:
    """A vendor may keep it for longer than it says."""
    shown = iter(answers)
    vendor = Vendor(lambda _: next(shown))
    found = fetch_of(vendor, BEGAN - age)
    assert isinstance(found, Description) and found.text == "a red shoe"


@pytest.mark.parametrize("age", [RESULTS_KEPT_S, RESULTS_KEPT_S * 24])
def test_an_old_request_that_still_runs_is_given_up_at_the_first_poll(age: float) -> None:
    vendor = Vendor(lambda _: RUNS)
    with pytest.raises(RequestExpired):
        fetch_of(vendor, BEGAN - age)
    assert len(vendor.sent) == 1


TROUBLE = {
    "503": (503, {"error": "down"}),
    "502": (502, {}),
    "refused": (0, VendorUnavailable("refused")),
    "odd status": (200, {"request_id": "r1", "status": "STARTING"}),
    "no status": (200, {"odd": True}),
    "400": (400, {"error": "bad"}),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_polls_that_fail_past_that_moment_leave_nothing_to_wait_for(trouble: Any) -> None:
    """Otherwise every later run would be left with the image pending."""
    vendor = Vendor(lambda _: trouble)
    with pytest.raises(RequestExpired) as caught:
        fetch_of(vendor, BEGAN - RESULTS_KEPT_S - 10)
    assert (caught.value.request_id, caught.value.billed) == ("r1", "unknown")
    assert vendor.now - BEGAN <= LAST_POLLS_S + 1


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_polls_that_fail_before_it_leave_the_request_to_a_later_run(trouble: Any) -> None:
    vendor = Vendor(lambda _: trouble)
    with pytest.raises(VendorUnavailable) as caught:
        fetch_of(vendor)
    assert (caught.value.request_id, caught.value.billed) == ("r1", "unknown")
    assert vendor.now - BEGAN < 30 * 60


def test_what_concerns_the_account_says_nothing_of_an_old_request() -> None:
    for status, error in ((401, InvalidKey), (429, RateLimited)):
        vendor = Vendor(lambda _, status=status: (status, {"error": "no"}))
        with pytest.raises(error):
            fetch_of(vendor, BEGAN - RESULTS_KEPT_S - 10)


@pytest.mark.parametrize("reset", [RESULTS_KEPT_S - 100, RESULTS_KEPT_S + 100, 6 * 3600.0 - 1])
def test_a_poll_is_not_waited_for_past_that_moment(reset: float) -> None:
    headers = {"x-rate-limit-reset-at-utc": str(BEGAN + reset)}
    vendor = Vendor(lambda age: (429, {"error": "slow", "headers": dict(headers)}) if age < reset else RESULT)
    if reset < RESULTS_KEPT_S:
        assert fetch_of(vendor, max_wait=6 * 3600.0).text == "a red shoe"
    else:
        with pytest.raises(RateLimited) as caught:
            fetch_of(vendor, max_wait=6 * 3600.0)
        assert (caught.value.request_id, caught.value.billed) == ("r1", "unknown")
        assert vendor.now - BEGAN < 30


ANSWERS = [RUNS, (200, QUEUED), DONE, *TROUBLE.values(), (429, {"error": "slow"}), (404, {"error": "not found"})]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=40), st.floats(-100.0, 3 * RESULTS_KEPT_S))
def test_whatever_polls_show_they_end(answers: list[Any], age: float) -> None:
    """The last answer for ever: a request is fetched, left to a later run, or of unknown outcome, and sent once."""
    shown = iter(answers)
    vendor = Vendor(lambda _: next(shown, answers[-1]))
    with pytest.raises((AmbiguousCall, VendorUnavailable, RateLimited, RejectedImage, UnexpectedAnswer)) as caught:
        fetch_of(vendor, BEGAN - age)
    assert caught.value.request_id == "r1" and caught.value.billed != "no"
    assert vendor.now - BEGAN <= max(RESULTS_KEPT_S - age, LAST_POLLS_S) + 30 * 60
    assert not [one for one in vendor.sent if not one.startswith("GET")]
