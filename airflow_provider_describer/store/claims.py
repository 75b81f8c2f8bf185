"""Claims: who is about to pay for what. Pure values and rules; `claim_files` reads and writes them.

The document ``claims/order.json`` lists the live runs in the order of their arrival. ``claims/<id>.keys`` holds the
identities that a run wants to pay for, and ``claims/<id>.alive`` until when it lives. An identity belongs to the
earliest run in the order that wants it. A run whose time is over keeps its place until another run has removed it from
the order: so a run that was only late can still find out, and one that is no longer listed sends nothing more.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from airflow_provider_describer.errors import StoreError, Unfinished

FOLDER = "claims"
ORDER = "order.json"
LEASE_S = 45.0
"""How long a run lives from the last time it has said so, in seconds of its own clock."""
RENEW_S = 15.0
"""Seconds between two times."""
CLOCKS_S = 15.0
"""How far the clocks of two machines may be apart, in seconds."""
KEY_BYTES = 8
"""How much of an identity is kept. Two that are alike by chance (1 in 10^19) would only make a run wait."""
_FORMAT, _KEYS_FORMAT, _ALIVE_FORMAT = (
    f"airflow-provider-describer claims {part}" for part in ("order", "keys", "alive")
)
VERSION = 1


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run in the order.

    :param id: of this run alone; the shards that it writes to the journal carry it.
    :param instance: of its task instance, the same at every try; empty outside Airflow.
    :param name: for people.
    :param until: epoch seconds, by the run's own clock; counts while there is no ``.alive`` file.
    """

    id: str
    instance: str
    name: str
    until: float


@dataclass(frozen=True, slots=True)
class Order:
    """The live runs, the earliest first."""

    runs: tuple[LiveRun, ...] = ()

    def find(self, run_id: str) -> LiveRun | None:
        """Return the run of that id, or None."""
        return next((run for run in self.runs if run.id == run_id), None)

    def before(self, run_id: str) -> tuple[LiveRun, ...]:
        """Return the runs that arrived before that one; all of them where it is not listed."""
        ids = [run.id for run in self.runs]
        return self.runs[: ids.index(run_id)] if run_id in ids else self.runs

    def without(self, ids: Collection[str]) -> Self:
        """Return the order without these runs."""
        return type(self)(tuple(run for run in self.runs if run.id not in ids))

    def arrive(self, run: LiveRun) -> Self:
        """Return the order with one more run; earlier tries of its task instance are over."""
        others = (other for other in self.runs if not run.instance or other.instance != run.instance)
        return type(self)((*others, run))

    def renew(self, run_id: str, until: float) -> Self:
        """Return the order in which that run, in its old place, lives until then."""
        return type(self)(tuple(replace(run, until=until) if run.id == run_id else run for run in self.runs))


def is_dead(until: float, now: float) -> bool:
    """Return whether a run that lives ``until`` then, by its own clock, is dead ``now``, by the reader's clock."""
    return now > until + CLOCKS_S


def claim_lost(where: str) -> Unfinished:
    """Return the error of a run that is no longer listed in the order at ``where``."""
    return Unfinished(
        f"{where} no longer lists this run: it was stopped or could not reach the store for about a minute, or a later "
        "try of its task has taken over. Others may describe its images now, so it sends nothing more. Running again "
        "goes on with what is left.",
        kind="claim_lost",
    )


def encode_order(order: Order) -> bytes:
    """Return the order as a document. No two are alike, so that nobody takes a newer one for the one it has read."""
    runs = [asdict(run) for run in order.runs]
    document = {"format": _FORMAT, "version": VERSION, "change": secrets.token_hex(8), "runs": runs}
    return json.dumps(document, allow_nan=False).encode()


def decode_order(where: str, content: bytes | None) -> Order:
    """Return the order; an empty one where ``content`` is None. Errors name the address, ``where``.

    :raises StoreError: ``kind`` is ``corrupt_claims``; where it is damaged or of another version.
    """
    if content is None:
        return Order()
    document = _document(where, content, _FORMAT)
    try:
        return Order(tuple(map(_live_run, document["runs"])))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _damaged(where) from None


def _live_run(values: Mapping[str, Any]) -> LiveRun:
    if not values["id"] or not all(isinstance(values[name], str) for name in ("id", "instance", "name")):
        raise ValueError("not a run")
    return LiveRun(**{**values, "until": float(values["until"])})


def encode_alive(until: float) -> bytes:
    """Return the content of an ``.alive`` file; with 0 its run has ended."""
    return json.dumps({"format": _ALIVE_FORMAT, "version": VERSION, "until": until}).encode()


def decode_alive(where: str, content: bytes) -> float:
    """Return until when a run lives, in epoch seconds of its clock; errors as `decode_order`."""
    until = _document(where, content, _ALIVE_FORMAT).get("until")
    if isinstance(until, bool) or not isinstance(until, int | float):
        raise _damaged(where)
    return float(until)


def pack(keys: Iterable[str]) -> frozenset[bytes]:
    """Return identities as claims hold them."""
    return frozenset(bytes.fromhex(key[: 2 * KEY_BYTES]) for key in keys)


def encode_keys(keys: Collection[bytes], at: float) -> bytes:
    """Return packed identities as the content of a ``.keys`` file, written ``at`` that epoch second."""
    body = b"".join(sorted(keys))
    header = {"format": _KEYS_FORMAT, "version": VERSION, "at": at, "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(header).encode() + b"\n" + body


def decode_keys(where: str, content: bytes) -> tuple[frozenset[bytes], float]:
    """Return the packed identities and when they were written; errors as `decode_order`."""
    head, _, body = content.partition(b"\n")
    header = _document(where, head, _KEYS_FORMAT)
    at = header.get("at")
    if (
        len(body) % KEY_BYTES
        or hashlib.sha256(body).hexdigest() != header.get("sha256")
        or not isinstance(at, int | float)
    ):
        raise _damaged(where)
    return frozenset(body[start : start + KEY_BYTES] for start in range(0, len(body), KEY_BYTES)), float(at)


def _document(where: str, content: bytes, expected: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise _damaged(where) from None
    if not isinstance(document, dict) or document.get("format") != expected:
        raise _damaged(where)
    if document.get("version") != VERSION:
        raise StoreError(
            f"{where} was written in version {document.get('version')!r} of its format; this release reads version "
            f"{VERSION}. Install one version of airflow-provider-describer on all workers. No call was made.",
            kind="corrupt_claims",
        )
    return document


def _damaged(where: str) -> StoreError:
    return StoreError(
        f"{where} is damaged. It says which images other runs are paying for, so no call is made. Remove the folder "
        f"{FOLDER} of the store while no run uses the store; nothing but this is in it.",
        kind="corrupt_claims",
    )
