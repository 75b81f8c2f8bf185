"""Describe the new images of an S3 bucket under KubernetesExecutor: a pod for each task, and no shared disk.

Needs connections of type ``segmind`` and ``aws`` (``aws_default``), and an image of Airflow with
``airflow-provider-describer[amazon]``. Its ``limits_path`` is in the bucket too. docs/kubernetes.md explains the pods.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import Param, dag

from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator

try:
    from kubernetes.client import models as k8s
except ImportError:
    # Under another executor the tasks run as they are.
    k8s = None

STORE = "{{ params.store }}"
PLACE: dict[str, Any] = {"type": "string", "pattern": "^s3://."}
KEEP = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


def pod(memory: str) -> dict[str, Any]:
    """Return the ``executor_config`` of a task: what its pod asks for, and that it is not moved while it works."""
    if k8s is None:
        return {}
    resources = k8s.V1ResourceRequirements(requests={"cpu": "500m", "memory": memory}, limits={"memory": memory})
    spec = k8s.V1PodSpec(
        containers=[k8s.V1Container(name="base", resources=resources)],
        # The connection's timeout (120 s) and a minute: answers under way are awaited and recorded.
        termination_grace_period_seconds=180,
    )
    return {"pod_override": k8s.V1Pod(metadata=k8s.V1ObjectMeta(annotations=KEEP), spec=spec)}


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # a second run would only wait for the images of the first
    params={
        "images": Param("s3://catalog/products/**", title="Images", description="What is listed.", **PLACE),
        "store": Param(
            "s3://catalog/descriptions/", title="Store", description="What it has is not paid for again.", **PLACE
        ),
    },
    # A pod that is lost costs a try; the next one goes on from the store.
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["describer", "example"],
    doc_md=__doc__,
)
def kubernetes_catalog() -> None:
    new = ListImagesOperator(
        task_id="list_new",
        path="{{ params.images }}",
        chunk_size=1000,
        only_new=True,
        describer_conn_id="segmind_default",
        store=STORE,
        executor_config=pod("1Gi"),
    )
    describe = DescribeImagesOperator.partial(
        task_id="describe", describer_conn_id="segmind_default", store=STORE, executor_config=pod("1Gi")
    )
    describe.expand(images=new.output)


kubernetes_catalog()
