"""What makes two descriptions the same: what was asked (the spec) and what was shown (the content).

No credentials and no names are part of it, so a renamed or copied image is known again, under any account.
"""

from __future__ import annotations

import hashlib
import json
import re

from airflow_provider_describer.models import Spec


def content_key(spec: Spec, sha256: str) -> str:
    """Return the identity of a description of these very bytes: 32 hex digits."""
    return _digest("content", _asked(spec), sha256)


def version_key(spec: Spec, uri: str, version: str) -> str:
    """Return the identity of a description of what a listing names so, where the bytes were not read."""
    return _digest("version", _asked(spec), uri, version)


def etag_key(spec: Spec, md5: str, size: int) -> str:
    """Return the identity of a description of an object whose store names its bytes by their MD5."""
    return _digest("md5", _asked(spec), md5, size)


def identity_keys(
    spec: Spec, uri: str, sha256: str | None, version: str | None, size: int | None = None
) -> tuple[str, ...]:
    """Return every identity that is known, those by content first.

    :param size: in bytes. With it, an ETag of S3 or GCS that is the MD5 of an object is an identity without its name,
        so that a renamed or copied object is known before it is read. Other servers' ETags may be made of anything.
    """
    keys = [content_key(spec, sha256)] if sha256 else []
    if version:
        if size is not None and uri.startswith(("s3://", "gs://")) and _MD5.fullmatch(version):
            keys.append(etag_key(spec, version, size))
        keys.append(version_key(spec, _lasting(uri), version))
    return tuple(keys)


_MD5 = re.compile("[0-9a-f]{32}")
_SIGNED = re.compile(
    r"(?<=[?&])(?:x-amz-|x-goog-|signature=|expires=|awsaccesskeyid=|googleaccessid=)[^&]*&?", re.IGNORECASE
)


def _lasting(uri: str) -> str:
    """The address without what presigning adds, which is another for every listing of the same object."""
    if "?" not in uri or not uri[:8].lower().startswith(("https://", "http://")):
        return uri
    return _SIGNED.sub("", uri).rstrip("?&")


def _asked(spec: Spec) -> tuple[str | None, ...]:
    return (spec.vendor, spec.model, spec.prompt, spec.lang, spec.preprocessing)


def _digest(*parts: object) -> str:
    # JSON keeps the parts apart: no two lists of parts have the same text. A uri may name a file that is no UTF-8.
    text = json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()
