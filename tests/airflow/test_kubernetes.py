"""What a pod needs: no disk that is shared or kept, and, in the example, resources and time to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess, child_environment

if TYPE_CHECKING:
    from clouds import Cloud

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "example_dags" / "kubernetes_catalog.py"
IMAGES = 8


def test_with_store_and_limits_in_a_bucket_a_task_leaves_nothing_on_its_disk(
    s3: Cloud, emulator: EmulatorProcess, draw: Callable[..., bytes], tmp_path: Path
) -> None:
    pytest.importorskip("airflow.providers.amazon.aws.hooks.s3")
    for number in range(IMAGES):
        s3.bucket().put(f"photos/{number}.jpg", draw(number))
    places = {name: tmp_path / name for name in ("home", "work", "temporary")}
    for place in places.values():
        place.mkdir()
    # Who is not root cannot write here at all.
    places["work"].chmod(0o555)
    done = subprocess.run(
        [sys.executable, str(HERE / "bucket_task.py"), f"{s3.uri}/photos", f"{s3.uri}/store"],
        cwd=places["work"],
        env=environment(s3, emulator, places),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    counts = [manifest["counts"]["described"] for manifest in found["manifests"]]
    ledger = emulator.ledger(entries=False)
    assert sum(counts) == IMAGES and len(counts) == 2
    # Each image was asked about a second time, for its rule.
    assert ledger["billed"] == 2 * IMAGES
    keys = [entry.key for page in s3.bucket().entries() for entry in page]
    assert {key.partition("/")[0] for key in keys} == {"photos", "store", "limits"}
    written = [Path(path) for path in found["writes"] if path != os.devnull]
    assert written and [path for path in written if not path.is_relative_to(places["temporary"])] == []
    # What is not Python is not audited: nothing was left, by anyone.
    assert [path for place in places.values() for path in place.iterdir()] == []


def environment(s3: Cloud, emulator: EmulatorProcess, places: dict[str, Path]) -> dict[str, str]:
    """The environment of a pod: connections, a home, and a temporary folder."""
    limits = {"limits_path": f"{s3.uri}/limits", "requests_per_minute": 6000, "max_cost_per_day": 10}
    shop = {
        "conn_type": "image_describer",
        "password": emulator.keys["image_describer"],
        "host": emulator.url,
        "extra": {**limits, "price_per_call": 0.01},
    }
    keys = s3.environment
    aws = {
        "conn_type": "aws",
        "login": keys["AWS_ACCESS_KEY_ID"],
        "password": keys["AWS_SECRET_ACCESS_KEY"],
        "extra": {"endpoint_url": s3.server.url, "region_name": keys["AWS_REGION"]},
    }
    return {
        **child_environment(),
        "AIRFLOW_CONN_SHOP": json.dumps(shop),
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
        "HOME": str(places["home"]),
        "TMPDIR": str(places["temporary"]),
        # What Python compiles at an import is not the package's.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def example_tasks(folder: Path, *, has_client: bool) -> dict[str, Any]:
    """Load the example in a process of its own; return the pod of each task, as Kubernetes is told of it."""
    hide = "" if has_client else "import sys; sys.modules['kubernetes'] = None\n"
    code = f"""{hide}
import json, runpy
from airflow.sdk import DAG
dag = runpy.run_path({str(EXAMPLE)!r})["kubernetes_catalog"]()
pods = {{}}
for task in dag.tasks:
    config = getattr(task, "partial_kwargs", {{}}).get("executor_config") or getattr(task, "executor_config", {{}})
    pod = config.get("pod_override")
    if pod is not None:
        from kubernetes.client import ApiClient
        pod = ApiClient().sanitize_for_serialization(pod)
    pods[task.task_id] = pod
print(json.dumps(pods))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=child_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pods: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return pods


def test_each_pod_of_the_example_has_memory_and_time_to_end(tmp_path: Path) -> None:
    pytest.importorskip("kubernetes")
    pods = example_tasks(tmp_path, has_client=True)
    assert pods.keys() == {"list_new", "describe"}
    for pod in pods.values():
        (container,) = pod["spec"]["containers"]
        # The executor puts the task into the container of this name.
        assert container["name"] == "base"
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}
        # The default timeout of a call is 120 s.
        assert pod["spec"]["terminationGracePeriodSeconds"] > 120
        assert pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def test_the_example_loads_without_the_client_of_kubernetes(tmp_path: Path) -> None:
    assert example_tasks(tmp_path, has_client=False) == {"list_new": None, "describe": None}
