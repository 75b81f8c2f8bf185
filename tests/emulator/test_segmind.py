from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.emulator.conftest import Caller, ImageServer

V1 = "/v1/ideogram-describe"
V2 = "/v2/ideogram-describe"


def test_v1_describes_and_says_what_it_cost(call: Caller, image: Callable[..., bytes], uri: Callable[..., str]) -> None:
    picture = image("PNG", (30, 90))
    response = call.http.post(V1, json={"image_file": uri(picture, "image/png")}, headers=call.key)
    assert response.status_code == 200
    (found,) = response.json()["descriptions"]
    assert "30 x 90" in found["text"]
    assert "portrait" in found["text"]
    assert hashlib.sha256(picture).hexdigest()[:12] in found["text"]
    assert response.headers["x-cost"] == "0.015"
    assert response.headers["x-remaining-credits"] == "999.985"
    assert float(response.headers["x-generation-time"]) >= 0
    assert response.headers["x-request-id"] == call.emulator.ledger()["entries"][0]["request_id"]


@pytest.mark.parametrize(
    ("style", "take"),
    [
        ("descriptions", lambda r: r.json()["descriptions"][0]["text"]),
        ("list", lambda r: r.json()[0]),
        ("objects", lambda r: r.json()[0]["text"]),
        ("output", lambda r: r.json()["output"]),
        ("text", lambda r: r.json()["text"]),
        ("description", lambda r: r.json()["description"]),
        ("prompt", lambda r: r.json()["prompt"]),
        ("string", lambda r: r.json()),
        ("plain", lambda r: r.text),
    ],
)
def test_answers_come_in_every_undocumented_form(
    call: Caller, style: str, take: Callable[[httpx.Response], str]
) -> None:
    call.emulator.faults({"segmind": {"answer_style": style}})
    assert "composition" in take(call.v1())


def test_a_url_is_fetched_by_the_vendor(call: Caller, http: httpx.Client, image_server: ImageServer) -> None:
    response = http.post(V1, json={"image_file": f"{image_server.url}/a.png"}, headers=call.key)
    assert f"{len(image_server.image)} bytes" in response.text
    assert call.emulator.ledger()["entries"][0]["image_via"] == "url"


@pytest.mark.parametrize("path", [V1, V2, "/upload-asset", "/v1/some-other-model"])
def test_the_two_refusals_of_a_key_differ(call: Caller, http: httpx.Client, path: str) -> None:
    missing = http.post(path, json={})
    wrong = http.post(path, json={}, headers={"x-api-key": "wrong"})
    assert (missing.status_code, wrong.status_code) == (401, 401)
    assert "Missing" in missing.json()["error"]
    assert wrong.json()["error"] == "invalid_api_key"
    assert (wrong.json()["status_code"], "expired" in wrong.json()["error_description"]) == (401, True)
    assert call.emulator.ledger()["billed"] == 0


@pytest.mark.parametrize("path", ["/v1/get-user-credits", "/v2/requests/x", "/v2/requests/x/status"])
def test_free_endpoints_want_the_key_too(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 401


@pytest.mark.parametrize("path", [V1, V2])
def test_a_wrong_content_type_is_a_406(call: Caller, http: httpx.Client, path: str) -> None:
    for headers in ({}, {"content-type": "text/plain"}, {"content-type": "multipart/form-data; boundary=X"}):
        response = http.post(path, content=b"{}", headers={**call.key, **headers})
        assert (response.status_code, response.json()) == (406, {"error": "Invalid content type"})


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "image_file is required"),
        (b'{"image_file": 7}', "image_file is required"),
        (b'{"image_file": ""}', "image_file is required"),
        (b'{"image_file": "s3://bucket/a.jpg"}', "neither an http(s) URL"),
        (b'{"image_file": "data:image/jpeg;base64,AAAA"}', "not a readable image"),
        (b'{"image_file": "data:image/jpeg;base64,A"}', "broken base64"),
        (b'{"image_file": "http://127.0.0.1:9/a.jpg"}', "could not be fetched"),
    ],
)
def test_a_bad_body_is_a_400(call: Caller, http: httpx.Client, path: str, body: bytes, why: str) -> None:
    response = http.post(path, content=body, headers={**call.key, "content-type": "application/json"})
    assert (response.status_code, why in response.json()["error"]) == (400, True)
    assert call.emulator.ledger()["billed"] == 0


@pytest.mark.parametrize(("form", "media_type"), [("GIF", "image/gif"), ("BMP", "image/bmp"), ("TIFF", "image/tiff")])
def test_formats_beyond_jpeg_png_and_webp_are_refused(
    call: Caller,
    http: httpx.Client,
    image: Callable[..., bytes],
    uri: Callable[..., str],
    form: str,
    media_type: str,
) -> None:
    response = http.post(V1, json={"image_file": uri(image(form), media_type)}, headers=call.key)
    assert (response.status_code, form in response.json()["error"]) == (400, True)


