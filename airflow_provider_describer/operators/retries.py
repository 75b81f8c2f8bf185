"""A ready retry policy for tasks that describe images.

Airflow has retry policies from 3.3 on, and waits that use up no retry from 3.4 on.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow import __version__
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_describer.errors import BadInput, DescriberError, RetryLater
from airflow_provider_describer.operators.failures import NON_RETRYABLE, airflow_error

if TYPE_CHECKING:
    from airflow.sdk import Context

LONGEST_RESCHEDULED = timedelta(days=1)
"""From its first wait on, a try waits for so long without using up a retry."""

try:
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryDecision, RetryRule
except ImportError:
    HAS_RETRY_POLICIES = False
else:
    HAS_RETRY_POLICIES = True

    class DescriberRetryPolicy(ExceptionRetryPolicy):
        """Decides by this package's error: the raised one, or the one that an operator has turned into Airflow's."""

        def __init__(self) -> None:
            super().__init__(rules=[RetryRule(exception=list(NON_RETRYABLE), action=RetryAction.FAIL)])

        def evaluate(
            self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
        ) -> RetryDecision:
            """Return whether and when a task that failed with this exception is tried again."""
            error: object = exception
            if not isinstance(error, DescriberError):
                error = getattr(exception, "describer_error", exception.__cause__)
            if not isinstance(error, DescriberError):
                return RetryDecision.default()
            reason = type(error).__name__
            if isinstance(airflow_error(error), AirflowFailException):
                return RetryDecision.fail(reason)
            if isinstance(error, RetryLater) and error.retry_at is not None:
                return _at(error.retry_at, reason)
            return RetryDecision.default()

    def _at(moment: float, reason: str) -> RetryDecision:
        delay = timedelta(seconds=max(0.0, moment - time.time()))
        reschedule = getattr(RetryDecision, "reschedule", None)
        if reschedule is None:
            return RetryDecision.retry(delay, reason)
        # No limit by number: the pokes of a sensor count as reschedules too.
        decision: RetryDecision = reschedule(delay, reschedule_timeout=LONGEST_RESCHEDULED, reason=reason)
        return decision


def describer_retry_policy() -> DescriberRetryPolicy:
    """Return a policy for ``retry_policy=`` of any task that describes images, by an operator or by the hook.

    An error that a retry cannot help (of the account, the arguments, the image) fails the task at once. If the vendor
    named a time, or the connection's ``max_cost_per_day`` is spent, the task goes on at that time or the next UTC day.
    From Airflow 3.4 on, such a wait uses up no retry: the task is ``up_for_reschedule``, also with ``retries=0``. A try
    may wait so for a day; after that, and on Airflow 3.3, a wait is a retry. For everything else the task's own
    ``retries`` and ``retry_delay`` count.

    It can be one of a ``ChainRetryPolicy`` (Airflow 3.4): it decides nothing about an error that is not this package's.

    :raises BadInput: before Airflow 3.3. The operators fail at once there, too, if a retry cannot help; but Airflow
        retries every error of the hook in a task of yours.
    """
    if not HAS_RETRY_POLICIES:
        raise BadInput(
            f"describer_retry_policy needs Airflow 3.3 or newer, this is {__version__}. Leave retry_policy out and set "
            "retries and retry_delay: the operators themselves fail at once where a retry cannot help."
        )
    return DescriberRetryPolicy()
