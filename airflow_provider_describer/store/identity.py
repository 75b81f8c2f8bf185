"""What makes two descriptions the same: what was asked (the spec) and what was shown (the content).

No credentials and no names are part of it, so a renamed or copied image is known again, under any account.
"""

from __future__ import annotations

import hashlib
import json

from airflow_provider_describer.description import Spec


def content_key(spec: Spec, sha256: str) -> str:
    """Return the identity of a description of these very bytes: 32 hex digits."""
    return _digest("content", _asked(spec), sha256)


def version_key(spec: Spec, uri: str, version: str) -> str:
    """Return the identity of a description of what a listing names so, where the bytes were not read."""
    return _digest("version", _asked(spec), uri, version)


def keys_of(spec: Spec, uri: str, sha256: str | None, version: str | None) -> tuple[str, ...]:
    """Return every identity that is known, the one by content first."""
    keys = [content_key(spec, sha256)] if sha256 else []
    if version:
        keys.append(version_key(spec, uri, version))
    return tuple(keys)


def _asked(spec: Spec) -> tuple[str | None, ...]:
    return (spec.vendor, spec.model, spec.prompt, spec.lang, spec.preprocessing)


def _digest(*parts: object) -> str:
    # JSON keeps the parts apart: no two lists of parts have the same text. A uri may name a file that is no UTF-8.
    text = json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()