def test_an_image_over_25_mb_is_refused(
    call: Caller, http: httpx.Client, image: Callable[..., bytes], uri: Callable[..., str]
) -> None:
    padded = image() + bytes(25 * 1024 * 1024)
    response = http.post(V1, json={"image_file": uri(padded)}, headers=call.key)
    assert (response.status_code, "larger than" in response.json()["error"]) == (400, True)


def test_a_data_uri_of_another_type_is_refused(
    call: Caller, http: httpx.Client, image: Callable[..., bytes], uri: Callable[..., str]
) -> None:
    response = http.post(V1, json={"image_file": uri(image(), "image/png")}, headers=call.key)
    assert "is 'image/jpeg'" in response.json()["error"]


def test_an_unknown_model_is_a_404_and_another_method_an_html_405(call: Caller, http: httpx.Client) -> None:
    assert http.post("/v1/ideogram-descrive", json={}, headers=call.key).status_code == 404
    wrong = http.get(V1, headers=call.key)
    assert (wrong.status_code, wrong.headers["content-type"]) == (405, "text/html; charset=utf-8")
    assert call.emulator.ledger()["requests"] == 0


def test_credits_are_free(call: Caller, http: httpx.Client) -> None:
    call.emulator.faults({"segmind": {"credits": 0.02}})
    assert http.get("/v1/get-user-credits", headers=call.key).json() == {"credits": 0.02, "free-credits": 0.0}
    ledger = call.emulator.ledger()
    assert (ledger["requests"], ledger["free_requests"], ledger["cost_usd"]) == (0, 1, 0)


def test_an_account_without_a_balance_is_a_404(call: Caller, http: httpx.Client) -> None:
    call.emulator.faults({"segmind": {"credits": None}})
    response = http.get("/v1/get-user-credits", headers=call.key)
    assert (response.status_code, response.json()) == (404, {"error": "No credits found for the user"})
    assert call.v1().status_code == 406


def test_credits_run_out(call: Caller) -> None:
    call.emulator.faults({"segmind": {"credits": 0.04}})
    assert [call.v1().status_code for _ in range(3)] == [200, 200, 406]
    message = call.v1().json()["error"]
    assert "Insufficient credits" in message
    assert "balance is $0.01, this call needs $0.015" in message
    ledger = call.emulator.ledger()
    assert (ledger["cost_usd"], ledger["by_vendor"]["segmind"]["credits_left"]) == (0.03, 0.01)


@pytest.mark.parametrize("answer", ["file_urls", "urls"])
def test_an_upload_gives_a_url_that_can_be_described(
    call: Caller, http: httpx.Client, image: Callable[..., bytes], uri: Callable[..., str], answer: str
) -> None:
    call.emulator.faults({"segmind": {"upload_answer": answer}})
    picture = image("WEBP", (31, 17))
    (url,) = http.post("/upload-asset", json={"data_urls": [uri(picture, "image/webp")]}, headers=call.key).json()[
        answer
    ]
    assert url.endswith(".webp")
    stored = http.get(url)
    assert (stored.content, stored.headers["content-type"]) == (picture, "image/webp")
    assert "31 x 17" in http.post(V1, json={"image_file": url}, headers=call.key).text


@pytest.mark.parametrize("body", [{}, {"data_urls": []}, {"data_urls": "x"}, {"data_urls": [1]}, {"data_urls": ["x"]}])
def test_a_bad_upload_is_a_400(call: Caller, http: httpx.Client, body: dict[str, object]) -> None:
    assert http.post("/upload-asset", json=body, headers=call.key).status_code == 400


def test_an_asset_that_was_never_uploaded_is_a_404(http: httpx.Client) -> None:
    assert http.get("/assets/none.jpg").status_code == 404


def test_v2_goes_from_queued_to_completed(call: Caller, http: httpx.Client) -> None:
    submitted = call.v2()
    answer = submitted.json()
    assert (submitted.status_code, answer["status"]) == (200, "QUEUED")
    assert answer["status_url"] == f"{call.emulator.url}/v2/requests/{answer['request_id']}/status"
    finished = call.finished(submitted)
    result = finished.json()
    assert (finished.status_code, result["status"]) == (200, "COMPLETED")
    assert "composition" in result["output"]["descriptions"][0]["text"]
    assert (result["metrics"]["cost"], result["metrics"]["remaining_credits"]) == (0.015, 999.985)
    light = http.get(answer["status_url"], headers=call.key).json()
    assert light["status"] == "COMPLETED"
    assert "output" not in light
    assert http.get(answer["poll_url"], headers=call.key).json() == result


