"""Our errors as Airflow's: which end a task for good, and which are worth an Airflow retry."""

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
"""A retry would fail, or pay, in the same way again. A batch that may send unknown calls again ends as Unfinished."""

MISPLACED = ("no_such_bucket", "wrong_region", "unsupported")
"""Kinds of a `BucketError` that somebody has to correct; a refusal or a silence may be over by the next try."""


def airflow_error(error: DescriberError) -> Exception:
    """Return the exception with which the task ends: never retried where a retry cannot help."""
    kind = AirflowFailException if _is_for_good(error) else AirflowException
    return kind(f"{type(error).__name__}: {error}")


def _is_for_good(error: DescriberError) -> bool:
    return isinstance(error, NON_RETRYABLE) or (isinstance(error, BucketError) and error.kind in MISPLACED)


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Raise our errors as Airflow's."""
    try:
        yield
    except DescriberError as error:
        raise airflow_error(error) from error
