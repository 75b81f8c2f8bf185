"""When an image goes to the next connection of a chain, and what is kept of it meanwhile.

It does so because of its vendor alone: out of credits, retired, or down for long. An image that was rejected, a wrong
key or setting, a limit of ours and a call whose answer was lost are no reasons: the first three are for people, and the
last may have been paid for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_describer.engine.meter import Meter, Meters
from airflow_provider_describer.engine.second_tries import SpooledRows
from airflow_provider_describer.errors import (
    BadInput,
    DescriberError,
    InsufficientCredits,
    ModelRetired,
    VendorUnavailable,
)
from airflow_provider_describer.http.client import LASTING_FAILURES
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.store.rows import Row

LONGEST_OUTAGE_S = 60.0
"""An outage that the vendor says will take longer is not waited for, where there is a next connection."""
_ERRORS = (InsufficientCredits, ModelRetired, VendorUnavailable)
_KINDS = [error.kind for error in _ERRORS]
"""A copy without a call of its own has the kind of its original's error, not the error."""
SENT_BEFORE, KNOWN_BEFORE = "sent_before", "known_before"
"""Kinds of reasons that are no error: an earlier run has sent the image to this connection, or has its description."""


def fails_over(error: object) -> bool:
    """Whether the images that an error has left go to the next connection.

    A host that has no such name, or no valid certificate, is a wrong setting rather than a vendor that is down.
    """
    return isinstance(error, _ERRORS) and error.kind not in LASTING_FAILURES


@dataclass(frozen=True, slots=True)
class Fallback:
    """A further connection of a chain.

    :param requests: of the job's images in the job's order, as its vendor takes them.
    :param meter: is told what its part of the run does.
    """

    vendor_calls: VendorCalls
    requests: Sequence[DescribeRequest]
    meter: Meter = field(default_factory=Meters)


def check_chain(first: VendorCalls, fallbacks: Sequence[Fallback], requests: Sequence[DescribeRequest]) -> None:
    """Find a chain that cannot work.

    :raises BadInput: naming the connection.
    """
    conn_ids = [first.account.conn_id]
    for fallback in fallbacks:
        conn_id = fallback.vendor_calls.account.conn_id
        if conn_id in conn_ids:
            raise BadInput(
                f"fallback_conn_ids names {conn_id!r}, which is in the chain already ({', '.join(conn_ids)}): expected "
                "other connections than describer_conn_id, each once."
            )
        conn_ids.append(conn_id)
        if [one.image.uri for one in fallback.requests] != [one.image.uri for one in requests]:
            raise BadInput("The images were listed anew while the task was planned, and are others now. Run it again.")


def link_requests(requests: Sequence[DescribeRequest], fallbacks: Sequence[Fallback]) -> list[DescribeRequest]:
    """Return the first connection's requests, each with the whole chain's.

    A connection that cannot be asked about an image, as it does not write its language, is left out for this image.
    """
    linked = []
    for first, *others in zip(requests, *(fallback.requests for fallback in fallbacks), strict=True):
        chain: list[DescribeRequest | None] = []
        found = [first, *(None if other.flaw else other for other in others)]
        chain += (one and replace(one, chain=chain, place=place) for place, one in enumerate(found))
        assert chain[0] is not None, "the first one is asked"
        linked.append(chain[0])
    return linked


def known_elsewhere(first: DescribeRequest) -> dict[str, str]:
    """Return why a row shows a description that another connection has made in place of the first one's."""
    message = "The store has this description of the image, and none by the first connection of the chain."
    return reason(first, KNOWN_BEFORE, message)


def reason(first: DescribeRequest, kind: str, message: str) -> dict[str, str]:
    """Return the ``fallback`` of rows: in whose place another connection has answered, and why."""
    return {"instead_of": first.spec.vendor, "model": first.spec.model, "kind": kind, "message": message}


class Failover:
    """Holds back the rows of the images that one pass leaves, until it is known whether another connection takes them.

    :param place: of the pass's connection in the chain.
    :param reasons: by `id` of the first connection's request, why an image is not described by that.
    """

    def __init__(self, place: int, reasons: Mapping[int, dict[str, str]]) -> None:
        self.place, self._reasons = place, reasons
        self._held: dict[int, tuple[DescribeRequest, bool]] = {}
        self._rows = SpooledRows()

    def reason_of(self, request: DescribeRequest) -> dict[str, str] | None:
        """Return why another connection than the first one is asked; None for the first one."""
        return self._reasons.get(id(request.first)) if request.place else None

    def hold(self, request: DescribeRequest, row: Row, why: object, *, was_asked: bool) -> bool:
        """Hold a row back if its image has no outcome, or is rejected only by our own check for a further vendor."""
        is_unfit = self.place > 0 and row.status == "rejected" and not was_asked
        if row.status != "pending" and not is_unfit:
            return False
        # A request that runs at the vendor is fetched by a later run, and nobody else is paid.
        is_out = fails_over(why) or (row.error or {}).get("kind") in _KINDS
        goes_on = is_unfit or (row.billed == "no" and is_out)
        self._held[id(request)] = request, goes_on
        self._rows[id(request)] = row
        return True

    def take(self, stopped_by: DescriberError | None) -> Iterator[tuple[DescribeRequest, Row, bool]]:
        """Yield each request with its row, and whether it goes to the next connection; hold none any more.

        :param stopped_by: what has ended the pass early.
        """
        held, self._held = self._held, {}
        all_go_on = fails_over(stopped_by)
        try:
            for key, (request, goes_on) in held.items():
                row = self._rows[key]
                kind = (row.error or {}).get("kind")
                yield request, row, goes_on or (all_go_on and kind == "stopped" and row.billed == "no")
        finally:
            self._rows.close()

    def close(self) -> None:
        """Give the temporary file up."""
        self._rows.close()
