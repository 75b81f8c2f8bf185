"""One run's place among the live runs of a store: it arrives, renews its claims, sees who is before it, and departs.

Everything here blocks, and belongs into one thread; only `Claims.holds` and `Claims.owner_of` may be asked elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.cas_document import (
    CasDocument,
    Changed,
    Token,
    change_document,
    is_transient,
    open_document,
)
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store import claims
from airflow_provider_describer.store.claims import FOLDER, LEASE_S, LiveRun, Order
from airflow_provider_describer.store.rows import TaskInstanceKey

ARRIVAL_TRIES = 200
"""Writes of others that an arrival sits out: a bucket may take one a second, and many tasks may start together."""
DEPARTURE_TRIES = 32
"""A departure sits out fewer, enough for 16 runs that leave together: a run that cannot take its name off the list says
so in a file of its own."""
READERS = 8
"""How many files of other runs are read at a time."""
LEFTOVER_S = 3600.0
"""Keys of a run that has never arrived are removed when they are this old."""


class Lease(NamedTuple):
    """Until when a run lives: in epoch seconds, as it says to others, and by its own steady clock."""

    until: float
    steady: float


class Claims:
    """The claims of one run.

    :param folder: the store.
    :param document: the order of the live runs, in the store's folder ``claims``.
    :param instance: of the run's task instance, whose earlier tries it replaces; empty for none.
    :param name: of the run, for people.
    :param clock: epoch seconds.
    :param steady: seconds that no correction of the clock changes.
    """

    def __init__(
        self,
        folder: Folder,
        document: CasDocument,
        instance: str = "",
        name: str = "",
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = secrets.token_hex(6)
        """The writer of the run's shards has this id too."""
        self._folder, self._document = folder, document
        self._instance, self._name = instance, name
        self._clock, self._steady = clock, steady
        self._keys: frozenset[bytes] = frozenset()
        self._seen: tuple[Order, Token] = (Order(), None)
        self._lease = Lease(0.0, 0.0)
        self._wanted: dict[str, frozenset[bytes]] = {}
        """By run: which of our keys each earlier run wants."""
        self._before: tuple[LiveRun, ...] = ()
        self._has_arrived = self._has_alive_file = False

    def holds(self) -> bool:
        """Return whether the run owns what it has claimed: only then may it send a call. Asks nobody."""
        # The wall clock too: some machines' steady clock stands still while they sleep.
        return self._steady() < self._lease.steady and self._clock() < self._lease.until

    def look(self) -> frozenset[str]:
        """Read the order and return the ids of the runs in it. To be called before the journal is read for a plan.

        A shard whose writer was not in the order *after* the shard was listed has no live writer.

        :raises StoreError: where it cannot be read, is damaged or newer.
        """
        content, token = self._document.load()
        self._seen = claims.decode_order(self._document.where, content), token
        return frozenset(run.id for run in self._seen[0].runs)

    def arrive(self, keys: Iterable[str]) -> bool:
        """Claim these identities, behind all runs that are listed already; dead ones are removed.

        Return whether what was read since `look` is still all that the store knows of them, except of those that
        `owner_of` has an owner for. If not, read the store again: whoever has paid for one of them is listed before us,
        or has left and written everything down.

        :raises StoreError: as `look`, and where it cannot be written; kind ``unsupported`` by a store that has no
            conditional writes, or no locks.
        """
        self._keys = claims.pack(keys)
        self._folder.create(self._file(self.id, "keys"), claims.encode_keys(self._keys, self._clock()))
        self._has_arrived = True
        try:
            current = self._join()
        except StoreError as error:
            if error.kind == "unsupported":
                self._has_arrived = False
                self._remove_files([self.id])
            raise
        before = self._seen[0].before(self.id)
        with ThreadPoolExecutor(READERS, "claims") as threads:
            found = dict(zip([run.id for run in before], threads.map(self._keys_of, before), strict=True))
        self._wanted = {run_id: self._keys & keys for run_id, keys in found.items() if keys is not None}
        self._before = tuple(run for run in before if run.id in self._wanted)
        return current and len(self._before) == len(before)

    def _join(self) -> bool:
        """Put the run at the end of the order; return whether nothing at all has changed since `look`."""
        (order, token), leases = self._seen, [self._new_lease()]
        joined = self._joined(order, leases[0].until)
        removed = set(order.runs) - set(joined.runs)
        try:
            self._seen = joined, self._document.swap(claims.encode_order(joined), token)
            is_current = not removed
        except (Changed, StoreError) as error:
            if isinstance(error, StoreError) and not is_transient(error):
                raise
            is_current = False

            def join(content: bytes | None) -> bytes | None:
                nonlocal removed
                order = claims.decode_order(self._document.where, content)
                if order.find(self.id):
                    # It was written though its answer was lost, or was delayed.
                    return None
                leases.append(self._new_lease())
                changed = self._joined(order, leases[-1].until)
                removed = set(order.runs) - set(changed.runs)
                return claims.encode_order(changed)

            self._change(join, ARRIVAL_TRIES)
        own = self._seen[0].find(self.id)
        # It counts from the attempt that was written.
        self._lease = next(lease for lease in leases if own and lease.until == own.until)
        if removed:
            self._remove_files(run.id for run in removed)
            self._remove_leftovers()
        return is_current

    def _joined(self, order: Order, until: float) -> Order:
        now = self._clock()
        late = [run for run in order.runs if claims.is_dead(run.until, now)]
        order = order.without([run.id for run in late if self._is_dead(run)])
        return order.arrive(LiveRun(self.id, self._instance, self._name, until))

    def renew(self) -> None:
        """Live on for `LEASE_S` seconds from now.

        :raises Unfinished: kind ``claim_lost``; where the run is no longer listed.
        :raises StoreError: where the store cannot be read or written. What the run has claimed it still owns until its
            time is over.
        """
        lease = self._new_lease()
        self._folder.replace(self._file(self.id, "alive"), claims.encode_alive(lease.until))
        self._has_alive_file = True
        if self.holds():
            # In time: nobody can have taken us for dead. But a later try of the task may have taken over.
            self.look()
            self._check_listed(self._seen[0])
        else:
            # Somebody may be about to remove us, from the order that it has read. Only one of us can replace that.
            self._change(lambda content: self._renewed(content, lease.until), ARRIVAL_TRIES)
        self._lease = lease

    def _renewed(self, content: bytes | None, until: float) -> bytes:
        order = claims.decode_order(self._document.where, content)
        self._check_listed(order)
        return claims.encode_order(order.renew(self.id, until))

    def poll(self) -> None:
        """See which earlier runs have left, or have died; then `owner_of` knows it. The dead are removed.

        :raises Unfinished: kind ``claim_lost``; where the run is no longer listed.
        :raises StoreError: as `look`, and where a dead run cannot be removed.
        """
        dead: list[str] = []

        def bury(content: bytes | None) -> bytes | None:
            order = claims.decode_order(self._document.where, content)
            self._check_listed(order)
            dead[:] = [run.id for run in order.before(self.id) if self._wanted.get(run.id) and self._is_dead(run)]
            return claims.encode_order(order.without(dead)) if dead else None

        self._change(bury, ARRIVAL_TRIES)
        self._before = tuple(run for run in self._seen[0].before(self.id) if run.id in self._wanted)
        self._remove_files(dead)

    def owner_of(self, keys: Iterable[str]) -> LiveRun | None:
        """Return the earlier run that owns any of these identities, as of the last `poll`; None for this run itself."""
        packed = claims.pack(keys)
        return next((run for run in self._before if not packed.isdisjoint(self._wanted[run.id])), None)

    def depart(self) -> None:
        """Leave the order: all that the run has paid for is written down, and what it has not is others'.

        Nothing is raised where that fails: the run is then taken for dead, after about a minute at most.
        """

        def leave(content: bytes | None) -> bytes | None:
            order = claims.decode_order(self._document.where, content)
            return claims.encode_order(order.without([self.id])) if order.find(self.id) else None

        if not self._has_arrived:
            return
        self._lease = Lease(0.0, 0.0)
        with contextlib.suppress(StoreError):
            try:
                self._change(leave, DEPARTURE_TRIES)
            except StoreError:
                self._folder.replace(self._file(self.id, "alive"), claims.encode_alive(0.0))
            else:
                self._remove_files([self.id])

    def _change(self, change: Callable[[bytes | None], bytes | None], tries: int) -> None:
        content, token = change_document(self._document, change, tries=tries, again=is_transient)
        self._seen = claims.decode_order(self._document.where, content), token

    def _check_listed(self, order: Order) -> None:
        if not order.find(self.id):
            self._lease = Lease(0.0, 0.0)
            raise claims.claim_lost(self._document.where)

    def _new_lease(self) -> Lease:
        return Lease(self._clock() + LEASE_S, self._steady() + LEASE_S)

    def _is_dead(self, run: LiveRun) -> bool:
        name = self._file(run.id, "alive")
        content = self._folder.read(name)
        until = run.until if content is None else claims.decode_alive(self._folder.where(name), content)
        return claims.is_dead(until, self._clock())

    def _keys_of(self, run: LiveRun) -> frozenset[bytes] | None:
        """Return what the run wants; None where it has left meanwhile."""
        name = self._file(run.id, "keys")
        content = self._folder.read(name)
        if content is None:
            order = claims.decode_order(self._document.where, self._document.load()[0])
            if order.find(run.id):
                raise StoreError(
                    f"{self._folder.where(name)} is missing: it says which images {run.name} is paying for, so no call "
                    f"is made. Remove the folder {FOLDER} of the store while no run uses the store.",
                    kind="corrupt_claims",
                )
            return None
        return claims.decode_keys(self._folder.where(name), content)[0]

    def _remove_files(self, ids: Iterable[str]) -> None:
        """Remove the files of runs that are no longer listed; what is left of them does no harm."""
        with contextlib.suppress(StoreError):
            for run_id in ids:
                self._folder.delete(self._file(run_id, "keys"))
                if run_id != self.id or self._has_alive_file:
                    self._folder.delete(self._file(run_id, "alive"))

    def _remove_leftovers(self) -> None:
        """Remove the files of runs that were killed before they arrived, or while they left."""
        listed: Collection[str] = {run.id for run in self._seen[0].runs}
        with contextlib.suppress(StoreError):
            for name in self._folder.names(FOLDER):
                run_id, _, kind = name.removeprefix(f"{FOLDER}/").partition(".")
                if run_id in listed or kind not in ("keys", "alive"):
                    continue
                content = self._folder.read(name)
                if content is None:
                    continue
                where = self._folder.where(name)
                at = claims.decode_keys(where, content)[1] if kind == "keys" else claims.decode_alive(where, content)
                if self._clock() > at + LEFTOVER_S:
                    self._folder.delete(name)

    @staticmethod
    def _file(run_id: str, kind: str) -> str:
        return f"{FOLDER}/{run_id}.{kind}"


def open_claims(
    store: str | os.PathLike[str],
    folder: Folder,
    open_bucket: OpenBucket | None,
    task: TaskInstanceKey,
) -> Claims:
    """Return the claims of a new run of ``task`` in the store at ``folder``; nothing is read yet.

    :raises BadInput: as `open_folder`.
    """
    document = open_document("store", f"{os.fspath(store).rstrip('/')}/{FOLDER}", claims.ORDER, open_bucket)
    if task.instance:
        name = f"{task.dag_id}/{task.run_id}/{task.task_id}"
        name += f"[{task.map_index}]" if task.map_index >= 0 else ""
    else:
        name = f"a run outside Airflow on {socket.gethostname()} (process {os.getpid()})"
    return Claims(folder, document, task.instance, name)
