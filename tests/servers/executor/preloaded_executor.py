"""LocalExecutor for a scheduler whose tasks, which are forks of it, need not import the operators again.

Each task would spend 4 s of a processor on that, and a test session starts thirty of them.
"""

from __future__ import annotations

from importlib import import_module

from airflow.executors.local_executor import LocalExecutor

# pandas is imported by Airflow's serialisation.
for module in ("airflow_provider_describer.operators.describe", "pandas"):
    import_module(module)


class PreloadedExecutor(LocalExecutor):
    """LocalExecutor, unchanged."""
