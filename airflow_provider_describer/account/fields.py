"""The fields of a connection's extra: what the form shows of them, and how each is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["string", "number", "integer", "boolean", "object"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a connection's extra.

    :param kind: a type of JSON schema. A number must be above 0; an object may also be given as its JSON text.
    :param choices: make it a dropdown of these texts.
    :param default: what an empty field means.
    :param required: whether a connection works only with a value.
    """

    name: str
    label: str
    help: str
    kind: Kind = "string"
    choices: tuple[str, ...] = ()
    default: str | float | bool | None = None
    required: bool = False


LIMITS = (
    Field(
        "requests_per_minute",
        "Requests per minute",
        "Billable calls per minute. Each task counts for itself, unless they share limits.",
        "number",
    ),
    Field(
        "max_cost_per_day",
        "Spend limit per day (USD)",
        "Calls stop at this sum, by UTC day. Each task counts for itself, unless they share limits.",
        "number",
    ),
    Field(
        "limits_path",
        "Shared limits",
        "A folder, local or s3://, gs://, or a Redis (redis://, rediss://): all tasks that use this connection share "
        "its rate and its spend limit there.",
    ),
    Field(
        "timeout",
        "Timeout (seconds)",
        "From sending a request to the end of its answer.",
        "number",
        default=120,
    ),
)
PRIVATE_HOSTS = Field(
    "allow_private_hosts",
    "Allow private hosts",
    "Whether images may be read from web servers in a private network or on the worker itself (10.x, 192.168.x, "
    "localhost). Leave it off where others write the list of images. Metadata services of clouds are never asked.",
    "boolean",
    default=False,
)
COMMON = (*(field.name for field in LIMITS), PRIVATE_HOSTS.name, "price_per_call", "image_transport")
"""The names of the fields that every vendor's connection has. Price and transport are described by the vendor."""


def price_field(default: float | None, about: str) -> Field:
    """Return the field for the price of a call."""
    return Field("price_per_call", "Price per call (USD)", about, "number", default=default)


def transport_field(choices: tuple[str, ...], addresses: str) -> Field:
    """Return the field for how images reach the vendor.

    :param choices: how bytes can be sent, the preferred way first.
    :param addresses: what ``auto`` sends as an address and what not, for the help.
    """
    bytes_sent = f"as bytes ({choices[0]}; inline: within the call, as base64)"
    if choices[0] == "inline":
        bytes_sent = "within the call, as base64 (inline)"
    return Field(
        "image_transport",
        "Image transport",
        f"How images reach the vendor. auto: {addresses}{bytes_sent}.",
        choices=("auto", "url", *choices),
        default="auto",
    )
