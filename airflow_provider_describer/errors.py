"""Everything that can go wrong, drawn as a tree. A leaf says what its reader should do.

    DescriberError
    ├── BadInput             what was asked for cannot work: fix the named argument or connection field
    │   └── BadConnection    names the connection, the field and the fix
    ├── StoreError           the description store cannot be read or written: nothing is called until it can
    │   └── CorruptShard     names the shard; "cannot read" is never "not there"
    ├── BucketError          S3 or GCS said no, or nothing: what that means depends on what was wanted there
    ├── RejectedImage        this image is at fault: record it and go on with the others
    ├── UnreadableImage      the image could not be read now; nothing was sent: a later run tries again
    ├── AccountError         every further call would fail too: stop, keep what is done, do what it says
    │   ├── InvalidKey
    │   ├── InsufficientCredits
    │   ├── Forbidden
    │   ├── ModelRetired
    │   └── WrongEndpoint
    ├── RateLimited          wait until `retry_at`
    ├── VendorUnavailable    wait and try again: known unbilled
    ├── AmbiguousCall        the call was sent and its answer lost: it may have been billed
    │   └── RequestExpired   a v2 request whose result was not fetched in time
    ├── UnexpectedAnswer     an answer in no form we know: shows its first 200 characters
    ├── TooManyRejected      more images were rejected than the task allows: look at them, a retry would not help
    ├── Unfinished           some images are not described yet, through no fault of theirs: run again
    └── UnknownOutcome       calls may have been paid for without an answer: a human decides

Every class survives pickling with its attributes and no message holds a key: vendors' texts are shown
only after the transport has masked the secrets of the request they answer.
"""

from __future__ import annotations

from typing import Literal

Billed = Literal["no", "yes", "unknown"]
"""Whether a call was paid for, as far as anybody outside the vendor can know."""

EXCERPT_CHARS = 200
"""How many characters of an unexpected answer an error shows."""


class DescriberError(Exception):
    """Base of all errors of this package.

    ``kind`` is the stable word stored in a row's ``error``; ``billed`` says whether the call that failed
    was paid for; ``request_id`` is the vendor's own, where it gave one.
    """

    kind: str = "error"
    billed: Billed = "no"
    request_id: str | None = None

    def __init__(
        self,
        message: str,
        *,
        kind: str | None = None,
        billed: Billed | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if kind is not None:
            self.kind = kind
        if billed is not None:
            self.billed = billed
        if request_id is not None:
            self.request_id = request_id

    def __str__(self) -> str:
        return self.message


class BadInput(DescriberError, ValueError):
    """An argument cannot work. Raised before any money is spent."""

    kind = "bad_input"


class BadConnection(BadInput):
    """An Airflow connection cannot work. Names the connection, the field and the fix."""

    kind = "bad_connection"


class StoreError(DescriberError):
    """The description store cannot be read or written. Nothing is called until it can, as its rows are money."""

    kind = "store"


class CorruptShard(StoreError):
    """A shard of the journal is torn, damaged or of a newer version. Names it; is never taken for an empty one."""

    kind = "corrupt_shard"


class BucketError(DescriberError):
    """An object store refused or did not answer; nothing was read or written. Names the object.

    ``kind`` is ``no_such_object``, ``no_such_bucket``, ``denied``, ``wrong_region``, ``throttled``, ``too_large``,
    ``exists`` (of one to be created), ``changed`` (of one to be replaced), ``unsupported`` or ``unreachable``.
    """

    kind = "bucket"


class RejectedImage(DescriberError):
    """This image cannot be described; the others can. ``kind`` says why (``harmful_content``, ``too_large``…)."""

    kind = "rejected"


class UnreadableImage(DescriberError):
    """The image could not be read now, which says nothing about whether it is there. Nothing was sent."""

    kind = "unreadable"


class AccountError(DescriberError):
    """The account or the configuration is at fault; every further call would fail too."""

    kind = "account"


class InvalidKey(AccountError):
    """The vendor does not accept the API key."""

    kind = "invalid_key"


class InsufficientCredits(AccountError):
    """The account has no credits left, or a spend limit of the account or its team is reached."""

    kind = "insufficient_credits"


class Forbidden(AccountError):
    """The account may not call this model."""

    kind = "forbidden"


class ModelRetired(AccountError):
    """The vendor no longer serves this model."""

    kind = "model_retired"


class WrongEndpoint(AccountError):
    """Whatever answers at the connection's host is not the vendor's API."""

    kind = "wrong_endpoint"


class RateLimited(DescriberError):
    """Too many requests. ``retry_at`` is the epoch second from which the vendor takes calls again, or None."""

    kind = "rate_limited"

    def __init__(self, message: str, *, retry_at: float | None = None, **about: object) -> None:
        super().__init__(message, **about)  # type: ignore[arg-type]  # the base's own keywords, passed through
        self.retry_at = retry_at


class VendorUnavailable(DescriberError):
    """The vendor could not be reached or could not answer; nothing was billed.

    ``retry_at`` as in `RateLimited`, where the answer carried a Retry-After.
    """

    kind = "unavailable"

    def __init__(self, message: str, *, retry_at: float | None = None, **about: object) -> None:
        super().__init__(message, **about)  # type: ignore[arg-type]  # the base's own keywords, passed through
        self.retry_at = retry_at


class AmbiguousCall(DescriberError):
    """The request was sent and the answer lost: it may have been billed, and nobody can tell."""

    kind = "ambiguous"
    billed: Billed = "unknown"


class RequestExpired(AmbiguousCall):
    """The vendor has forgotten a v2 request whose result was never fetched; it may have been billed."""

    kind = "request_expired"


class UnexpectedAnswer(DescriberError):
    """An answer in no form that the vendor documents.

    ``answer`` is its whole text (at most 64 KiB), kept because it may have been paid for; the message shows
    the first 200 characters.
    """

    kind = "unexpected_answer"
    billed: Billed = "unknown"

    def __init__(self, message: str, *, answer: str = "", **about: object) -> None:
        shown = answer[:EXCERPT_CHARS] + ("…" if len(answer) > EXCERPT_CHARS else "")
        super().__init__(f"{message}: {shown!r}" if answer else message, **about)  # type: ignore[arg-type]
        self.answer = answer[:65536]


class TooManyRejected(DescriberError):
    """More images were rejected than ``max_failure_ratio`` allows."""

    kind = "too_many_rejected"


class Unfinished(DescriberError):
    """Some images are still without a description, through no fault of theirs; running again goes on with them."""

    kind = "unfinished"


class UnknownOutcome(DescriberError):
    """Calls of an earlier try were sent and never answered, and ``on_unknown="fail"`` leaves them to a human."""

    kind = "unknown_outcome"
