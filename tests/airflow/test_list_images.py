"""ListImagesOperator in DAG runs: what it hands on, what is described of it, and what it says of a mistake."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from connections import storage

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.images.listing_file import read_listing
from airflow_provider_describer.operators.list_images import ListImagesOperator

if TYPE_CHECKING:
    from clouds import Cloud

Run = Callable[..., Any]

# For each task of the DAG `listed_wrongly`, words that its message must have.
WORDS = {
    "missing_folder": ["path is '/nowhere/at/all'", "there is no folder"],
    "web_address": ["https://x.example/catalog", "a web address has no listing"],
    "blank_path": ["path is blank"],
    "path_of_another_kind": ["path is '7'", "has to be absolute"],
    "types_as_text": ["types is 'jpg'", "expected a list"],
    "no_limit": ["limit is '0'"],
    "word_for_a_size": ["min_size is 'large'"],
    "no_time": ["modified_after is 'yesterday'"],
    "no_chunk": ["chunk_size is '0'"],
    "new_without_a_store": ["only_new needs a store"],
    "many_without_a_store": ["more than 1 image,", "Give a store"],
    "chunks_beyond_mapping": ["more than 3 chunks", "max_map_length"],
    "blank_store": ["store is blank"],
    "no_such_connection": ["storage_conn_id is 'nowhere'", "no such connection"],
    "other_connection": ["storage_conn_id is 'web'", "'http'", "'aws'"],
}


@pytest.fixture
def list_dag(run_dag: Run) -> Run:
    """Run a DAG of `dags/listing.py`, with the connections that the environment has."""
    return lambda name, **conf: run_dag(name, {}, file="listing.py", **conf)


@pytest.fixture
def catalog(pictures: list[str], tmp_path: Path) -> Path:
    """The six pictures in folders of a test's own."""
    for number, path in enumerate(pictures):
        folder = tmp_path / "catalog" / ("front" if number % 2 else "back")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    (tmp_path / "catalog/list.txt").write_text("no image")
    return tmp_path / "catalog"


def names(images: list[Any]) -> list[str]:
    return [Path(image["uri"]).name for image in images]


def requested(manifest: dict[str, Any]) -> int:
    return int(manifest["counts"]["requested"])


def test_a_folder_is_listed_and_described(
    accounts: EmulatorProcess, list_dag: Run, catalog: Path, tmp_path: Path
) -> None:
    ran = list_dag("listed", path=f"{catalog}/**", store=str(tmp_path / "store"))
    assert ran.states == {"list": "success", "describe": "success"}
    images = ran.xcom("list")
    assert [image["uri"] for image in images] == sorted(str(path) for path in catalog.rglob("*.png"))
    assert {tuple(image) for image in images} == {("uri", "version", "size")}
    assert [image["size"] for image in images] == [Path(image["uri"]).stat().st_size for image in images]
    assert ran.xcom("describe")["counts"]["described"] == 6


def test_numbers_and_times_may_come_from_templates(
    accounts: EmulatorProcess, list_dag: Run, catalog: Path, tmp_path: Path
) -> None:
    os.utime(catalog / "back/red.png", (0, 0))
    store = str(tmp_path / "store")
    ran = list_dag("listed", path=f"{catalog}/*/*", store=store, limit=2, after="2020-01-01")
    assert names(ran.xcom("list")) == ["black.png", "blue.png"]


def test_many_images_are_handed_on_in_a_file(
    accounts: EmulatorProcess, list_dag: Run, catalog: Path, tmp_path: Path
) -> None:
    ran = list_dag("listed_in_a_file", path=str(catalog), store=str(tmp_path / "store"))
    listing = ran.xcom("list")
    assert listing == str(tmp_path / "store/listings/listed_in_a_file" / ran.run_id / "list.jsonl")
    assert len(Path(listing).read_text().splitlines()) == 6
    assert ran.xcom("describe")["counts"]["described"] == 6
    assert ran.xcom("again")["counts"]["reused"] == 6


def test_chunks_are_mapped(accounts: EmulatorProcess, list_dag: Run, catalog: Path, tmp_path: Path) -> None:
    ran = list_dag("mapped", path=str(catalog), store=str(tmp_path / "store"))
    assert set(ran.states.values()) == {"success"}
    assert [len(chunk) for chunk in ran.xcom("inline")] == [4, 2]
    assert ran.xcom("filed") == [
        str(tmp_path / "store/listings/mapped" / ran.run_id / f"filed/000{number}.jsonl") for number in range(2)
    ]
    for name in ("inline", "filed"):
        assert [requested(ran.xcom(f"describe_{name}[{number}]")) for number in range(2)] == [4, 2]
    assert [len(chunk) for chunk in ran.xcom("several[0]")] == [2]
    assert requested(ran.xcom("together")) == 2


