"""A bucket at each cloud, opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.storage.bucket import Bucket

if TYPE_CHECKING:
    from clouds import Cloud


@pytest.fixture
def bucket(cloud: Cloud) -> Bucket:
    return cloud.bucket()
