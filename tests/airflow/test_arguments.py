"""The arguments of every operator and sensor: their names, defaults, documentation and templates."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.sdk import DAG

from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator
from airflow_provider_describer.sensors.credits import CreditsSensor
from airflow_provider_describer.sensors.images import DescribeImagesSensor, NewImagesSensor

REQUIRED = inspect.Parameter.empty
DEFERRABLE = {"deferrable": False}
DESCRIBER = {
    "describer_conn_id": "image_describer_default",
    "prompt": None,
    "lang": "en",
    "store": None,
    "storage_conn_id": None,
    "max_pixels": None,
}
MANY = {
    **DESCRIBER,
    "images": REQUIRED,
    "images_base": None,
    "concurrency": 32,
    "max_calls": None,
    "max_cost": None,
    "max_failure_ratio": 0.1,
    "on_unknown": "retry",
    "max_lost_calls": 2,
    "retry_rejected": False,
    "results_format": "jsonl",
}
LISTING = {**DESCRIBER, "path": REQUIRED, "types": None, "chunk_size": None, "inline_limit": 1000}
ARGUMENTS: dict[type[Any], dict[str, Any]] = {
    DescribeImageOperator: {**DESCRIBER, "image": REQUIRED, "on_unknown": "fail", "max_lost_calls": 2},
    DescribeImagesOperator: {**MANY, **DEFERRABLE, "dry_run": False, "defer_after": 30.0},
    ListImagesOperator: {
        **LISTING,
        "min_size": None,
        "max_size": None,
        "modified_after": None,
        "modified_before": None,
        "limit": None,
        "only_new": False,
    },
    NewImagesSensor: {**LISTING, **DEFERRABLE, "min_images": 1, "settle_seconds": 0.0},
    DescribeImagesSensor: {**MANY, "store": REQUIRED, "slice_size": 100},
    CreditsSensor: {**DEFERRABLE, "describer_conn_id": "segmind_default", "min_credits": REQUIRED},
}
KEPT_AS = {"dry_run": "only_plan"}  # BaseOperator has a method of that name


def ours(kind: type[Any]) -> list[type[Any]]:
    """The class and those of its bases that are this package's."""
    return [one for one in kind.__mro__ if one.__module__.startswith("airflow_provider_describer.")]


def arguments(kind: type[Any]) -> dict[str, Any]:
    """Every argument with its default, as the first class that names it has it."""
    found: dict[str, Any] = {}
    for one in reversed([one for one in ours(kind) if "__init__" in vars(one)]):
        parameters = inspect.signature(vars(one)["__init__"]).parameters
        found |= {name: about.default for name, about in parameters.items() if name not in ("self", "kwargs")}
    return found


def documented(kind: type[Any]) -> list[tuple[str, str]]:
    """Every documented argument and what is said about it."""
    parts = [part for one in ours(kind) for part in (one.__doc__ or "").split(":param ")[1:]]
    return [(part.partition(":")[0].strip(), part) for part in parts]


def make(kind: type[Any], **more: Any) -> Any:
    given = {name: "{{ ds }}" for name, default in ARGUMENTS[kind].items() if default is REQUIRED}
    return kind(task_id="task", **{**given, **more})


@pytest.fixture(params=ARGUMENTS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_names_and_defaults(kind: Any) -> None:
    assert arguments(kind) == ARGUMENTS[kind]


def test_every_argument_is_documented_once(kind: Any) -> None:
    names = [name for name, _ in documented(kind)]
    assert sorted(names) == sorted(ARGUMENTS[kind])
    # Who reads a class finds the others.
    assert [one.__name__ for one in ours(kind)[1:] if f".{one.__name__}`" not in kind.__doc__] == []


def test_the_templated_ones_are_the_template_fields(kind: Any) -> None:
    assert tuple(name for name, text in documented(kind) if "(templated)" in text) == tuple(kind.template_fields)


def test_every_argument_is_kept_under_its_name(kind: Any) -> None:
    task = make(kind)
    for name, default in ARGUMENTS[kind].items():
        assert getattr(task, KEPT_AS.get(name, name)) == ("{{ ds }}" if default is REQUIRED else default)


def test_a_dag_gives_defaults_for_all_of_them(kind: Any) -> None:
    """Airflow takes them from `default_args` class by class."""
    mine = {name: f"my {name}" for name in ARGUMENTS[kind]}
    with DAG("shop", schedule=None, default_args={**mine, "retries": 7}):
        task = kind(task_id="task")
    assert {name: getattr(task, KEPT_AS.get(name, name)) for name in mine} == mine
    assert task.retries == 7


def test_a_mapped_task_takes_them_all_and_no_others(kind: Any) -> None:
    every = {name: f"my {name}" for name in ARGUMENTS[kind]}
    mapped, given = next(iter(kind.template_fields)), dict(every)
    del given[mapped]
    with DAG("shop", schedule=None):
        task: Any = kind.partial(task_id="task", **given).expand(**{mapped: ["a", "b"]})
    assert {name: task.partial_kwargs[name] for name in given} == given
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        kind.partial(task_id="task", no_such=1)


@pytest.mark.parametrize("missing", ["images", "path", "image", "store", "min_credits"])
def test_what_is_required_is_asked_for(kind: Any, missing: str) -> None:
    if ARGUMENTS[kind].get(missing) is not REQUIRED:
        return
    given = {name: "x" for name, default in ARGUMENTS[kind].items() if default is REQUIRED and name != missing}
    with pytest.raises(TypeError, match=f"missing keyword argument '{missing}'"):
        kind(task_id="task", **given)


def test_all_of_them_are_operators(kind: Any) -> None:
    assert issubclass(kind, BaseOperator)
    assert kind.ui_color == "#e8f1ff"
