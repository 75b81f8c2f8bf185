"""This package's errors as Airflow's: which fail a task for good, and which are worth an Airflow retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


def airflow_error(error: errors.DescriberError) -> Exception:
    """Return the exception that fails the task, for good if a retry cannot help."""
    for_good = isinstance(error, NON_RETRYABLE) or (
        isinstance(error, errors.BucketError) and error.kind in NON_RETRYABLE_BUCKET_KINDS
    )
    kind = AirflowFailException if for_good else AirflowException
    return kind(f"{type(error).__name__}: {error}")


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Raise this package's errors as Airflow's."""
    try:
        yield
    except errors.DescriberError as error:
        raise airflow_error(error) from error
