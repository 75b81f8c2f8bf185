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

from airflow_provider_describer.arrivals import Look, Seen, Terms, filter_of
from airflow_provider_describer.buckets.address import bucket_address
from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.images.listing import list_images
from airflow_provider_describer.images.reading import is_local, local_path
from airflow_provider_describer.limits.cell import BucketCell, Cell, Changed, LocalCell, Token
from airflow_provider_describer.store.folder import Folder, open_folder
from airflow_provider_describer.store.listings import hand_on
from airflow_provider_describer.store.rows import Run

if TYPE_CHECKING:
    from airflow_provider_describer.buckets.opening import OpenBucket

NAME = "arrivals.json"
VERSION = 1
HANDED_OVER_S = 30.0
"""So long after it was fired an event counts as handed over: a triggerer writes it to the database within seconds."""
AGAIN_S = 2 * HANDED_OVER_S
"""So long after it was offered a delta is fired again, where whoever fired it has not said that it arrived."""
REMEMBERED = 100_000
"""Images that are remembered each, about 14 bytes for one; of a larger folder those that were changed last."""


@dataclass(frozen=True, slots=True)
class Offer:
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
class Memory:
    """The document: what has been seen, and what of it is not handed over for certain."""

    path: str
    number: int = 0
    seen: Seen = field(default_factory=Seen)
    offer: Offer | None = None

    def encode(self) -> bytes:
        """Return it as it is stored."""
        offer = None if self.offer is None else asdict(self.offer)
        values = {"version": VERSION, "path": self.path, "number": self.number, "offer": offer}
        return json.dumps({**values, "seen": self.seen.to_dict()}).encode()


@dataclass(slots=True)
class Watch:
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
    terms: Terms = field(default_factory=Terms)
    inline: int = 100
    clock: Callable[[], float] = time.time
    pause: Callable[[float], object] = time.sleep
    said: str = field(default="", init=False)
    """Why the last look gave nothing."""
    _cell: Cell = field(init=False)
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
            memory, token = self._load()
            if memory.offer is not None:
                if memory.offer.by != self._me:
                    return self._take_over(memory, memory.offer, token)
                memory = replace(memory, offer=None)
                token = self._cell.swap(memory.encode(), token)
            return self._new(memory, token)
        except Changed:
            self.said = "another watcher was faster"
            return None

    def _take_over(self, memory: Memory, offer: Offer, token: Token) -> dict[str, Any] | None:
        now = self.clock()
        if now < offer.at + AGAIN_S:
            self.said = f"delta {offer.delta} is being handed over by somebody else"
            return None
        offer = replace(offer, by=self._me, at=now)
        self._cell.swap(replace(memory, offer=offer).encode(), token)
        return self._payload(offer)

    def _new(self, memory: Memory, token: Token) -> dict[str, Any] | None:
        began, look = self.clock(), Look(REMEMBERED)
        listed = look.over(list_images(self.path, self.open_bucket, filter_of(self.types)))
        images = [image for image in listed if not memory.seen.has(image)]
        self.said = self.terms.held_back(images, began, self.pause) or ""
        if self.said:
            return None
        delta = f"{memory.number + 1:06}-{self._me}"
        found = hand_on(
            (image.to_dict() for image in images),
            self._folder,
            Run("arrivals", delta, "images"),
            inline=self.inline,
            max_chunks=1,
        )
        offer = Offer(delta, len(images), found, self._me, self.clock())
        self._cell.swap(Memory(self.path, memory.number + 1, look.seen, offer).encode(), token)
        return self._payload(offer)

    def _payload(self, offer: Offer) -> dict[str, Any]:
        return {
            "delta": offer.delta,
            "count": offer.count,
            "images": offer.images,
            "path": self.path,
            "state": self.state_path,
        }

    def _load(self) -> tuple[Memory, Token]:
        content, token = self._cell.load()
        memory = Memory(self.path) if content is None else decode(self._cell.where, content)
        if memory.path != self.path:
            raise BadInput(
                f"state_path is {self.state_path!r}, where {NAME} is the memory of {memory.path!r} and not of "
                f"{self.path!r}. Give each path a state_path of its own."
            )
        return memory, token


def decode(where: str, content: bytes) -> Memory:
    """Return the document that these bytes are.

    :raises StoreError: naming it, where they are none, or of a newer version.
    """
    try:
        values = json.loads(content)
        if not isinstance(values, Mapping) or values["version"] != VERSION:
            raise ValueError("its version is another one")
        offer = values["offer"]
        return Memory(
            values["path"],
            values["number"],
            Seen.from_dict(values["seen"]),
            None if offer is None else Offer(**offer),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{where} is no memory of watched images that can be read ({type(error).__name__}: {error}). Restore it, "
            "or remove it: then every image counts as new.",
            kind="corrupt_state",
        ) from None


def open_state(state_path: str, open_bucket: OpenBucket | None) -> Cell:
    """Return the document in a folder; nothing is read yet.

    :raises BadInput: for a folder that not every process would find.
    """
    check_state_path(state_path)
    address = bucket_address(state_path)
    if address is None:
        folder = local_path(state_path)
        assert folder is not None
        return LocalCell(folder / NAME)
    if open_bucket is None:
        raise BadInput(f"state_path is {state_path!r}, and nothing here can open a bucket.")
    prefix = address.key.rstrip("/")
    return BucketCell(open_bucket(address.scheme, address.bucket), f"{prefix}/{NAME}" if prefix else NAME)


def check_state_path(state_path: str) -> None:
    """Find a folder that is another one for every process, or none at all.

    :raises BadInput: naming it.
    """
    if bucket_address(state_path) is not None:
        return
    folder = local_path(state_path) if is_local(state_path) else None
    if folder is None or not folder.is_absolute():
        raise BadInput(f"state_path is {state_path!r}, expected a folder such as '/data/watching', s3://… or gs://….")
