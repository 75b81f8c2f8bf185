"""What is asked, what is shown and what comes back: the values that every room passes around."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_provider_describer.errors import Billed


@dataclass(frozen=True, slots=True)
class Image:
    """A reference to an image, not its bytes.

    ``version`` is the token with which its listing names this very content (an ETag, a generation), or None where
    the listing had none; ``size`` is in bytes, or None.
    """

    uri: str
    version: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """What is asked about an image. With the image's content it is the identity of a description.

    ``prompt`` and ``lang`` are None where the vendor's model takes none, so that changing them buys nothing twice.
    ``preprocessing`` names what is done to the bytes before they are sent; empty for nothing.
    """

    vendor: str
    model: str
    prompt: str | None = None
    lang: str | None = None
    preprocessing: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """A description and what it cost.

    :param text: what the vendor wrote; never empty.
    :param cost_usd: what this call cost in USD: the vendor's own figure where it names one, else the
        connection's ``price_per_call``, else None.
    :param request_id: the vendor's id of the call, where it gives one.
    :param elapsed_s: seconds from sending the (last) request to its answer.
    :param remaining_credits: the account's balance after the call, where the vendor says it.
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


@dataclass(frozen=True, slots=True)
class Running:
    """A request that the vendor has accepted and not finished. Its id is worth money: keep it before polling.

    ``submitted_at`` is the epoch second at which the vendor accepted it.
    """

    request_id: str
    submitted_at: float
    status: str = "QUEUED"


@dataclass(frozen=True, slots=True)
class Picture:
    """An image made ready to be sent: bytes (``content``) or an address the vendor fetches itself (``url``).

    ``sign`` makes that address when the call's turn has come, as a presigned one soon expires; it may ask a cloud, and
    blocks. Such an address is a secret: it is in no repr.
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
class DescribeRequest:
    """One image and what is asked about it. ``id`` is the user's own name for it, handed through to its row."""

    image: Image
    spec: Spec
    id: str | None = None


def format_usd(usd: float | None) -> str:
    """Return a sum in USD for people: cents, and tenths of a cent where it is small; or why the sum is unknown."""
    if usd is None:
        return "unknown (no price_per_call on the connection)"
    return f"${usd:,.2f}" if usd >= 10 or round(usd, 2) == round(usd, 4) else f"${usd:,.3f}"
