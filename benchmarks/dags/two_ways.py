"""The same 200 images described in two ways: one batch task, and one mapped HttpOperator for each image."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from airflow_provider_describer.operators.describe import DescribeImagesOperator

PATHS = sorted(str(path) for path in Path(os.environ["BENCH_PICTURES"]).iterdir())

# One store for each run, so that no run reuses another's descriptions.
STORE = os.environ["BENCH_STORE"] + "/{{ run_id }}"

with DAG("warming", schedule=None):
    PythonOperator(task_id="nothing", python_callable=lambda: None)

with DAG("batch", schedule=None):
    DescribeImagesOperator(task_id="describe", images=PATHS, store=STORE, concurrency=32)

with DAG("mapped", schedule=None, max_active_tasks=32):
    HttpOperator.partial(
        task_id="describe", http_conn_id="bench_http", endpoint="api/openapi-v2/describe-image", log_response=False
    ).expand(data=[{"prompt": "Describe this image in detail.", "image": path} for path in PATHS])
