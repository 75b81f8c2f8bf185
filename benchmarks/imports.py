"""What importing the package adds to Airflow's own import, in processes of their own, one kind after the other.

``python imports.py [--quick]`` prints medians. Processor time is printed too, as it is steadier on a busy machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import median

PACKAGE = "airflow_provider_describer"
SDK = "from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, DecoratedOperator, conf"
OURS = {
    "hook": f"import {PACKAGE}.hooks.describer",
    "operators": f"import {PACKAGE}.operators.describe, {PACKAGE}.operators.list_images",
    "decorator": f"import {PACKAGE}.decorators.describe_images",
    "sensors": f"import {PACKAGE}.sensors.images, {PACKAGE}.sensors.credits",
    "provider info": f"from {PACKAGE}.provider_info import get_provider_info; get_provider_info()",
}
API_SERVER = "import airflow.api_fastapi.app"
PLUGIN = f"import {PACKAGE}.plugins.descriptions"
TIMER = """
import json, resource, time
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), usage.ru_utime + usage.ru_stime
before = used()
{airflow}
between = used()
{ours}
after = used()
print(json.dumps([[b - a, c - b] for a, b, c in zip(before, between, after)]))
"""


def measured(airflow: str, ours: str) -> list[list[float]]:
    """Return seconds by the clock and of the processor, each of Airflow's import and of ours after it."""
    code = TIMER.format(airflow=airflow, ours=ours)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    found: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    rounds = 3 if "--quick" in sys.argv else 9
    kinds = {name: (SDK, ours) for name, ours in OURS.items()} | {"plugin": (API_SERVER, PLUGIN)}
    runs: dict[str, list[list[list[float]]]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, (airflow, ours) in kinds.items():
            runs[name].append(measured(airflow, ours))
    print(f"Import, median of {rounds} processes each, on {os.cpu_count()} processors")
    print(f"{'':<14} {'Airflow alone':>14} {'ours adds':>10} {'share':>6} {'processor: Airflow':>19} {'ours adds':>10}")
    for name, found in runs.items():
        (wall, add), (busy, busy_add) = (
            [median(run[clock][part] for run in found) for part in (0, 1)] for clock in (0, 1)
        )
        print(f"{name:<14} {wall:>12.2f} s {add:>8.3f} s {add / wall:>6.1%} {busy:>17.2f} s {busy_add:>8.3f} s")


if __name__ == "__main__":
    main()
