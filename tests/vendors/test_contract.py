"""What every vendor file must do, whichever vendor it is: a third vendor is run through this as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest

from airflow_provider_describer.errors import (
    EXCERPT_CHARS,
    AccountError,
    Billed,
    DescriberError,
    RateLimited,
    UnexpectedAnswer,
    VendorUnavailable,
)
from airflow_provider_describer.models import Description, Running
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Response

if TYPE_CHECKING:
    from tests.vendors.conftest import Parsed, Reader, Sample

STATUSES = [200, 201, 204, 300, 302, 307, 400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 413, 414, 415]
STATUSES += [418, 421, 422, 424, 425, 429, 431, 451, 500, 501, 502, 503, 504, 505, 507, 511, 520, 529, 599]
FREE = ("check", "upload", "credits")
RUNNING = Running("8f2d", 1000.0, "PROCESSING")
HTML = b"<!DOCTYPE html>\n<html><head><title>Oops</title></head><body>nginx</body></html>\n"
BODIES = {
    "html": HTML,
    "empty": b"",
    "blank": b" \r\n",
    "zeros": bytes(64),
    "half_an_object": b'{"code": 200, "status": "COMPLETED", "output": "A mu',
    "half_a_text": b'"A mu',
    "half_a_page": HTML[:40],
    "nested_without_end": b'{"output":' * 50_000,
    "nested_deeply": b"[" * 900 + b"]" * 900,
    "huge_number": b'{"code": 1%b, "cost": 1%b}' % (b"0" * 400, b"0" * 5000),
    "null": b"null",
    "wrong_types": b'{"code": [], "data": 7, "status": {}, "output": [[]], "error": [1], "msg": {}, "urls": ""}',
}
REQUIRED = {
    ("InvalidKey", "invalid_key"),
    ("InsufficientCredits", "insufficient_credits"),
    ("Forbidden", "forbidden"),
    ("WrongEndpoint", "wrong_endpoint"),
    ("RejectedImage", "harmful_content"),
    ("RejectedImage", "invalid_param"),
    ("RejectedImage", "too_large"),
    ("RateLimited", "rate_limited"),
    ("VendorUnavailable", "unavailable"),
    ("UnexpectedAnswer", "unexpected_answer"),
}


def check_error(error: DescriberError, operation: str, key: str) -> None:
    assert type(error) not in (DescriberError, AccountError), "a leaf says what to do"
    assert error.kind not in ("error", "account")
    assert error.billed in get_args(Billed)
    assert error.billed == "no" or operation not in FREE, "what is free is never billed"
    assert str(error).strip()
    assert key not in f"{error}{error!r}{error.args}{vars(error)}"
    str(error).encode()
    if isinstance(error, RateLimited | VendorUnavailable):
        assert error.retry_at is None or abs(error.retry_at) < float("inf")


def check_outcome(
    reader: Reader, operation: str, response: Response, key: str, running: Running = RUNNING
) -> Parsed | DescriberError:
    """Read an answer; only a good value or a leaf of the tree may come out, never a bare exception."""
    try:
        found = reader.read(operation, response, running)
    except DescriberError as error:
        check_error(error, operation, key)
        return error
    if operation in ("describe", "poll"):
        assert isinstance(found, Description | Running)
        words = found.text if isinstance(found, Description) else found.request_id
        assert words.strip() and words.encode()
    else:
        assert isinstance(found, float if operation == "credits" else str)
    assert key not in repr(found)
    return found


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_any_body_at_any_status_ends_in_a_known_outcome(reader: Reader, body: bytes, key: str) -> None:
    for operation in reader.operations:
        for status in STATUSES:
            for kind in ("application/json", "text/html", ""):
                check_outcome(reader, operation, Response(status, {"content-type": kind}, body), key)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_success_that_cannot_be_read_is_never_free_of_cost(reader: Reader, name: str, status: int) -> None:
    response = Response(status, {"content-type": "application/json"}, BODIES[name])
    with pytest.raises(UnexpectedAnswer) as caught:
        reader.read("describe", response)
    assert caught.value.billed != "no"
    assert caught.value.answer == response.text[:65536], "it may have been paid for"


def test_an_answer_cut_off_anywhere_is_no_description(reader: Reader, key: str) -> None:
    good = [sample for sample in json_samples(reader) if {"description", "running"} & set(sample.expected)]
    assert good
    for sample in good:
        content = sample.response.content.rstrip()
        for length in range(len(content)):
            cut = replace(sample.response, content=content[:length])
            error = check_outcome(reader, sample.operation, cut, key, sample.running)
            assert isinstance(error, DescriberError), (sample.case, length)
            assert error.billed != "no", (sample.case, length)


def test_an_error_cut_off_anywhere_is_no_description(reader: Reader, key: str) -> None:
    bad = [sample for sample in json_samples(reader) if "error" in sample.expected]
    assert bad
    for sample in bad:
        content = sample.response.content[:400]
        for length in range(len(content)):
            cut = replace(sample.response, content=content[:length])
            found = check_outcome(reader, sample.operation, cut, key, sample.running)
            assert not isinstance(found, Description), (sample.case, length)


def test_an_error_shows_no_more_than_200_characters_of_an_answer(reader: Reader, key: str) -> None:
    for sample in json_samples(reader):
        for value in swollen(sample.response.json()):
            for status in (sample.response.status, 400, 418, 422, 500):
                response = replace(sample.response, status=status, content=json.dumps(value).encode())
                error = check_outcome(reader, sample.operation, response, key)
                assert not isinstance(error, DescriberError) or str(error).count("X") <= EXCERPT_CHARS, sample.case
                assert not isinstance(error, Running) or len(error.request_id) <= EXCERPT_CHARS


def test_long_pages_are_shown_cut_short_and_kept(reader: Reader) -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        reader.read("describe", Response(200, {"content-type": "text/html"}, b"<html>" + b"X" * 100_000))
    assert str(caught.value).count("X") == EXCERPT_CHARS - len("<html>")
    assert "…" in str(caught.value)
    assert len(caught.value.answer) == 65536


@pytest.mark.parametrize("pause", [5, 3600])
def test_a_429_says_when(reader: Reader, pause: int) -> None:
    for operation in reader.operations:
        with pytest.raises(RateLimited) as caught:
            reader.read(operation, Response(429, {"retry-after": str(pause)}, HTML, received_at=1000.0))
        assert caught.value.retry_at == 1000.0 + pause


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_account_is_told_which_connection_to_mend(reader: Reader, status: int) -> None:
    for operation in reader.operations:
        with pytest.raises(AccountError, match="'shop'"):
            reader.read(operation, Response(status, {}, HTML))


def test_a_lost_poll_never_says_that_nothing_was_billed(reader: Reader, key: str) -> None:
    if "poll" not in reader.operations:
        with pytest.raises(NotImplementedError):
            reader.read("poll", Response(200))
        return
    for status in STATUSES:
        error = check_outcome(reader, "poll", Response(status, {}, HTML), key)
        assert isinstance(error, DescriberError) and error.billed == "unknown", status
        assert error.request_id == "8f2d"


def test_each_required_case_is_recorded(vendor: Vendor, all_samples: tuple[Sample, ...]) -> None:
    samples = [sample for sample in all_samples if sample.vendor == vendor.name]
    recorded = {(sample.expected.get("error"), sample.expected.get("kind")) for sample in samples}
    assert REQUIRED - recorded == set()
    describing = [sample for sample in samples if sample.operation == "describe"]
    assert any("description" in sample.expected for sample in describing)
    for status in (200, 502):
        bodies = {sample.response.content[:1] for sample in describing if sample.response.status == status}
        assert {b"", b"<"} <= bodies | ({b""} if status == 502 else set())
    assert sum("error" in sample.expected for sample in samples) > len(samples) / 2
    assert any("check" in sample.expected for sample in samples)


def json_samples(reader: Reader) -> list[Sample]:
    return [sample for sample in reader.samples if Response(200, {}, sample.response.content).json() is not None]


def swollen(value: Any) -> Iterator[Any]:
    """The value with one text after the other made very long."""
    if isinstance(value, str):
        yield "X" * 5000
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from ([*value[:index], long, *value[index + 1 :]] for long in swollen(item))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from ({**value, name: long} for long in swollen(item))
