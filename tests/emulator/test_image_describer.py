from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from tests.emulator.conftest import Caller, ImageServer

PATH = "/api/openapi-v2/describe-image"


def refused(response: httpx.Response, code: int) -> str:
    answer = response.json()
    assert (response.status_code, answer["code"], answer["succeed"]) == (200, code, False)
    return str(answer["msg"])


def test_a_file_is_described_and_billed(call: Caller, image: Callable[..., bytes]) -> None:
    picture = image(size=(64, 48))
    answer = call.describe(picture, prompt="Name the colour.", lang="fi").json()
    assert (answer["code"], answer["succeed"], answer["msg"]) == (200, True, "Success")
    content = answer["data"]["content"]
    for expected in (
        "JPEG",
        "64 x 48",
        f"{len(picture)} bytes",
        "red",
        "landscape",
        "Name the colour.",
        "(fi)",
    ):
        assert expected in content
    assert hashlib.sha256(picture).hexdigest()[:12] in content
    (entry,) = call.emulator.ledger()["entries"]
    assert (entry["billed"], entry["answered"], entry["outcome"]) == (True, True, "described")
    assert (entry["image_via"], entry["prompt"], entry["lang"]) == ("file", "Name the colour.", "fi")
    assert (entry["image_bytes"], entry["status"]) == (len(picture), 200)


def test_lang_is_english_unless_said(call: Caller) -> None:
    assert "English (en)" in call.describe().json()["data"]["content"]


@pytest.mark.parametrize("lang", ["en", "zh", "de", "es", "fr", "ja", "ko", "fi", "nl", "pt", "tr", "ru"])
def test_every_documented_language_is_taken(call: Caller, lang: str) -> None:
    assert f"({lang})" in call.describe(lang=lang).json()["data"]["content"]


@pytest.mark.parametrize(("form", "media_type"), [("PNG", "image/png"), ("WEBP", "image/webp"), ("GIF", "image/gif")])
def test_a_data_uri_is_described(
    call: Caller,
    http: httpx.Client,
    image: Callable[..., bytes],
    uri: Callable[..., str],
    form: str,
    media_type: str,
) -> None:
    fields = {"image": (None, uri(image(form), media_type)), "prompt": (None, "x")}
    answer = http.post(PATH, files=fields, headers=call.bearer).json()
    assert form in answer["data"]["content"]
    assert call.emulator.ledger()["entries"][0]["image_via"] == "inline"


def test_a_large_data_uri_is_described(
    call: Caller, http: httpx.Client, noise: Callable[..., bytes], uri: Callable[..., str]
) -> None:
    picture = noise("PNG", (900, 700))
    assert len(picture) > 1_500_000
    fields = {"image": (None, uri(picture, "image/png")), "prompt": (None, "x")}
    assert "900 x 700" in http.post(PATH, files=fields, headers=call.bearer).text


@pytest.mark.parametrize("path", ["/a.png", "/moved.png"])
def test_a_url_is_fetched_by_the_vendor(call: Caller, http: httpx.Client, image_server: ImageServer, path: str) -> None:
    fields = {"image": (None, image_server.url + path), "prompt": (None, "x")}
    answer = http.post(PATH, files=fields, headers=call.bearer).json()
    assert f"{len(image_server.image)} bytes" in answer["data"]["content"]
    assert call.emulator.ledger()["entries"][0]["image_via"] == "url"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/gone.png", "answered 404"),
        ("/page.png", "not a readable image"),
        ("/short.png", "broke off"),
        ("/never.png", "timed out"),
        ("/file.png", "could not be fetched"),
    ],
)
def test_a_url_that_leads_to_no_image_is_refused(
    call: Caller, http: httpx.Client, image_server: ImageServer, path: str, why: str
) -> None:
    call.emulator.faults({"image_describer": {"fetch_timeout_s": 0.2 if path == "/never.png" else 30}})
    fields = {"image": (None, image_server.url + path), "prompt": (None, "x")}
    assert why in refused(http.post(PATH, files=fields, headers=call.bearer), 10004)
    assert call.emulator.ledger()["billed"] == 0


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": ""}])
def test_the_key_is_checked_before_anything_else(call: Caller, http: httpx.Client, header: dict[str, str]) -> None:
    assert "INVALID_API_KEY" in refused(http.post(PATH, content=b"nonsense", headers=header), 30001)
    ledger = call.emulator.ledger()
    assert (ledger["requests"], ledger["billed"]) == (1, 0)


def test_the_key_must_be_a_bearer_token(call: Caller, http: httpx.Client) -> None:
    bare = {"Authorization": call.emulator.keys["image_describer"]}
    refused(http.post(PATH, content=b"", headers=bare), 30001)


