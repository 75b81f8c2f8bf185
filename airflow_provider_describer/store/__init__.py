"""The description store: a folder with the journal of all calls, their table and the result files of each task."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_describer.store.description_store import DescriptionStore


def open_store(path: str) -> DescriptionStore:
    """Return the existing store at a path, to read it; a bucket is opened with the environment's credentials.

    :param path: the folder that tasks name as their store: a local path, ``s3://…`` or ``gs://…``.
    :raises BadInput: if there is no store, because an empty answer would look like an empty store.
    :raises StoreError: naming what cannot be read.
    """
    # Here, as DAG files import this module, and as Lance must not be imported before a task has its own process.
    from airflow_provider_describer.store.description_store import DescriptionStore, existing_folder

    return DescriptionStore(existing_folder(path))
