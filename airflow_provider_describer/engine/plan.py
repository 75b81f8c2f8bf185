"""Which images need a call: decided from what the journal knows of their identities. Calls nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from airflow_provider_describer.engine.limits import Allowance
from airflow_provider_describer.errors import DescriberError, RejectedImage, Unfinished
from airflow_provider_describer.models import DescribeRequest, format_usd, plural
from airflow_provider_describer.store.index import JournalIndex, OpenCall, StoredOutcome
from airflow_provider_describer.store.rows import Status

RUNS_ELSEWHERE = Unfinished(
    "A request for it runs at another connection of the chain, and is fetched from there. The next run does that.",
    kind="running",
)

OnUnknown = Literal["retry", "hold", "fail"]
OnClaimed = Literal["wait", "skip"]
Action = Literal["call", "attach", "ask", "reuse", "rejected", "unknown", "unusable", "claimed", "elsewhere"]
"""``ask``: the vendor's own history tells, or will tell, what became of an earlier call. ``elsewhere``: a request for
it runs at another connection of the chain."""


@dataclass(frozen=True, slots=True)
class IdentifiedImage:
    """A request and the identities of its image, or why the image cannot be used.

    ``chain_keys`` holds the identities for each connection of the request's chain; empty without a chain.
    """

    request: DescribeRequest
    keys: tuple[str, ...] = ()
    sha256: str | None = None
    version: str | None = None
    error: DescriberError | None = None
    chain_keys: tuple[tuple[str, ...], ...] = ()

    @property
    def all_keys(self) -> tuple[str, ...]:
        """The identities for all connections of the chain."""
        if not self.chain_keys:
            return self.keys
        return tuple(dict.fromkeys(key for keys in self.chain_keys for key in keys))

    def at(self, place: int) -> IdentifiedImage:
        """Return the image as that connection of the chain is asked about it."""
        request = self.request.chain[place] if self.chain_keys else None
        if request is None or place == self.request.place:
            return self
        return replace(self, request=request, keys=self.chain_keys[place])


@dataclass(slots=True)
class PlannedImage:
    """What is to be done for one identity: one call at most, however many requests share it.

    ``lost`` counts earlier calls that were sent and never answered: a new call may pay a second time. ``lost_answers``
    of them did not end with their process: the answer was lost on its way, or was not understood. Another run is paying
    for a ``claimed`` image: ``owner`` names it.
    """

    action: Action
    first: IdentifiedImage
    others: Sequence[IdentifiedImage] = ()
    known: StoredOutcome | None = None
    open_call: tuple[str, OpenCall] | None = None
    lost: int = 0
    lost_answers: int = 0
    owner: str = ""

    @property
    def all(self) -> list[IdentifiedImage]:
        """All images of this identity."""
        return [self.first, *self.others]

    @property
    def may_need_call(self) -> bool:
        """Whether a call is made for it, or might be: one of unknown outcome may have been sent by a run that lives."""
        if self.action == "unknown":
            return self.open_call is not None
        return self.action in ("call", "attach", "elsewhere")

    def take_over(self, decided: PlannedImage) -> list[IdentifiedImage]:
        """Do what was decided about the image instead; return the other images that this is not true of.

        They are all one image for this entry's connection, but may not be for the connection that has described it.
        """
        self.action, self.known, self.open_call = decided.action, decided.known, decided.open_call
        self.lost, self.lost_answers, self.owner = decided.lost, decided.lost_answers, decided.owner
        place = decided.first.request.place
        if place == self.first.request.place:
            return []
        self.first, others = decided.first, [other.at(place) for other in self.others]
        self.others = [other for other in others if _is_one(decided.first, other)]
        return [other for other in others if not _is_one(decided.first, other)]

    @property
    def status(self) -> Status:
        """What the images are recorded as when no call is made."""
        match self.action:
            case "reuse":
                return "reused"
            case "rejected" | "unknown":
                return self.action
            case "unusable" if isinstance(self.first.error, RejectedImage):
                return "rejected"
        return "pending"


@dataclass(slots=True)
class Plan:
    """What a run is going to do."""

    entries: list[PlannedImage]
    requested: int
    owners: dict[str, PlannedImage]
    """The entry that each identity belongs to."""
    decide: Callable[[IdentifiedImage], PlannedImage]

    def having(self, action: Action) -> list[PlannedImage]:
        """Return the entries that have this action."""
        return [entry for entry in self.entries if entry.action == action]

    @property
    def elsewhere(self) -> list[IdentifiedImage]:
        """The images whose request runs at another connection of the chain."""
        return [image for entry in self.having("elsewhere") for image in entry.all]

    def owner(self, entry: PlannedImage, keys: tuple[str, ...]) -> PlannedImage:
        """Give the entry the identities that reading its image has shown; return the entry that has them already."""
        owners = (self.owners.setdefault(key, entry) for key in keys)
        return next((owner for owner in owners if owner is not entry), entry)

    def decide_again(self, entry: PlannedImage, image: IdentifiedImage) -> PlannedImage:
        """Return what is to be done about the entry's image as it was read, or the other entry that has its content."""
        owner = self.owner(entry, image.keys)
        return self.decide(image) if owner is entry else owner

    def count(self, *actions: Action) -> int:
        """Return how many requests have one of these actions."""
        return sum(1 + len(entry.others) for entry in self.entries if entry.action in actions)

    @property
    def calls(self) -> int:
        """How many calls there will be at most, unless one fails and is tried again."""
        return len(self.having("call"))

    def summary(
        self, price: float | None, allowed: Allowance | None = None, *, second: int = 0, is_refused: bool = False
    ) -> str:
        """Return the plan in one line. What it says that calls cost is for calls that are sent now.

        A call that fails and is sent again comes on top, as far as ``allowed`` leaves room for it.

        :param allowed: the limit that allows the fewest calls, if there is one.
        :param second: further calls at most, for second tries.
        :param is_refused: whether no call is made at all, as the run stops before the first one.
        """
        copies = sum(len(entry.others) for entry in self.entries if entry.action in ("call", "attach"))
        resent = sum(entry.lost > 0 for entry in self.having("call"))
        parts = [f"{self.calls} new", f"{self.count('reuse') + copies} reused"]
        for count, words in (
            (self.count("rejected"), "rejected before"),
            (self.count("unusable"), "that cannot be used"),
            (self.count("attach", "elsewhere"), "still running at the vendor"),
            (self.count("claimed"), "being described by other runs"),
            (self.count("ask"), "looked up in the vendor's own history"),
            (self.count("unknown"), "of unknown outcome, left alone"),
            (resent, "of them of unknown outcome, sent again"),
        ):
            if count:
                parts.append(f"{count} {words}")
        if second:
            parts.append(f"{second} {plural(second, 'second try', 'second tries')} at most")
        calls, why = self.calls + second, ""
        if calls and is_refused:
            calls, why = 0, " (the run stops before its first call)"
        elif allowed is not None and allowed.calls < calls:
            calls, why = allowed.calls, f" ({allowed.limit} {allowed.more})"
        cost = "" if price is None else f", {format_usd(calls * price)}"
        images = f"{self.requested} {plural(self.requested, 'image')}"
        return f"{images}: {', '.join(parts)}; at most {calls} {plural(calls, 'call')}{cost}{why}"


