"""Where an image or a folder is: the one parser of uris, and how messages show a uri without its secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from airflow_provider_describer.errors import BadInput

Scheme = Literal["s3", "gs"]

_OTHER_SPELLINGS = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
"""Schemes that other tools use, and ours for the same."""
# An address with one slash or none, which would otherwise be taken for a path.
_HALF_ADDRESS = re.compile(r"(https?|(?:ftp|s3|gs|gcs|file)(?=:/)):(?!//)", re.IGNORECASE)
_SECRETS = re.compile(r"(https?:/*)(?:[^/?#]*@)?([^?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_SAFE = "!#$%&'()*+,/:;=?@[]~"
"""What an address may hold beside letters, digits and ``-._``. ``%`` too, so that nothing is encoded twice."""
# Whether a bucket may be called so; with any other character the clouds' libraries fail in ways of their own.
_BUCKET_NAME = re.compile("[A-Za-z0-9._-]+")
_BROKEN = re.compile("([\0-\x1f\x7f])|([\ud800-\udfff])")
_PLAIN_URL = re.compile(r"[\w!#$%&'()*+,./:;=?@\[\]~-]*", re.ASCII)
_LAST_CHARACTER = "\U0010fffd"


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """One object in a bucket, or the folder that a key ending in ``/`` (or an empty key) stands for."""

    scheme: Scheme
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine; ``uri`` is how the user wrote it."""

    uri: str
    path: Path

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True, slots=True)
class WebUrl:
    """An http(s) address, encoded as it is sent. Its text leaves the query out, which may be a secret."""

    url: str

    def __str__(self) -> str:
        return mask_query(self.url)


Location = ObjectKey | LocalFile | WebUrl


def parse_uri(uri: str) -> Location:
    """Return where a uri leads: a path, ``file://``, ``http(s)://``, ``s3://`` or ``gs://``.

    A web address is encoded as browsers do it: spaces, quotes, letters that are not ASCII. Nothing is encoded twice.

    :raises BadInput: for a uri that can never be read; the message says why.
    """
    if (found := bucket_address(uri)) is not None:
        return found
    path = local_path(uri)
    return WebUrl(_encoded(uri)) if path is None else LocalFile(uri, path)


def check_reference(uri: str) -> None:
    """Raise `BadInput` for a uri that cannot name an image: as `parse_uri` does, and for what is no path in fact."""
    if half := _HALF_ADDRESS.match(uri):
        slashes = "/// (three slashes)" if half[1].lower() == "file" else "// (two slashes)"
        raise BadInput(f"{masked(uri)!r} is no address; after {half[1]}: come {slashes}.")
    if uri[:5].lower() == "data:":
        raise BadInput("an image within its address (data:) is not read; write it to a file or a bucket.")
    if uri == "~" or uri.startswith("~/"):
        raise BadInput(f"{uri!r}: '~' is not replaced by a home folder; write the whole path.")
    found = parse_uri(uri)
    if isinstance(found, ObjectKey) and not _BUCKET_NAME.fullmatch(found.bucket):
        raise BadInput(f"{uri!r} is in {found.bucket!r}; names of buckets have letters, digits, '-', '_' and '.' only.")
    if isinstance(found, ObjectKey) and not found.key:
        raise BadInput(f"{uri!r} names a bucket and no image in it; list it first (ListImagesOperator).")


def parse_shared_folder(argument: str, folder: str, others: Sequence[str] = ()) -> ObjectKey | Path:
    """Return a folder that is the same one for every process: in a bucket, or an absolute path.

    :param argument: what messages call it.
    :param others: schemes that messages name too, where the caller takes them.
    :raises BadInput: for a blank or relative path (``~`` is not expanded), another scheme, or a key that is no folder.
    """
    if not folder.strip():
        raise BadInput(f"{argument} is blank, expected a folder such as '/data/shared', s3://… or gs://….")
    if is_redis(folder):
        raise BadInput(
            f"{argument} is an address of a Redis server, where only a connection's limits_path may be; expected a "
            "folder such as '/data/shared', s3://… or gs://…."
        )
    try:
        address = bucket_address(folder)
        path = local_path(folder) if is_local(folder) else None
    except BadInput as error:
        raise BadInput(f"{argument}: {error}") from None
    if address is not None:
        prefix = address.key.removesuffix("/")
        if prefix and not is_plain(prefix):
            raise BadInput(
                f"{argument} is {str(address)!r}; expected no empty parts in it, no '.' or '..' and no control "
                "characters."
            )
        return address
    # A relative path is another folder for each process that starts elsewhere.
    if path is None or not path.is_absolute():
        raise BadInput(
            f"{argument} is {masked(folder)!r}, expected a local folder such as '/data/shared', or an address "
            f"{', '.join(('file://', 's3://', *others))} or gs://. A path has to be absolute: a relative one is "
            "another folder for each process."
        )
    return path


