"""Where an object lies, as people write it: ``s3://bucket/key`` or ``gs://bucket/key``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airflow_provider_describer.errors import BadInput

Scheme = Literal["s3", "gs"]

_MISTAKEN = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
"""Schemes of other tools, and ours for the same."""


_LAST = "\U0010fffd"
"""The last character that is one."""


@dataclass(frozen=True, slots=True)
class Address:
    """One object, or the folder that a key ending in ``/`` (or none) stands for."""

    scheme: Scheme
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"


def bucket_address(uri: str) -> Address | None:
    """Return the parts of an s3:// or gs:// address, or None where ``uri`` is none.

    The key is taken as it stands: spaces, ``+``, ``%``, ``#`` and ``?`` are characters of it like any other.

    :raises BadInput: for an address without a bucket, or in another tool's spelling.
    """
    scheme, colons, rest = uri.partition("://")
    scheme = scheme.lower()
    if not colons or scheme not in ("s3", "gs", *_MISTAKEN):
        return None
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        # Other tools name a connection there, or keep a secret; it is not shown.
        plain = f"{scheme}://{bucket.rpartition('@')[2]}/{key}"
        raise BadInput(f"{plain!r} is written with a user before '@'; leave it out and name a storage_conn_id instead.")
    if scheme in _MISTAKEN:
        raise BadInput(f"{uri!r}: write {_MISTAKEN[scheme]}://{rest} instead.")
    if not bucket.strip():
        raise BadInput(f"{uri!r} names no bucket; expected something like '{scheme}://bucket/folder/name'.")
    return Address("s3" if scheme == "s3" else "gs", bucket, key)


def is_plain(key: str) -> bool:
    """Tell whether a key can be used as it is: the library drops slashes at both ends, and cannot express ``a//b``."""
    parts_fit = not any(part in ("", ".", "..") for part in key.split("/"))
    return parts_fit and not any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in key)


def just_before(prefix: str) -> str | None:
    """Return what comes before all keys that begin so, and after as many others as can be; None for the very start."""
    head, below = prefix[:-1], chr(ord(prefix[-1]) - 1)
    if below == "/":
        below = "."
    if not below.isprintable():
        return head.rstrip("/") or None
    return f"{head}{below}{_LAST}"