def make_plan(
    images: Sequence[IdentifiedImage],
    index: JournalIndex,
    *,
    on_unknown: OnUnknown = "retry",
    retry_rejected: bool = False,
    max_lost_calls: int = 2,
    conn_ids: Sequence[str] = (),
) -> Plan:
    """Return what is to be done for each image, in the order given."""
    decide_one = partial(
        decide,
        index=index,
        on_unknown=on_unknown,
        retry_rejected=retry_rejected,
        max_lost_calls=max_lost_calls,
        conn_ids=conn_ids,
    )
    entries: list[PlannedImage] = []
    owners: dict[str, PlannedImage] = {}
    copies: dict[int, list[IdentifiedImage]] = {}
    for image in images:
        # Two names of the same bytes share the key of their content.
        owner = next((owners[key] for key in image.keys if key in owners), None)
        if owner is not None and _is_one(owner.first, image):
            copies.setdefault(id(owner), []).append(image.at(owner.first.request.place))
            continue
        entry = decide_one(image)
        entries.append(entry)
        owners.update(dict.fromkeys(image.keys, entry))
    for entry in entries:
        entry.others = copies.get(id(entry), ())
    return Plan(entries, len(images), owners, decide_one)


def _is_one(known: IdentifiedImage, image: IdentifiedImage) -> bool:
    """Whether an image of the same content is asked the same by the connection for which one is known."""
    return image.at(known.request.place).request.spec == known.request.spec


def decide(
    image: IdentifiedImage,
    index: JournalIndex,
    on_unknown: OnUnknown = "retry",
    *,
    retry_rejected: bool = False,
    max_lost_calls: int = 2,
    conn_ids: Sequence[str] = (),
) -> PlannedImage:
    """Return what is to be done for one image, as if it were alone.

    With a chain, the first connection in its order that has described the image counts, and so do the calls without an
    answer of all of them.

    :param conn_ids: the connections of the chain, in its order.
    :param max_lost_calls: calls whose answers were lost, after which the image is held. A call that ended with its
        process does not count: it was cut short from outside, and the task has failed for all to see.
    """
    if image.error is not None:
        return PlannedImage("unusable", image)
    own, known = image, index.outcome(image.keys)
    for place in range(len(image.chain_keys)):
        found = index.outcome(image.chain_keys[place])
        # A rejection by another vendor says nothing here, that by a person counts.
        if found is not None and (found.described or (known is None and found.is_decided)):
            own, known = image.at(place), found
        if found is not None and found.described:
            break
    if known is not None and known.described:
        return PlannedImage("reuse", own, known=known)
    keys = image.all_keys
    open_call = index.open_call(keys)
    if open_call is not None and open_call[1].request_id:
        place, lost = place_of_call(open_call[1], image, conn_ids), index.lost_calls(keys) - 1
        action: Action = "attach" if place == image.request.place else "elsewhere"
        return PlannedImage(action, image, known=known, open_call=open_call, lost=lost)
    if known is not None and not retry_rejected:
        # By the vendor, or withdrawn by a reviewer.
        return PlannedImage("rejected", own, known=known)
    lost = index.lost_calls(keys)
    lost_answers = index.lost_answers(keys)
    action = "unknown" if is_held(lost, lost_answers, on_unknown, max_lost_calls) else "call"
    return PlannedImage(action, image, known=known, open_call=open_call, lost=lost, lost_answers=lost_answers)


def place_of_call(opened: OpenCall, image: IdentifiedImage, conn_ids: Sequence[str]) -> int:
    """Return the place in the chain of the connection that a call of the image was sent with.

    A call that does not name it was sent with the first one that asks the same.
    """
    if opened.conn_id in conn_ids:
        return conn_ids.index(opened.conn_id)
    same = (place for place, keys in enumerate(image.chain_keys) if not set(keys).isdisjoint(opened.keys))
    return next(same, image.request.place)


def is_held(lost: int, lost_answers: int, on_unknown: OnUnknown, max_lost_calls: int) -> bool:
    """Whether an image is left alone that has had so many calls without an answer."""
    return lost_answers >= max_lost_calls if on_unknown == "retry" else lost > 0
