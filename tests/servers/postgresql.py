"""A PostgreSQL for one test session, where its programs and Airflow's drivers for it are installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from keeper import Keeper

MAX_WAIT_S = 60.0
USER = "airflow"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None where it cannot be used here."""
    if not (find_spec("psycopg2") and find_spec("asyncpg")):
        return None
    if os.geteuid() == 0 and (shutil.which("runuser") is None or not _has_user("postgres")):
        # PostgreSQL refuses to run as root.
        return None
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def start_postgresql(bin_folder: Path, keeper: Keeper, port: int, log: Path) -> str:
    """Start a server on the port, with an empty database; return its address for Airflow. Gone with the keeper."""
    # Not in a test's folder, which PostgreSQL's user may not read.
    folder = Path(tempfile.mkdtemp(prefix="describer-postgresql-"))
    keeper.remove(folder)
    as_user = []
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    make = [str(bin_folder / "initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "trust", "-E", "UTF8", "-N"]
    made = subprocess.run([*as_user, *make], cwd="/", capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": folder,
        # The data need not survive a crash.
        "fsync": "off",
        "max_connections": 200,
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [*as_user, str(bin_folder / "postgres"), "-D", str(folder / "data"), *options]
    keeper.start("postgresql", command, log, dict(os.environ))
    _create_database(bin_folder, port)
    return f"postgresql+psycopg2://{USER}@127.0.0.1:{port}/{USER}"


def _create_database(bin_folder: Path, port: int) -> None:
    command = [str(bin_folder / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", USER, USER]
    deadline = time.monotonic() + MAX_WAIT_S
    while (made := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        assert time.monotonic() < deadline, made.stderr
        time.sleep(0.1)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
