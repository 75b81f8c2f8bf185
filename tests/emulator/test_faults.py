from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from tests.emulator.conftest import Caller

LOST = (httpx.RemoteProtocolError, httpx.ReadError)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def everything(kind: str) -> dict[str, Any]:
    return {"errors": [{"kind": kind, "share": 1}]}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("SERVER_ERROR", 500),
        ("server_error", 500),
        ("INSUFFICIENT_CREDITS", 10003),
        ("insufficient_credits", 10003),
        ("spend_limit", 10003),
        ("INVALID_PARAM", 10004),
        ("HARMFUL_CONTENT", 10005),
        ("harmful", 10005),
        ("INVALID_API_KEY", 30001),
        ("invalid_key", 30001),
        ("INVALID_SIGNATURE", 30002),
    ],
)
@pytest.mark.parametrize("style", ["200", "http", "http_no_data"])
def test_every_documented_error_of_image_describer(call: Caller, kind: str, code: int, style: str) -> None:
    call.emulator.faults({"image_describer": {**everything(kind), "error_style": style}})
    response = call.describe()
    assert (response.json()["code"], response.json()["succeed"]) == (code, False)
    assert response.is_success == (style == "200")
    ledger = call.emulator.ledger()
    assert (ledger["billed"], ledger["by_vendor"]["image_describer"]["credits_left"]) == (0, 1000)
    assert ledger["entries"][0]["outcome"] in response.json()["msg"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("bad_gateway", 502),
        ("html_error", 502),
        ("unavailable", 503),
        ("gateway_timeout", 504),
        ("forbidden", 403),
        ("model_retired", 410),
    ],
)
def test_the_gateway_before_image_describer_answers_in_html(call: Caller, kind: str, status: int) -> None:
    call.emulator.faults({"image_describer": everything(kind)})
    response = call.describe()
    assert (response.status_code, response.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert call.emulator.ledger()["billed"] == 0


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("bad_request", 400, "Invalid request body"),
        ("missing_key", 401, "Missing Authorization"),
        ("unauthorized", 401, "invalid_api_key"),
        ("invalid_key", 401, "invalid_api_key"),
        ("forbidden", 403, "not permitted"),
        ("not_found", 404, "Model not found"),
        ("insufficient_credits", 406, "Insufficient credits"),
        ("spend_limit", 406, "spend limit"),
        ("invalid_content_type", 406, "Invalid content type"),
        ("model_retired", 410, "retired"),
        ("rate_limited", 429, "rate_limit_exceeded"),
        ("server_error", 500, "internal"),
        ("method_not_allowed", 405, "<html>"),
        ("bad_gateway", 502, "<html>"),
        ("html_error", 502, "<html>"),
        ("unavailable", 503, "<html>"),
        ("gateway_timeout", 504, "<html>"),
    ],
)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_every_documented_error_of_segmind(call: Caller, kind: str, status: int, text: str, version: str) -> None:
    call.emulator.faults({"segmind": everything(kind)})
    response = getattr(call, version)()
    assert (response.status_code, text in response.text) == (status, True)
    if "<html>" not in text:
        assert "error" in response.json()
    assert call.emulator.ledger()["by_vendor"]["segmind"]["credits_left"] == 1000


def test_v1_refuses_an_unsafe_image(call: Caller) -> None:
    call.emulator.faults({"segmind": everything("harmful")})
    response = call.v1()
    assert (response.status_code, response.json()) == (422, {"error": "Image failed the safety check"})
    assert call.emulator.ledger()["billed"] == 0


@pytest.mark.parametrize("way", ["describe", "v1", "v2", "chat"])
@pytest.mark.parametrize(("kind", "billed"), [("drop_before_bill", 0), ("drop_after_bill", 1)])
def test_a_cut_connection_is_no_answer_at_all(
    call: Caller, eventually: Callable[[Callable[[], bool]], None], way: str, kind: str, billed: int
) -> None:
    call.emulator.faults({"all": everything(kind), "segmind": {"v2_delay_s": 0}})
    with pytest.raises(LOST):
        getattr(call, way)()
    eventually(lambda: call.emulator.ledger(entries=False)["billed"] == billed)
    (entry,) = call.emulator.ledger()["entries"]
    assert (entry["outcome"], entry["billed"], entry["answered"], entry["status"]) == (
        kind,
        bool(billed),
        False,
        None,
    )


