"""The arguments of a task: read when its DAG is parsed, as far as they are no templates, and when it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from airflow_provider_describer.engine.task_arguments import read_arguments, read_literals
from airflow_provider_describer.operators.rendered import given_value

_ROOMS = tuple(f"{__name__.partition('.')[0]}.{room}." for room in ("operators", "sensors"))
"""What a decorated task has as template fields beside those of its operator belongs to its function."""


def given_arguments(task: Any, names: Sequence[str] | None = None) -> SimpleNamespace:
    """Return the values of these arguments of a task that runs, by default of all, each as an attribute.

    :raises BadInput: for one that cannot work, naming it.
    """
    # Whoever runs a rendered task without Airflow's own steps has its images as they are shown.
    given = {name: given_value(getattr(task, name)) for name in names or _names(type(task))}
    return read_arguments(given, time.time())


def check_arguments(task: Any) -> SimpleNamespace:
    """Return the values of a new task's arguments that are no templates; call it at the end of ``__init__``.

    :raises BadInput: for one that cannot work, naming it.
    """
    # What is made of a mapped task when it runs is checked as it executes, where an error fails it for good.
    if getattr(task, "_BaseOperator__from_mapped", False):
        return SimpleNamespace()
    return read_literals({name: getattr(task, name) for name in _names(type(task))}, time.time())


def check_partial(kind: Any, given: Mapping[str, Any]) -> None:
    """Check what is given to ``partial`` of a class of tasks, as `check_arguments` does."""
    read_literals({name: given[name] for name in _names(kind) if name in given}, time.time())


def _names(kind: Any) -> Sequence[str]:
    """Return a task's arguments: what its nearest operator or sensor of this package has as template fields.

    A user's subclass may have others, or fewer.
    """
    names: Sequence[str] = next(one for one in kind.__mro__ if one.__module__.startswith(_ROOMS)).template_fields
    return names
