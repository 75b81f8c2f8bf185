"""obstore's errors as `BucketError`: which object, what is wrong, what to do.

obstore's texts quote whole answers, in which a server may repeat the request's credentials. So only known parts of them
are used: the status, the server's code and its message.
"""

from __future__ import annotations

import re

from airflow_provider_describer.errors import BucketError

MAX_MESSAGE = 200
"""Characters of a server's message that are shown."""

_REASONS = {
    "no_such_bucket": "there is no such bucket{detail}. Check its name, and the connection's endpoint",
    "denied": "access was refused{detail}. Check the credentials and their permissions there",
    "wrong_region": "the bucket is in another region{detail}. Set the connection's region_name to the bucket's",
    "throttled": "the store asks to slow down{detail}. Try again later, or with a lower concurrency",
    "unsupported": "the store cannot do this{detail}",
    "unreachable": "the store did not answer as it should{detail}. Check the connection's endpoint, or try again",
}
CHANGED = "{address} was changed by another writer meanwhile; read it again before you replace it."
_MESSAGES = {
    "no_such_object": "{address} is not there.",
    "exists": "{address} exists already; nothing was written.",
    "changed": CHANGED,
}
NO_CONDITIONAL_WRITES = (
    "{address} cannot be replaced safely: this store has no conditional writes, which limits_path and state_path need. "
    "Give them a folder on a disk, or in a bucket of another store."
)
NOT_AN_OBJECT_STORE = (
    "{address} cannot be listed: the server that answers is not an object store. Check the connection's endpoint, and "
    "whether a proxy answers in its place."
)
UNSUPPORTED_KEY = (
    "{address!r}: a key must not begin or end with '/', nor contain '//', a part '.' or '..', a control character or "
    "half a character. Copy the object to another key."
)


def bucket_error(error: Exception, address: str, doing: str) -> BucketError:
    """Return the error for what obstore raised while ``address`` was to be ``doing``: ``read``, ``written``…"""
    kind = _kind(error)
    if kind == "no_such_object" and doing == "written":
        # Some stores do not say whether the object or the bucket is missing.
        kind = "no_such_bucket"
    if kind in _MESSAGES:
        return BucketError(_MESSAGES[kind].format(address=address), kind=kind)
    reason = _REASONS[kind].format(detail=_detail(str(error)))
    return BucketError(f"{address} cannot be {doing}: {reason}.", kind=kind)


def is_beyond_the_end(error: Exception) -> bool:
    """Whether the requested range begins where the object has ended; in an empty object, every range does."""
    return _status(str(error)) == 416 or "Range started at" in str(error)


def _kind(error: Exception) -> str:
    from obstore import exceptions as raised

    text = str(error)
    if _code(text) == "NoSuchBucket":
        return "no_such_bucket"
    kinds: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
        ((FileNotFoundError,), "no_such_object"),
        ((raised.AlreadyExistsError,), "exists"),
        ((raised.PreconditionError,), "changed"),
        ((NotImplementedError, raised.NotSupportedError, raised.InvalidPathError, ValueError), "unsupported"),
        ((raised.PermissionDeniedError, raised.UnauthenticatedError), "denied"),
    )
    return next((kind for types, kind in kinds if isinstance(error, types)), None) or _kind_of_answer(text)


def _kind_of_answer(text: str) -> str:
    status = _status(text)
    if _code(text) == "AuthorizationHeaderMalformed" or "redirect without LOCATION" in text or status in (301, 307):
        return "wrong_region"
    if status == 501:
        return "unsupported"
    if status in (429, 503):
        return "throttled"
    if status is not None and 400 <= status < 500:
        return "no_such_bucket" if status == 404 else "denied"
    return "unreachable"


def _status(text: str) -> int | None:
    found = re.search(r"status code: (\d{3})", text)
    return int(found[1]) if found else None


def _code(text: str) -> str:
    found = re.search(r"<Code>(\w+)</Code>", text)
    return found[1] if found else ""


def _detail(text: str) -> str:
    """Return in brackets what the server said; else which host did not answer; else the class of a provider's error."""
    parts = [part for part in (str(_status(text) or ""), _code(text)) if part]
    if parts:
        message = re.search(r"<Message>([^<]+)</Message>", text)
        # A message may quote a signed address or a token.
        shown = re.sub(r"(\?|Bearer )\S+", r"\1…", message[1])[:MAX_MESSAGE] if message else ""
        return f" ({' '.join(parts)}{f': {shown}' if shown else ''})"
    if provider := re.search(r"credential provider: (\w+)", text):
        return f" (no credentials: {provider[1]})"
    if path := re.search(r'invalid path: Path "([^"\n]*)"', text):
        return f" (it holds the key {path[1]!r}, with an empty part: give it another, or take a narrower prefix)"
    host = re.search(r"https?://(?:[^@/\s]*@)?([^/?\s]+)", text)
    return f" (no answer from {host[1]})" if host else ""