@pytest.mark.parametrize("way", ["describe", "v1", "v2", "chat"])
def test_a_hanging_call_is_billed_and_never_answered(
    call: Caller, eventually: Callable[[Callable[[], bool]], None], way: str
) -> None:
    call.emulator.faults({"all": everything("hang_after_bill"), "segmind": {"v2_delay_s": 0}})
    call.http.timeout = httpx.Timeout(60, read=0.2)
    with pytest.raises(httpx.ReadTimeout):
        getattr(call, way)()
    eventually(lambda: call.emulator.ledger(entries=False)["billed"] == 1)
    eventually(lambda: call.emulator.ledger(entries=False)["in_flight"] == 0)
    assert call.emulator.ledger()["entries"][0]["answered"] is False


@pytest.mark.parametrize("way", ["describe", "v1", "v2", "chat"])
def test_a_dripping_answer_is_billed_and_never_ends(
    call: Caller, eventually: Callable[[Callable[[], bool]], None], way: str
) -> None:
    call.emulator.faults({"all": everything("drip_after_bill"), "segmind": {"v2_delay_s": 0}})
    send = call.http.send
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(call.http, "send", lambda request, **settings: send(request, **{**settings, "stream": True}))
        response = getattr(call, way)()
    pieces = response.iter_raw()
    assert (response.status_code, [next(pieces) for _ in range(3)]) == (200, [b" "] * 3)
    response.close()
    eventually(lambda: call.emulator.ledger(entries=False)["in_flight"] == 0)
    (entry,) = call.emulator.ledger()["entries"]
    assert (entry["outcome"], entry["billed"], entry["answered"]) == ("drip_after_bill", True, False)


