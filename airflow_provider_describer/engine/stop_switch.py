"""Stops a job from any thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class StopSwitch:
    """Stops what is running, from any thread; once it is asked to stop, nothing else begins."""

    asked: bool = False
    _stop: Callable[[], object] | None = None

    def connect(self, stop: Callable[[], object] | None) -> None:
        """Have ``stop`` called from now on, at once if the stop was asked for already; None for nothing."""
        self._stop = stop
        if stop and self.asked:
            stop()

    def stop(self) -> None:
        """Ask for the stop."""
        self.asked = True
        if stop := self._stop:
            # The loop may have just ended.
            with contextlib.suppress(RuntimeError):
                stop()
