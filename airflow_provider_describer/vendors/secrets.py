"""What was sent is a secret of its request: it is masked wherever a vendor quotes it back.

A key that could be ordinary text ("a", "mug") is masked in errors only, as words; in a description it would hide words.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote, unquote, unquote_plus

from airflow_provider_describer.errors import DescriberError, UnexpectedAnswer
from airflow_provider_describer.models import Description
from airflow_provider_describer.vendors.wire import Response

T = TypeVar("T")

_MASK = "***"
_GRAM = 10
"""Characters of a secret in a row that are masked in an error: a vendor may quote a part of it."""
_EQUALS = r"(?:=|%(?:25)*3D|\\u003d|&#61;|&#x3d;|&equals;)"
_RUN = r"""(?:[^\s"'<>\\]|\\u[0-9a-f]{4}|\\/)"""
_QUESTION = re.compile(r"\?|%(?:25)*3F|\\u003f|&#63;|&#x3f;|&quest;", re.IGNORECASE)
_ADDRESS = re.compile(rf"https?(?::|%(?:25)*3A|\\u003a){_RUN}*", re.IGNORECASE)
_USER = re.compile(r"""(https?:\\?/\\?/)[^/\s"'<>@\\]+@""", re.IGNORECASE)
_SIGNED = re.compile(
    r"(?<![A-Za-z0-9])(?:X-(?:Amz|Goog|Oss|Cos|Obs)-[A-Za-z-]+|Signature|AWSAccessKeyId|GoogleAccessId|OSSAccessKeyId|"
    rf"Key-Pair-Id|Policy|sig|hmac|(?:[a-z]+[_-])?(?:token|secret|password|api[_-]?key)){_EQUALS}{_RUN}*",
    re.IGNORECASE,
)
_DATA = re.compile(
    r"data(?::|%3A)[A-Za-z0-9.+/%=;\\-]{0,100}?(?:;|%3B)base64(?:,|%2C)([A-Za-z0-9+/=_%\\-]*)", re.IGNORECASE
)
_BASE64 = re.compile(r"[A-Za-z0-9+/=_%-]{300,}")


def secrets_in(url: str | None) -> tuple[str, ...]:
    """Return what of an image's address is secret: its query, which may be a signature, and its user and password."""
    if not url or not url.lower().startswith(("http://", "https://")):
        return ()
    head, _, query = url.partition("?")
    user = head.partition("://")[2].partition("/")[0].rpartition("@")[0]
    values = [pair.partition("=")[2] for pair in re.split("[&;#]", query)]
    found = [query, user, user.partition(":")[2], *(value for value in values if len(value) >= 16)]
    return tuple(dict.fromkeys(form for text in found if text for form in (text, unquote(text))))


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return a text without the secrets that cannot be ordinary text, in whatever form they stand there."""
    for secret in secrets:
        if not _is_ordinary(secret):
            for form in _forms(secret):
                text = text.replace(form, _MASK)
    return text


def mask_bytes(content: bytes, secrets: Iterable[str]) -> bytes:
    """Mask as `mask` does, without decoding."""
    for secret in secrets:
        if not _is_ordinary(secret):
            for form in _forms(secret):
                content = content.replace(form.encode(), _MASK.encode())
    return content


def mask_words(text: str, secrets: Iterable[str]) -> str:
    """Mask the secrets that could be ordinary text, where they stand as words."""
    for secret in secrets:
        if _is_ordinary(secret):
            text = re.sub(rf"(?<![A-Za-z0-9_]){re.escape(secret)}(?![A-Za-z0-9_])", _MASK, text)
    return text


def mask_quoted(text: str, secrets: Iterable[str]) -> str:
    """Return the text of an error without the secrets, parts of them, queries and signatures of addresses, and data.

    Works on what a vendor has cut, escaped or percent-encoded too.
    """
    text = _DATA.sub(lambda data: f"{data[0][: -len(data[1])]}…" if len(data[1]) > 16 else data[0], text)
    text = _BASE64.sub(lambda data: f"…({len(data[0])} characters)", text)
    text = _SIGNED.sub(_MASK, _USER.sub(r"\1", _ADDRESS.sub(_without_query, text)))
    for secret in secrets:
        if not _is_ordinary(secret):
            text = _without_parts(mask(text, (secret,)), secret)
    return text


def parse_masked(parse: Callable[[Response], T], response: Response, secrets: tuple[str, ...]) -> T:
    """Parse the response to a request with these secrets; none of them is in the description or in an error."""
    try:
        found = parse(response)
    except DescriberError as error:
        raised = error
    else:
        return replace(found, text=mask(found.text, secrets)) if isinstance(found, Description) else found
    if any(map(_is_ordinary, secrets)):
        raised = _with_words_masked(parse, response, raised, secrets)
    raised.args = (mask_quoted(str(raised), secrets), *raised.args[1:])
    if isinstance(raised, UnexpectedAnswer):
        raised.answer = mask_quoted(raised.answer, secrets)
    raise raised from None


def _with_words_masked(
    parse: Callable[[Response], T], response: Response, raised: DescriberError, secrets: tuple[str, ...]
) -> DescriberError:
    """Return the error without the words that are secrets: only the vendor's own words, unless these are needed."""
    content = mask_words(response.content.decode("utf-8", "surrogateescape"), secrets)
    try:
        parse(replace(response, content=content.encode("utf-8", "surrogateescape")))
    except DescriberError as error:
        if (type(error), error.kind, error.billed) == (type(raised), raised.kind, raised.billed):
            return error
    raised.args = (mask_words(str(raised), secrets), *raised.args[1:])
    if isinstance(raised, UnexpectedAnswer):
        raised.answer = mask_words(raised.answer, secrets)
    return raised


def _is_ordinary(secret: str) -> bool:
    """Whether a secret could be a word or a number in an ordinary text."""
    is_mixed = any(map(str.isdigit, secret)) and any(map(str.isalpha, secret))
    return len(secret) < 8 or (len(secret) < 20 and not is_mixed)


@lru_cache(maxsize=256)
def _forms(secret: str) -> tuple[str, ...]:
    """The secret as it is, and as JSON, HTML and addresses write it, each of which an error's reader would undo."""
    in_json = json.dumps(secret)[1:-1]
    escaped = in_json.replace("&", "\\u0026").replace("=", "\\u003d")
    forms = [secret, in_json, in_json.replace("/", "\\/"), in_json.replace("&", "\\u0026"), escaped]
    raw = secret.encode("utf-8", "surrogatepass")
    # Without its last character, which depends on what follows.
    packed = base64.b64encode(raw).decode().rstrip("=")[:-1]
    forms += [packed, packed.translate(str.maketrans("+/", "-_")), raw.hex()]
    forms += [html.escape(secret), quote(secret), quote(secret, safe=""), quote(quote(secret, safe=""), safe="")]
    forms += [unquote_plus(secret)]
    return tuple(dict.fromkeys(forms))


def _without_query(address: re.Match[str]) -> str:
    head, *query = _QUESTION.split(address[0], maxsplit=1)
    return f"{head}?…" if query else head


def _without_parts(text: str, secret: str) -> str:
    grams = {secret[start : start + _GRAM] for start in range(len(secret) - _GRAM + 1)}
    if not grams or not any(text[start : start + _GRAM] in grams for start in range(len(text) - _GRAM + 1)):
        return text
    kept, at = [], 0
    while at < len(text):
        end = at
        while text[end : end + _GRAM] in grams:
            end += 1
        if end > at:
            kept.append(_MASK)
            at = end + _GRAM - 1
        else:
            kept.append(text[at])
            at += 1
    return "".join(kept)
