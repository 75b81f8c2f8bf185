"""Watches a folder and hands over what is new in it as deltas; its state outlives the process that watches.

A delta is written to the state before it is handed over, and stays in it as *pending* until it is certain that it was
handed over. If a watcher dies, the next one hands over the same delta under the same id. Of two watchers at once, only
the one that writes first hands a delta over.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.arrivals.snapshot import ArrivalTerms, ListingPass, SeenImages
from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.images.listing import ImageFilter, list_images
from airflow_provider_describer.storage.cas_document import CasDocument, Changed, Token, open_document
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.store.listings import write_listing
from airflow_provider_describer.store.rows import TaskInstanceKey

if TYPE_CHECKING:
    from airflow_provider_describer.storage.open_bucket import OpenBucket

NAME = "arrivals.json"
VERSION = 1
HANDED_OVER_S = 30.0
"""Seconds after which a fired event counts as handed over: a triggerer writes it to the database within seconds."""
AGAIN_S = 2 * HANDED_OVER_S
"""Seconds after which a pending delta is fired again, if the watcher that fired it has not confirmed it."""
REMEMBERED = 100_000
"""Images that are remembered, about 14 bytes each; of a larger folder those that were changed last."""


@dataclass(frozen=True, slots=True)
class PendingDelta:
    """A delta that the watcher with the id ``by`` has fired last, at the epoch second ``at``.

    :param images: what an operator takes as ``images``: a list, or the path of a listing file.
    """

    delta: str
    count: int
    images: Any
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class ArrivalState:
    """The document: the images that were seen, and the delta of them that is still pending."""

    path: str
    number: int = 0
    seen: SeenImages = field(default_factory=SeenImages)
    pending: PendingDelta | None = None

    def encode(self) -> bytes:
        """Return the document's bytes."""
        pending = None if self.pending is None else asdict(self.pending)
        values = {"version": VERSION, "path": self.path, "number": self.number, "offer": pending}
        return json.dumps({**values, "seen": self.seen.to_dict()}).encode()


def decode_state(where: str, content: bytes) -> ArrivalState:
    """Return the state of these bytes; raises StoreError where they are damaged or of a newer version."""
    try:
        values = json.loads(content)
        if not isinstance(values, Mapping) or values["version"] != VERSION:
            raise ValueError("its version is another one")
        pending = None if values["offer"] is None else PendingDelta(**values["offer"])
        return ArrivalState(values["path"], values["number"], SeenImages.from_dict(values["seen"]), pending)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{where} cannot be read as the state of watched images ({type(error).__name__}: {error}). Restore it, or "
            "remove it: then every image counts as new.",
            kind="corrupt_state",
        ) from None


@dataclass(slots=True)
class ArrivalWatcher:
    """Watches one path. Blocking.

    :param path: what is watched, as `list_images` takes it.
    :param state_path: a folder for the state, used by the watchers of this path and no others.
    :param inline: images that a delta itself names; more of them go into a listing file below ``state_path``.
    :raises BadInput: for a ``state_path`` that cannot work.
    """

    path: str
    state_path: str
    open_bucket: OpenBucket | None = None
    types: Sequence[str] | None = None
    terms: ArrivalTerms = field(default_factory=ArrivalTerms)
    inline: int = 100
    clock: Callable[[], float] = time.time
    pause: Callable[[float], object] = time.sleep
    status: str = field(default="", init=False)
    """Why the last look returned no delta."""
    _document: CasDocument = field(init=False)
    _folder: Folder = field(init=False)
    _id: str = field(init=False)

    def __post_init__(self) -> None:
        self._document = open_document("state_path", self.state_path, NAME, self.open_bucket)
        self._folder = open_folder(self.state_path, self.open_bucket)
        self._id = secrets.token_hex(6)

    def look(self) -> dict[str, Any] | None:
        """Return a delta to hand over now, or None. The next call takes the delta as handed over.

        A delta is ``{"delta": id, "count", "images", "path", "state"}``, and durable before it is returned.

        :raises BadInput, BucketError, UnreadableImage: where the path cannot be listed.
        :raises StoreError: where the state cannot be read or written; it is then unchanged.
        """
        try:
            state, token = self._load()
            if state.pending is not None:
                if state.pending.by != self._id:
                    return self._take_over(state, state.pending, token)
                state = replace(state, pending=None)
                token = self._document.swap(state.encode(), token)
            return self._find_new(state, token)
        except Changed:
            self.status = "another watcher was faster"
            return None

    def _take_over(self, state: ArrivalState, pending: PendingDelta, token: Token) -> dict[str, Any] | None:
        now = self.clock()
        if now < pending.at + AGAIN_S:
            self.status = f"delta {pending.delta} is being handed over by another watcher"
            return None
        pending = replace(pending, by=self._id, at=now)
        self._document.swap(replace(state, pending=pending).encode(), token)
        return self._payload(pending)

    def _find_new(self, state: ArrivalState, token: Token) -> dict[str, Any] | None:
        began, listing = self.clock(), ListingPass(REMEMBERED)
        listed = listing.record(list_images(self.path, self.open_bucket, ImageFilter(self.types)))
        images = [image for image in listed if not state.seen.has(image)]
        self.status = self.terms.reason_to_wait(images, began, self.pause) or ""
        if self.status:
            return None
        delta = f"{state.number + 1:06}-{self._id}"
        task = TaskInstanceKey("arrivals", delta, "images")
        found = write_listing(
            (image.to_dict() for image in images), self._folder, task, inline=self.inline, max_chunks=1
        )
        pending = PendingDelta(delta, len(images), found, self._id, self.clock())
        self._document.swap(ArrivalState(self.path, state.number + 1, listing.seen, pending).encode(), token)
        return self._payload(pending)

    def _payload(self, pending: PendingDelta) -> dict[str, Any]:
        about = {"delta": pending.delta, "count": pending.count, "images": pending.images}
        return {**about, "path": self.path, "state": self.state_path}

    def _load(self) -> tuple[ArrivalState, Token]:
        content, token = self._document.load()
        state = ArrivalState(self.path) if content is None else decode_state(self._document.where, content)
        if state.path != self.path:
            raise BadInput(
                f"state_path is {self.state_path!r}, where {NAME} is the state of {state.path!r} and not of "
                f"{self.path!r}. Give each path a state_path of its own."
            )
        return state, token
