"""What people have decided about descriptions: written into the journal, once for a task instance and a description."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal

from airflow_provider_describer.errors import RejectedImage, one_line
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.columns import call_key, instance_key, key_of
from airflow_provider_describer.store.description_store import one_of
from airflow_provider_describer.store.rows import Review, TaskInstanceKey, row_fields
from airflow_provider_describer.store.shard import Event, encode_shard, json_line, shard_namer
from airflow_provider_describer.store.table import SettledTable
from airflow_provider_describer.store.unsettled import open_tables, read_tables

Verdict = Literal["leave", "approve", "reject"]
MAX_TEXT_CHARS = 20_000
"""The longest text that a reviewer may write."""
MAX_NAME_CHARS = 100
AFTER_S = 0.001
"""A review is later than what it is about by this much at least, whatever the clocks of the machines say."""
_SAME = ("uri", "vendor", "model", "prompt", "lang")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reviewer says of the description of one call.

    :param verdict: ``leave`` decides nothing, unless the text was changed.
    :param text: the text as the reviewer has left it, or None where none was asked for.
    """

    call: str
    verdict: Verdict = "leave"
    text: str | None = None


@dataclass(slots=True)
class Recorded:
    """What the store has of some answers.

    :param reviews: what was decided, by call: now, or at an earlier try of the task.
    :param refused: why an answer was not taken, by call.
    """

    reviews: dict[str, Review] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def record_reviews(
    folder: Folder, answers: Iterable[Answer], by: str, task: TaskInstanceKey, clock: Callable[[], float]
) -> Recorded:
    """Write down what a reviewer has decided, durably and in one shard; blocking.

    A description that this task instance has reviewed already keeps that review. An answer that cannot be taken
    decides nothing: its text is empty or too long, or its image has been described anew meanwhile.

    :param by: the reviewer's name.
    :param clock: epoch seconds.
    :raises StoreError: naming what cannot be read or written.
    """
    asked = {answer.call: answer for answer in answers}
    ids = {call: review_id(task, call) for call in asked}
    with open_tables(folder) as tables:
        stored = read_calls(tables, [*ids, *ids.values()])
        new = [call for call in asked if ids[call] not in stored]
        outdated = _outdated(tables, [stored[call] for call in new if call in stored])
    found, lines = Recorded({call: stored[ids[call]]["review"] for call in asked if ids[call] in stored}), []
    for call in new:
        if call not in stored:
            found.refused[call] = "the store has no such description"
            continue
        answer, text = asked[call], stored[call]["text"] or ""
        review = decide_review(answer, text)
        if review is None:
            continue
        if why := _why_refused(answer, review) or (
            "its image was described anew meanwhile" if call in outdated else ""
        ):
            found.refused[call] = why
            continue
        event = review_event(stored[call], review, answer.text, by, task, clock())
        lines.append(json_line({"event": "outcome", "call": ids[call], **event}))
        found.reviews[call] = review
    if lines:
        folder.create(shard_namer(clock)(), encode_shard(lines))
    return found


def count_reviews(folder: Folder, task: TaskInstanceKey) -> Counter[Review]:
    """Return how many descriptions a task instance has approved, edited and rejected, in all of its tries; blocking.

    :raises StoreError: naming what cannot be read.
    """
    key = instance_key(task.instance)
    found: dict[str, Review] = {}
    with open_tables(folder) as tables:
        for batch in read_tables(tables, ("call", "review"), f"instance_key = {key}") if key is not None else ():
            found |= {row["call"]: row["review"] for row in batch.to_pylist() if row["review"]}
    return Counter(found.values())


def review_id(task: TaskInstanceKey, call: str) -> str:
    """Return the id of a task instance's review of a call, the same at every try."""
    # Outside Airflow nothing tells a second try from another review.
    asked = f"{task.instance or secrets.token_hex(8)}\0{call}"
    return f"review-{blake2b(asked.encode('utf-8', 'surrogatepass'), digest_size=12).hexdigest()}"


def decide_review(answer: Answer, text: str) -> Review | None:
    """Return what an answer decides about a description of this text, or None. Pure."""
    if answer.verdict == "reject":
        return "rejected"
    if answer.text is not None and _plain(answer.text) != _plain(text):
        return "edited"
    return "approved" if answer.verdict == "approve" else None


def review_event(
    described: Event, review: Review, text: str | None, by: str, task: TaskInstanceKey, now: float
) -> Event:
    """Return the row of a review, with the identities of what was reviewed. Pure.

    :param described: the description's row, as the journal has it.
    :param now: epoch seconds.
    """
    at = max(now, datetime.fromisoformat(described["described_at"]).timestamp() + AFTER_S)
    by = one_line(by.strip())[:MAX_NAME_CHARS]
    row = {name: described.get(name) for name in row_fields()}
    row |= {"status": "described", "error": None, "review": review, "reviewed_by": by}
    # A review is no call: it has cost nothing, and the vendor knows nothing of it.
    row |= {"cost_usd": 0.0, "billed": "no", "request_id": None, "elapsed_s": None, "lost_calls": 0}
    row |= {name: getattr(task, name) for name in TaskInstanceKey.__slots__}
    row["described_at"] = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    if review == "edited":
        # What the rules said was about another text.
        row |= {"text": (text or "").strip(), "failed_rules": None}
    if review == "rejected":
        why = f"{by} has rejected the description. retry_rejected=True asks for another one."
        error = RejectedImage(why, kind="rejected_by_reviewer")
        row |= {
            "status": "withdrawn",
            "text": None,
            "fields": None,
            "error": {"kind": error.kind, "message": str(error)},
        }
    return {"keys": described["keys"], **row}


def read_calls(tables: Iterable[SettledTable], calls: Iterable[str]) -> dict[str, Event]:
    """Return the rows of those of these calls and reviews that are a description or a withdrawal, by their ids.

    :raises StoreError: naming what cannot be read.
    """
    wanted = list(calls)
    # A table is damaged if it lacks a call that it is asked for.
    events = (event for table in tables for event in table.events(map(call_key, table.calls_in(wanted))))
    return {event["call"]: event for event in events if event.get("status") in ("described", "withdrawn")}


def _plain(text: str) -> str:
    # A browser's form gives a text back with line breaks of its own.
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _why_refused(answer: Answer, review: Review) -> str:
    length = len(answer.text or "") if review == "edited" else 1
    if review == "edited" and not (answer.text or "").strip():
        return "its text is empty"
    return f"its text has {length:,} characters, more than {MAX_TEXT_CHARS:,}" if length > MAX_TEXT_CHARS else ""


def _outdated(tables: Sequence[SettledTable], described: Iterable[Event]) -> set[str]:
    """Return those of these calls whose image has a later description, of another content, under the same question."""
    of_image: dict[tuple[Any, ...], list[Event]] = {}
    for event in described:
        of_image.setdefault(tuple(event[name] for name in _SAME), []).append(event)
    condition = one_of("uri", {uri for uri, *_ in of_image})
    outdated = set()
    for batch in read_tables(tables, (*_SAME, "status", "key_1", "described_at"), condition) if condition else ():
        for row in batch.to_pylist():
            for event in of_image.get(tuple(row[name] for name in _SAME), ()) if row["status"] == "described" else ():
                is_other = row["key_1"] != next(map(key_of, event["keys"]), None)
                if is_other and row["described_at"] > datetime.fromisoformat(event["described_at"]):
                    outdated.add(event["call"])
    return outdated
