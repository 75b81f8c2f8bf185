"""One image, described at once and without a store: within the account's limits as any call of a run."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from airflow_provider_describer.engine.admission import Admission, RunStopping
from airflow_provider_describer.engine.call import ImageCall
from airflow_provider_describer.engine.identify import identified_image
from airflow_provider_describer.engine.limits import Budget, TaskLimits, check_limits
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.errors import DescriberError
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.prepare import prepare
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.models import DescribeRequest, Description
from airflow_provider_describer.quota.process import open_process_quota
from airflow_provider_describer.storage.address import masked
from airflow_provider_describer.storage.open_bucket import OpenBucket


class SingleCall(ImageCall):
    """A call of its own: nothing stops it between its attempts."""

    async def sleep(self, seconds: float) -> None:
        """Sleep between attempts or polls."""
        await asyncio.sleep(seconds)


async def describe_one(
    vendor_calls: VendorCalls,
    request: DescribeRequest,
    reader: Reader,
    client: AsyncClient,
    open_bucket: OpenBucket | None = None,
) -> Description:
    """Describe one image with one billable call, when the account's limits allow it.

    :param open_bucket: for a ``limits_path`` at s3:// or gs://.
    :raises RateLimited: nothing was sent. The day's money is spent, or the wait for the rate is longer than the
        policy's ``max_wait``; ``retry_at`` says when a call may start.
    :raises DescriberError: as the flow of a call.
    """
    vendor, account, policy = vendor_calls.vendor, vendor_calls.account, vendor_calls.policy
    limits = TaskLimits(concurrency=1, max_wait=policy.max_wait)
    check_limits(limits, account)
    prepared = await prepare(reader, vendor, account, request)
    totals = Totals(requested=1)
    async with open_process_quota(account, open_bucket, clock=vendor_calls.clock) as quota:
        admission = Admission(account, limits, Budget(price=account.price_per_call), totals, vendor_calls.clock, quota)
        call = SingleCall(identified_image(request, None, None, None), admission, totals, None, vendor_calls)
        call.show(prepared)
        try:
            flow = vendor_calls.describe(request.spec, prepared.picture, upload=prepared.upload)
            description = await client.arun(flow, call)
        except RunStopping:
            assert totals.refusal is not None, "nothing else stops a single call"
            raise totals.refusal from None
        except DescriberError as error:
            call.settle(error)
            raise
        call.settle(description)
    return replace(description, uri=masked(request.image.uri), sha256=prepared.sha256)
