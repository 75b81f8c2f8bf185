"""Airflow connections that lead to the clouds of the tests."""

from __future__ import annotations

from typing import Any

from clouds import Cloud


def storage(cloud: Cloud) -> dict[str, Any]:
    """Return the fields of the connection that has the credentials of the bucket."""
    env = cloud.environment
    if cloud.scheme == "gs":
        extra = {"key_path": env["GOOGLE_APPLICATION_CREDENTIALS"], "gcs.endpoint": cloud.server.url, "num_retries": 0}
        return {"conn_type": "google_cloud_platform", "extra": extra}
    extra = {"endpoint_url": cloud.server.url, "region_name": env["AWS_REGION"]}
    return {
        "conn_type": "aws",
        "login": env["AWS_ACCESS_KEY_ID"],
        "password": env["AWS_SECRET_ACCESS_KEY"],
        "extra": extra,
    }
