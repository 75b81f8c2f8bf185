"""An answer with HTTP 200 that says that it is an error is no description, in whatever words it says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.errors import DescriberError, UnexpectedAnswer
from airflow_provider_describer.models import Description, Running
from airflow_provider_describer.vendors.answers import describes, says_error
from airflow_provider_describer.vendors.wire import Response

if TYPE_CHECKING:
    from tests.vendors.conftest import Reader

MUG = "A red enamel mug on a wooden table, soft morning light, 50mm photograph"
ERRORS: list[dict[str, Any]] = [
    {"error": "Model overloaded"},
    {"error": {"message": "Model overloaded", "type": "server_error"}},
    {"error": True},
    {"error": 1},
    {"Error": "x"},
    {"errors": ["Model overloaded"]},
    {"errors": [{"message": "x"}]},
    {"error_message": "Model overloaded"},
    {"errorMessage": "x"},
    {"error_code": "E17"},
    {"error_description": "x"},
    {"last_error": "x"},
    {"exception": "ValueError"},
    {"status": "error"},
    {"status": "FAILED"},
    {"status": "Failure"},
    {"status": "timed_out"},
    {"status": "timeout"},
    {"status": "cancelled"},
    {"status": "rejected"},
    {"status": "processing"},
    {"status": "QUEUED"},
    {"status": False},
    {"status": 500},
    {"status": "502"},
    {"state": "failed"},
    {"type": "error"},
    {"success": False},
    {"success": "false"},
    {"success": 0},
    {"success": None},
    {"succeed": False},
    {"ok": False},
    {"code": 400},
    {"code": "500"},
    {"code": 10003},
    {"code": -1},
    {"code": "SERVER_ERROR"},
    {"status_code": 429},
    {"statusCode": 500},
    {"isError": True},
    {"failed": True},
    {"status": "Unprocessable Entity"},
    {"status": "NOK"},
    {"message": "Internal Server Error"},
    {"detail": "Bad Gateway"},
    {"message": "Model overloaded, try again"},
    {"detail": "Failed to load the image"},
    {"errcode": 40001},
    {"err_msg": "invalid credential"},
    {"errno": 5},
    {"has_errors": True},
    {"failed_reason": "out of memory"},
    {"retcode": -1},
    {"resultCode": "FAIL"},
    {"result": "error"},
    {"outcome": "failure"},
    {"phase": "Failed"},
    {"status": "ERR"},
    {"status": "失败"},
    {"status": "completed with errors"},
    {"type": "server_error"},
]
NO_ERRORS: list[dict[str, Any]] = [
    {},
    {"error": None},
    {"error": ""},
    {"error": False},
    {"error": {}},
    {"error": "none"},
    {"error": {"code": 0, "message": ""}},
    {"errors": []},
    {"error_count": 0},
    {"status": "success"},
    {"status": "ok"},
    {"status": "COMPLETED"},
    {"status": "Done"},
    {"status": 200},
    {"status": "200"},
    {"status": True},
    {"success": True},
    {"success": "true"},
    {"ok": 1},
    {"code": 200},
    {"code": 0},
    {"code": "ok"},
    {"statusCode": 200},
    {"type": "text"},
    {"message": "Success"},
    {"msg": "ok"},
    {"detail": None},
    {"error": "No error"},
    {"errors": "no errors"},
    {"status": "finished processing"},
    {"status": "Completed with 0 errors"},
    {"type": "image_processing"},
    {"result": "success"},
    {"mean_squared_error": 0.12},
    {"ret": 0},
]
TEXTS = ("descriptions", "output", "text", "description", "data", "prompt")


def forms(**about: Any) -> list[Any]:
    """Segmind's forms of an answer with this beside the text."""
    return [
        *({name: MUG, **about} for name in TEXTS),
        {"descriptions": [{"text": MUG}], **about},
        {"descriptions": [{"text": MUG, **about}]},
        {"output": {"text": MUG, **about}},
        {"data": [{"description": MUG, **about}]},
        [{"text": MUG, **about}],
        [{"text": MUG}, about],
    ]


