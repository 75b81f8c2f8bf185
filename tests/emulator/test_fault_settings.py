"""A misspelled fault is refused: it must never mean "no fault"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from airflow_provider_describer.emulator import EmulatorProcess
from airflow_provider_describer.emulator.process import EmulatorError

if TYPE_CHECKING:
    from tests.emulator.conftest import Caller


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ([], "the body"),
        ({"segmnd": {}}, "'segmnd'"),
        ({"seed": "7"}, "seed"),
        ({"seed": True}, "seed"),
        ({"segmind": []}, "segmind must be an object"),
        ({"segmind": {"latency": 1}}, "segmind.latency"),
        ({"segmind": {"latency_s": "1"}}, "segmind.latency_s"),
        ({"segmind": {"latency_s": -1}}, "segmind.latency_s"),
        ({"segmind": {"latency_s": True}}, "segmind.latency_s"),
        ({"segmind": {"latency_s": None}}, "segmind.latency_s"),
        ({"segmind": {"price": 0.0000001}}, "segmind.price"),
        ({"segmind": {"credits": "many"}}, "segmind.credits"),
        ({"segmind": {"requests_per_minute": 0}}, "requests_per_minute"),
        ({"segmind": {"proxy_status": 200}}, "proxy_status"),
        ({"all": {"proxy_status": "524"}}, "proxy_status"),
        ({"segmind": {"requests_per_minute": 1.5}}, "requests_per_minute"),
        ({"segmind": {"retry_after": ""}}, "retry_after"),
        ({"segmind": {"reset_format": "unix"}}, "reset_format"),
        ({"segmind": {"answer_style": "text "}}, "answer_style"),
        ({"segmind": {"answer_style": ["text"]}}, "answer_style"),
        ({"segmind": {"v2_poll_errors": 1.5}}, "v2_poll_errors"),
        ({"segmind": {"error_style": "http"}}, "belongs in the section 'image_describer'"),
        ({"image_describer": {"v2_delay_s": 1}}, "belongs in the section 'segmind'"),
        ({"all": {"v2_delay_s": 1}}, "belongs in the section 'segmind'"),
        ({"segmind": {"errors": {}}}, "segmind.errors must be a list"),
        ({"segmind": {"errors": ["html"]}}, "segmind.errors[0]"),
        ({"segmind": {"errors": [{"kind": "htlm", "share": 1}]}}, "'htlm'"),
        ({"segmind": {"errors": [{"kind": "INVALID_PARAM", "share": 1}]}}, "'INVALID_PARAM'"),
        ({"all": {"errors": [{"kind": "bad_request", "share": 1}]}}, "'bad_request'"),
        ({"segmind": {"errors": [{"share": 1}]}}, "kind None"),
        ({"segmind": {"errors": [{"kind": []}]}}, "kind []"),
        ({"segmind": {"errors": [{"kind": "html"}]}}, "has no condition"),
        ({"segmind": {"errors": [{"kind": "html", "shares": 1}]}}, "errors[0].shares"),
        ({"segmind": {"errors": [{"kind": "html", "share": 5}]}}, "errors[0].share"),
        ({"segmind": {"errors": [{"kind": "html", "first": -1}]}}, "errors[0].first"),
        ({"segmind": {"errors": [{"kind": "html", "images": "ab"}]}}, "errors[0].images"),
        ({"segmind": {"errors": [{"kind": "html", "images": []}]}}, "errors[0].images"),
        ({"segmind": {"errors": [{"kind": "html", "images": ["AB"]}]}}, "'AB'"),
        ({"segmind": {"errors": [{"kind": "html", "images": [""]}]}}, "errors[0].images"),
        (
            {
                "all": {"errors": [{"kind": "html", "share": 0.6}]},
                "segmind": {"errors": [{"kind": "empty", "share": 0.5}]},
            },
            "add up to 1.1",
        ),
    ],
)
def test_a_misspelled_fault_is_refused_and_changes_nothing(call: Caller, settings: object, named: str) -> None:
    before = {"segmind": {"latency_s": 0.0}}
    call.emulator.faults(before)
    response = call.http.post("/_emulator/faults", json=settings)
    assert (response.status_code, named in response.json()["error"]) == (400, True), response.text
    assert call.http.get("/_emulator/faults").json() == before


@pytest.mark.parametrize("body", [b"", b"{", b'{"seed": NaN}', b"\xff"])
def test_faults_that_are_no_json_are_refused(http: httpx.Client, body: bytes) -> None:
    assert http.post("/_emulator/faults", content=body).status_code == 400


def test_the_process_object_raises_what_the_emulator_refused(emulator: EmulatorProcess) -> None:
    with pytest.raises(EmulatorError, match="unknown section 'oops'"):
        emulator.faults({"oops": 1})


def test_faults_are_shown_and_reset(call: Caller, http: httpx.Client) -> None:
    settings = {"seed": 3, "segmind": {"errors": [{"kind": "html", "share": 1}]}}
    call.emulator.faults(settings)
    assert http.get("/_emulator/faults").json() == settings
    http.delete("/_emulator/faults")
    assert http.get("/_emulator/faults").json() == {}
    assert "composition" in call.v1().text
