"""Reading what answers hold: moments in every form, numbers in every form, JSON that is none."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_describer.arguments import as_float
from airflow_provider_describer.storage.address import mask_query
from airflow_provider_describer.vendors.wire import Request, Response, one_line, retry_at

RESET = "x-rate-limit-reset-at-utc"
MOMENTS = st.integers(1_000_000_000, 4_000_000_000)
OFFSETS = st.integers(-14 * 60, 14 * 60)


def when(**headers: str) -> float | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return retry_at(Response(429, named, received_at=1_763_708_820.0))


def reset(value: str) -> float | None:
    return retry_at(Response(429, {RESET: value}, received_at=1_763_708_820.0))


@pytest.fixture(params=["UTC0", "AAA+03:30", "BBB-14"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The machine's own time zone, which must not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the zone stays the same for all moments
@given(moment=MOMENTS, minutes=OFFSETS)
def test_all_forms_of_a_moment_agree(zone: str, moment: int, minutes: int) -> None:
    utc = datetime.fromtimestamp(moment, UTC)
    local = utc.astimezone(timezone(timedelta(minutes=minutes)))
    naive = utc.replace(tzinfo=None)
    forms = [
        utc.isoformat(),
        naive.isoformat(),
        naive.isoformat(" "),
        f"{naive.isoformat()}Z",
        f"{naive.isoformat(' ')} UTC",
        f"{naive.isoformat(' ')} GMT",
        f"{naive.isoformat()}.000000Z",
        local.isoformat(),
        format_datetime(utc, usegmt=True),
        format_datetime(local),
        format_datetime(naive),
        str(moment),
        f"{moment}.0",
        f" {moment}000 ",
    ]
    assert {form: reset(form) for form in forms} == dict.fromkeys(forms, float(moment))
    assert {form: when(retry_after=form) for form in forms} == dict.fromkeys(forms, float(moment))


@given(seconds=st.integers(0, 10**8))
def test_a_small_retry_after_counts_from_the_answer(seconds: int) -> None:
    assert when(retry_after=str(seconds)) == 1_763_708_820.0 + seconds


@pytest.mark.parametrize(("value", "pause"), [("0", 0.0), ("-5", 0.0), ("1.5", 1.5), (" 7 ", 7.0)])
def test_a_retry_after_is_never_in_the_past(value: str, pause: float) -> None:
    assert when(retry_after=value) == 1_763_708_820.0 + pause


@pytest.mark.parametrize("first", ["retry-after", RESET])
def test_the_later_of_two_moments_counts(first: str) -> None:
    second = ({"retry-after", RESET} - {first}).pop()
    headers = {first: "2025-11-21T07:10:00Z", second: "2025-11-21T07:08:00Z"}
    assert retry_at(Response(429, headers)) == 1_763_709_000.0


@pytest.mark.parametrize(
    "broken", ["", " ", "soon", "nan", "inf", "-inf", "1e999", "true", "2025-13-45T99:00:00Z", "null"]
)
def test_nonsense_is_no_moment_and_hides_no_other(broken: str) -> None:
    assert reset(broken) is None
    assert when(retry_after=broken) is None
    assert retry_at(Response(429, {RESET: broken, "retry-after": "60"})) == 60.0


@pytest.mark.parametrize(
    "broken",
    [
        "Wed, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Wed, 01 Jan 2025 25:00:00 GMT",
        "Wed, 01 Jan 2025 00:00:00 +9999",
        "Wed, 32 Foo 2025 00:00:00 GMT",
        "2025-11-21T07:08:00+99:00",
        "Wed,",
        ",",
    ],
)
def test_a_date_out_of_all_ranges_is_no_moment(broken: str) -> None:
    assert reset(broken) is None


@given(value=st.one_of(st.text(), st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [+-]?\d*")))
def test_any_header_is_a_finite_moment_or_none(value: str) -> None:
    for moment in (reset(value), when(retry_after=value)):
        assert moment is None or abs(moment) < float("inf")


def test_an_answer_that_names_no_moment_has_none() -> None:
    assert retry_at(Response(429)) is None


@pytest.mark.parametrize(
    "value", ["nan", "NaN", "inf", "-Infinity", "1e999", "", " ", "$1", "1,5", "one", "0x10", None, True, False]
)
def test_what_is_no_finite_number_is_none(value: object) -> None:
    assert as_float(value) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, [1], {"a": 1}, b"1", object()])
def test_what_json_cannot_make_a_number_of_is_none(value: object) -> None:
    assert as_float(value) is None


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_from_any_form(number: float) -> None:
    assert as_float(number) == as_float(repr(number)) == as_float(f" {number!r} ") == number


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        b"<html>",
        b"nul",
        b"{'a': 1}",
        b'{"a": "\xe9',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x00",
        b"1" * 5000,
    ],
    ids=range(11),
)
def test_what_is_no_json_is_none(content: bytes) -> None:
    response = Response(200, {}, content)
    assert response.json() is None
    assert response.json_object() == {}


@pytest.mark.parametrize("content", [b"null", b"[]", b'"text"', b"7", b"true", b"NaN", b"[{}]"])
def test_what_is_no_object_is_an_empty_one(content: bytes) -> None:
    assert Response(200, {}, content).json_object() == {}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (rb'{"a": "x\ud83dy"}', {"a": "x\ufffdy"}),
        (rb'{"a": "\udc00"}', {"a": "\ufffd"}),
        (rb'{"\ud800": ["\ud83d\ude00"]}', {"\ufffd": ["😀"]}),
        (b'{"a": "\xed\xa0\x80"}', {"a": "\ufffd\ufffd\ufffd"}),
        (rb'{"a": "\\ud800"}', {"a": r"\ud800"}),
    ],
)
def test_half_a_surrogate_pair_becomes_storable(content: bytes, found: object) -> None:
    assert Response(200, {}, content).json() == found


CAFE = {"a": "a café\n"}
RAW = '{"a": "a café\n"}'  # with a line break as it is


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (RAW.encode(), ""),
        (RAW.encode(), "application/json; charset=utf-8"),
        (RAW.encode("utf-8-sig"), "application/json"),
        (RAW.encode("latin-1"), "application/json; charset=ISO-8859-1"),
        (RAW.encode("latin-1"), 'text/plain; x=y; CharSet="latin-1"'),
        (RAW.encode("cp1252"), "text/plain;charset=windows-1252"),
        (RAW.encode("utf-16"), "application/json"),
        (RAW.encode("utf-16"), "application/json; charset=utf-8"),
        (RAW.encode("utf-16-le"), "application/json; charset=utf-16le"),
        (RAW.encode("utf-16-be"), ""),
        (RAW.encode("utf-32"), ""),
    ],
)
def test_text_is_read_in_its_charset(content: bytes, content_type: str) -> None:
    response = Response(200, {"content-type": content_type}, content)
    assert response.json() == CAFE
    assert response.text == RAW


@pytest.mark.parametrize(
    "charset", ["", "base64", "hex", "idna", "undefined", "no-such", "utf-8; drop", "\ud800", "zlib"]
)
def test_a_charset_that_is_none_is_utf_8(charset: str) -> None:
    response = Response(200, {"content-type": f"application/json; charset={charset}"}, RAW.encode())
    assert response.json() == CAFE


@given(
    content=st.binary(max_size=60),
    charset=st.sampled_from(["", "utf-8", "utf-16", "utf-7", "latin-1", "idna", "rot13"]),
)
def test_any_bytes_are_a_text_that_can_be_stored(content: bytes, charset: str) -> None:
    response = Response(200, {"content-type": f"text/plain; charset={charset}"}, content)
    assert response.text.encode().decode() == response.text


@given(text=st.text(), at=st.integers(0, 10**6), broken=st.sampled_from([b"\xe9", b"\xff", b"\xc3", b"\x80"]))
def test_one_broken_byte_loses_no_more_than_itself(text: str, at: int, broken: bytes) -> None:
    at %= len(text) + 1
    before, after = json.dumps(text[:at], ensure_ascii=False)[1:-1], json.dumps(text[at:], ensure_ascii=False)[1:-1]
    content = b'{"a": "' + before.encode(errors="replace") + broken + after.encode(errors="replace") + b'"}'
    found = Response(200, {}, content).json()["a"]
    assert found.count("\ufffd") == text.count("\ufffd") + 1
    assert found.replace("\ufffd", "") == text.replace("\ufffd", "")


@pytest.mark.parametrize("control", [chr(code) for code in range(0x20)])
def test_a_control_character_within_a_text_is_taken_as_it_is(control: str) -> None:
    assert Response(200, {}, f'{{"a": "x{control}y"}}'.encode()).json() == {"a": f"x{control}y"}


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b" {}\r\n"])
def test_json_in_another_dress_is_read(content: bytes) -> None:
    assert Response(200, {}, content).json() == {}


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert Response(200, {}, b"caf\xe9").text == "caf\ufffd"


def test_a_vendors_words_are_shown_in_one_short_line() -> None:
    assert one_line("a\r\n b", None, 7, ["x"], " ", {"message": "c"}, {"message": {}}, {}) == "a b: c"
    assert one_line("x" * 201) == "x" * 200 + "…"
    assert one_line() == ""


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("https://a.example.com/b.jpg?X-Amz-Signature=s3cr3t", "https://a.example.com/b.jpg?…"),
        ("https://user:s3cr3t@a.example.com/b@c.jpg", "https://a.example.com/b@c.jpg"),
        ("https://a.example.com/b.jpg#s3cr3t", "https://a.example.com/b.jpg"),
        ("https://a.example.com?s3cr3t", "https://a.example.com?…"),
        ("s3://bucket/b.jpg", "s3://bucket/b.jpg"),
        ("b.jpg?s3cr3t", "b.jpg?…"),
    ],
)
def test_a_signed_address_is_shown_without_its_secrets(url: str, masked: str) -> None:
    assert mask_query(url) == masked
    assert "s3cr3t" not in repr(Request("GET", url, {"x-api-key": "s3cr3t"}, (b"s3cr3t",), secrets=("s3cr3t",)))