def choices(text: str) -> list[dict[str, Any]]:
    """The answer of an OpenAI-compatible server."""
    return [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]


def read(reader: Reader, value: Any) -> object:
    """How the vendor's file reads a result with this in it: v1's answer, v2's output, Image Describer's data."""
    if reader.vendor.name == "image_describer":
        value = {"code": 200, "succeed": True, "msg": "Success", "data": {"content": MUG, **value}}
    elif reader.vendor.name == "openai_compatible":
        value = {"choices": choices(MUG), **value}
    elif reader.api_version == "v2":
        answer = {"request_id": "8f2d", "status": "COMPLETED", "output": value}
        running = Running("8f2d", 0.0, "COMPLETED")
        return reader.read("poll", Response(200, {}, json.dumps(answer).encode()), running)
    return reader.read("describe", Response(200, {}, json.dumps(value).encode()))


@pytest.mark.parametrize("about", ERRORS, ids=json.dumps)
def test_a_text_beside_an_error_is_no_description(reader: Reader, about: dict[str, Any]) -> None:
    for value in forms(**about) if reader.vendor.name == "segmind" else [about]:
        with pytest.raises(UnexpectedAnswer) as caught:
            read(reader, value)
        assert caught.value.billed == ("yes" if reader.api_version == "v2" else "unknown"), value
        assert MUG in caught.value.answer, "it may be what was paid for"


@pytest.mark.parametrize("about", NO_ERRORS, ids=json.dumps)
def test_a_field_that_names_no_error_changes_nothing(reader: Reader, about: dict[str, Any]) -> None:
    values = forms(**about)[:-1] if reader.vendor.name == "segmind" else [about]
    for value in values:
        found = read(reader, value)
        assert isinstance(found, Description) and found.text == MUG, value


@pytest.mark.parametrize("about", ERRORS, ids=json.dumps)
def test_image_describers_envelope_says_it_too(reader: Reader, about: dict[str, Any]) -> None:
    if reader.vendor.name != "image_describer":
        return
    answer = {"code": 200, "succeed": True, "msg": "Success", "data": {"content": MUG}, **about}
    with pytest.raises(DescriberError) as caught:
        reader.read("describe", Response(200, {}, json.dumps(answer).encode()))
    documented = about in ({"code": "500"}, {"code": 10003})
    assert caught.value.billed == ("no" if documented else "unknown"), "a documented error is known to be unbilled"


def test_v2_says_it_beside_its_output(reader: Reader) -> None:
    if reader.api_version != "v2":
        return
    for about in ERRORS:
        answer = {**about, "request_id": "8f2d", "status": "COMPLETED", "output": [MUG]}
        if set(about) & {"status"}:
            continue
        with pytest.raises(UnexpectedAnswer) as caught:
            reader.read("poll", Response(200, {}, json.dumps(answer).encode()), Running("8f2d", 0.0, "COMPLETED"))
        assert caught.value.billed == "yes"


@pytest.mark.parametrize(
    "value",
    [
        {"image_file": "https://example.com/a.jpg", "prompt": "a mug"},
        {"input": {"prompt": "a mug"}},
        {"prompt": "a mug", "output": None},
        {"prompt": "a mug", "descriptions": []},
        {"output": "https://example.com/result.json"},
        {"prompt": "data:image/png;base64,AAAA"},
        {"text": "Internal Server Error"},
        {"output": "error code: 524"},
        {"description": "Model overloaded"},
        "Bad Gateway",
        ["null"],
        {"prompt": "a mug", "detail": "CUDA out of memory"},
        {"prompt": "a mug", "message": "The request could not be completed"},
        '{"error": "Model overloaded", "prompt": "a"}',
        {"output": '{"status": "error", "text": "A red enamel mug on a table"}'},
        {"output": "<html><body>Sign in</body></html>"},
        "Error: HTTPSConnectionPool(host='images.example.com', port=443): Max retries exceeded with url /a/b/c/d.jpg",
        {"text": "RuntimeError: CUDA error: an illegal memory access was encountered while the model ran"},
    ],
    ids=json.dumps,
)
def test_what_segmind_was_sent_or_failed_with_is_no_description(reader: Reader, value: object) -> None:
    if reader.vendor.name == "segmind":
        with pytest.raises(UnexpectedAnswer) as caught:
            read(reader, value)
        assert caught.value.billed != "no"


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": MUG, "message": "Success"},
        {"prompt": MUG, "id": "8f2d"},
        json.dumps({"descriptions": [{"text": MUG}]}),
        {"output": json.dumps([MUG])},
    ],
    ids=json.dumps,
)
def test_what_segmind_says_in_other_forms_is_a_description(reader: Reader, value: object) -> None:
    if reader.vendor.name == "segmind":
        found = read(reader, value)
        assert isinstance(found, Description) and found.text == MUG


