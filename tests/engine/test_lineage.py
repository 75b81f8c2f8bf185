"""The names that images and stores have as datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_describer.engine.lineage import (
    MOST_DATASETS,
    DatasetName,
    image_datasets,
    listed_dataset,
    run_facts,
    store_dataset,
)
from airflow_provider_describer.engine.progress import Totals


def names(*uris: str) -> list[tuple[str, str]]:
    return [(found.namespace, found.name) for found in image_datasets(uris)]


@pytest.mark.parametrize(
    ("uris", "namespace", "name"),
    [
        (["s3://shop/catalog/a.jpg"], "s3://shop", "catalog"),
        (["s3://shop/catalog/2026/a.jpg", "s3://shop/catalog/2027/b.jpg"], "s3://shop", "catalog"),
        (["s3://shop/catalog/a.jpg", "s3://shop/catalogue/b.jpg"], "s3://shop", "/"),
        (["s3://shop/a.jpg", "s3://shop/deep/er/b.jpg"], "s3://shop", "/"),
        (["s3://shop/deep/er/b.jpg", "s3://shop/deep/a.jpg"], "s3://shop", "deep"),
        (["gs://shop/a b/ü?#.jpg"], "gs://shop", "a b"),
        (["/data/shop/a.jpg", "/data/shop/x/b.jpg"], "file", "/data/shop"),
        (["file:///data/my%20shop/a.jpg"], "file", "/data/my shop"),
        (["/a.jpg", "/b/c.jpg"], "file", "/"),
        (["https://cdn.shop.com/img/a.jpg", "HTTPS://cdn.shop.com/img/b.jpg"], "https://cdn.shop.com", "img"),
        (["http://cdn.shop.com:8080"], "http://cdn.shop.com:8080", "/"),
    ],
)
def test_images_are_the_folder_that_they_have_in_common(uris: list[str], namespace: str, name: str) -> None:
    assert names(*uris) == [(namespace, name)]


def test_the_same_images_in_another_order_are_the_same_dataset() -> None:
    uris = ["s3://shop/a/b/1.jpg", "s3://shop/a/2.jpg", "s3://shop/a/c/3.jpg"]
    assert names(*uris) == names(*reversed(uris)) == [("s3://shop", "a")]


def test_each_bucket_and_host_is_a_dataset_of_its_own() -> None:
    found = names("s3://one/x/a.jpg", "/data/a.jpg", "s3://one/x/b.jpg", "https://h/p/a.jpg")
    assert found == [("s3://one", "x"), ("file", "/data"), ("https://h", "p")]


def test_of_very_many_hosts_those_with_the_most_images_are_named() -> None:
    uris = [f"https://host-{number}/a.jpg" for number in range(1000)] + [
        "https://large/a/1.jpg",
        "https://large/a/2.jpg",
    ]
    found = names(*uris)
    assert len(found) == MOST_DATASETS and found[0] == ("https://large", "a")


def test_no_name_has_a_secret_of_its_address() -> None:
    found = names("https://user:hunter2@cdn.shop.com/img/a.jpg?X-Amz-Signature=s3cr3t#hunter2")
    assert found == [("https://cdn.shop.com", "img")]


def test_what_is_no_image_is_no_dataset() -> None:
    assert (
        names("ftp://host/a.jpg", "s3://", "s3a://shop/a.jpg", "https://[half/a.jpg", "s3://key:word@shop/a.jpg") == []
    )


@pytest.mark.parametrize(
    ("path", "namespace", "name"),
    [
        ("s3://shop/catalog", "s3://shop", "catalog"),
        ("s3://shop/catalog/", "s3://shop", "catalog"),
        ("s3://shop", "s3://shop", "/"),
        ("s3://shop/catalog/**/front-??.jpg", "s3://shop", "catalog"),
        ("s3://shop/cat*/a.jpg", "s3://shop", "/"),
        ("/data/shop/**", "file", "/data/shop"),
        ("file:///data/shop", "file", "/data/shop"),
    ],
)
def test_a_listing_reads_the_folder_that_its_path_names(path: str, namespace: str, name: str) -> None:
    assert listed_dataset(path) == DatasetName(namespace, name)


@pytest.mark.parametrize(
    ("store", "namespace", "name"),
    [
        ("s3://shop/descriptions/", "s3://shop", "descriptions/descriptions.lance"),
        ("gs://shop", "gs://shop", "descriptions.lance"),
        ("/data/descriptions", "file", "/data/descriptions/descriptions.lance"),
        ("file:///data/descriptions/", "file", "/data/descriptions/descriptions.lance"),
    ],
)
def test_a_store_is_its_table(store: str, namespace: str, name: str) -> None:
    assert store_dataset(store) == DatasetName(namespace, name)


def test_a_relative_path_is_taken_from_where_the_task_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert names("pictures/a.jpg") == [("file", str(tmp_path / "pictures"))]


def test_the_facts_of_a_run_have_no_rows() -> None:
    manifest = Totals(3).manifest(vendor="segmind", store=None, results=None, failures=None, elapsed_s=1.0)
    facts = run_facts({**manifest, "descriptions": [{"text": "a red chair"}]})
    assert "descriptions" not in facts and facts["counts"]["requested"] == 3
