"""How a run's images go to the vendor: found out and told before the first call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from airflow_provider_describer.errors import BadInput, RejectedImage, UnreadableImage
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.prepare import Transport, choose_transport, needs_visibility, one_image
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.models import DescribeRequest, plural
from airflow_provider_describer.storage.address import LocalFile, parse_uri


def report_transports(
    requests: Sequence[DescribeRequest], vendor_calls: VendorCalls, reader: Reader, report: Callable[[str], None]
) -> None:
    """Report how images that are no local files go to the vendor, and why; blocking.

    :raises BadInput: the connection's image_transport fits no image; names the connection and an image.
    """
    vendor, account = vendor_calls.vendor, vendor_calls.account
    chosen: Counter[Transport] = Counter()
    unfit, fitting = None, 0
    for request in requests:
        if request.flaw:
            continue
        location, scaled = parse_uri(request.image.uri), bool(request.spec.preprocessing)
        try:
            with one_image(request.image.uri):
                visibility = reader.visibility(location) if needs_visibility(vendor, account, location) else None
        except (RejectedImage, UnreadableImage):
            # It is met again, and recorded, when the image is read.
            continue
        try:
            transport = choose_transport(vendor, account, location, visibility, scaled=scaled)
        except BadInput as error:
            if error.kind != "no_address":
                raise
            unfit = unfit or error
            continue
        fitting += 1
        if not isinstance(location, LocalFile):
            chosen[transport] += 1
    if unfit and not fitting:
        raise unfit
    for transport, count in chosen.items():
        go = plural(count, "image goes", "images go")
        report(f"{count} {go} to {vendor.title} as {transport.way}: {transport.why}")