NO_DESCRIPTIONS = [
    "Internal Server Error",
    "internal server error\n",
    "500 Internal Server Error",
    "HTTP/1.1 502 Bad Gateway",
    "Bad Gateway",
    "502 Bad Gateway",
    "Service Unavailable",
    "503 Service Temporarily Unavailable",
    "Gateway Timeout",
    "Gateway Time-out",
    "504",
    "upstream request timeout",
    "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
    "no healthy upstream",
    "error code: 524",
    "error code: 1020",
    "Not Found",
    "404 page not found",
    "default backend - 404",
    "Forbidden",
    "Access denied",
    "Unauthorized",
    "Too Many Requests",
    "Rate limit exceeded",
    "Request timed out",
    "An unexpected error occurred, please try again later.",
    "Something went wrong.",
    "Error",
    "Error: model overloaded",
    "Model overloaded",
    "ValueError: cannot identify image file",
    "stream timeout",
    "Backend fetch failed",
    "Insufficient credits",
    "Image failed the safety check",
    "null",
    "undefined",
    "OK",
    "https://example.com/result.txt",
    "<html>",
    "   ",
]


@pytest.mark.parametrize("text", NO_DESCRIPTIONS)
@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=utf-8", ""])
def test_a_gateways_words_are_no_description(reader: Reader, text: str, content_type: str) -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        reader.read("describe", Response(200, {"content-type": content_type}, text.encode()))
    own = reader.api_version == "v1" and text in ("504", "null")
    assert caught.value.billed == "unknown" or own


@pytest.mark.parametrize(
    "text",
    [
        MUG,
        "A red mug.",
        "A screenshot of a page that says 'Internal Server Error' in black letters on a white background.",
        "Terror: a movie poster",
        "Mirror: an oval frame in gold",
        "A door sign that reads 'Access denied'",
        "A timeout in a basketball game, the coach talks to five players",
    ],
)
def test_a_description_may_speak_of_errors(text: str) -> None:
    assert describes(text)


def test_a_message_of_success_may_speak_of_errors() -> None:
    assert not says_error([{"message": "Request processed successfully"}, {"message": "Completed without error"}])


