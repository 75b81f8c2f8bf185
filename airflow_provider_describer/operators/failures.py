"""This package's errors as Airflow's: which fail a task for good, and which are worth an Airflow retry."""

from __future__ import annotations

import logging

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_describer import errors

NON_RETRYABLE = (
    errors.AccountError,
    errors.AmbiguousCall,
    errors.BadInput,
    errors.CorruptShard,
    errors.RejectedImage,
    errors.TooManyRejected,
    errors.UnexpectedAnswer,
    errors.UnknownOutcome,
)
"""A retry would fail, or pay, in the same way again."""

NON_RETRYABLE_BUCKET_KINDS = ("no_such_bucket", "wrong_region", "unsupported")
"""Kinds of `BucketError` that need a correction; a refusal or a silence may be over by the next try."""

RETRYABLE_KINDS = ("no_connection",)
"""Kinds of `BadInput` that may be over by the next try: a secrets backend that is down looks like that to Airflow."""

log = logging.getLogger(__name__)


def airflow_error(error: errors.DescriberError) -> Exception:
    """Return the exception that fails the task, for good if a retry cannot help; to be raised from None.

    It has the error as ``describer_error``, and not as its cause: the log would show a traceback of our own code, which
    says nothing more. That is logged at level DEBUG.
    """
    log.debug("The task fails with %s", type(error).__name__, exc_info=error)
    for_good = (isinstance(error, NON_RETRYABLE) and error.kind not in RETRYABLE_KINDS) or (
        isinstance(error, errors.BucketError) and error.kind in NON_RETRYABLE_BUCKET_KINDS
    )
    kind = AirflowFailException if for_good else AirflowException
    failure = kind(f"{type(error).__name__}: {error}")
    failure.describer_error = error  # type: ignore[attr-defined]  # for the retry policy, and for callbacks
    return failure


class airflow_errors:  # noqa: N801  # a class, because a generator would add frames to the traceback
    """Raise this package's errors as Airflow's."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, errors.DescriberError):
            raise airflow_error(error) from None
