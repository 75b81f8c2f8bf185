"""The operators as Airflow handles them before they run: templates, serialisation, pickling."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import pickle
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_describer import errors
from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator
from airflow_provider_describer.operators.failures import airflow_error, airflow_errors
from airflow_provider_describer.provider_info import get_provider_info

DESCRIBER = ("describer_conn_id", "prompt", "lang", "store", "storage_conn_id", "max_pixels")
OPERATORS: dict[type[Any], tuple[str, ...]] = {
    DescribeImageOperator: (
        "image",
        "on_unknown",
        "max_lost_calls",
        "on_claimed",
        "fallback_conn_ids",
        "rules",
        "stricter_prompt",
        *DESCRIBER,
    ),
    DescribeImagesOperator: (
        "dry_run",
        "deferrable",
        "defer_after",
        "fallback_conn_ids",
        "images",
        "images_base",
        "concurrency",
        "max_calls",
        "max_cost",
        "max_failure_ratio",
        "on_unknown",
        "max_lost_calls",
        "on_claimed",
        "rules",
        "stricter_prompt",
        "retry_rejected",
        "results_format",
        "skip_if_empty",
        *DESCRIBER,
    ),
}
ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.DescriberError) and error is not errors.DescriberError
]
# These may be over by the next try; all others fail the task for good.
PASSING = {
    "BucketError",
    "LeftForLater",
    "RateLimited",
    "RetryLater",
    "StoreError",
    "Unfinished",
    "UnreadableImage",
    "VendorUnavailable",
}


def make(operator: type[Any], **more: Any) -> Any:
    given = {"image": "/a.jpg"} if operator is DescribeImageOperator else {"images": ["/a.jpg"], "store": "/s"}
    return operator(task_id="describe", prompt="This {title} of {{ ds }}", lang="de", **given, **more)


@pytest.fixture(params=OPERATORS, ids=lambda operator: operator.__name__)
def operator(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_template_fields(operator: Any) -> None:
    assert tuple(operator.template_fields) == OPERATORS[operator]
    assert set(OPERATORS[operator]) <= set(vars(make(operator)))


@pytest.mark.parametrize("unknown", ["image_path", "conn_id", "max_failures"])
def test_an_unknown_argument_is_refused_when_the_dag_is_read(operator: Any, unknown: str) -> None:
    with pytest.raises((AirflowException, TypeError), match=unknown):
        make(operator, **{unknown: 1})


def test_the_image_must_be_given(operator: Any) -> None:
    with pytest.raises((AirflowException, TypeError), match="image"):
        operator(task_id="describe")


def test_a_dag_survives_serialisation(operator: Any) -> None:
    from airflow.sdk import DAG
    from airflow.serialization import serialized_objects

    with DAG("shop", schedule=None) as dag:
        make(operator)
        field = "image" if operator is DescribeImageOperator else "images"
        operator.partial(task_id="mapped").expand(**{field: [["/a.jpg"], ["/b.jpg"]]})
    # The name of 3.3, and of 3.1.
    names = ("DagSerialization", "SerializedDAG")
    serializer: Any = next(getattr(serialized_objects, name) for name in names if hasattr(serialized_objects, name))
    stored = json.loads(json.dumps(serializer.to_dict(dag)))
    task = serializer.from_dict(stored).get_task("describe")
    assert (task.task_type, task.prompt, task.lang) == (operator.__name__, "This {title} of {{ ds }}", "de")
    assert tuple(task.template_fields) == OPERATORS[operator]


def test_an_operator_survives_copying_and_pickling(operator: Any) -> None:
    one = make(operator)
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert {name: getattr(other, name) for name in OPERATORS[operator]} == {
            name: getattr(one, name) for name in OPERATORS[operator]
        }


def test_killing_a_task_that_has_not_begun_is_harmless() -> None:
    make(DescribeImagesOperator).on_kill()


def test_every_class_and_module_that_the_provider_info_names_can_be_imported() -> None:
    info = get_provider_info()
    modules = [module for kind in ("hooks", "operators") for row in info[kind] for module in row["python-modules"]]
    classes = [row["hook-class-name"] for row in info["connection-types"]]
    assert {"airflow_provider_describer.hooks.describer", "airflow_provider_describer.operators.describe"} <= set(
        modules
    )
    for module in modules:
        importlib.import_module(module)
    for name in classes:
        module, _, attribute = name.rpartition(".")
        assert inspect.isclass(getattr(importlib.import_module(module), attribute))


# --- our errors as Airflow's ---


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_is_retried_only_where_that_can_help(kind: type[errors.DescriberError]) -> None:
    raised = airflow_error(kind("what is wrong"))
    assert isinstance(raised, AirflowException)
    assert isinstance(raised, AirflowFailException) == (kind.__name__ not in PASSING)
    assert str(raised) == f"{kind.__name__}: what is wrong"


@pytest.mark.parametrize(
    ("kind", "for_good"),
    [("no_such_bucket", True), ("wrong_region", True), ("unsupported", True), ("denied", False), ("throttled", False)],
)
def test_a_bucket_error_that_needs_a_correction_is_not_tried_again(kind: str, for_good: bool) -> None:
    raised = airflow_error(errors.BucketError("what is wrong", kind=kind))
    assert isinstance(raised, AirflowFailException) == for_good


@pytest.mark.parametrize("bug", [KeyError("x"), RuntimeError("x"), KeyboardInterrupt()])
def test_errors_of_other_packages_are_left_alone(bug: BaseException) -> None:
    with pytest.raises(type(bug)) as caught, airflow_errors():
        raise bug
    assert caught.value is bug
