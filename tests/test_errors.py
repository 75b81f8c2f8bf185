"""Errors cross process borders, are copied, and never change or show more than they should."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer import errors
from airflow_provider_describer.errors import (
    EXCERPT_CHARS,
    AccountError,
    AmbiguousCall,
    BadConnection,
    BadInput,
    Billed,
    DescriberError,
    RateLimited,
    RequestExpired,
    TextNotKept,
    UnexpectedAnswer,
    VendorUnavailable,
)

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DescriberError)]


def pickled(error: DescriberError, protocol: int) -> DescriberError:
    again: DescriberError = pickle.loads(pickle.dumps(error, protocol))
    return again


COPIES: dict[str, Callable[[DescriberError], DescriberError]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle-{version}": partial(pickled, protocol=version) for version in range(pickle.HIGHEST_PROTOCOL + 1)},
}
ABOUT: dict[str, Any] = {"kind": "special", "billed": "yes", "request_id": "8f2d"}
STORED = {
    "BadInput": "bad_input",
    "BadConnection": "bad_connection",
    "RejectedImage": "rejected",
    "InvalidKey": "invalid_key",
    "InsufficientCredits": "insufficient_credits",
    "Forbidden": "forbidden",
    "ModelRetired": "model_retired",
    "WrongEndpoint": "wrong_endpoint",
    "RateLimited": "rate_limited",
    "VendorUnavailable": "unavailable",
    "AmbiguousCall": "ambiguous",
    "RequestExpired": "request_expired",
    "UnexpectedAnswer": "unexpected_answer",
}
EXTRA: dict[type, dict[str, Any]] = {
    RateLimited: {"retry_at": 1763708880.0},
    VendorUnavailable: {"retry_at": 1763708880.0},
    UnexpectedAnswer: {"answer": "<html>" + "x" * 70_000},
}


def seen(error: DescriberError) -> dict[str, Any]:
    """All that a catcher can see of an error."""
    names = ("message", "kind", "billed", "request_id", "retry_at", "answer", "args")
    return {"str": str(error), "class": type(error), **{name: getattr(error, name, None) for name in names}}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_survives_with_all_its_attributes(
    kind: type[DescriberError], duplicate: Callable[[DescriberError], DescriberError]
) -> None:
    for about in ({}, ABOUT, {**ABOUT, **EXTRA.get(kind, {})}, EXTRA.get(kind, {})):
        error = kind("it went wrong", **about)
        again = duplicate(error)
        assert again is not error
        assert seen(again) == seen(error)
        assert seen(duplicate(again)) == seen(error), "nothing is added with every trip"


@pytest.mark.parametrize("kind", CLASSES)
def test_what_is_set_later_survives_too(kind: type[DescriberError]) -> None:
    error = kind("it went wrong")
    error.request_id, error.billed, error.kind = "8f2d", "unknown", "late"
    again = pickle.loads(pickle.dumps(error))
    assert (again.request_id, again.billed, again.kind) == ("8f2d", "unknown", "late")
    assert (kind.request_id, kind.kind) != ("8f2d", "late"), "set on the error, not on its class"


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_has_its_own_word_and_says_whether_it_was_billed(kind: type[DescriberError]) -> None:
    assert [other for other in CLASSES if other.kind == kind.kind] == [kind]
    assert kind.billed in get_args(Billed)
    assert kind.__doc__
    assert kind.__name__ in (errors.__doc__ or "")


def test_the_words_that_rows_are_stored_with_stay_as_they_are() -> None:
    words = {kind.__name__: kind.kind for kind in CLASSES}
    assert words | STORED == words


@pytest.mark.parametrize("kind", CLASSES)
def test_what_a_class_does_not_know_is_refused(kind: Callable[..., DescriberError]) -> None:
    with pytest.raises(TypeError):
        kind("it went wrong", colour="red")
    with pytest.raises(TypeError):
        kind()


def test_only_lost_answers_may_have_been_billed() -> None:
    unknown = {kind for kind in CLASSES if kind.billed == "unknown"}
    assert unknown == {AmbiguousCall, RequestExpired, UnexpectedAnswer}
    assert {kind for kind in CLASSES if kind.billed == "yes"} == {TextNotKept}
    assert {kind.billed for kind in CLASSES if kind not in {*unknown, TextNotKept}} == {"no"}


def test_the_tree_is_as_drawn() -> None:
    assert {kind.__name__ for kind in CLASSES if issubclass(kind, AccountError)} == {
        "AccountError", "InvalidKey", "InsufficientCredits", "Forbidden", "ModelRetired", "WrongEndpoint",
    }  # fmt: skip
    assert issubclass(BadConnection, BadInput) and issubclass(BadInput, ValueError)
    assert issubclass(RequestExpired, AmbiguousCall)
    assert not issubclass(RateLimited, AccountError) and not issubclass(UnexpectedAnswer, AmbiguousCall)


@pytest.mark.parametrize(("length", "dots"), [(0, 0), (1, 0), (EXCERPT_CHARS, 0), (EXCERPT_CHARS + 1, 1), (100_000, 1)])
def test_an_unexpected_answer_is_shown_cut_short_and_kept(length: int, dots: int) -> None:
    error = UnexpectedAnswer("what", answer="Z" * length)
    assert str(error).count("Z") == min(length, EXCERPT_CHARS)
    assert str(error).count("…") == dots
    assert len(error.answer) == min(length, 65536)
    assert str(error).startswith("what")


@given(message=st.text(), answer=st.text(st.characters(exclude_categories=())))
def test_any_answer_can_be_logged_stored_and_sent(message: str, answer: str) -> None:
    error = UnexpectedAnswer(message, answer=answer)
    assert "\n" not in str(error).removeprefix(message)
    if not any("\ud800" <= character <= "\udfff" for character in message):
        str(error).encode()
    assert seen(pickle.loads(pickle.dumps(error))) == seen(error)


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029])
def test_a_message_is_one_line_whatever_name_it_quotes(code: int) -> None:
    error = errors.RejectedImage(f"s3://shop/a{chr(code)}b.jpg: é 日本 \\ is not there")
    assert len(str(error).splitlines()) == 1 and chr(code) not in str(error)
    assert str(error).startswith("s3://shop/a\\") and "b.jpg: é 日本 \\ is" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
