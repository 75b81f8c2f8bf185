"""What Airflow stores of a task's images and shows as *Rendered Templates*."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator
from airflow_provider_describer.operators.rendered import RenderedImages, given_value, rendered_images
from airflow_provider_describer.sensors.images import DescribeImagesSensor, NewImagesSensor

Run = Callable[..., Any]
LONGEST = 4096
URIS = [f"s3://catalog/products/{number:06}/front.jpg" for number in range(600)]


def shown(value: Any, longest: int = LONGEST) -> Any:
    """What Airflow stores of a field: it asks what is no JSON for its own form of it."""
    rendered = rendered_images(value, longest)
    with pytest.raises(TypeError):
        json.dumps(rendered)
    stored = rendered.serialize()
    assert json.loads(json.dumps(stored)) == stored
    return stored


@pytest.mark.parametrize("listed", [URIS, [{"uri": uri, "version": "e1", "size": 7} for uri in URIS], str(URIS)])
def test_a_long_list_shows_its_first_addresses_and_how_many_there_are(listed: Any) -> None:
    *first, count = shown(listed)
    assert len(first) > 50 and first == URIS[: len(first)]
    assert count == f"… and {600 - len(first)} more: 600 images"
    assert len(str([*first, count])) <= LONGEST


def test_a_list_that_fits_is_shown_whole() -> None:
    listed = [
        {"uri": "/a.jpg", "fields": {"made": datetime(2026, 1, 1, tzinfo=UTC)}, 7: None},
        "/b.jpg",
        Path("/c.jpg"),
    ]
    assert shown(listed) == [
        {"uri": "/a.jpg", "fields": {"made": "2026-01-01 00:00:00+00:00"}, "7": None},
        "/b.jpg",
        "/c.jpg",
    ]
    assert shown("['/a.jpg', '/b.jpg']") == ["/a.jpg", "/b.jpg"]


def test_no_secret_of_an_address_is_stored() -> None:
    listed = ["https://u:secret@shop.example/a.jpg?X-Amz-Signature=secret", {"uri": "https://s.example/b?sig=secret"}]
    assert shown(listed) == ["https://shop.example/a.jpg?…", {"uri": "https://s.example/b?…"}]
    assert "secret" not in str(shown(listed * 100))


@pytest.mark.parametrize("longest", [0, 79, 200])
def test_the_shortest_setting_still_shows_how_many_there_are(longest: int) -> None:
    assert shown(URIS, longest)[-1].endswith("more: 600 images")
    assert shown(["x" * 5000], longest) == ["… and 1 more: 1 image"]


@pytest.mark.parametrize("value", ["/data/images.jsonl", "{{ params.images }}", "", None, [], {"uri": "/a.jpg"}, 7])
def test_what_is_no_list_stays_as_it_is(value: Any) -> None:
    assert rendered_images(value, LONGEST) is value
    assert given_value(value) is value


@pytest.mark.parametrize("value", [URIS, tuple(URIS), str(URIS)])
def test_a_task_works_with_what_it_was_given(value: Any) -> None:
    rendered = rendered_images(value, LONGEST)
    assert isinstance(rendered, RenderedImages) and list(rendered) == URIS
    assert given_value(rendered) is value


def test_a_rendered_task_has_its_images_also_without_airflows_own_steps() -> None:
    """As a user's test of a DAG calls it."""
    with DAG("shop", schedule=None):
        task = DescribeImagesOperator(task_id="describe", images=["{{ 'a' }}.jpg", *URIS])
    task.render_template_fields({})
    assert task.images == ["a.jpg", *URIS]
    assert task.given.images == ["a.jpg", *URIS]
    task.pre_execute({})
    assert type(task.images) is list


KINDS = [DescribeImageOperator, DescribeImagesOperator, DescribeImagesSensor, ListImagesOperator, NewImagesSensor]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_lists_and_prompts_name_their_form(kind: Any) -> None:
    forms = {name: form for name, form in kind.template_fields_renderers.items() if name in kind.template_fields}
    assert forms["prompt"] == "md"
    lists = {"image", "images", "lang", "types"} & set(kind.template_fields)
    assert {forms[name] for name in lists} == {"json"}


# --- in Airflow ---


@pytest.fixture
def stored(airflow_db: None) -> Callable[..., Any]:
    """What the metadata database has of a task's fields."""

    def ask(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        from airflow.models.renderedtifields import RenderedTaskInstanceFields as Fields
        from airflow.utils.session import create_session
        from sqlalchemy import select

        wanted = select(Fields.rendered_fields).where(
            Fields.dag_id == dag_id, Fields.run_id == run_id, Fields.task_id == task_id, Fields.map_index == map_index
        )
        with create_session() as session:
            return session.scalar(wanted)

    return ask


def test_airflow_stores_a_long_list_as_a_list(
    accounts: EmulatorProcess, run: Run, stored: Callable[..., Any], pictures: list[str], tmp_path: Path
) -> None:
    ran = run("planned", images=pictures * 100, store=str(tmp_path))
    *first, count = stored("planned", ran.run_id, "describe")["images"]
    assert first == (pictures * 100)[: len(first)] and count.endswith("more: 600 images")
    assert ran.xcom("describe")["counts"]["requested"] == 600


def test_airflow_stores_no_secret_of_a_mapped_tasks_images(
    accounts: EmulatorProcess, run: Run, stored: Callable[..., Any], nobody_there: str, tmp_path: Path
) -> None:
    ran = run("in_chunks", images=[f"{nobody_there}/a.jpg?sig=secret"], store=str(tmp_path))
    assert stored("in_chunks", ran.run_id, "apart", 0)["images"] == [f"{nobody_there}/a.jpg?…"]