PICTURES_OF_ERRORS = [
    "cat",
    "Upstream",
    "River upstream view",
    "Overloaded truck on a road",
    "Error message dialog on Windows XP",
    "Error 404 Not Found page screenshot",
    "A screenshot that says Error 404 Not Found",
    "error: a red dialog box with white text, vector art",
    "Error: a movie poster",
    "Fatal Attraction movie poster",
    "Exception by James",
    "Internal server error message on a monitor",
    "500 Internal Server Error page by a cartoon robot",
    "A bad gateway: broken wooden gate",
    "Game over, please try again",
    "A rate limit 50 road sign",
    "Safety check at an airport",
    "A phone showing 'invalid API key'",
    "A hand holds a card that reads 'timed out'",
    "An unexpected error of nature: two-headed snake",
    "Something went wrong, a kid crying",
    "Traceback (most recent call last) printed on a mug",
    "Failed experiment: broken glass on the floor",
    "Forbidden City at dawn",
    "<html> tag printed on a T-shirt",
    "Time out London magazine cover",
    "Processing plant",
    'A photo of a "status": "error" JSON',
    "一只猫坐在沙发上,旁边写着“错误”",
]
ERRORS_IN_WORDS = [
    "Error: CUDA out of memory",
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "The model is overloaded",
    "The server is currently overloaded with other requests.",
    "Model is loading",
    "Model is cold, please retry in 30 seconds",
    "Failed to load image from URL",
    "Could not download image",
    "cannot fetch https://cdn.example.com/catalog/products/2026/11/26/mug-red-enamel-front-view.jpg?w=1200&h=900 now",
    "Image could not be loaded",
    "Unable to process the request",
    "Invalid image URL",
    "No description available",
    "Inference failed",
    "Request was cancelled",
    "You have exceeded your quota",
    "API key is invalid",
    "Unauthorized: missing x-api-key header",
    "The read operation timed out",
    "timeout of 30000ms exceeded",
    "Not enough credits",
    "Payment required",
    "Read ECONNRESET",
    "socket hang up",
    "TypeError: fetch failed",
    "System is under maintenance",
    "Redirecting to https://example.com/login",
    "queued",
    "PROCESSING",
    "success",
    "Fehler: Modell überlastet",
    "Erreur interne du serveur",
    "内部服务器错误",
    "系统繁忙,请稍后再试",
    "エラー: 失敗しました",
    "Ошибка: модель недоступна",
]


@pytest.mark.parametrize("text", PICTURES_OF_ERRORS)
def test_a_short_description_of_an_error_is_kept_in_every_form(reader: Reader, text: str) -> None:
    values: list[Any] = [{name: text} for name in TEXTS] + [{"descriptions": [{"text": text}]}, text, [text]]
    if reader.vendor.name == "image_describer":
        values = [{"content": text}]
    elif reader.vendor.name == "openai_compatible":
        values = [{"choices": choices(text)}]
    for value in values:
        found = read(reader, value)
        assert isinstance(found, Description) and found.text == text, value


@pytest.mark.parametrize("text", ERRORS_IN_WORDS)
def test_the_words_of_an_error_are_no_description_in_any_form(reader: Reader, text: str) -> None:
    if reader.vendor.name == "segmind":
        for value in [*({name: text} for name in TEXTS), {"descriptions": [{"text": text}]}, text, [text]]:
            with pytest.raises(UnexpectedAnswer):
                read(reader, value)


@pytest.mark.parametrize(
    ("text", "is_kept"),
    [
        ("cat", True),
        ("Cat.", True),
        ("一只猫", True),
        ("a cat\r\non a sofa", True),
        ("{braces} in a sign", True),
        ("[Image: a cat on a sofa]", True),
        ("[1] A cat. [2] A dog.", True),
        ("<3 painted on a wall", True),
        ('"Hello" on a sign', True),
        ("# A cat\n\n- **black**", True),
        ('{"descriptions": [{"text": "A c', False),
        ('[{"text": "A c', False),
        ('["A cat sits on', False),
        ('"A cat sits on', False),
        ("[1, 2", False),
        ("{", False),
        ("<div>Sign in</div>", False),
        ("<h1>Oops</h1>", False),
        ("<!doctype html>", False),
        ("<p>Sign in<br>", False),
        ("a1b2c3d4e5f6", False),
        ("dGhpcyBpcyBiYXNlNjQ=", False),
        ("pong", False),
        ("ok", False),
        ("504", False),
    ],
)
def test_plain_text_is_kept_unless_it_is_markup_or_broken_json(reader: Reader, text: str, *, is_kept: bool) -> None:
    if reader.vendor.name != "segmind" or reader.api_version != "v1":
        return
    response = Response(200, {"content-type": "text/plain"}, text.encode())
    if is_kept:
        found = reader.read("describe", response)
        assert isinstance(found, Description) and found.text == text
    else:
        with pytest.raises(UnexpectedAnswer):
            reader.read("describe", response)


@given(
    value=st.recursive(
        st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=20)),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)),
    )
)
def test_an_error_anywhere_in_an_answer_is_found(value: Any) -> None:
    assert says_error([value, {"error": "x"}]) and says_error({"a": [value, {"success": False}]})
    assert isinstance(says_error(value), bool)
