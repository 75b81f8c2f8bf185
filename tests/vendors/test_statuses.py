"""What each HTTP status means for money and for the image, at each vendor, whatever the body is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.errors import (
    AccountError,
    AmbiguousCall,
    Billed,
    DescriberError,
    Forbidden,
    InsufficientCredits,
    InvalidKey,
    ModelRetired,
    RateLimited,
    RejectedImage,
    RetryLater,
    UnexpectedAnswer,
    VendorUnavailable,
    WrongEndpoint,
)
from airflow_provider_describer.models import Description, Running
from airflow_provider_describer.vendors.wire import Response

if TYPE_CHECKING:
    from tests.vendors.conftest import Reader

HTML = b"<html><head><title>Oops</title></head><body>nginx</body></html>"
FOREIGN = {
    "html": HTML,
    "empty": b"",
    "text": b"upstream connect error or disconnect/reset before headers",
    "json_message": b'{"message": "no"}',
    "json_detail": b'{"detail": [{"loc": ["body", "file"], "msg": "field required"}]}',
    "json_list": b'[{"no": 1}]',
}
SEGMIND_UNBILLED = {500, 502, 504}
SAME = {
    **dict.fromkeys(range(300, 309), WrongEndpoint),
    401: InvalidKey,
    402: InsufficientCredits,
    403: Forbidden,
    **dict.fromkeys((404, 405, 407, 414, 421, 431), WrongEndpoint),
    **dict.fromkeys((408, 425), VendorUnavailable),
    410: ModelRetired,
    413: RejectedImage,
    429: RateLimited,
    451: Forbidden,
}


def expected(reader: Reader, status: int, body: bytes) -> tuple[type[DescriberError], Billed]:
    """What a billable call has come to if the body is not the vendor's own."""
    segmind = reader.vendor.name == "segmind"
    if status >= 500:
        return (VendorUnavailable, "no") if segmind and status in SEGMIND_UNBILLED else (AmbiguousCall, "unknown")
    if segmind and status == 406:
        return InsufficientCredits, "no"
    return SAME.get(status, UnexpectedAnswer), "no"


def outcome(reader: Reader, operation: str, response: Response) -> DescriberError:
    with pytest.raises(DescriberError) as caught:
        reader.read(operation, response)
    return caught.value


@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN)
def test_every_status_of_a_billable_call(reader: Reader, body: bytes) -> None:
    for status in (*range(300, 309), *range(400, 600)):
        error = outcome(reader, "describe", Response(status, {}, body))
        assert (type(error), error.billed) == expected(reader, status, body), status


@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN)
def test_no_status_rejects_an_image_without_the_vendors_own_words(reader: Reader, body: bytes) -> None:
    rejecting = [
        status
        for status in range(200, 600)
        if isinstance(outcome(reader, "describe", Response(status, {}, body)), RejectedImage)
    ]
    # A gateway's limit of size is about the image; the engine keeps it for no later run.
    assert rejecting == [413]


@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN)
def test_a_free_request_is_repeated_after_any_5xx(reader: Reader, body: bytes) -> None:
    for operation in reader.operations:
        for status in range(500, 600) if operation != "describe" else ():
            error = outcome(reader, operation, Response(status, {}, body))
            assert type(error) is VendorUnavailable, (operation, status)
            assert error.billed == ("unknown" if operation == "poll" else "no")


def test_a_poll_never_says_that_the_request_was_free(reader: Reader) -> None:
    if "poll" not in reader.operations:
        return
    for status in range(300, 600):
        error = outcome(reader, "poll", Response(status, {}, HTML))
        assert error.billed == "unknown" and error.request_id == "8f2d", status
        assert isinstance(error, RetryLater | AccountError | AmbiguousCall), status


@pytest.mark.parametrize("status", [200, 500, 502, 524])
def test_a_gateways_code_is_not_image_describers_own(reader: Reader, status: int) -> None:
    if reader.vendor.name == "image_describer":
        gateways = outcome(
            reader, "describe", Response(status, {}, b'{"code": 500, "message": "Internal server error"}')
        )
        assert gateways.billed == "unknown"
        own = outcome(
            reader, "describe", Response(status, {}, b'{"code": 500, "succeed": false, "msg": "SERVER_ERROR"}')
        )
        assert (type(own), own.billed) == (VendorUnavailable, "no")


