"""DAGs whose tasks take every argument from `params`: rendered as text, natively, or handed on by a task."""

from __future__ import annotations

from typing import Any

import jinja2
from airflow.sdk import DAG, task

from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator
from airflow_provider_describer.sensors.credits import CreditsSensor
from airflow_provider_describer.sensors.images import DescribeImagesSensor, NewImagesSensor

KINDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "one": (DescribeImageOperator, ("image",)),
    "many": (DescribeImagesOperator, ("images",)),
    "list": (ListImagesOperator, ("path",)),
    "new": (NewImagesSensor, ("path",)),
    "slices": (DescribeImagesSensor, ("images", "store")),
    "credits": (CreditsSensor, ("min_credits",)),
}
# What can be found is found at the first look.
WAITS = {"poke_interval": 0.05, "timeout": 1}


def template(name: str) -> str:
    return f"{{{{ params.{name} }}}}"


def templated(kind: type[Any]) -> dict[str, str]:
    """All arguments of an operator as templates, but `storage_conn_id`, which a test need not have."""
    return {name: template(name) for name in kind.template_fields if name != "storage_conn_id"}


PARAMS: dict[str, Any] = {
    "chunk_size": None,
    "concurrency": 2,
    "defer_after": 30.0,
    "deferrable": False,
    "describer_conn_id": "segmind_default",
    "dry_run": False,
    "fallback_conn_ids": None,
    "image": "",
    "images": [],
    "images_base": None,
    "inline_limit": 10,
    "lang": "en",
    "limit": None,
    "max_calls": None,
    "max_cost": None,
    "max_failure_ratio": 0.5,
    "max_lost_calls": 2,
    "max_pixels": None,
    "max_size": None,
    "min_credits": 0.5,
    "min_images": 1,
    "min_size": None,
    "modified_after": None,
    "modified_before": None,
    "on_claimed": "wait",
    "on_unknown": "retry",
    "only_new": False,
    "path": "",
    "prompt": None,
    "results_format": "jsonl",
    "retry_rejected": False,
    "rules": ["MinWords(2)"],
    "settle_seconds": 0.0,
    "skip_if_empty": False,
    "slice_size": 100,
    "store": None,
    "stricter_prompt": None,
    "types": None,
}

for native in (False, True):
    with DAG(
        f"all_{'native' if native else 'text'}",
        params=PARAMS,
        render_template_as_native_obj=native,
        default_args={"retries": 3, "retry_delay": 0},
    ) as found:
        for name, (kind, _) in KINDS.items():
            kind(task_id=name, **templated(kind), **(WAITS if "Sensor" in kind.__name__ else {}))
    globals()[found.dag_id] = found

for native in (False, True):
    with DAG(
        f"undefined_{'native' if native else 'text'}",
        params=PARAMS,
        render_template_as_native_obj=native,
        template_undefined=jinja2.Undefined,  # Airflow's own is stricter
        default_args={"retries": 3, "retry_delay": 0},
    ) as found:
        given = {"images": template("images"), "describer_conn_id": template("describer_conn_id")}
        for name in ("images", "describer_conn_id", "store", "dry_run", "max_cost", "max_calls", "prompt", "lang"):
            DescribeImagesOperator(task_id=name, **{**given, name: "{{ no_such_name }}"})
    globals()[found.dag_id] = found

with DAG("mapped_wrongly", params=PARAMS, default_args={"retries": 3, "retry_delay": 0}) as mapped_wrongly:

    @task
    def budgets() -> list[Any]:
        return ["None", "-1", "$5", -2, "nan"]

    DescribeImagesOperator.partial(task_id="many", images=template("images"), store=template("store")).expand(
        max_cost=budgets()
    )
    DescribeImagesOperator.partial(task_id="literal", images=template("images")).expand(concurrency=[0, "2"])
