"""The form in which people review descriptions, and what they have answered. Pure.

Descriptions and names of images come from outside: Airflow renders the form's text as Markdown, so they are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import quote, urlencode, urlsplit

from airflow_provider_describer.models import plural
from airflow_provider_describer.store.reviews import MAX_TEXT_CHARS, Answer, Verdict
from airflow_provider_describer.store.shard import Event

MAX_IMAGES = 50
"""The most images in one form."""
APPROVE_REST = "approve_rest"
"""The field that approves what was left."""
SHOWN_CHARS = 2000
"""Characters of a text beside its image; its field has all of it."""
_DECISION, _TEXT = "decision_", "text_"
"""What the fields' names begin with. The id of the call follows: an answer names what it is about."""
_LABELS = {"leave": "Leave it: not reviewed", "approve": "Approve", "reject": "Reject"}
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
# What Airflow's Markdown makes a link of, also where its characters are escaped: a word joiner parts it.
_AUTOLINK = re.compile(r"(?=://)|(?<=[wW]{3})(?=\.)|(?=@)")
_JOINER = "\u2060"
_ABSENT = object()
# Control characters, and marks that change the direction of the text around them.
_UNSEEN = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True, slots=True)
class Form:
    """A form: its text in Markdown, and its fields as arguments of Airflow's ``Param``, by name."""

    body: str
    fields: Mapping[str, Mapping[str, Any]]


def make_form(described: Sequence[Event], store: str, base_path: str) -> Form:
    """Return the form for these descriptions.

    :param described: their rows, as the journal has them.
    :param base_path: the path of Airflow's own address, such as ``/airflow``, or empty.
    """
    rows = [_table_row(number, event, store, base_path) for number, event in enumerate(described, 1)]
    count = len(described)
    body = (
        f"{count} {plural(count, 'description')}. Compare each image with its text. Below, approve or reject it, or "
        "change its text. What you leave is not reviewed."
    )
    table = "\n".join(("| | image | description |", "|---|---|---|", *rows))
    fields: dict[str, Mapping[str, Any]] = {}
    for number, event in enumerate(described, 1):
        fields |= _fields(number, event)
    fields[APPROVE_REST] = {
        "default": False,
        "type": "boolean",
        "title": "Approve all that I left",
        "description": "Counts every description above as approved that is set to leave and unchanged.",
    }
    return Form(f"{body}\n\n{table}\n", fields)


def _fields(number: int, event: Event) -> Iterable[tuple[str, Mapping[str, Any]]]:
    call, text = event["call"], event["text"] or ""
    name = _UNSEEN.sub(" ", _file_name(event["uri"]))[:60]
    yield (
        f"{_DECISION}{call}",
        {
            "default": "leave",
            "type": "string",
            "enum": list(_LABELS),
            "values_display": _LABELS,
            "title": f"{number}. {name}",
        },
    )
    if len(text) <= MAX_TEXT_CHARS:
        # Airflow's form makes an object of a text that is one in JSON.
        text = _JOINER + text if text.lstrip().startswith("{") else text
        yield f"{_TEXT}{call}", {"default": text, "type": "string", "format": "multiline", "title": f"{number}. Text"}


def _table_row(number: int, event: Event, store: str, base_path: str) -> str:
    uri, name = event["uri"], escape_markdown(_file_name(event["uri"]))
    shown = f"![{name}]({thumbnail_link(base_path, store, event)})"
    shown += f" [{name}]({_safe_link(uri)})" if _safe_link(uri) else f" {name}"
    text = event["text"] or ""
    said = escape_markdown(text[:SHOWN_CHARS]) + ("…" if len(text) > SHOWN_CHARS else "")
    if failed := event.get("failed_rules"):
        said += f" **Fails: {', '.join(map(escape_markdown, failed))}**"
    return f"| {number} | {shown} | {said} |"


def thumbnail_link(base_path: str, store: str, event: Event) -> str:
    """Return the path of an image's thumbnail in the page of this package."""
    query = urlencode({"store": store, "row": f"{event['call']}.{event['status']}"}, quote_via=quote)
    return f"{base_path.rstrip('/')}/describer/api/thumbnail?{query}"


def _file_name(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2] or uri


def _safe_link(uri: str) -> str:
    """Return the address of a web image as a link of Markdown takes it; empty for any other."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        return ""
    return quote(uri, safe=":/?&=%#,;+~$-._")


def escape_markdown(text: str) -> str:
    """Return a text from outside as one line of Markdown in which nothing is markup, a link or an image."""
    line = " ".join(_UNSEEN.sub(" ", text).split())
    return _PUNCTUATION.sub(r"\\\1", _AUTOLINK.sub(_JOINER, line))


def read_answers(fields: Mapping[str, Any]) -> list[Answer]:
    """Return what was answered in a form, in its order. Values that no form gives decide nothing."""
    answers = []
    for name, given in fields.items():
        if not name.startswith(_DECISION):
            continue
        call = name.removeprefix(_DECISION)
        verdict: Verdict = given if given in get_args(Verdict) else "leave"
        if verdict == "leave" and fields.get(APPROVE_REST) is True:
            verdict = "approve"
        # Airflow's form gives null for an empty field.
        text = fields.get(f"{_TEXT}{call}", _ABSENT)
        text = None if text is _ABSENT else text.removeprefix(_JOINER) if isinstance(text, str) else ""
        answers.append(Answer(call, verdict, text))
    return answers


def reviewer_of(user: Mapping[str, Any] | None) -> str | None:
    """Return the name of who has answered, or its id; of an e-mail address only what is before the @.

    None where nobody has: the defaults were taken when the time was over.
    """
    names = (str(user.get(key) or "").partition("@")[0].strip() for key in ("name", "id")) if user else ()
    return next(filter(None, names), None) if user else None