def test_v2_stays_queued_and_unbilled_until_its_time(call: Caller, http: httpx.Client) -> None:
    call.emulator.faults({"segmind": {"v2_delay_s": 3600}})
    answer = call.v2().json()
    for url in (answer["status_url"], answer["response_url"]):
        polled = http.get(url, headers=call.key)
        assert (polled.status_code, polled.json()["status"], "output" in polled.json()) == (
            200,
            "QUEUED",
            False,
        )
    ledger = call.emulator.ledger()
    assert (ledger["billed"], ledger["entries"][0]["outcome"]) == (0, "queued")


def test_v2_never_goes_backwards(call: Caller, http: httpx.Client) -> None:
    call.emulator.faults({"segmind": {"v2_delay_s": 0.5}})
    answer = call.v2().json()
    order = ["QUEUED", "PROCESSING", "COMPLETED"]
    seen = ["QUEUED"]
    while seen[-1] != "COMPLETED":
        seen.append(http.get(answer["status_url"], headers=call.key).json()["status"])
    assert seen == sorted(seen, key=order.index)


def test_v2_ends_after_the_delay_that_is_set_while_it_runs(call: Caller) -> None:
    call.emulator.faults({"segmind": {"v2_delay_s": 3600}})
    submitted = call.v2()
    call.emulator.faults({"segmind": {"v2_delay_s": 0}})
    result = call.finished(submitted).json()
    assert result["status"] == "COMPLETED"
    assert 0 < result["metrics"]["total_time"] < 60
    assert call.emulator.ledger()["billed"] == 1


def test_v2_is_billed_whether_or_not_a_client_polls(
    call: Caller, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    call.v2()
    eventually(lambda: call.emulator.ledger()["billed"] == 1)
    (entry,) = call.emulator.ledger()["entries"]
    assert (entry["outcome"], entry["billed"], call.emulator.ledger()["free_requests"]) == (
        "described",
        True,
        0,
    )


def test_v2_failure_is_a_422_with_its_status_and_unbilled(call: Caller, http: httpx.Client) -> None:
    call.emulator.faults({"segmind": {"v2_fail_share": 1}})
    submitted = call.v2()
    finished = call.finished(submitted)
    assert (finished.status_code, finished.json()["status"], finished.json()["error"]) == (
        422,
        "FAILED",
        "Inference failed",
    )
    assert "cost" not in finished.json()["metrics"]
    assert http.get(submitted.json()["status_url"], headers=call.key).status_code == 422
    ledger = call.emulator.ledger()
    assert (ledger["billed"], ledger["by_vendor"]["segmind"]["credits_left"]) == (0, 1000)
    assert ledger["entries"][0]["outcome"] == "failed"


def test_v2_refuses_an_unsafe_image_only_when_it_runs(call: Caller) -> None:
    call.emulator.faults({"segmind": {"errors": [{"kind": "harmful", "share": 1}]}})
    submitted = call.v2()
    assert submitted.status_code == 200
    assert call.finished(submitted).json()["error"] == "Image failed the safety check"
    assert call.emulator.ledger()["billed"] == 0


def test_an_expired_v2_request_is_a_404_but_was_billed(
    call: Caller, http: httpx.Client, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    call.emulator.faults({"segmind": {"v2_expire_s": 0}})
    answer = call.v2().json()
    eventually(lambda: http.get(answer["response_url"], headers=call.key).status_code == 404)
    eventually(lambda: call.emulator.ledger()["billed"] == 1)
    gone = http.get(answer["status_url"], headers=call.key)
    assert gone.json() == {"error": f"Request {answer['request_id']} not found"}


def test_an_unknown_v2_request_is_a_404(call: Caller, http: httpx.Client) -> None:
    assert http.get("/v2/requests/nobody/status", headers=call.key).status_code == 404


def test_polls_can_meet_a_bad_gateway(call: Caller, http: httpx.Client) -> None:
    call.emulator.faults({"segmind": {"v2_poll_errors": 1}})
    polled = http.get(call.v2().json()["status_url"], headers=call.key)
    assert (polled.status_code, polled.headers["content-type"]) == (502, "text/html; charset=utf-8")


def test_some_polls_fail_and_others_do_not(call: Caller) -> None:
    call.emulator.faults({"segmind": {"v2_poll_errors": 0.5, "v2_delay_s": 0}})
    assert call.finished(call.v2()).json()["status"] == "COMPLETED"


def test_v2_holds_credits_from_the_start(call: Caller) -> None:
    call.emulator.faults({"segmind": {"credits": 0.02, "v2_delay_s": 3600}})
    assert [call.v2().status_code for _ in range(2)] == [200, 406]