def test_segminds_own_503_is_an_error_of_its_own(reader: Reader) -> None:
    if reader.vendor.name == "segmind":
        error = outcome(reader, "describe", Response(503, {}, b'{"error": "no GPU is free"}'))
        assert (type(error), error.billed) == (VendorUnavailable, "no")
        for status in (501, 520, 524, 529):
            error = outcome(reader, "describe", Response(status, {}, b'{"error": "no GPU is free"}'))
            assert (type(error), error.billed) == (AmbiguousCall, "unknown")


def test_who_asks_for_the_call_again_has_not_taken_it(reader: Reader) -> None:
    for body in FOREIGN.values():
        error = outcome(reader, "describe", Response(503, {"retry-after": "7"}, body, received_at=1000.0))
        assert (type(error), error.billed) == (VendorUnavailable, "no")
        assert isinstance(error, RetryLater) and error.retry_at == 1007.0
    for status in (501, 520, 524, 529):
        error = outcome(reader, "describe", Response(status, {"retry-after": "7"}, HTML, received_at=1000.0))
        assert error.billed == "unknown", "a proxy that names a time may have passed the call on"


@pytest.mark.parametrize("status", [202, 204, 205, 206, 207, 208, 226, 250, 299])
def test_a_2xx_that_is_no_200_is_no_description(reader: Reader, status: int) -> None:
    for sample in reader.samples:
        if sample.operation != "describe" or "description" not in sample.expected:
            continue
        with pytest.raises(UnexpectedAnswer) as caught:
            reader.read("describe", Response(status, sample.response.headers, sample.response.content))
        assert caught.value.billed != "no" and caught.value.answer, sample.case


@pytest.mark.parametrize("status", [100, 101, 103])
def test_a_1xx_is_no_answer(reader: Reader, status: int) -> None:
    error = outcome(reader, "describe", Response(status, {}, b""))
    assert isinstance(error, UnexpectedAnswer) and error.billed == "unknown"


@pytest.mark.parametrize("status", [400, 415, 422])
@pytest.mark.parametrize(
    ("reason", "at_fault"),
    [
        ("image is GIF; only JPEG, PNG, WEBP are supported", "image"),
        ("image_file could not be fetched", "image"),
        ("Unsupported image parameter: CMYK", "image"),
        ("Image failed the safety check", "image"),
        ("missing required field: image_file", "request"),
        ("image_file is required", "request"),
        ("Unknown parameter img", "request"),
        ("extra field not permitted", "request"),
        ("Model ideogram-describe is not enabled", "request"),
    ],
)
def test_segminds_own_refusals(reader: Reader, status: int, reason: str, at_fault: str) -> None:
    if reader.vendor.name != "segmind":
        return
    error = outcome(reader, "describe", Response(status, {}, f'{{"error": "{reason}"}}'.encode()))
    assert type(error) is (RejectedImage if at_fault == "image" else UnexpectedAnswer)
    assert error.billed == "no" and reason in str(error)


@pytest.mark.parametrize(
    ("reason", "at_fault"),
    [
        ("INVALID_PARAM", "image"),
        ("Invalid parameters", "image"),
        ("INVALID_PARAM: cannot download the image", "image"),
        ("INVALID_PARAM: prompt and image do not match", "image"),
        ("INVALID_PARAM: lang must be one of en, de", "request"),
        ("INVALID_PARAM: prompt is too long", "request"),
        ("Unsupported language: xx", "request"),
        ("missing parameter 'lang'", "request"),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 422])
def test_image_describers_invalid_param(reader: Reader, reason: str, at_fault: str, status: int) -> None:
    if reader.vendor.name != "image_describer":
        return
    body = f'{{"code": 10004, "succeed": false, "msg": "{reason}"}}'.encode()
    error = outcome(reader, "describe", Response(status, {}, body))
    assert type(error) is (RejectedImage if at_fault == "image" else UnexpectedAnswer)
    assert error.billed == "no"
    assert "accepts the API key" in str(reader.read("check", Response(status, {}, body)))


def test_a_200_that_can_be_read_is_still_a_description(reader: Reader) -> None:
    good = [sample for sample in reader.samples if "description" in sample.expected and sample.operation == "describe"]
    assert good or reader.api_version == "v2"
    for sample in good:
        assert isinstance(reader.read("describe", sample.response), Description | Running)
