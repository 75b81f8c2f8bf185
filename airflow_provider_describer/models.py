"""The values that every room uses, in the order in which a run meets them: request, picture, call, description."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_provider_describer.errors import Billed, RejectedImage


@dataclass(frozen=True, slots=True)
class Image:
    """A reference to an image, not its bytes.

    ``version`` is the listing's token for exactly this content (an ETag, a generation), or None if it gives none;
    ``size`` is in bytes, or None.
    """

    uri: str
    version: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """What is asked about an image. Together with the image's content it identifies a description.

    ``prompt`` and ``lang`` are None if the vendor's model takes none, so that changing them never pays for the same
    description twice. ``preprocessing`` names what is done to the bytes before they are sent; empty for nothing.
    ``parameters`` is whatever else is asked (a length, a schema), as JSON text; empty for nothing.
    """

    vendor: str
    model: str
    prompt: str | None = None
    lang: str | None = None
    preprocessing: str = ""
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class DescribeRequest:
    """One image and what is asked about it. ``id`` is the user's own name for it, copied to its row.

    ``stricter`` is what is asked once more if the text fails a rule; None for no second try. ``chain`` holds the same
    image's request for each connection of a chain, this one at ``place``, None where a connection cannot be asked;
    empty without a chain.

    ``flaw`` says why this entry of a list names no image that could be described: it gets a row and no call. The
    ``uri`` is then what was given, or else the entry's place in the list.
    """

    image: Image
    spec: Spec
    id: str | None = None
    flaw: RejectedImage | None = field(default=None, compare=False)
    stricter: Spec | None = field(default=None, compare=False)
    chain: Sequence[DescribeRequest | None] = field(default=(), compare=False, repr=False)
    place: int = field(default=0, compare=False)

    @property
    def first(self) -> DescribeRequest:
        """The request for the first connection of the chain; itself without one."""
        return self.chain[0] or self if self.chain else self


@dataclass(frozen=True, slots=True)
class Picture:
    """An image ready to be sent: its bytes (``content``), or an address that the vendor fetches (``url``).

    ``sign`` makes that address at the last moment, because a presigned one soon expires; it may ask a cloud, and
    blocks. Such an address is a secret and in no repr.
    """

    media_type: str
    content: bytes | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    filename: str = "image"
    inline: bool = False
    sign: Callable[[], str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if [self.content, self.url, self.sign].count(None) != 2:
            raise ValueError("a Picture has content, a url, or what signs one")


@dataclass(frozen=True, slots=True)
class Running:
    """A request that the vendor has accepted and not finished. Its id is worth money: store it before polling.

    ``submitted_at`` is the epoch second at which the vendor accepted it.
    """

    request_id: str
    submitted_at: float
    status: str = "QUEUED"


@dataclass(frozen=True, slots=True)
class Description:
    """A description and what it cost.

    :param text: what the vendor wrote; never empty.
    :param cost_usd: the cost of this call in USD: the vendor's own figure if it gives one, else the connection's
        ``price_per_call``, else None.
    :param request_id: the vendor's id of the call, if it gives one.
    :param elapsed_s: seconds from sending the (last) request to its response.
    :param remaining_credits: the account's balance after the call, if the vendor gives it.
    :param uri: of a web image only the part before the query, which may be a signature.
    :param fields: the parts of a structured answer; None where none was asked for.
    """

    text: str
    vendor: str
    model: str
    prompt: str | None = None
    lang: str | None = None
    cost_usd: float | None = None
    request_id: str | None = None
    billed: Billed = "yes"
    elapsed_s: float = 0.0
    remaining_credits: float | None = None
    uri: str | None = None
    sha256: str | None = None
    fields: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class HistoryRecord:
    """One call in the vendor's own books.

    :param created_at: epoch seconds, by the vendor's clock.
    :param status: ``completed`` was billed; ``failed`` was not.
    :param shown: the digest of the image as it was sent (`Vendor.shown`), or None if the record does not hold it.
    :param cost_usd: what the vendor says that it has cost, or None.
    :param text: the description, where the record holds it.
    :param elapsed_s: seconds that the call took, or 0.0.
    """

    request_id: str
    created_at: float
    status: Literal["completed", "failed", "running"]
    shown: str | None = None
    cost_usd: float | None = None
    text: str | None = None
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of the vendor's books. A call may have several records here, one for each of its outputs."""

    records: tuple[HistoryRecord, ...]
    is_last: bool


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return the words that go with a count: ``one`` for 1, else ``many``, which is ``one`` with an s by default."""
    return one if count == 1 else many or f"{one}s"


def format_usd(usd: float | None) -> str:
    """Return a sum in USD for people: in cents, small sums in tenths of a cent; None as the reason why."""
    if usd is None:
        return "unknown (no price_per_call on the connection)"
    return f"${usd:,.2f}" if usd >= 10 or round(usd, 2) == round(usd, 4) else f"${usd:,.3f}"