def test_a_stuck_v2_request_runs_until_it_is_forgotten(
    call: Caller, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    call.emulator.faults({"segmind": {**everything("stuck"), "v2_delay_s": 0, "v2_expire_s": 0.5}})
    answer = call.v2().json()

    def poll() -> httpx.Response:
        return call.http.get(answer["status_url"], headers=call.key)

    assert answer["status"] == "QUEUED"
    eventually(lambda: poll().json().get("status") == "PROCESSING")
    eventually(lambda: poll().status_code == 404)
    assert (call.emulator.ledger()["requests"], call.emulator.ledger()["billed"]) == (1, 0)


def test_a_stuck_v1_call_is_neither_answered_nor_billed(call: Caller) -> None:
    call.emulator.faults({"segmind": everything("stuck")})
    call.http.timeout = httpx.Timeout(60, read=0.2)
    with pytest.raises(httpx.ReadTimeout):
        call.v1()
    assert (call.emulator.ledger()["requests"], call.emulator.ledger()["billed"]) == (1, 0)


@pytest.mark.parametrize("way", ["describe", "v1", "v2", "chat"])
@pytest.mark.parametrize("kind", ["html", "empty", "truncated", "wrong_types", "blank"])
def test_a_damaged_answer_is_a_200_and_billed(
    call: Caller, eventually: Callable[[Callable[[], bool]], None], way: str, kind: str
) -> None:
    call.emulator.faults({"all": everything(kind), "segmind": {"v2_delay_s": 0}})
    response = getattr(call, way)()
    assert response.status_code == 200
    if kind == "html":
        assert response.headers["content-type"].startswith("text/html")
    elif kind == "empty":
        assert response.content == b""
    elif kind == "truncated":
        with pytest.raises(json.JSONDecodeError):
            response.json()
    elif kind == "blank" and way != "v2":
        assert "composition" not in response.text
        assert "Landscape" not in response.text
    eventually(lambda: call.emulator.ledger(entries=False)["billed"] == 1)
    assert call.emulator.ledger()["entries"][0]["outcome"] == kind


def test_a_blank_v2_description_shows_in_the_result(call: Caller) -> None:
    call.emulator.faults({"segmind": everything("blank")})
    assert call.finished(call.v2()).json()["output"] == {"descriptions": [{"text": ""}]}


def test_the_first_calls_fail(call: Caller) -> None:
    call.emulator.faults({"image_describer": {"errors": [{"kind": "unavailable", "first": 2}]}})
    assert [call.describe().status_code for _ in range(4)] == [503, 503, 200, 200]


def test_the_calls_after_some_fail(call: Caller) -> None:
    call.emulator.faults({"segmind": {"errors": [{"kind": "insufficient_credits", "after": 2}]}})
    assert [call.v1().status_code for _ in range(4)] == [200, 200, 406, 406]


def test_certain_images_fail(call: Caller, image: Callable[..., bytes]) -> None:
    bad, good = image(colour=(1, 2, 3)), image(colour=(250, 250, 250))
    call.emulator.faults({"all": {"errors": [{"kind": "harmful", "images": [sha(bad)[:10]]}]}})
    assert [call.v1(picture).status_code for picture in (bad, good, bad)] == [422, 200, 422]


def test_the_first_attempt_at_each_image_fails(call: Caller, image: Callable[..., bytes]) -> None:
    first, second = image(colour=(1, 2, 3)), image(colour=(250, 250, 250))
    call.emulator.faults({"all": {"errors": [{"kind": "unavailable", "attempts": 1}]}})
    statuses = [call.describe(picture).status_code for picture in (first, second, first, second)]
    assert statuses == [503, 503, 200, 200]


def test_conditions_of_one_rule_must_all_hold(call: Caller, image: Callable[..., bytes]) -> None:
    bad, good = image(colour=(1, 2, 3)), image(colour=(250, 250, 250))
    rule = {"kind": "unavailable", "images": [sha(bad)], "attempts": 1}
    call.emulator.faults({"all": {"errors": [rule]}})
    assert [call.v1(picture).status_code for picture in (good, bad, bad)] == [200, 503, 200]


def test_a_vendors_own_rules_come_before_those_for_all(call: Caller) -> None:
    call.emulator.faults({"all": everything("unavailable"), "segmind": {"errors": [{"kind": "harmful", "first": 1}]}})
    assert [call.v1().status_code, call.v1().status_code, call.describe().status_code] == [422, 503, 503]


def outcomes(call: Caller, pictures: Iterable[bytes]) -> dict[str, int]:
    return {sha(picture): call.v1(picture).status_code for picture in pictures}


def test_shares_are_reproducible_in_any_order(call: Caller, image: Callable[..., bytes]) -> None:
    pictures = [image(colour=(n, n, n)) for n in range(0, 240, 4)]
    settings = {
        "seed": 7,
        "segmind": {"errors": [{"kind": "unavailable", "share": 0.2}, {"kind": "harmful", "share": 0.3}]},
    }
    call.emulator.faults(settings)
    forwards = outcomes(call, pictures)
    call.emulator.faults(settings)
    assert outcomes(call, reversed(pictures)) == forwards
    assert set(forwards.values()) == {200, 422, 503}
    call.emulator.faults({**settings, "seed": 8})
    assert outcomes(call, pictures) != forwards


def test_a_retry_rolls_anew(call: Caller, image: Callable[..., bytes]) -> None:
    call.emulator.faults({"segmind": {"errors": [{"kind": "unavailable", "share": 0.5}]}})
    assert {call.v1().status_code for _ in range(40)} == {200, 503}


def test_the_rate_limit_is_enforced_and_says_when_it_resets(call: Caller) -> None:
    call.emulator.faults({"segmind": {"requests_per_minute": 2}})
    answers = [call.v1() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "retry-after" not in answers[2].headers
    resets = datetime.fromisoformat(answers[2].headers["x-rate-limit-reset-at-utc"])
    assert resets > datetime.now(UTC)
    assert call.emulator.ledger()["billed"] == 2
    assert call.describe().status_code == 200


def test_the_rate_limit_resets(call: Caller, eventually: Callable[[Callable[[], bool]], None]) -> None:
    call.emulator.faults({"image_describer": {"requests_per_minute": 1, "rate_window_s": 0.3}})
    assert call.describe().status_code == 200
    eventually(lambda: call.describe().status_code == 200)


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ("iso", datetime.fromisoformat),
        ("http", parsedate_to_datetime),
        ("epoch", lambda text: datetime.fromtimestamp(int(text), UTC)),
    ],
)
def test_the_reset_comes_in_every_form(call: Caller, form: str, read: Callable[[str], datetime]) -> None:
    call.emulator.faults({"segmind": {"requests_per_minute": 1, "reset_format": form, "rate_window_s": 3600}})
    call.v1()
    left = read(call.v1().headers["x-rate-limit-reset-at-utc"]) - datetime.now(UTC)
    assert 0 < left.total_seconds() <= 3601


