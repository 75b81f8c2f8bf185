"""What a run owns: it claims the images that it may pay for, says that it lives, and sees who else wants them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

from airflow_provider_describer.errors import DescriberError, StoreError, Unfinished
from airflow_provider_describer.storage.cas_document import CasDocument
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.abandoned import settle_abandoned
from airflow_provider_describer.store.claim_files import Claims
from airflow_provider_describer.store.claims import RENEW_S

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Seconds between two looks at the clock: a run that was stopped learns soon that it is late."""
MAX_OUTAGE_S = 120.0
"""Seconds for which the store may be out of reach before the run stops. Calls wait after less than one minute."""

_T = TypeVar("_T")


class Ownership:
    """The claims of a run, kept up in the background. A context manager, for one event loop.

    :param claims: None for a run that has no store or calls nothing: it owns whatever it likes.
    :param report: gets a line where the store cannot keep claims.
    """

    def __init__(self, claims: Claims | None, report: Callable[[str], None]) -> None:
        self._claims, self._report = claims, report
        self._stop: Callable[[DescriberError], None] | None = None
        self._error: DescriberError | None = None
        self._keeper: asyncio.Task[None] | None = None
        # A thread of its own: those of the loop may all be reading images, and the claims would end.
        self._thread = ThreadPoolExecutor(1, "claims")

    @property
    def id(self) -> str | None:
        """The run's id in its store; None without claims."""
        return self._claims.id if self._claims else None

    def holds(self) -> bool:
        """Return whether the run owns what it has claimed: only then may it send a call."""
        return self._claims is None or self._claims.holds()

    def owner_of(self, keys: Iterable[str]) -> str:
        """Return the name of the live run that is paying for one of these identities; empty for none, or for us."""
        owner = self._claims.owner_of(keys) if self._claims else None
        return owner.name if owner else ""

    async def settle_abandoned(self, folder: Folder, lock: CasDocument) -> None:
        """Settle what runs that are gone have left in the journal, so that the plan need not read it.

        Where that fails, the plan reads the journal as it is.
        """
        if self._claims is None:
            return
        try:
            await self._in_thread(partial(settle_abandoned, folder, self._claims.look, lock))
        except StoreError as error:
            logger.warning("Outcomes stay in the journal for now, a later run settles them: %s", error)

    async def look(self) -> None:
        """See who is there, before the store is read for a plan."""
        if self._claims is not None:
            await self._in_thread(self._claims.look)

    async def claim(self, keys: Iterable[str]) -> bool:
        """Own these identities, but for those that `owner_of` names an owner of.

        Return whether what was read of the store since `look` is still true; else it is to be read again.

        :raises StoreError: where the claims cannot be read or written.
        """
        if self._claims is None:
            return True
        try:
            is_current = await self._in_thread(partial(self._claims.arrive, keys))
        except StoreError as error:
            if error.kind != "unsupported":
                raise
            self._report(
                f"Two runs at once may both pay for an image, as this store cannot tell who was first: {error}"
            )
            self._claims = None
            return True
        self._keeper = asyncio.create_task(self._keep(self._claims))
        return is_current

    async def poll(self) -> None:
        """See which of the other runs have gone; errors as `Claims.poll`."""
        if self._claims is not None:
            await self._in_thread(self._claims.poll)

    def stop_with(self, stop: Callable[[DescriberError], None]) -> None:
        """Have ``stop`` called, from the event loop, when the run no longer owns anything."""
        self._stop = stop
        if self._error is not None:
            stop(self._error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave what is owned to others. All that was paid for has to be in the store by now."""
        try:
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.wait([self._keeper])
            if self._claims is not None:
                # After a renewal that may still be under way, as the thread does one thing after the other.
                await asyncio.shield(self._in_thread(self._claims.depart))
        finally:
            self._thread.shutdown(wait=False)

    def _in_thread(self, what: Callable[[], _T]) -> asyncio.Future[_T]:
        return asyncio.wrap_future(self._thread.submit(what))

    async def _keep(self, claims: Claims) -> None:
        """Renew the claims until cancelled; end the run where they are lost."""
        loop = asyncio.get_running_loop()
        reached_at = renewed_at = loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            if claims.holds() and loop.time() < renewed_at + RENEW_S:
                continue
            try:
                began = loop.time()
                await self._in_thread(claims.renew)
                reached_at = renewed_at = began
            except Unfinished as lost:
                return self._end(lost)
            except StoreError as error:
                if error.kind == "corrupt_claims" or loop.time() > reached_at + MAX_OUTAGE_S:
                    return self._end(error)
            except Exception as error:  # noqa: BLE001  # without claims no call may be sent, so the run would wait for ever
                return self._end(StoreError(f"The claims can no longer be kept: {error!r}."))

    def _end(self, error: DescriberError) -> None:
        self._error = error
        if self._stop is not None:
            self._stop(error)
