"""Stores as assets: an event where something was described, none where nothing was; and images that have arrived."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, Asset

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.images.listing_file import read_listing
from airflow_provider_describer.operators.assets import arrived_images, store_asset

Run = Callable[..., Any]


def activate(name: str) -> None:
    """Make an asset one that some DAG uses, as a DAG processor does; the `dag.test()` of 3.1 leaves that out."""
    from airflow.models.asset import AssetActive, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        if session.scalar(select(AssetActive).where(AssetActive.name == name)) is None:
            asset = AssetModel(name=name, uri=name, group="asset")
            session.add(asset)
            session.add(AssetActive.for_asset(asset))


@pytest.fixture
def announced(
    run_dag: Run, accounts: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dict[str, list[Any]]]:
    """Run a DAG that announces, and return what its events tell: `(uri, extra)` of each, by task."""
    store = tmp_path / "store"
    monkeypatch.setenv("TEST_STORE", str(store))
    for name in (store.as_uri(), "another"):
        activate(name)

    def run(name: str, **conf: Any) -> dict[str, list[Any]]:
        from airflow.models.asset import AssetEvent
        from airflow.utils.session import create_session
        from sqlalchemy import select

        ran = run_dag(name, {}, file="sensing.py", store=str(tmp_path / "other"), **conf)
        assert set(ran.states.values()) == {"success"}, ran.errors
        found: dict[str, list[Any]] = {task.partition("[")[0]: [] for task in ran.states}
        with create_session() as session:
            wanted = select(AssetEvent).where(AssetEvent.source_run_id == ran.run_id, AssetEvent.source_dag_id == name)
            for event in session.scalars(wanted.order_by(AssetEvent.id)):
                found[event.source_task_id or ""].append((event.asset.uri, event.extra))
        return found

    return run


def test_events_come_where_something_was_described(
    announced: Run, accounts: EmulatorProcess, pictures: list[str], tmp_path: Path
) -> None:
    found = announced("announcing", images=pictures[:3])
    store = (tmp_path / "store").as_uri()
    ((uri, extra),) = found["sensor"]
    assert (uri, extra["described"], extra["counts"]["requested"], extra["calls"]) == (store, 3, 3, 3)
    assert Path(extra["results"]).exists() and extra["cost_usd"] is None
    # Nothing was described, but it is another asset's task, too.
    assert [uri for uri, _ in found["reused"]] == ["another"]
    ((uri, extra),) = found["templated"]
    assert (uri, extra["described"]) == ((tmp_path / "other").as_uri(), 3)
    assert [extra["described"] for _, extra in found["one"]] == [1, 1, 1]
    assert {extra["uri"] for _, extra in found["one"]} == set(pictures[:3])
    assert found["planned"] == []

    again = announced("announcing", images=pictures[:3])
    assert {task: [uri for uri, _ in events] for task, events in again.items() if events} == {"reused": ["another"]}
    assert accounts.ledger(entries=False)["billed"] == 9


def test_a_retry_speaks_for_the_try_before_it(announced: Run, accounts: EmulatorProcess, pictures: list[str]) -> None:
    ((_, extra),) = announced("announcing_late", images=pictures[:2])["describe"]
    assert (extra["described"], extra["counts"]["reused"], extra["calls"]) == (2, 2, 0)
    assert accounts.ledger(entries=False)["billed"] == 2


@pytest.mark.parametrize(
    ("store", "uri"),
    [
        ("/data/descriptions", "file:///data/descriptions"),
        ("/data/my descriptions/", "file:///data/my%20descriptions"),
        ("file:///data/descriptions", "file:///data/descriptions"),
        ("s3://shop/descriptions/", "s3://shop/descriptions"),
        ("gs://shop/descriptions", "gs://shop/descriptions"),
    ],
)
def test_a_store_is_an_asset(store: str, uri: str) -> None:
    asset = store_asset(store)
    assert (asset.uri, asset.name) == (uri, uri)
    assert store_asset(store, name="descriptions").name == "descriptions"


@pytest.mark.parametrize("store", ["descriptions", "./descriptions", ""])
def test_a_store_that_is_another_one_for_each_process(store: str) -> None:
    with pytest.raises(BadInput, match="store is"):
        store_asset(store)


# --- images that have arrived ---

INBOX = Asset("inbox", uri="s3://shop/inbox")


def triggered_by(*payloads: dict[str, Any], asset: Asset = INBOX) -> Any:
    """The context of a run that these payloads have triggered."""
    from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

    events = [SimpleNamespace(asset=asset, source_aliases=[], extra={"payload": payload}) for payload in payloads]
    ti = SimpleNamespace(dag_id="shop", run_id="asset__1", task_id="arrived", map_index=-1, try_number=1)
    return {"triggering_asset_events": TriggeringAssetEventsAccessor.build(events), "ti": ti}  # type: ignore[arg-type]


def delta(number: int, images: Any, state: Path | str = "/state") -> dict[str, Any]:
    return {"delta": f"{number:06}-x", "count": 0, "images": images, "path": "/inbox", "state": str(state)}


def image(name: str, version: str = "1") -> dict[str, Any]:
    return {"uri": f"s3://shop/inbox/{name}.jpg", "version": version, "size": 1}


def in_a_file(folder: Path, *images: dict[str, Any]) -> str:
    path = folder / "images.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in images))
    return str(path)


def test_one_events_images_are_handed_on_as_they_are() -> None:
    assert arrived_images(triggered_by(delta(1, [image("a")])), INBOX) == [image("a")]
    assert arrived_images(triggered_by(delta(1, "s3://shop/state/x.jsonl")), INBOX) == "s3://shop/state/x.jsonl"


def test_an_event_that_came_twice_counts_once() -> None:
    assert arrived_images(triggered_by(delta(1, [image("a")]), delta(1, [image("a")])), INBOX) == [image("a")]
    twice = triggered_by(delta(1, "s3://shop/state/x.jsonl"), delta(1, "s3://shop/state/x.jsonl"))
    assert arrived_images(twice, INBOX) == "s3://shop/state/x.jsonl"


def test_events_that_came_together_name_each_image_once(tmp_path: Path) -> None:
    """Two tasks might both pay for what is listed twice."""
    listing = in_a_file(tmp_path, image("a"), image("b"))
    found = arrived_images(triggered_by(delta(1, listing, tmp_path), delta(2, [image("b", "2")], tmp_path)), INBOX)
    assert found == [image("a"), image("b", "2")]


def test_many_images_of_several_events_are_handed_on_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_describer.operators.assets.INLINE", 2)
    listing = in_a_file(tmp_path, image("a"), image("b"))
    found = arrived_images(triggered_by(delta(1, listing, tmp_path), delta(2, [image("c")], tmp_path)), INBOX)
    assert isinstance(found, str) and found.startswith(f"{tmp_path}/listings/shop/asset__1/arrived")
    assert [item for _, item in read_listing(found)] == [image("a"), image("b"), image("c")]


def test_a_run_that_no_event_has_triggered_is_skipped() -> None:
    with pytest.raises(AirflowSkipException, match="'inbox'"):
        arrived_images(triggered_by(), INBOX)
    with pytest.raises(AirflowSkipException):
        arrived_images(triggered_by(delta(1, [image("a")]), asset=Asset("other")), INBOX)


def test_a_listing_that_is_gone_is_no_empty_one(tmp_path: Path) -> None:
    gone = delta(1, str(tmp_path / "gone.jsonl"), tmp_path)
    with pytest.raises(AirflowFailException, match=r"gone\.jsonl"):
        arrived_images(triggered_by(gone, delta(2, [image("a")], tmp_path)), INBOX)