@pytest.mark.parametrize(("given", "sent"), [(7, "7"), (0.5, "0.5"), ("Wed, 21 Oct 2037 07:28:00 GMT", None)])
@pytest.mark.parametrize("way", ["describe", "v1"])
def test_a_proxy_may_add_retry_after(call: Caller, way: str, given: float | str, sent: str | None) -> None:
    call.emulator.faults({"all": {**everything("rate_limited"), "retry_after": given}})
    response = getattr(call, way)()
    assert (response.status_code, response.headers["retry-after"]) == (429, sent or given)


def test_prices_can_be_changed(call: Caller) -> None:
    call.emulator.faults({"image_describer": {"price": 0.0025}, "segmind": {"price": 0.000001}})
    call.describe()
    assert call.v1().headers["x-cost"] == "0.000001"
    assert call.emulator.ledger()["cost_usd"] == 0.002501


FINAL = ("error_in_200", "raw_newline", "broken_utf8", "byte_order_mark", "utf16")


def final(call: Caller, way: str) -> httpx.Response:
    """The answer that holds the description: that of the call or, with v2, that of the last poll."""
    submitted: httpx.Response = getattr(call, way)()
    if way != "v2":
        return submitted
    for _ in range(600):
        polled = call.http.get(submitted.json()["response_url"], headers=call.key)
        if b"COMPLETED" in polled.content.replace(b"\0", b""):
            return polled
    raise AssertionError("the v2 request did not end")


TEXTS = ("choices", "message", "data", "content", "output", "descriptions", "text")


def text_of(value: Any) -> str:
    while not isinstance(value, str):
        value = value[0] if isinstance(value, list) else next(value[name] for name in TEXTS if name in value)
    return value


@pytest.mark.parametrize("way", ["describe", "v1", "v2", "chat"])
@pytest.mark.parametrize("kind", [kind for kind in FINAL if kind != "error_in_200"])
def test_a_strange_form_holds_the_description_and_is_billed(call: Caller, way: str, kind: str) -> None:
    call.emulator.faults({"all": everything(kind), "segmind": {"v2_delay_s": 0}})
    strange = final(call, way)
    content = strange.content
    assert strange.status_code == 200
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        json.loads(content.decode())
    encoding = "utf-16" if kind == "utf16" else "utf-8-sig"
    text = text_of(json.loads(content.decode(encoding, errors="replace"), strict=False))
    assert ("\n\t" in text, "\ufffd" in text) == (kind == "raw_newline", kind == "broken_utf8")
    call.emulator.faults({"segmind": {"v2_delay_s": 0}})
    good = text_of(final(call, way).json())
    assert "".join(text.split()).replace("\ufffd", "") == "".join(good.split())
    assert call.emulator.ledger()["billed"] == 2
    assert call.emulator.ledger()["entries"][0]["outcome"] == kind


