"""Where a task instance's own files lie in the store."""

from __future__ import annotations

import hashlib
import re

from airflow_provider_describer.store.rows import Run

LONGEST = 200
"""Bytes of one part of a path: disks take 255, and something is added to it."""


def instance_path(under: str, run: Run) -> str:
    """Return ``<under>/<dag_id>/<run_id>/<task_id>[-<map_index>]``, whatever characters the ids have."""
    task = _part(run.task_id or "no_task") + (f"-{run.map_index}" if run.map_index >= 0 else "")
    return f"{under}/{_part(run.dag_id or 'no_dag')}/{_part(run.run_id or 'no_run')}/{task}"


def _part(name: str) -> str:
    """A path's part that is always one folder below: no slash, neither '.' nor '..', and no longer than disks take."""
    part = re.sub(r"[/\\\0]", "_", name) if name.strip(".") else name.replace(".", "_")
    if len(part.encode()) <= LONGEST:
        return part
    return f"{part.encode()[: LONGEST - 17].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
