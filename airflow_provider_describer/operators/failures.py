"""This package's errors as Airflow's: which fail a task for good, and which are worth an Airflow retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_describer.errors import (
    AccountError,
    AmbiguousCall,
    BadInput,
    BucketError,
    CorruptShard,
    DescriberError,
    RejectedImage,
    TooManyRejected,
    UnexpectedAnswer,
    UnknownOutcome,
)

NON_RETRYABLE = (
    AccountError,
    AmbiguousCall,
    BadInput,
    CorruptShard,
    RejectedImage,
    TooManyRejected,
    UnexpectedAnswer,
    UnknownOutcome,
)
"""A retry would fail, or pay, in the same way again."""

NON_RETRYABLE_BUCKET_KINDS = ("no_such_bucket", "wrong_region", "unsupported")
"""Kinds of `BucketError` that need a correction; a refusal or a silence may be over by the next try."""


def airflow_error(error: DescriberError) -> Exception:
    """Return the exception that fails the task, for good if a retry cannot help."""
    for_good = isinstance(error, NON_RETRYABLE) or (
        isinstance(error, BucketError) and error.kind in NON_RETRYABLE_BUCKET_KINDS
    )
    kind = AirflowFailException if for_good else AirflowException
    return kind(f"{type(error).__name__}: {error}")


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Raise this package's errors as Airflow's."""
    try:
        yield
    except DescriberError as error:
        raise airflow_error(error) from error
