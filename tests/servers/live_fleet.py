"""A real Airflow with CeleryExecutor: Redis is the broker, and each worker stands for a machine of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from live_airflow import LiveAirflow, free_port
from redis_broker import start_redis

SLOTS = 8
"""Tasks at a time on one worker."""
PRELOADED = ["airflow_provider_describer.operators.describe", "airflow.providers.amazon.aws.hooks.s3", "pandas"]
"""What a worker imports once, so that each of its tasks does not spend 4 s of a processor on it."""
DEAD_AFTER_S = 45
"""A task that has sent no heartbeat for so long is dead; Airflow's own default is 300 s."""


def faketime() -> Path | None:
    """Return the library that shifts a process's clock; None where Debian's package `faketime` is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


@dataclass
class LiveFleet(LiveAirflow):
    """Its workers are started and killed by a test.

    :param node: a folder with the module ``fleet_node``, whose `hostname` is the name of the machine.
    """

    node: Path = Path()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.redis_url = start_redis(self.keeper, free_port(), self.logs / "redis.log")

    @property
    def environment(self) -> dict[str, str]:
        inherited = super().environment
        return {
            **inherited,
            "AIRFLOW__CELERY__BROKER_URL": f"{self.redis_url}/0",
            "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": PRELOADED}),
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self.database_url}",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "fleet_node.hostname",
            "AIRFLOW__CORE__PARALLELISM": "32",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(DEAD_AFTER_S),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            "FLEET_NODE": "control",
            "PYTHONPATH": f"{self.node}{os.pathsep}{inherited['PYTHONPATH']}",
        }

    def start_workers(self, names: Iterable[str], clock_s: int = 0) -> None:
        """Start workers and return when they take tasks; their machines' clocks are so many seconds ahead."""
        ready = {name: self._times_ready(name) for name in names}
        for name in ready:
            environment = self.environment | {"FLEET_NODE": name}
            if clock_s:
                shifted = {"FAKETIME": f"{clock_s:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
                environment |= {"LD_PRELOAD": str(faketime()), **shifted}
            command = [str(Path(sys.executable).with_name("airflow")), "celery", "worker", "--skip-serve-logs"]
            options = ["--celery-hostname", name, "--concurrency", str(SLOTS)]
            self.keeper.start(name, [*command, *options], self._log(name), environment)
        self.until(lambda: all(self._times_ready(name) > times for name, times in ready.items()), "ready workers")

    def kill_worker(self, name: str) -> None:
        """`kill -9` a worker and its tasks."""
        self.keeper.kill(name)

    def _times_ready(self, name: str) -> int:
        log = self._log(name)
        return log.read_text(encoding="utf-8").count(f"celery@{name} ready") if log.exists() else 0

    def _log(self, name: str) -> Path:
        return self.logs / f"worker-{name}.log"
