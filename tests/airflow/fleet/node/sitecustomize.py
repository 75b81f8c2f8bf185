"""Lets Python sleep on a node whose clock is wrong; Python imports this module when it starts.

Where libfaketime 0.9.10 leaves the monotonic clock as it is, each `time.sleep` fails with EINVAL (its issue 426).
"""

from __future__ import annotations

import os
import select
import time


def sleep(seconds: float) -> None:
    """Do what `time.sleep` does."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


if "FAKETIME" in os.environ:
    time.sleep = sleep  # type: ignore[assignment]  # it takes a float alone
