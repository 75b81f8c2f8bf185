"""Where an object lies, as people write it: ``s3://bucket/key`` or ``gs://bucket/key``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

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


def local_path(uri: str) -> Path | None:
    """Return the path that a local reference names (``/a/b.jpg``, ``file:///a/b.jpg``), or None for a web address.

    :raises BadInput: for a scheme that cannot be read, naming those that can.
    """
    scheme, colons, rest = uri.partition("://")
    if not colons:
        return Path(uri)
    if scheme.lower() == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost"):
            raise BadInput(f"{uri!r} names the host {host!r}; a file is written file:///path (three slashes).")
        return Path(unquote(slash + path))
    if is_web(uri):
        _check_address(uri)
        return None
    raise BadInput(
        f"{mask_query(uri)!r}: images are read from local paths, file://, s3://, gs:// and https://, not {scheme}://."
    )


def _check_address(uri: str) -> None:
    """Refuse what no request could be sent to, such as a port of 99999, before the run and not in its middle."""
    try:
        parts = urlsplit(uri)
        good = bool(parts.hostname) and parts.port != 0 and not any(c < " " or c == "\x7f" for c in uri)
    except ValueError:
        good = False
    if not good:
        raise BadInput(f"{mask_query(uri)!r} is no address; expected something like 'https://example.com/a.jpg'.")


def is_web(uri: str) -> bool:
    """Whether the reference is an http(s) address."""
    return uri[:8].lower().startswith(("https://", "http://"))


def is_local(uri: str) -> bool:
    """Whether the reference is a local file."""
    return "://" not in uri or uri[:7].lower() == "file://"


def masked(uri: str) -> str:
    """Return the reference as messages and rows name it: a web address without its query, which may be a secret.

    A path and a key keep their ``?`` and ``#``: there they are part of the name.
    """
    named = uri[:7].lower().startswith(("file://", "s3://", "gs://"))
    return mask_query(uri) if "://" in uri and not named else uri


def mask_query(url: str) -> str:
    """Return the URL without what may be a secret: its query (presigned URLs), its fragment, its user and password."""
    head, mark, _ = url.partition("?")
    head = head.partition("#")[0]
    scheme, colons, rest = head.partition("://")
    authority, slash, path = rest.partition("/")
    authority = authority.rpartition("@")[2]
    return (f"{scheme}{colons}{authority}{slash}{path}" if colons else head) + ("?…" if mark else "")
