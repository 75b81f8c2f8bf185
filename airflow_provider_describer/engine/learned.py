"""Identities that are learned while images are read, looked up in the store in small groups."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from airflow_provider_describer.store.index import StoreIndex


class LearnedIdentities:
    """Looks identities up. Those that come while a lookup is under way are looked up together with the next one."""

    def __init__(self, index: StoreIndex) -> None:
        self._index = index
        self._waiting: list[tuple[Iterable[str], asyncio.Future[None]]] = []
        self._work: asyncio.Task[None] | None = None

    async def look_up(self, identities: Iterable[str]) -> None:
        """Return when the index knows what the store has of these identities.

        :raises StoreError: naming what cannot be read.
        """
        if self._index.table is None:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((identities, done))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._look_up_groups())
        await done

    async def _look_up_groups(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                wanted = {key for identities, _ in group for key in identities}
                while found := await asyncio.to_thread(self._index.find, wanted):
                    self._index.take(found)
                    wanted = set(found[0].values())
                self._index.finish()
            except Exception as error:  # noqa: BLE001  # everyone who waits gets it
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
            for _, done in group:
                if not done.done():
                    done.set_result(None)
