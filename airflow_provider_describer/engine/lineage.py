"""Which datasets a task reads and writes, by the names that OpenLineage gives to folders, buckets and hosts. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os.path import abspath, commonprefix
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.storage.address import bucket_address, local_path, mask_query
from airflow_provider_describer.store.table import NAME as TABLE

MOST_DATASETS = 20
"""The most datasets of images of one task: a list of web images may name thousands of hosts."""
_MANIFEST = ("vendor", "store", "results", "calls", "cost_usd", "unknown_calls", "unknown_cost_usd", "elapsed_s")


@dataclass(frozen=True, slots=True)
class DatasetName:
    """A dataset's name: ``s3://bucket`` + key, ``gs://bucket`` + key, ``file`` + path, ``https://host`` + path."""

    namespace: str
    name: str


def image_datasets(uris: Iterable[str]) -> list[DatasetName]:
    """Return, for each bucket and each host, the folder that all of its images are below; at most `MOST_DATASETS`.

    Those with the most images come first. A folder's name ends without a slash; ``/`` is the whole bucket or host. A
    web address goes without its query, its user and its password.
    """
    folders: dict[str, str] = {}
    images: Counter[str] = Counter()
    for uri in uris:
        if (place := _place(uri)) is None:
            continue
        namespace, path = place
        images[namespace] += 1
        folder = folders.setdefault(namespace, _folder(path))
        if not path.startswith(folder):
            folders[namespace] = _folder(commonprefix((folder, path)))  # noqa: RUF071  # of keys, cut to a folder
    return [_dataset(namespace, folders[namespace]) for namespace, _ in images.most_common(MOST_DATASETS)]


def listed_dataset(path: str) -> DatasetName | None:
    """Return the folder that a listing's path names, or that its pattern begins with; None for no such path."""
    literal, *pattern = re.split(r"[*?]", path, maxsplit=1)
    place = _place(literal)
    return place and _dataset(place[0], _folder(place[1]) if pattern else place[1])


def store_dataset(store: str) -> DatasetName | None:
    """Return the table of a store; None for an address that is no store."""
    place = _place(store)
    return place and _dataset(place[0], f"{place[1].rstrip('/')}/{TABLE}")


def run_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of a run in numbers, without any rows."""
    facts = {"counts": dict(manifest["counts"]), **{name: manifest[name] for name in _MANIFEST}}
    return facts | ({"fallbacks": manifest["fallbacks"]} if "fallbacks" in manifest else {})


def _place(uri: str) -> tuple[str, str] | None:
    """Return the namespace of a uri, and its path within it; None for what no image is at."""
    try:
        if (found := bucket_address(uri)) is not None:
            return f"{found.scheme}://{found.bucket}", found.key
        if (path := local_path(uri)) is not None:
            slash = "/" if uri.endswith("/") else ""
            return "file", abspath(path).rstrip("/") + slash  # noqa: PTH100  # a Path would cost more than all the rest
        web = urlsplit(mask_query(uri).removesuffix("?…"))
    except (BadInput, ValueError):
        return None
    return f"{web.scheme}://{web.netloc}".lower(), web.path


def _folder(path: str) -> str:
    return path[: path.rfind("/") + 1]


def _dataset(namespace: str, path: str) -> DatasetName:
    # In a bucket, the same folder may be written with a slash before it and without.
    name = path.rstrip("/") if namespace == "file" else path.strip("/")
    return DatasetName(namespace, name or "/")
