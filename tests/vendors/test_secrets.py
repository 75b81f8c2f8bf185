"""What was sent and is quoted back: in no error, in whatever form. A key that is a word hides none of a description."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.errors import DescriberError, RejectedImage, UnexpectedAnswer
from airflow_provider_describer.models import Description
from airflow_provider_describer.vendors.secrets import mask, mask_bytes, mask_quoted, parse_masked, secrets_in
from airflow_provider_describer.vendors.wire import Response, one_line

if TYPE_CHECKING:
    from tests.vendors.conftest import Reader

HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
BASE64 = "kT/Hd+q1Zb4xN8vW0sJYp3mEgRA="
TOKEN = "IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3QtMSJHMEUCIQ" + "Ab3/+xYz" * 30 + "=="
S3 = (
    "https://shop.s3.eu-west-1.amazonaws.com/a%20b/mug.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="
    f"AKIAIOSFODNN7EXAMPLE%2F20251121%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=20251121T070720Z&X-Amz-Expires=3600"
    f"&X-Amz-SignedHeaders=host&X-Amz-Security-Token={quote(TOKEN, safe='')}&X-Amz-Signature={HEX}"
)
S3_V2 = (
    "https://shop.s3.amazonaws.com/mug.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Expires=1763708820"
    f"&Signature={quote(BASE64, safe='')}"
)
GCS = (
    "https://storage.googleapis.com/shop/mug.jpg?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential="
    "robot%40shop.iam.gserviceaccount.com%2F20251121%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=20251121T070720Z"
    f"&X-Goog-Expires=3600&X-Goog-SignedHeaders=host&X-Goog-Signature={HEX * 8}"
)
AZURE = (
    "https://shop.blob.core.windows.net/c/mug.jpg?sv=2022-11-02&se=2025-11-21T08%3A07Z&sr=b&sp=r"
    f"&sig={quote(BASE64, safe='')}"
)
USER = f"https://robot:{HEX[:24]}@images.example.com/mug.jpg"
OWN = f"https://cdn.example.com/mug.jpg?w=100&t={HEX[:32]}"
ADDRESSES = {"s3": S3, "s3_v2": S3_V2, "gcs": GCS, "azure": AZURE, "user": USER, "own": OWN}
SECRETS = [
    HEX[:24],
    HEX[24:48],
    BASE64,
    quote(BASE64, safe=""),
    TOKEN[:40],
    TOKEN[-40:],
    "AKIAIOSFODNN7EXAMPLE",
    "robot%40shop",
]
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "json": lambda url: json.dumps(url)[1:-1],
    "json with escaped slashes": lambda url: json.dumps(url)[1:-1].replace("/", "\\/"),
    "json as go writes it": lambda url: json.dumps(url)[1:-1].replace("&", "\\u0026").replace("=", "\\u003d"),
    "html": html.escape,
    "percent": lambda url: quote(url, safe=""),
    "percent twice": lambda url: quote(quote(url, safe=""), safe=""),
    "without the head": lambda url: url.rpartition("?")[2] or url,
    "without the scheme": lambda url: url.partition("://")[2],
    "json in json": lambda url: json.dumps(json.dumps({"url": url}))[1:-1],
    "python": lambda url: repr({"image_file": url}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ADDRESSES)
def test_no_error_quotes_an_address_with_its_secrets(kind: str, form: str) -> None:
    url = ADDRESSES[kind]
    said = f"cannot fetch {FORMS[form](url)}, please check it"
    shown = mask_quoted(said, secrets_in(url))
    assert [secret for secret in SECRETS if secret in shown] == []
    assert shown.startswith("cannot fetch ")


@given(data=st.data())
def test_a_part_of_an_address_tells_no_part_of_its_secrets(data: st.DataObject) -> None:
    url = data.draw(st.sampled_from(sorted(ADDRESSES.values())))
    quoted = FORMS[data.draw(st.sampled_from(sorted(FORMS)))](url)
    start = data.draw(st.integers(0, len(quoted)))
    end = data.draw(st.integers(start, len(quoted)))
    shown = mask_quoted(f"cannot fetch '{quoted[start:end]}...'", secrets_in(url))
    grams = {secret[at : at + 12] for secret in (HEX, TOKEN) for at in range(len(secret) - 11)}
    assert [gram for gram in grams if gram in shown] == []


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("without the head", "without the scheme")])
@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("length", [None, 200, 300])
def test_an_address_that_is_not_known_is_masked_by_its_form(kind: str, form: str, length: int | None) -> None:
    """As in the result of a request that an earlier try has sent."""
    if kind == "user" and form.startswith("percent"):
        return
    shown = mask_quoted(one_line(f"cannot fetch {FORMS[form](ADDRESSES[kind])}")[:length], ())
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_vendor_that_quotes_the_address_is_masked(reader: Reader, kind: str) -> None:
    url = ADDRESSES[kind]
    for form in FORMS.values():
        for status in (200, 400, 401, 404, 406, 422, 500, 524):
            quoted = json.dumps(f"cannot fetch {form(url)}")
            for body in (
                f'{{"error": {quoted}}}',
                f'{{"code": 10004, "succeed": false, "msg": {quoted}}}',
                f'{{"request_id": "8f2d", "status": "FAILED", "error": {quoted}}}',
                f"<html>cannot fetch {form(url)}</html>",
                form(url),
            ):
                error = raised(reader, Response(status, {}, body.encode()), ("key-0123456789", *secrets_in(url)))
                shown = f"{error!r}{error.args}{vars(error)}"
                assert [secret for secret in SECRETS if secret in shown] == [], (status, body[:40])


def raised(reader: Reader, response: Response, secrets: tuple[str, ...]) -> DescriberError:
    with pytest.raises(DescriberError) as caught:
        parse_masked(lambda response: reader.read("describe", response), response, secrets)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    return caught.value


def test_image_data_that_is_quoted_back_is_cut() -> None:
    data = base64.b64encode(bytes(range(256)) * 4000).decode()
    for said in (
        f"bad image data:image/png;base64,{data}",
        f"bad image data%3Aimage%2Fpng%3Bbase64%2C{quote(data)}",
        data,
    ):
        assert len(mask_quoted(said, ())) < 100
    assert "data:image/png;base64,…" in mask_quoted(f"bad image data:image/png;base64,{data} (too large)", ())


@pytest.mark.parametrize("piece", ["http:", "https://u", "data:%3B", "token=", "a_", "%25", "X-Amz-", "A"])
def test_a_long_answer_is_looked_through_once(piece: str) -> None:
    """Looking again from each place would take minutes."""
    assert len(mask_quoted(piece * 8000, secrets_in(S3))) <= len(piece) * 8000


def test_image_data_is_no_secret_to_look_for() -> None:
    assert secrets_in("data:image/png;base64," + "A" * 10_000_000) == ()
    assert secrets_in(None) == secrets_in("") == secrets_in("https://a.example.com/b.jpg") == ()


def test_an_answer_that_may_be_paid_for_is_kept_but_for_what_is_secret(reader: Reader) -> None:
    answer = json.dumps({"error": "Model overloaded", "prompt": "a red mug", "image_file": S3})
    error = raised(reader, Response(200, {}, answer.encode()), secrets_in(S3))
    assert isinstance(error, UnexpectedAnswer)
    assert "a red mug" in error.answer and "mug.jpg" in error.answer and HEX[:12] not in error.answer


@pytest.mark.parametrize(
    "text", ["Internal error.", "See https://docs.example.com/errors for help", "max 10 MB, got 12", "a = b?"]
)
def test_other_words_of_an_error_stay(text: str) -> None:
    assert mask_quoted(text, (*secrets_in(S3), "sk-Very.Secret_0123456789")) == text


GOOD: dict[str, Callable[[str], Any]] = {
    "image_describer": lambda text: {"code": 200, "succeed": True, "msg": "Success", "data": {"content": text}},
    "openai_compatible": lambda text: {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]},
    "segmind": lambda text: {"descriptions": [{"text": text}]},
}
TEXT = "A cat and a mug on a table; wonderful 1234567890 red-enamel"
WORDS = ["a", "A", "cat", "mug", "on", "wonderful", "1234567890", "red-enamel", "table", ";", "text", "code", "data"]


@pytest.mark.parametrize("key", WORDS)
def test_a_key_that_is_a_word_hides_no_word_of_a_description(reader: Reader, key: str) -> None:
    if reader.api_version == "v2":
        return
    content = json.dumps(GOOD[reader.vendor.name](TEXT)).encode()
    assert mask_bytes(content, (key,)) == content
    found = parse_masked(lambda response: reader.read("describe", response), Response(200, {}, content), (key,))
    assert isinstance(found, Description) and found.text == TEXT


@pytest.mark.parametrize("key", ["a", "cat", "wonderful", "1234567890", "hunter2", "key"])
@pytest.mark.parametrize("status", [200, 400, 401, 422, 500])
def test_a_key_that_is_a_word_is_in_no_error(reader: Reader, key: str, status: int) -> None:
    said = f"bad credential {key!r} for this call"
    for body in (
        json.dumps({"error": said}),
        json.dumps({"code": 30001, "succeed": False, "msg": said}),
        json.dumps({"code": 200, "succeed": False, "msg": said}),
        f"<p>{said}</p>",
    ):
        error = raised(reader, Response(status, {}, body.encode()), (key,))
        shown = f"{error}{getattr(error, 'answer', '')}"
        assert f"'{key}'" not in shown and f"\\'{key}\\'" not in shown
        assert status != 401 or "Put a valid" in shown, "our own words stay as they are"


@pytest.mark.parametrize("key", ["error", "code", "msg", "30001", "200"])
def test_a_key_that_is_a_word_of_the_vendors_own_changes_no_outcome(reader: Reader, key: str) -> None:
    for body in ({"error": "no"}, {"code": 30001, "succeed": False, "msg": "INVALID_API_KEY"}):
        response = Response(401, {}, json.dumps(body).encode())
        plain, masked = raised(reader, response, ("sk-Very.Secret_0123456789",)), raised(reader, response, (key,))
        assert (type(plain), plain.kind, plain.billed) == (type(masked), masked.kind, masked.billed)


def test_a_real_key_is_masked_in_a_description_too(reader: Reader) -> None:
    key = "sk-Very.Secret_0123456789"
    assert mask(f"a mug, {key}", (key,)) == "a mug, ***"
    if reader.api_version != "v2":
        escaped = "".join(f"\\u{ord(c):04x}" for c in key)
        content = json.dumps(GOOD[reader.vendor.name]("a mug, KEY")).replace("KEY", escaped).encode()
        found = parse_masked(lambda response: reader.read("describe", response), Response(200, {}, content), (key,))
        assert isinstance(found, Description) and found.text == "a mug, ***"


def test_an_error_without_secrets_keeps_its_class_and_words(reader: Reader) -> None:
    if reader.vendor.name == "segmind":
        error = raised(reader, Response(422, {}, b'{"error": "Image failed the safety check"}'), ("sk-0123456789abc",))
        assert type(error) is RejectedImage and "Image failed the safety check" in str(error)


@pytest.mark.parametrize("around", ["{}", "Basic {}", "'{}=='", "key={}&x=1"])
@pytest.mark.parametrize(
    "encode", [base64.b64encode, base64.urlsafe_b64encode, bytes.hex], ids=lambda one: one.__name__
)
def test_a_key_that_is_quoted_in_base64_or_hex_is_masked(encode: Callable[[bytes], Any], around: str) -> None:
    for key in ("sk-9fA81c7eD2", "key-0123456789abcdef", "k~?>/key0123456789"):
        encoded = encode(key.encode())
        text = around.format(encoded if isinstance(encoded, str) else encoded.decode())
        for masked in (mask(text, (key,)), mask_bytes(text.encode(), (key,)).decode(), mask_quoted(text, (key,))):
            assert "***" in masked and text.strip("='")[6:16] not in masked
