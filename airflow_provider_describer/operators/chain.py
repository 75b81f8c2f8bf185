"""The further connections of a task, ``fallback_conn_ids``: each is read and asked about the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from airflow_provider_describer.engine.failover import Fallback
from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.errors import BadConnection, BadInput
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.http.retry import RetryPolicy
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.operators.metrics import meter_of
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.vendors.vendor import Vendor

ToRequests = Callable[[Vendor, str | None], Sequence[DescribeRequest]]
"""From a vendor, and the stricter prompt if it takes one, to what is asked about each image."""


class FallbackHook(DescriberHook):
    """A further connection of a chain; its errors name the argument that it comes from."""

    conn_name_attr = "fallback_conn_ids"


def read_fallbacks(
    conn_ids: Sequence[str],
    policy: RetryPolicy,
    to_requests: ToRequests,
    run: TaskInstanceKey,
    *,
    prompt: str | None,
    stricter_prompt: str | None,
) -> list[Fallback]:
    """Return the further connections of a task, in their order; blocking.

    :raises BadInput: for a connection that is missing or cannot work, or whose vendor cannot be asked so.
    """
    found = []
    for conn_id in conn_ids:
        hook = FallbackHook(conn_id, policy=policy)
        calls = hook.vendor_calls()
        hook.warn_of_ignored(prompt)
        takes_prompt = calls.vendor.default_prompt is not None
        try:
            requests = to_requests(calls.vendor, stricter_prompt if takes_prompt else None)
        except BadConnection:
            raise
        except BadInput as error:
            raise BadInput(f"fallback_conn_ids: connection {conn_id!r} cannot be asked: {error}") from None
        found.append(Fallback(calls, requests, meter_of(calls.account.vendor, run)))
    return found


def vendor_of(job: Job) -> Vendor:
    """Return the vendor whose dashboard shows what a run has cost: the one that has described the most images."""
    chain = [job.vendor_calls, *(fallback.vendor_calls for fallback in job.fallbacks)]
    manifest = job.outcome.manifest if job.outcome else {}
    described = {vendor: found["described"] for vendor, found in manifest.get("fallbacks", {}).items()}
    first = manifest["counts"]["described"] - sum(described.values()) if manifest else 0
    described[job.vendor_calls.vendor.name] = first + described.get(job.vendor_calls.vendor.name, 0)
    most = max(described, key=lambda name: described[name])
    return next((calls.vendor for calls in chain if calls.vendor.name == most), job.vendor_calls.vendor)
