"""Our errors as Airflow's: which end a task for good, and which are worth an Airflow retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_describer.errors import (
    AccountError,
    AmbiguousCall,
    BadInput,
    CorruptShard,
    DescriberError,
    RejectedImage,
    TooManyRejected,
    UnexpectedAnswer,
    UnknownOutcome,
)

FOR_GOOD = (
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


def airflow_error(error: DescriberError) -> Exception:
    """Return the exception with which the task ends: never retried where a retry cannot help."""
    kind = AirflowFailException if isinstance(error, FOR_GOOD) else AirflowException
    return kind(f"{type(error).__name__}: {error}")


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Raise our errors as Airflow's."""
    try:
        yield
    except DescriberError as error:
        raise airflow_error(error) from error
