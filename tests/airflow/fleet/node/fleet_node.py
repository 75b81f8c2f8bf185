"""On the path of each worker: the name of the machine that it stands for."""

from __future__ import annotations

import os


def hostname() -> str:
    return os.environ["FLEET_NODE"]
