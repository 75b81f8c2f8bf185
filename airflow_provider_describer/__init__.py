"""Describe images with paid vision APIs from Apache Airflow, without ever paying twice."""

from __future__ import annotations

__version__ = "0.1.0"
