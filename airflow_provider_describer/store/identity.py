"""The identity of a description: what was asked (the spec) and what was shown (the image's content).

Neither credentials nor file names are part of it: a renamed or copied image is recognised, under any account.
"""

from __future__ import annotations

import hashlib
import json
import re

from airflow_provider_describer.models import Spec

_MD5 = re.compile("[0-9a-f]{32}")
_SIGNATURE = re.compile(
    r"(?<=[?&])(?:x-amz-|x-goog-|signature=|expires=|awsaccesskeyid=|googleaccessid=)[^&]*&?", re.IGNORECASE
)


def identity_keys(
    spec: Spec, uri: str, sha256: str | None, version: str | None, size: int | None = None
) -> tuple[str, ...]:
    """Return every known identity, each of 32 hex digits; the one by content goes first.

    :param version: what a listing gives for the address; with it, an image is recognised before it is read.
    :param size: in bytes. With it, an ETag of S3 or GCS that is an MD5 is an identity without the object's name, so
        that a renamed or copied object is recognised before it is read. ETags of other servers may mean anything.
    """
    keys = [_digest("content", spec, sha256)] if sha256 else []
    if version:
        if size is not None and uri.startswith(("s3://", "gs://")) and _MD5.fullmatch(version):
            keys.append(_digest("md5", spec, version, size))
        keys.append(_digest("version", spec, _without_signature(uri), version))
    return tuple(keys)


def _without_signature(uri: str) -> str:
    """Return the address without what presigning adds, because that differs in every listing of the same object."""
    if "?" not in uri or not uri[:8].lower().startswith(("https://", "http://")):
        return uri
    return _SIGNATURE.sub("", uri).rstrip("?&")


def _digest(kind: str, spec: Spec, *shown: object) -> str:
    asked = [spec.vendor, spec.model, spec.prompt, spec.lang, spec.preprocessing]
    if spec.parameters:
        asked.append(spec.parameters)
    # JSON, so that different parts never give the same text. A uri may name a file that is not UTF-8.
    text = json.dumps((kind, asked, *shown), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()
