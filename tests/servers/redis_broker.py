"""A Redis for one test session, where its program is installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from keeper import Keeper


def program() -> str | None:
    """Return Redis's server program; None where it is not installed."""
    return shutil.which("redis-server")


def start_redis(keeper: Keeper, port: int, log: Path) -> str:
    """Start a server on the port and return its URL, which answers within moments. Gone with the keeper."""
    folder = Path(tempfile.mkdtemp(prefix="describer-redis-"))
    keeper.remove(folder)
    settings = {"bind": "127.0.0.1", "port": port, "dir": folder, "save": "", "appendonly": "no"}
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    keeper.start("redis", [program() or "redis-server", *options], log, dict(os.environ))
    return f"redis://127.0.0.1:{port}"