def test_a_valid_key_without_an_image_is_refused_with_a_reason(call: Caller, http: httpx.Client) -> None:
    response = http.post(PATH, files={"prompt": (None, "x")}, headers=call.bearer)
    assert "'image' is missing" in refused(response, 10004)
    assert call.emulator.ledger()["billed"] == 0


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"prompt": ("prompt", b"x")}, "'prompt' was sent as a file part"),
        ({"prompt": (None, b"x", "application/json")}, "'prompt' was sent as 'application/json'"),
        ({"prompt": (None, b"\xff\xfe")}, "'prompt' is not UTF-8"),
        ({"prompt": (None, b"  \n")}, "'prompt' is blank"),
        ({"prompt": None}, "'prompt' is missing"),
        ({"lang": (None, b"xx")}, "'lang' is 'xx'"),
        ({"lang": (None, b"")}, "'lang' is ''"),
        ({"lang": ("lang", b"en")}, "'lang' was sent as a file part"),
        ({"language": (None, b"en")}, "unknown field 'language'"),
        ({"image": ("", b"JPEG", "image/jpeg")}, "'image' has no filename"),
        ({"image": (None, b"JPEG", "image/jpeg")}, "'image' has no filename"),
        ({"image": ("a.png", b"JPEG", "image/png")}, "sent as 'image/png' but is 'image/jpeg'"),
        ({"image": ("a", b"JPEG", "application/octet-stream")}, "sent as 'application/octet-stream'"),
        ({"image": (None, b"ftp://host/a.jpg")}, "neither an http(s) URL nor a base64 data URI"),
        ({"image": (None, b"")}, "neither an http(s) URL nor a base64 data URI"),
        ({"image": (None, b"data:image/jpeg,plain")}, "not a data URI of the form"),
        ({"image": (None, b"data:image/jpeg;base64,@@@@")}, "broken base64"),
        ({"image": ("a.jpg", b"", "image/jpeg")}, "not a readable image"),
        ({"image": ("a.jpg", b"<svg/>", "image/jpeg")}, "not a readable image"),
    ],
)
def test_a_malformed_form_is_refused_with_a_reason(
    call: Caller, http: httpx.Client, image: Callable[..., bytes], fields: dict[str, Any], why: str
) -> None:
    form = {"image": ("a.jpg", b"JPEG", "image/jpeg"), "prompt": (None, b"x"), **fields}
    sent = {
        name: (part[0], image() if part[1] == b"JPEG" else part[1], *part[2:])
        for name, part in form.items()
        if part is not None
    }
    assert why in refused(http.post(PATH, files=sent, headers=call.bearer), 10004)
    assert call.emulator.ledger()["billed"] == 0


def test_a_field_sent_twice_is_refused(call: Caller, http: httpx.Client, image: Callable[..., bytes]) -> None:
    fields: list[tuple[str, Any]] = [
        ("image", ("a.jpg", image(), "image/jpeg")),
        ("prompt", (None, "a")),
        ("prompt", (None, "b")),
    ]
    assert "'prompt' was sent twice" in refused(http.post(PATH, files=fields, headers=call.bearer), 10004)


def test_a_file_part_needs_a_content_type(call: Caller, http: httpx.Client, image: Callable[..., bytes]) -> None:
    head = b'--X\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    body = head % (b"prompt", b"") + b"x\r\n" + head % (b"image", b'; filename="a"') + image() + b"\r\n--X--\r\n"
    headers = {**call.bearer, "content-type": "multipart/form-data; boundary=X"}
    assert "no Content-Type" in refused(http.post(PATH, content=body, headers=headers), 10004)


@pytest.mark.parametrize(
    ("content_type", "body", "why"),
    [
        ("application/json", b"{}", "must be multipart/form-data"),
        ("application/x-www-form-urlencoded", b"prompt=x", "must be multipart/form-data"),
        ("multipart/form-data", b"", "without a boundary"),
        ("multipart/form-data; boundary=X", b"no part in sight", "malformed"),
        (
            "multipart/form-data; boundary=X",
            b"--X\r\nContent-Disposition: form-data\r\n\r\nx\r\n--X--\r\n",
            "with a name",
        ),
        (
            "multipart/form-data; boundary=X",
            b'--X\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx',
            "last boundary",
        ),
        ("multipart/form-data; boundary=X", b"", "last boundary"),
    ],
)
def test_a_body_that_is_no_form_is_refused(
    call: Caller, http: httpx.Client, content_type: str, body: bytes, why: str
) -> None:
    headers = {**call.bearer, "content-type": content_type}
    assert why in refused(http.post(PATH, content=body, headers=headers), 10004)


def test_a_truncated_image_is_refused_in_every_format(
    call: Caller, http: httpx.Client, noise: Callable[..., bytes]
) -> None:
    for form in ("JPEG", "PNG", "WEBP"):
        whole = noise(form)
        part = ("a", whole[: len(whole) * 2 // 3], f"image/{form.lower()}")
        response = http.post(PATH, files={"image": part, "prompt": (None, "x")}, headers=call.bearer)
        assert "not a readable image" in refused(response, 10004), form
    assert call.emulator.ledger()["cost_usd"] == 0


def test_other_methods_get_an_html_page(call: Caller, http: httpx.Client) -> None:
    response = http.get(PATH)
    assert response.status_code == 405
    assert response.headers["content-type"].startswith("text/html")
    assert call.emulator.ledger()["requests"] == 0


@pytest.mark.parametrize(
    ("style", "status", "has_data"),
    [("200", 200, True), ("200_no_data", 200, False), ("http", 400, True), ("http_no_data", 400, False)],
)
def test_errors_come_in_every_undocumented_form(call: Caller, style: str, status: int, has_data: bool) -> None:
    call.emulator.faults({"image_describer": {"error_style": style}})
    response = call.describe(prompt=" ")
    assert response.status_code == status
    answer = response.json()
    assert (answer["code"], answer["succeed"], "data" in answer) == (10004, False, has_data)
    assert answer.get("data") is None
