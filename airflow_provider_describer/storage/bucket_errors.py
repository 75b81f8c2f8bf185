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
    "denied": "access was refused{detail}. Check the credentials' permissions there",
    "bad_credentials": "the credentials were not accepted{detail}. Correct or renew the storage connection's",
    "archived": "the object is archived{detail}. Restore it to a storage class that can be read at once",
    "bad_key": "the store takes no such key{detail}. Copy the object to another key",
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
    "{address!r}: what is written here must not begin or end with '/', nor contain '//', a part '.' or '..', a control "
    "character or half a character. Choose another key."
)
UNREADABLE_KEY = "{address!r}: no request can name this key{why}. Copy the object to another key."

_KINDS_OF_CODES = {
    "no_such_bucket": ("NoSuchBucket",),
    "wrong_region": ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"),
    "archived": ("InvalidObjectState",),
    "bad_key": ("KeyTooLongError", "InvalidObjectName", "InvalidURI"),
    "bad_credentials": (
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidToken",
        "InvalidClientTokenId",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
        "RequestTimeTooSkewed",
        "RequestExpired",
        "AuthFailure",
        "InvalidSecurity",
        "NotSignedUp",
        "AccountProblem",
        "CredentialsNotSupported",
        "UserDisabled",
    ),
    "throttled": (
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "KMS.ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "OperationAborted",
    ),
    "unreachable": ("RequestTimeout", "IncompleteBody"),
}
_KIND_OF_CODE = {code: kind for kind, codes in _KINDS_OF_CODES.items() for code in codes}
"""What a server's code says more exactly than its status: a time-out is an HTTP 400 at S3, as is a stale clock."""
_MAY_PASS = (408, 425, 429, 503)


class AnswerRefused(Exception):
    """A plain request had no answer (``status`` 0) or not the one that was asked for. Its text is as obstore's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ObjectNotThere(AnswerRefused):
    """There is no such object."""


class NoCredentials(Exception):
    """A credential provider has raised an error, whose class the text names."""


class NotAListing(Exception):
    """The answer to a request for a listing is none."""


def bucket_error(error: Exception, address: str, doing: str) -> BucketError:
    """Return the error for what was raised while ``address`` was to be ``doing``: ``read``, ``written``…"""
    if isinstance(error, NotAListing):
        return BucketError(NOT_AN_OBJECT_STORE.format(address=address), kind="unreachable")
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


def is_unpacked_underway(error: Exception) -> bool:
    """Whether GCS has sent an object unpacked that is stored packed: of unknown size, and whole."""
    text = str(error)
    return "Content-Length Header missing" in text or "non-partial response" in text or "NotPartial" in text


def _kind(error: Exception) -> str:
    from obstore import exceptions as raised

    text = str(error)
    if by_code := _KIND_OF_CODE.get(_code(text)):
        return by_code
    if isinstance(error, raised.UnauthenticatedError | NoCredentials) and (provider := _provider(text)):
        # A token service that does not answer may answer later.
        silent = re.search("Connect|Timeout|Transport|Network|Unreachable", provider)
        return "unreachable" if silent else "bad_credentials"
    kinds: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
        ((FileNotFoundError, ObjectNotThere), "no_such_object"),
        ((raised.AlreadyExistsError,), "exists"),
        ((raised.PreconditionError,), "changed"),
        ((NotImplementedError, raised.NotSupportedError, raised.InvalidPathError, ValueError), "unsupported"),
        ((raised.PermissionDeniedError,), "denied"),
        ((raised.UnauthenticatedError,), "bad_credentials"),
    )
    return next((kind for types, kind in kinds if isinstance(error, types)), None) or _kind_of_answer(text)


def _kind_of_answer(text: str) -> str:
    status = _status(text)
    if "redirect without LOCATION" in text or status in (301, 307):
        return "wrong_region"
    if status == 501:
        return "unsupported"
    if status == 401:
        return "bad_credentials"
    if status in _MAY_PASS:
        return "throttled"
    if status is not None and 400 <= status < 500:
        return "no_such_bucket" if status == 404 else "denied"
    return "unreachable"


def _status(text: str) -> int | None:
    found = re.search(r"status code: (\d{3})", text)
    return int(found[1]) if found else None


def _code(text: str) -> str:
    found = re.search(r"<Code>([\w.]+)</Code>", text)
    return found[1] if found else ""


def _provider(text: str) -> str:
    """Return the class of the error that a credential provider has raised."""
    found = re.search(r"credential provider: (\w+)", text)
    return found[1] if found else ""


def _detail(text: str) -> str:
    """Return in brackets what the server said; else which host did not answer; else the class of a provider's error."""
    parts = [part for part in (str(_status(text) or ""), _code(text)) if part]
    if parts:
        message = re.search(r"<Message>([^<]+)</Message>", text)
        # A message may quote a signed address or a token.
        shown = re.sub(r"(\?|Bearer )\S+", r"\1…", message[1])[:MAX_MESSAGE] if message else ""
        return f" ({' '.join(parts)}{f': {shown}' if shown else ''})"
    if provider := _provider(text):
        return f" (no credentials: {provider})"
    if path := re.search(r'invalid path: Path "([^"\n]*)"', text):
        return f" (it holds the key {path[1]!r}, with an empty part: give it another, or take a narrower prefix)"
    host = re.search(r"https?://(?:[^@/\s]*@)?([^/?\s]+)", text)
    return f" (no answer from {host[1]})" if host else ""
