"""What of a task's end is worth a person's attention, and how it is told. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

from airflow_provider_describer.errors import BadInput, DescriberError, InsufficientCredits, TooManyRejected
from airflow_provider_describer.models import format_usd, plural

Occasion = Literal["budget_reached", "out_of_credits", "failure_share"]
OCCASIONS: tuple[Occasion, ...] = get_args(Occasion)
LIMIT_REACHED = "limit_reached"
"""The XCom key of the limit that has left images pending, with its value; it is written only then."""
_CREDITS = {InsufficientCredits.kind, "spend_limit"}
"""Reasons why another connection has described images."""
_SUBJECTS = {
    "budget_reached": "the budget is reached",
    "out_of_credits": "the account is out of credits",
    "failure_share": "too many images failed",
}


def check_occasions(send: Collection[object], on: Collection[str], failure_share: object) -> None:
    """Find arguments of a notifier that cannot work.

    :raises BadInput: naming the argument.
    """
    if not send or not all(callable(one) for one in send):
        raise BadInput("send is empty or holds what cannot be called, expected notifiers such as [SmtpNotifier(…)].")
    if isinstance(on, str) or not on or not set(on) <= set(OCCASIONS):
        raise BadInput(f"on is {on!r}, expected a list of {', '.join(OCCASIONS)}.")
    if isinstance(failure_share, bool) or not isinstance(failure_share, int | float) or not 0 <= failure_share <= 1:
        raise BadInput(f"failure_share is {failure_share!r}, expected a share from 0 to 1.")


def occasions_of(
    manifest: Mapping[str, Any] | None, limit: object, error: object, failure_share: float
) -> dict[Occasion, str]:
    """Return the occasions of a task that has ended, each with a sentence.

    :param manifest: None where it is not known.
    :param limit: the limit that has left images pending, with its value; anything but a text is none.
    :param error: what the task has failed with, or None.
    :param failure_share: the share of images without a description above which they are an occasion.
    """
    counts = manifest["counts"] if manifest else {}
    found: dict[Occasion, str] = {}
    if isinstance(error, DescriberError) and error.kind == "day_budget_spent":
        found["budget_reached"] = str(error)
    elif isinstance(limit, str) and limit:
        pending = counts.get("pending", 0)
        left = f": {pending} {plural(pending, 'image is', 'images are')} left pending" if pending else ""
        found["budget_reached"] = f"{limit} allows no further call{left}."
    fallbacks = manifest.get("fallbacks", {}) if manifest else {}
    paid = [name for name, one in fallbacks.items() if one["described"] and not _CREDITS.isdisjoint(one["why"])]
    if isinstance(error, InsufficientCredits):
        found["out_of_credits"] = str(error)
    elif paid:
        count = sum(fallbacks[name]["described"] for name in paid)
        images = plural(count, "image was", "images were")
        found["out_of_credits"] = f"{count} {images} described by {' and '.join(paid)} instead."
    failed, requested = counts.get("rejected", 0) + counts.get("unknown", 0), counts.get("requested", 0)
    if failed > failure_share * requested:
        of_all = f"{failed} of {requested} {plural(requested, 'image has', 'images have')}"
        found["failure_share"] = (
            f"{of_all} no description ({counts['rejected']} rejected, {counts['unknown']} unknown)."
        )
    elif isinstance(error, TooManyRejected):
        found["failure_share"] = str(error)
    return found


def message_of(
    occasions: Mapping[Occasion, str], task: str, run_id: str, manifest: Mapping[str, Any] | None
) -> tuple[str, str]:
    """Return the subject and the text for these occasions.

    :param task: the DAG's and the task's id.
    """
    subject = f"{task}: {', '.join(_SUBJECTS[name] for name in occasions)}"
    sentences = [f"Task {task} of run {run_id}.", *occasions.values()]
    if manifest:
        described, cost = manifest["counts"].get("described", 0), format_usd(manifest.get("cost_usd"))
        sentences.append(f"Described: {described} {plural(described, 'image')} for {cost}.")
        sentences += [f"{name.title()}: {manifest[name]}" for name in ("store", "failures") if manifest.get(name)]
    return subject, "\n".join(sentences)
