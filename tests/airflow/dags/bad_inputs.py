"""One task for each mistake that can be known before any call is made.

What would be known when this file is parsed is written as a template, so that the task meets it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag

from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator

RED = "{{ params.red }}"


def rendered(text: str) -> str:
    """A template of this text."""
    return f"{{{{ {text!r} }}}}"


MANY: dict[str, dict[str, Any]] = {
    "none_for_a_list": {"images": "{{ none }}"},
    "string_for_a_list": {"images": RED},
    "dict_for_a_list": {"images": {"uri": RED}},
    "number_in_the_list": {"images": [7]},
    "blank_image": {"images": [" "]},
    "unknown_key": {"images": [{"uri": RED, "titel": "x"}]},
    "unknown_scheme": {"images": ["ftp://shop/a.jpg"]},
    "unknown_language": {"images": [RED], "lang": rendered("xx")},
    "no_language": {"images": [RED], "lang": rendered("[]")},
    "empty_prompt": {"images": [RED], "prompt": rendered(" ")},
    "prompt_without_its_field": {"images": [{"uri": RED, "fields": {"name": "x"}}], "prompt": "This {title}"},
    "blank_store": {"images": [RED], "store": rendered(" ")},
    "store_is_a_file": {"images": [RED], "store": RED},
    "too_many_for_xcom": {"images": [f"/{number}.jpg" for number in range(501)]},
    "no_concurrency": {"images": [RED], "concurrency": rendered("0")},
    "ratio_in_percent": {"images": [RED], "max_failure_ratio": rendered("10")},
    "negative_limit": {"images": [RED], "max_calls": rendered("-1")},
    "cost_without_a_price": {"images": [RED], "max_cost": 1.0},
    "no_such_connection": {"images": [RED], "describer_conn_id": "nowhere"},
    "no_key": {"images": [RED], "describer_conn_id": "keyless"},
    "other_type": {"images": [RED], "describer_conn_id": "web"},
}
ONE: dict[str, dict[str, Any]] = {
    "missing_file": {"image": "/nowhere/a.jpg"},
    "directory": {"image": "{{ params.folder }}"},
    "zero_bytes": {"image": "{{ params.folder }}/empty.jpg"},
    "html_as_jpg": {"image": "{{ params.folder }}/page.jpg"},
    "huge_image": {"image": "{{ params.folder }}/huge.jpg"},
    "svg": {"image": "{{ params.folder }}/drawing.svg"},
    "heic": {"image": "{{ params.folder }}/photo.heic"},
    "gif_for_segmind": {"image": "{{ params.folder }}/small.gif", "describer_conn_id": "segmind_default"},
    "german_from_segmind": {"image": RED, "lang": "de", "describer_conn_id": "segmind_default"},
}


@dag(params={"red": "", "folder": ""}, default_args={"retries": 3, "retry_delay": timedelta(0)})
def bad_inputs() -> None:
    for name, arguments in MANY.items():
        DescribeImagesOperator(task_id=name, **arguments)
    for name, arguments in ONE.items():
        DescribeImageOperator(task_id=name, **arguments)


bad_inputs_dag = bad_inputs()
