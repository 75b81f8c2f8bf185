"""A ready retry policy (Airflow 3.3) for tasks that describe images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_describer.errors import BadInput

if TYPE_CHECKING:
    from airflow_provider_describer.operators.retry_policy import DescriberRetryPolicy


def describer_retry_policy() -> DescriberRetryPolicy:
    """
    Return a policy for ``retry_policy=`` of any task that describes images, by an operator or by the hook.

    What a retry cannot help (the account, the arguments, the image) fails at once; a vendor that names a moment is
    asked again then; for everything else the task's own ``retry_delay`` counts. Never more than ``retries`` tries.

    :raises BadInput: before Airflow 3.3, which knows no retry policies. The operators fail at once there, too, where a
        retry cannot help; of what is raised by the hook in a task of yours, Airflow retries everything.
    """
    try:
        from airflow_provider_describer.operators.retry_policy import DescriberRetryPolicy
    except ImportError:
        from airflow import __version__

        raise BadInput(
            f"describer_retry_policy needs Airflow 3.3 or newer, this is {__version__}. Leave retry_policy out and set "
            "retries and retry_delay: the operators themselves fail at once where a retry cannot help."
        ) from None
    return DescriberRetryPolicy()
