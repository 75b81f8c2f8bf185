"""Everything that can go wrong, drawn as a tree. Each leaf says what its reader should do.

    DescriberError
    ├── BadInput             an argument cannot work: correct the one that is named
    │   └── BadConnection    names the connection, the field and the fix
    ├── StoreError           the description store cannot be read or written: make no call until it can
    │   └── CorruptShard     names the damaged shard, which is never taken for an empty one
    ├── BucketError          S3 or GCS refused or did not answer: `kind` says how
    ├── RejectedImage        this image cannot be described: record it and go on with the others
    ├── UnreadableImage      the image could not be read, nothing was sent: a later run tries again
    ├── AccountError         every further call would fail too: stop, keep what is done, do what the message says
    │   ├── InvalidKey
    │   ├── InsufficientCredits
    │   ├── Forbidden
    │   ├── ModelRetired
    │   └── WrongEndpoint
    ├── RetryLater           not billed: wait until `retry_at`, or as the retry policy says, and try again
    │   ├── RateLimited
    │   └── VendorUnavailable
    ├── AmbiguousCall        the call was sent and its response lost: it may have been billed
    │   ├── RequestExpired   the result of a v2 request did not come, or was not fetched, in time
    │   └── TextNotKept      the vendor's own history shows that it was billed, and keeps no text of it
    ├── UnexpectedAnswer     a response in no known form: shows its first 200 characters
    ├── TooManyRejected      more images were rejected than the task allows: look at them, a retry does not help
    ├── Unfinished           some images are not described yet, through no fault of their own: run again
    └── UnknownOutcome       calls may have been paid for without a response: a person decides

Every class survives pickling with its attributes. No message holds a secret of its request, a key or a signature:
`vendors/secrets.py` masks what a vendor quotes back.
"""

from __future__ import annotations

import re
from typing import Literal

Billed = Literal["no", "yes", "unknown"]
"""Whether a call was paid for, as far as anyone but the vendor can know."""

EXCERPT_CHARS = 200
"""How many characters of an unexpected response an error shows."""
MAX_ANSWER_CHARS = 65536
"""How many characters of it an error keeps."""


_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """Return the text with control characters and line breaks as escapes: keys and file names may hold them."""
    return _BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class DescriberError(Exception):
    """Base of all errors of this package. Its message is one line.

    ``kind`` is the stable word in a row's ``error``; ``billed`` says whether the failed call was paid for;
    ``request_id`` is the vendor's id of it, if there is one.
    """

    kind: str = "error"
    billed: Billed = "no"
    request_id: str | None = None

    def __init__(
        self, message: str, *, kind: str | None = None, billed: Billed | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(one_line(message))
        self.kind = kind or self.kind
        self.billed = billed or self.billed
        self.request_id = request_id


class BadInput(DescriberError, ValueError):
    """An argument cannot work. Raised before any money is spent."""

    kind = "bad_input"


class BadConnection(BadInput):
    """An Airflow connection cannot work. Names the connection, the field and the fix."""

    kind = "bad_connection"


class StoreError(DescriberError):
    """The description store cannot be read or written. No call is made until it can, because its rows are money."""

    kind = "store"


class CorruptShard(StoreError):
    """A shard of the journal is torn, damaged or of a newer version. Names it; it is never taken for an empty one."""

    kind = "corrupt_shard"


class BucketError(DescriberError):
    """An object store refused or did not answer; nothing was read or written. Names the object.

    ``kind`` is ``no_such_object``, ``no_such_bucket``, ``denied``, ``bad_credentials``, ``wrong_region``, ``archived``,
    ``bad_key``, ``throttled``, ``too_large``, ``exists`` (an object to be created), ``changed`` (an object to be
    replaced), ``unsupported`` or ``unreachable``. Only ``throttled`` and ``unreachable`` may pass by themselves;
    ``bad_credentials`` concerns every object that the connection opens.
    """

    kind = "bucket"


class RejectedImage(DescriberError):
    """This image cannot be described; the others can. ``kind`` says why (``harmful_content``, ``too_large``…)."""

    kind = "rejected"


class UnreadableImage(DescriberError):
    """The image could not be read now; that does not mean that it is missing. Nothing was sent."""

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
    """The server at the connection's host is not the vendor's API."""

    kind = "wrong_endpoint"


class RetryLater(DescriberError):
    """The vendor did not take the call, and nothing was billed; it may take it later.

    ``retry_at`` is the epoch second from which it takes calls again, or None if it did not say.
    """

    kind = "retry_later"

    def __init__(self, message: str, *, retry_at: float | None = None, **about: object) -> None:
        super().__init__(message, **about)  # type: ignore[arg-type]  # the base's own keywords, passed through
        self.retry_at = retry_at


class RateLimited(RetryLater):
    """Too many requests."""

    kind = "rate_limited"


class VendorUnavailable(RetryLater):
    """The vendor could not be reached or could not answer."""

    kind = "unavailable"


class AmbiguousCall(DescriberError):
    """The request was sent and its response lost: it may have been billed, and only the vendor knows."""

    kind = "ambiguous"
    billed: Billed = "unknown"


class RequestExpired(AmbiguousCall):
    """The vendor no longer has a v2 request whose result was never fetched, or did not finish it in time."""

    kind = "request_expired"


class TextNotKept(AmbiguousCall):
    """The vendor's own history shows that the call was completed and billed. It keeps no text of it."""

    kind = "text_not_kept"
    billed: Billed = "yes"


class UnexpectedAnswer(DescriberError):
    """A response in no form that the vendor documents.

    ``answer`` is its text (at most 64 Ki characters), kept because it may have been paid for; the message shows the
    first 200 characters.
    """

    kind = "unexpected_answer"
    billed: Billed = "unknown"

    def __init__(self, message: str, *, answer: str = "", **about: object) -> None:
        excerpt = answer[:EXCERPT_CHARS] + ("…" if len(answer) > EXCERPT_CHARS else "")
        super().__init__(f"{message}: {excerpt!r}" if answer else message, **about)  # type: ignore[arg-type]
        self.answer = answer[:MAX_ANSWER_CHARS]


class TooManyRejected(DescriberError):
    """More images were rejected than ``max_failure_ratio`` allows."""

    kind = "too_many_rejected"


class Unfinished(DescriberError):
    """Some images have no description yet, through no fault of their own; running again continues with them.

    In the row of such an image, ``kind`` says why: ``budget`` (a limit of the task or the connection allows no further
    call), ``stopped`` (an error that concerned all images, or the end of the task), ``waiting`` (a wait is spent
    outside the worker), ``claimed`` (another live run is paying for it) or ``changed`` (the image was changed while the
    run read it). A run ends with ``claim_lost`` where others may have taken over its images.
    """

    kind = "unfinished"


class UnknownOutcome(DescriberError):
    """Calls of an earlier try have no response, and ``on_unknown="fail"`` leaves the decision to you."""

    kind = "unknown_outcome"
