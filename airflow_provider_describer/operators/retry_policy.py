"""The retry policy itself; Airflow has what it is made of from 3.3 on."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryDecision, RetryRule

from airflow_provider_describer.errors import DescriberError, RateLimited, VendorUnavailable
from airflow_provider_describer.operators.failures import NON_RETRYABLE, airflow_error

if TYPE_CHECKING:
    from airflow.sdk import Context


class DescriberRetryPolicy(ExceptionRetryPolicy):
    """Decides by our own error: the one that was raised, or the one from which an operator has made Airflow's."""

    def __init__(self) -> None:
        super().__init__(rules=[RetryRule(exception=list(NON_RETRYABLE), action=RetryAction.FAIL)])

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Return what is to be done about a task that has failed so."""
        error = exception if isinstance(exception, DescriberError) else exception.__cause__
        if not isinstance(error, DescriberError):
            return RetryDecision.default()
        reason = type(error).__name__
        if isinstance(airflow_error(error), AirflowFailException):
            return RetryDecision.fail(reason)
        if isinstance(error, RateLimited | VendorUnavailable) and error.retry_at is not None:
            return RetryDecision.retry(timedelta(seconds=max(0.0, error.retry_at - time.time())), reason)
        return RetryDecision.default()
