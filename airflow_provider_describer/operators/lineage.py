"""A task's lineage for OpenLineage, whose provider asks each finished task for it. Nothing of it is imported before."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.lineage import (
    DatasetName,
    image_datasets,
    listed_dataset,
    run_facts,
    store_dataset,
)
from airflow_provider_describer.store.columns import schema

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

FACET = "describer_describedImages"
"""The name of our run facet."""
FACET_SCHEMA = "https://pypi.org/project/airflow-provider-describer/#/1-0-0/DescribedImagesRunFacet"
"""Names the version of our run facet; docs/observability.md has the schema."""


def lineage_of_run(job: Job | None) -> OperatorLineage[Any, Any]:
    """Return what a run has read and written so far: the images' folders, the store's table, and our run facet.

    :param job: None for a task that has failed before its run.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    if job is None:
        return OperatorLineage()
    uris = (request.image.uri for request in job.requests if not request.flaw)
    lineage: OperatorLineage[Any, Any] = OperatorLineage(inputs=_datasets(image_datasets(uris)))
    if job.outcome is None:
        return lineage
    manifest = job.outcome.manifest
    lineage.run_facets[FACET] = _run_facet()(**run_facts(manifest))
    if manifest["store"] is not None and not job.dry_run:
        lineage.outputs += _store(manifest["store"], manifest["counts"]["described"])
    return lineage


def lineage_of_listing(path: str | None, store: str | None) -> OperatorLineage[Any, Any]:
    """Return what a listing has read: the folder, and the store that says which images are known."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    names = [path and listed_dataset(path), store and store_dataset(store)]
    return OperatorLineage(inputs=_datasets(name for name in names if name))


def _datasets(names: Iterable[DatasetName]) -> list[Any]:
    from airflow.providers.common.compat.openlineage.facet import Dataset

    return [Dataset(namespace=name.namespace, name=name.name) for name in names]


def _store(store: str, described: int) -> list[Any]:
    from airflow.providers.common.compat.openlineage import facet

    if (name := store_dataset(store)) is None:
        return []
    columns = [facet.SchemaDatasetFacetFields(name=column.name, type=str(column.type)) for column in schema()]
    return [
        facet.OutputDataset(
            namespace=name.namespace,
            name=name.name,
            facets={"schema": facet.SchemaDatasetFacet(fields=columns)},
            outputFacets={"outputStatistics": facet.OutputStatisticsOutputDatasetFacet(rowCount=described)},
        )
    ]


@cache
def _run_facet() -> Any:
    """Return the class of our run facet, which has the manifest's figures."""
    import attr
    from airflow.providers.common.compat.openlineage.facet import RunFacet

    @attr.define
    class DescribedImagesRunFacet(RunFacet):
        vendor: str
        store: str | None
        results: str | None
        counts: dict[str, int]
        calls: int
        cost_usd: float | None
        unknown_calls: int
        unknown_cost_usd: float
        elapsed_s: float
        fallbacks: dict[str, Any] | None = None

        @staticmethod
        def _get_schema() -> str:
            return FACET_SCHEMA

    return DescribedImagesRunFacet