def test_only_what_is_new_is_listed(
    accounts: EmulatorProcess, list_dag: Run, catalog: Path, tmp_path: Path, pictures: list[str]
) -> None:
    conf = {"path": str(catalog), "store": str(tmp_path / "store")}
    (catalog / "front/green.png").unlink()
    first = list_dag("nightly", **conf)
    assert len(first.xcom("list")[0]) == 5
    second = list_dag("nightly", **conf)
    assert set(second.states.values()) == {"skipped"} and second.xcom("list") is None
    shutil.copy(pictures[1], catalog / "front/new.png")
    shutil.copy(pictures[0], catalog / "front/copy.png")
    third = list_dag("nightly", **conf)
    assert names(third.xcom("list")[0]) == ["new.png"]
    assert third.xcom("describe[0]")["counts"]["described"] == 1
    assert accounts.ledger(entries=False)["billed"] == 6


def test_airflows_own_paths_are_images(accounts: EmulatorProcess, list_dag: Run, catalog: Path, tmp_path: Path) -> None:
    ran = list_dag("storage_paths", path=f"{catalog}/front", store=str(tmp_path / "store"))
    assert ran.xcom("describe")["counts"]["described"] == 3
    rows = [json.loads(line) for line in Path(ran.xcom("describe")["results"]).read_text().splitlines()]
    assert sorted(row["uri"] for row in rows) == sorted(str(path) for path in (catalog / "front").iterdir())


def test_a_bucket_is_listed_with_a_connections_credentials(
    accounts: EmulatorProcess, run_dag: Run, cloud: Cloud, pictures: list[str]
) -> None:
    bucket = cloud.bucket()
    for path in pictures:
        bucket.put(f"catalog/50%20off #1/{Path(path).name}", Path(path).read_bytes())
    bucket.put("other/a.png", b"x")
    ran = run_dag(
        "in_a_bucket",
        {"storage": storage(cloud)},
        file="listing.py",
        path=f"{cloud.uri}/catalog/**/*.png",
        store=f"{cloud.uri}/store",
    )
    assert set(ran.states.values()) == {"success"}, ran.errors
    images = ran.xcom("inline")
    assert [image["uri"] for image in images] == sorted(
        f"{cloud.uri}/catalog/50%20off #1/{Path(path).name}" for path in pictures
    )
    content = bucket.read(images[0]["uri"].removeprefix(f"{cloud.uri}/"))
    assert content is not None and images[0]["version"] == content.version and images[0]["size"] == content.size
    assert ran.xcom("filed") == f"{cloud.uri}/store/listings/in_a_bucket/{ran.run_id}/filed.jsonl"
    for listing, numbers in ((ran.xcom("filed"), range(6)), (ran.xcom("chunked")[1], range(2, 4))):
        assert [item for _, item in read_listing(listing, cloud.open_bucket)] == [images[n] for n in numbers]
    assert ran.xcom("new") == images[:1]


@pytest.fixture(scope="module")
def wrong(run_dag: Run, pictures: list[str]) -> Any:
    """All the mistakes in one DAG run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "3")
        web = {"web": {"conn_type": "http", "host": "http://127.0.0.1"}}
        return run_dag("listed_wrongly", web, file="listing.py", path=str(Path(pictures[0]).parent))


def test_every_mistake_has_its_words(wrong: Any) -> None:
    assert set(wrong.states) == set(WORDS)


@pytest.mark.parametrize("name", WORDS)
def test_a_mistake_is_named_and_not_tried_again(wrong: Any, name: str) -> None:
    message = wrong.failed_for_good(name)
    for words in WORDS[name]:
        assert words in message


# --- as Airflow handles it before it runs ---


def make(**more: Any) -> ListImagesOperator:
    return ListImagesOperator(task_id="list", path="s3://shop/{{ ds }}/**", **more)


def test_a_dag_survives_serialisation() -> None:
    from airflow.sdk import DAG
    from airflow.serialization import serialized_objects

    with DAG("shop", schedule=None) as dag:
        make(modified_after=timedelta(days=1), types=["jpg"], limit=7)
        ListImagesOperator.partial(task_id="mapped").expand(path=["s3://shop/a", "gs://shop/b"])
    # The name of 3.3, and of 3.1.
    found = ("DagSerialization", "SerializedDAG")
    serializer: Any = next(getattr(serialized_objects, name) for name in found if hasattr(serialized_objects, name))
    stored = json.loads(json.dumps(serializer.to_dict(dag)))
    task = serializer.from_dict(stored).get_task("list")
    assert (task.task_type, task.path, task.limit) == ("ListImagesOperator", "s3://shop/{{ ds }}/**", 7)
    assert tuple(task.template_fields) == tuple(ListImagesOperator.template_fields)
