"""The arguments of a task: read when its DAG is parsed, as far as they are no templates, and when it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from airflow_provider_describer.engine.task_arguments import read_arguments, read_literals


def given_arguments(task: Any) -> SimpleNamespace:
    """Return the values of all arguments of a task that runs, each as an attribute.

    :raises BadInput: for one that cannot work, naming it.
    """
    return read_arguments({name: getattr(task, name) for name in task.template_fields}, time.time())


def check_arguments(task: Any) -> SimpleNamespace:
    """Return the values of a new task's arguments that are no templates; call it at the end of ``__init__``.

    :raises BadInput: for one that cannot work, naming it.
    """
    # What is made of a mapped task when it runs is checked as it executes, where an error fails it for good.
    if getattr(task, "_BaseOperator__from_mapped", False):
        return SimpleNamespace()
    return read_literals({name: getattr(task, name) for name in task.template_fields}, time.time())


def check_partial(kind: Any, given: Mapping[str, Any]) -> None:
    """Check what is given to ``partial`` of a class of tasks, as `check_arguments` does."""
    names = set(kind.template_fields) & set(given)
    read_literals({name: given[name] for name in names}, time.time())
