"""A folder that is watched for good: what is new in it is handed over in deltas, from a memory that outlives whoever
watches.

The memory is one small document. A delta is in it, durably, before it is handed over, and stays in it as *offered*
until it has been handed over for certain. So a watcher that dies loses nothing: the next one hands the same delta over
again, under the same id. Of two watchers at once, one is the faster to write, and the other holds back.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.arrivals.snapshot import ArrivalTerms, ListingPass, SeenImages, filter_of
from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.images.listing import list_images
from airflow_provider_describer.storage.address import bucket_address, is_local, local_path
from airflow_provider_describer.storage.cas_document import BucketDocument, CasDocument, Changed, LocalDocument, Token
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.store.listings import write_listing
from airflow_provider_describer.store.rows import TaskInstanceKey

if TYPE_CHECKING:
    from airflow_provider_describer.storage.open_bucket import OpenBucket

NAME = "arrivals.json"
VERSION = 1
HANDED_OVER_S = 30.0
"""So long after it was fired an event counts as handed over: a triggerer writes it to the database within seconds."""
AGAIN_S = 2 * HANDED_OVER_S
"""So long after it was offered a delta is fired again, where whoever fired it has not said that it arrived."""
REMEMBERED = 100_000
"""Images that are remembered each, about 14 bytes for one; of a larger folder those that were changed last."""


@dataclass(frozen=True, slots=True)
class PendingDelta:
    """A delta that somebody is handing over.

    :param delta: its id.
    :param images: what an operator takes as ``images``: a list, or the path of a file that lists them.
    :param by: who fired it last, and ``at`` when (epoch seconds).
    """

    delta: str
    count: int
    images: Any
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class ArrivalState:
    """The document: what has been seen, and what of it is not handed over for certain."""

    path: str
    number: int = 0
    seen: SeenImages = field(default_factory=SeenImages)
    offer: PendingDelta | None = None

    def encode(self) -> bytes:
        """Return it as it is stored."""
        offer = None if self.offer is None else asdict(self.offer)
        values = {"version": VERSION, "path": self.path, "number": self.number, "offer": offer}
        return json.dumps({**values, "seen": self.seen.to_dict()}).encode()


@dataclass(slots=True)
class ArrivalWatcher:
    """One watcher. Blocking.

    :param path: what is watched, as `list_images` takes it.
    :param state_path: a folder that the watchers of this path, and no others, have for their memory.
    :param inline: images that are handed over themselves; more of them as a file below ``state_path``.
    :raises BadInput: for a ``state_path`` that cannot be one.
    """

    path: str
    state_path: str
    open_bucket: OpenBucket | None = None
    types: Sequence[str] | None = None
    terms: ArrivalTerms = field(default_factory=ArrivalTerms)
    inline: int = 100
    clock: Callable[[], float] = time.time
    pause: Callable[[float], object] = time.sleep
    said: str = field(default="", init=False)
    """Why the last look gave nothing."""
    _cell: CasDocument = field(init=False)
    _folder: Folder = field(init=False)
    _me: str = field(init=False)

    def __post_init__(self) -> None:
        self._cell = open_state(self.state_path, self.open_bucket)
        self._folder = open_folder(self.state_path, self.open_bucket)
        self._me = secrets.token_hex(6)

    def look(self) -> dict[str, Any] | None:
        """Return a delta to be handed over now, or None. Called again, it takes that delta as handed over.

        A delta is ``{"delta": id, "count", "images", "path", "state"}``. It is durable before this returns it.

        :raises BadInput, BucketError, UnreadableImage: where the path cannot be listed.
        :raises StoreError: where the memory cannot be read or written; it is as it was then.
        """
        try:
            state, token = self._load()
            if state.offer is not None:
                if state.offer.by != self._me:
                    return self._take_over(state, state.offer, token)
                state = replace(state, offer=None)
                token = self._cell.swap(state.encode(), token)
            return self._new(state, token)
        except Changed:
            self.said = "another watcher was faster"
            return None

    def _take_over(self, state: ArrivalState, offer: PendingDelta, token: Token) -> dict[str, Any] | None:
        now = self.clock()
        if now < offer.at + AGAIN_S:
            self.said = f"delta {offer.delta} is being handed over by somebody else"
            return None
        offer = replace(offer, by=self._me, at=now)
        self._cell.swap(replace(state, offer=offer).encode(), token)
        return self._payload(offer)

    def _new(self, state: ArrivalState, token: Token) -> dict[str, Any] | None:
        began, look = self.clock(), ListingPass(REMEMBERED)
        listed = look.over(list_images(self.path, self.open_bucket, filter_of(self.types)))
        images = [image for image in listed if not state.seen.has(image)]
        self.said = self.terms.held_back(images, began, self.pause) or ""
        if self.said:
            return None
        delta = f"{state.number + 1:06}-{self._me}"
        found = write_listing(
            (image.to_dict() for image in images),
            self._folder,
            TaskInstanceKey("arrivals", delta, "images"),
            inline=self.inline,
            max_chunks=1,
        )
        offer = PendingDelta(delta, len(images), found, self._me, self.clock())
        self._cell.swap(ArrivalState(self.path, state.number + 1, look.seen, offer).encode(), token)
        return self._payload(offer)

    def _payload(self, offer: PendingDelta) -> dict[str, Any]:
        return {
            "delta": offer.delta,
            "count": offer.count,
            "images": offer.images,
            "path": self.path,
            "state": self.state_path,
        }

    def _load(self) -> tuple[ArrivalState, Token]:
        content, token = self._cell.load()
        state = ArrivalState(self.path) if content is None else decode(self._cell.where, content)
        if state.path != self.path:
            raise BadInput(
                f"state_path is {self.state_path!r}, where {NAME} is the memory of {state.path!r} and not of "
                f"{self.path!r}. Give each path a state_path of its own."
            )
        return state, token


def decode(where: str, content: bytes) -> ArrivalState:
    """Return the document that these bytes are.

    :raises StoreError: naming it, where they are none, or of a newer version.
    """
    try:
        values = json.loads(content)
        if not isinstance(values, Mapping) or values["version"] != VERSION:
            raise ValueError("its version is another one")
        offer = values["offer"]
        return ArrivalState(
            values["path"],
            values["number"],
            SeenImages.from_dict(values["seen"]),
            None if offer is None else PendingDelta(**offer),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{where} is no memory of watched images that can be read ({type(error).__name__}: {error}). Restore it, "
            "or remove it: then every image counts as new.",
            kind="corrupt_state",
        ) from None


def open_state(state_path: str, open_bucket: OpenBucket | None) -> CasDocument:
    """Return the document in a folder; nothing is read yet.

    :raises BadInput: for a folder that not every process would find.
    """
    check_state_path(state_path)
    address = bucket_address(state_path)
    if address is None:
        folder = local_path(state_path)
        assert folder is not None
        return LocalDocument(folder / NAME)
    if open_bucket is None:
        raise BadInput(f"state_path is {state_path!r}, and nothing here can open a bucket.")
    prefix = address.key.rstrip("/")
    return BucketDocument(open_bucket(address.scheme, address.bucket), f"{prefix}/{NAME}" if prefix else NAME)


def check_state_path(state_path: str) -> None:
    """Find a folder that is another one for every process, or none at all.

    :raises BadInput: naming it.
    """
    if bucket_address(state_path) is not None:
        return
    folder = local_path(state_path) if is_local(state_path) else None
    if folder is None or not folder.is_absolute():
        raise BadInput(f"state_path is {state_path!r}, expected a folder such as '/data/watching', s3://… or gs://….")