@pytest.mark.parametrize("way", ["describe", "v1", "v2", "chat"])
def test_an_error_in_a_200_comes_in_several_forms_and_is_billed(
    call: Caller, way: str, image: Callable[..., bytes]
) -> None:
    call.emulator.faults({"all": everything("error_in_200"), "segmind": {"v2_delay_s": 0}})
    forms = set()
    for number in range(24):
        submitted = getattr(call, way)(image(colour=(number, 0, 0)))
        answer = call.finished(submitted) if way == "v2" else submitted
        assert answer.status_code == 200
        forms.add(json.dumps(shape(answer.json())))
    assert len(forms) > 3
    assert call.emulator.ledger()["billed"] == 24


def shape(value: Any) -> Any:
    """A JSON value without its texts and numbers."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("way", ["describe", "v1", "v2", "chat"])
@pytest.mark.parametrize("status", [524, 501, 503, 530])
def test_a_proxy_that_gives_up_is_billed(
    call: Caller, eventually: Callable[[Callable[[], bool]], None], way: str, status: int
) -> None:
    call.emulator.faults({"all": {**everything("proxy_error"), "proxy_status": status}, "segmind": {"v2_delay_s": 0}})
    response = getattr(call, way)()
    assert (response.status_code, response.headers["content-type"]) == (status, "text/html; charset=utf-8")
    eventually(lambda: call.emulator.ledger(entries=False)["billed"] == 1)
    assert call.emulator.ledger()["entries"][0]["outcome"] == "proxy_error"


@pytest.mark.parametrize("way", ["describe", "v1", "v2", "chat"])
def test_a_gateways_words_come_as_plain_text(
    call: Caller, eventually: Callable[[Callable[[], bool]], None], way: str
) -> None:
    call.emulator.faults({"all": everything("plain_error"), "segmind": {"v2_delay_s": 0}})
    response = getattr(call, way)()
    assert (response.status_code, response.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert response.text and len(response.text) < 30
    eventually(lambda: call.emulator.ledger(entries=False)["billed"] == 1)


@pytest.mark.parametrize("way", ["describe", "v1", "v2", "chat"])
@pytest.mark.parametrize(("kind", "encoding"), [("gzip_cut", "gzip"), ("zstd", "zstd")])
def test_a_packed_answer_is_billed(
    call: Caller, eventually: Callable[[Callable[[], bool]], None], way: str, kind: str, encoding: str
) -> None:
    call.emulator.faults({"all": everything(kind), "segmind": {"v2_delay_s": 0}})
    path, about = {
        "describe": ("/api/openapi-v2/describe-image", call.form()),
        "v1": ("/v1/ideogram-describe", {"json": {"image_file": call.uri()}, "headers": call.key}),
        "v2": ("/v2/ideogram-describe", {"json": {"image_file": call.uri()}, "headers": call.key}),
        "chat": ("/v1/chat/completions", {"json": call.question(), "headers": call.chat_key}),
    }[way]
    with call.http.stream("POST", path, **about) as response:
        content = b"".join(response.iter_raw())
    assert (response.status_code, response.headers["content-encoding"]) == (200, encoding)
    if kind == "zstd":
        assert content.startswith(b"\x28\xb5\x2f\xfd") and b'{"' in content
    else:
        with pytest.raises(EOFError):
            gzip.decompress(content)
    eventually(lambda: call.emulator.ledger(entries=False)["billed"] == 1)


@pytest.mark.parametrize("way", ["describe", "v1", "v2", "chat"])
def test_a_refusal_that_quotes_the_image_costs_nothing(call: Caller, way: str, image: Callable[..., bytes]) -> None:
    call.emulator.faults({"all": everything("quoted_image")})
    said = [getattr(call, way)(image(colour=(number, 0, 0))).text for number in range(12)]
    if way != "describe":
        assert any("data:image/jpeg;base64," in text for text in said)
        assert any("data%3Aimage%2Fjpeg%3Bbase64%2C" in text for text in said)
    assert call.emulator.ledger()["billed"] == 0