def bucket_address(uri: str) -> ObjectKey | None:
    """Return the parts of an s3:// or gs:// address, or None for any other uri.

    The key is taken literally: spaces, ``+``, ``%``, ``#`` and ``?`` belong to it like any other character.

    :raises BadInput: for an address without a bucket, or in another tool's spelling.
    """
    scheme, colons, rest = uri.partition("://")
    scheme = scheme.lower()
    if not colons or scheme not in ("s3", "gs", *_OTHER_SPELLINGS):
        return None
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        # Other tools write a connection or a secret there, so the message leaves it out.
        plain = f"{scheme}://{bucket.rpartition('@')[2]}/{key}"
        raise BadInput(f"{plain!r} is written with a user before '@'; leave it out and name a storage_conn_id instead.")
    if scheme in _OTHER_SPELLINGS:
        raise BadInput(f"{uri!r}: write {_OTHER_SPELLINGS[scheme]}://{rest} instead.")
    if not bucket.strip():
        raise BadInput(f"{uri!r} names no bucket; expected something like '{scheme}://bucket/folder/name'.")
    return ObjectKey("s3" if scheme == "s3" else "gs", bucket, key)


def local_path(uri: str) -> Path | None:
    """Return the path that a local reference names (``/a/b.jpg``, ``file:///a/b.jpg``), or None for a web address.

    :raises BadInput: for any other scheme, and for a web address that no request could be sent to.
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
        _check_url(uri)
        return None
    raise BadInput(
        f"{mask_query(uri)!r}: images are read from local paths, file://, s3://, gs:// and https://, not {scheme}://."
    )


def _check_url(url: str) -> None:
    if problem := _url_problem(url):
        raise BadInput(
            f"{mask_query(url)!r} is not a valid address: {problem}; expected something like "
            "'https://example.com/a.jpg'."
        )


def _url_problem(url: str) -> str | None:
    if broken := _BROKEN.search(url):
        return "it has a control character" if broken[1] else "it has half a character"
    if "\\" in re.split("[?#]", url, maxsplit=1)[0]:
        return "it has a backslash, of which programs make different things"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if not host:
        return "it names no host"
    if port == 0:
        return "no server has the port 0"
    if re.search(r"[\s\"<>^`{|}]", host):
        return "its host has a character that no host has"
    return None


def _encoded(url: str) -> str:
    """Return a checked web address with all but its host encoded, and its scheme in small letters."""
    scheme, colons, rest = url.partition("://")
    scheme = scheme.lower()
    if _PLAIN_URL.fullmatch(url):
        return f"{scheme}{colons}{rest}"
    end = re.search("[/?#]|$", rest)
    cut = end.start() if end else len(rest)
    user, at, host = rest[:cut].rpartition("@")
    return f"{scheme}{colons}{quote(user, safe=_SAFE)}{at}{host}{quote(rest[cut:], safe=_SAFE)}"


def is_web(uri: str) -> bool:
    """Whether the reference is an http(s) address."""
    return uri[:8].lower().startswith(("https://", "http://"))


def is_local(uri: str) -> bool:
    """Whether the reference is a local file."""
    return "://" not in uri or uri[:7].lower() == "file://"


def is_redis(uri: str) -> bool:
    """Whether it is the address of a Redis server, perhaps misspelt. It may hold a password, so no message shows it."""
    return re.match(r"\s*rediss?:", uri, re.IGNORECASE) is not None


def masked(uri: str) -> str:
    """Return the reference as messages and rows show it: a web address loses its query, which may be a secret.

    In a path and in a key, ``?`` and ``#`` are part of the name and stay.
    """
    if is_redis(uri):
        return mask_query(uri)
    if half := _SECRETS.match(uri):
        # Also where a slash is missing.
        return f"{half[1]}{half[2]}" + ("?…" if "?" in half[3] else "")
    keeps_query = is_local(uri) or uri[:5].lower() in ("s3://", "gs://")
    return uri if keeps_query else mask_query(uri)


def mask_query(url: str) -> str:
    """Return the URL without what may be a secret: its query (presigned URLs), its fragment, its user and password."""
    if is_redis(url):
        # A password that is not encoded may hold any character.
        return f"{url.partition(':')[0].strip()}://…"
    head, mark, _ = url.partition("?")
    head = head.partition("#")[0]
    scheme, colons, rest = head.partition("://")
    authority, slash, path = rest.partition("/")
    authority = authority.rpartition("@")[2]
    return (f"{scheme}{colons}{authority}{slash}{path}" if colons else head) + ("?…" if mark else "")


def is_plain(key: str) -> bool:
    """Whether obstore can express a key: it drops slashes at both ends and cannot write ``a//b``.

    What we write ourselves has such keys only; others are read by plain requests.
    """
    parts_fit = not any(part in ("", ".", "..") for part in key.split("/"))
    return parts_fit and not any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in key)


def just_before(prefix: str) -> str | None:
    """Return a listing offset just before the first key with this prefix; None to list from the start."""
    head, below = prefix[:-1], chr(ord(prefix[-1]) - 1)
    if below == "/":
        below = "."
    if not below.isprintable():
        return head.rstrip("/") or None
    return f"{head}{below}{_LAST_CHARACTER}"
