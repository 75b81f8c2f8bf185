"""A gate that lets in so many at a time, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Gate:
    """Lets in no more than ``most`` says at that moment; whoever leaves wakes the next, and nobody else.

    :param most: how many may be inside now. May change: looked at whenever somebody comes or leaves.
    """

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_open = False
        self.inside = 0

    async def enter(self) -> None:
        """Wait for room and take it; it is held until `leave`."""
        if self._is_open or (not self._waiting and self.inside < self._most()):
            self.inside += 1
            return
        let_in = asyncio.get_running_loop().create_future()
        self._waiting.append(let_in)
        try:
            await let_in
        except asyncio.CancelledError:
            if let_in.done() and not let_in.cancelled():
                # Let in and cancelled in the same moment.
                self.leave()
            raise

    def leave(self) -> None:
        """Give the room back."""
        self.inside -= 1
        self._let_in()

    def open(self) -> None:
        """Let everybody in, from now on: they are to find out that there is nothing to do any more."""
        self._is_open = True
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (self._is_open or self.inside < self._most()):
            let_in = self._waiting.popleft()
            if not let_in.done():
                self.inside += 1
                let_in.set_result(None)
