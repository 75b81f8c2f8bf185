"""What the library raises, told as a `BucketError`: which object, what is wrong with it, what to do.

Its own texts quote whole answers, in which a server may repeat the credentials of the request. So only known parts are
taken from them: the status, the server's code and its message.
"""

from __future__ import annotations

import re

from airflow_provider_describer.errors import BucketError

SHOWN = 200
"""How many characters of a server's message are shown."""

_ADVICE = {
    "no_such_bucket": "there is no such bucket{said}. Check its name, and the connection's endpoint",
    "denied": "access was refused{said}. Check the credentials and what they may do there",
    "wrong_region": "the bucket lies in another region{said}. Set the connection's region_name to the bucket's",
    "throttled": "the store asks to slow down{said}. Try again later, or with a lower concurrency",
    "unsupported": "the store cannot do this{said}",
    "unreachable": "the store did not answer as it should{said}. Check the connection's endpoint, or try again",
}


def bucket_error(error: Exception, address: str, doing: str) -> BucketError:
    """Return the error for what was raised while ``address`` should have been ``doing``: ``read``, ``written``…"""
    kind = _kind(error)
    if kind == "no_such_object" and doing == "written":
        # Some stores do not say which of the two they miss.
        kind = "no_such_bucket"
    match kind:
        case "no_such_object":
            return BucketError(f"{address} is not there.", kind=kind)
        case "exists":
            return BucketError(f"{address} is there already; nothing was written.", kind=kind)
        case "changed":
            return changed(address)
    reason = _ADVICE[kind].format(said=_said(str(error)))
    return BucketError(f"{address} cannot be {doing}: {reason}.", kind=kind)


def changed(address: str) -> BucketError:
    """Return the error for an object that is no longer what it was when it was read."""
    return BucketError(
        f"{address} was changed by somebody else meanwhile; read it again before you replace it.", kind="changed"
    )


def no_conditional_writes(address: str) -> BucketError:
    """Return the error for a store that cannot compare before it writes."""
    return BucketError(
        f"{address} cannot be replaced safely: this store has no conditional writes, which limits_path needs. Give "
        "limits_path a folder on a disk, or in a bucket of another store.",
        kind="unsupported",
    )


def no_store(address: str) -> BucketError:
    """Return the error for an endpoint that finds whatever it is asked for."""
    return BucketError(
        f"{address} cannot be listed: what answers there is no object store. Check the connection's endpoint, and "
        "whether a proxy stands between.",
        kind="unreachable",
    )


def unsupported_key(address: str) -> BucketError:
    """Return the error for a key that the library would change, or cannot express."""
    return BucketError(
        f"{address!r}: a key must not begin or end with '/', nor hold '//', a part '.' or '..', a control character or "
        "half a character. Copy the object to another key.",
        kind="unsupported",
    )


def is_beyond_the_end(error: Exception) -> bool:
    """Tell whether what was asked for begins where the object has ended already; of an empty one, anything does."""
    return _status(str(error)) == 416 or "Range started at" in str(error)


def _kind(error: Exception) -> str:
    from obstore import exceptions as raised

    text = str(error)
    code = _code(text)
    if code == "NoSuchBucket":
        return "no_such_bucket"
    if isinstance(error, FileNotFoundError):
        return "no_such_object"
    if isinstance(error, raised.AlreadyExistsError):
        return "exists"
    if isinstance(error, raised.PreconditionError):
        return "changed"
    if isinstance(error, (NotImplementedError, raised.NotSupportedError, raised.InvalidPathError, ValueError)):
        return "unsupported"
    if isinstance(error, (raised.PermissionDeniedError, raised.UnauthenticatedError)):
        return "denied"
    return _kind_of_answer(_status(text), code, text)


def _kind_of_answer(status: int | None, code: str, text: str) -> str:
    if code == "AuthorizationHeaderMalformed" or "redirect without LOCATION" in text or status in (301, 307):
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


def _said(text: str) -> str:
    """What the server said, in brackets; else the host that said nothing; else the class of a provider's error."""
    message = re.search(r"<Message>([^<]+)</Message>", text)
    parts = [part for part in (str(_status(text) or ""), _code(text)) if part]
    if parts:
        # A message may quote a signed address or a token.
        told = re.sub(r"(\?|Bearer )\S+", r"\1…", message[1])[:SHOWN] if message else ""
        return f" ({' '.join(parts)}{f': {told}' if told else ''})"
    provider = re.search(r"credential provider: (\w+)", text)
    if provider:
        return f" (no credentials: {provider[1]})"
    path = re.search(r'invalid path: Path "([^"\n]*)"', text)
    if path:
        return f" (it holds the key {path[1]!r}, with an empty part: give it another, or take a narrower prefix)"
    host = re.search(r"https?://(?:[^@/\s]*@)?([^/?\s]+)", text)
    return f" (no answer from {host[1]})" if host else ""
