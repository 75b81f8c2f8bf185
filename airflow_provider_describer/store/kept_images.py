"""The images of a task that has deferred, as a file of the store: only a function could tell them again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from airflow_provider_describer.arguments import as_path
from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.images.reference import is_missing
from airflow_provider_describer.storage.address import masked
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.shard import json_line

_REFUSED: list[Any] = []
"""Stands for a value that no name of an image's dict may have, so that its image is refused after a deferral too."""


def keep_images(images: list[Any] | str, folder: Folder, task: TaskInstanceKey) -> None:
    """Write ``deferred/<dag_id>/<run_id>/<task_id>[-<map_index>].jsonl``, durably; it replaces what is there.

    :param images: as `parse_images` takes them: a list, or the path of a listing file.
    :raises StoreError: if it cannot be written.
    """
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        try:
            file.writelines(json_line(_plain(image)) for image in ([images] if isinstance(images, str) else images))
            file.flush()
        except OSError as error:
            raise StoreError(f"The temporary file {file.name} of the images cannot be written: {error}.") from None
        folder.publish(Path(file.name), _name(task))


def read_kept_images(folder: Folder, task: TaskInstanceKey) -> list[Any]:
    """Return the images that `keep_images` has written: `parse_images` makes the same requests of them.

    :raises StoreError: if the file is not there, or cannot be read.
    """
    name = _name(task)
    content = folder.read(name)
    again = "Clear the task: it lists its images anew, and reuses what is described."
    if content is None:
        raise StoreError(f"{folder.where(name)} is gone: the images with which the task has deferred. {again}")
    try:
        return [json.loads(line) for line in content.splitlines()]
    except ValueError:
        raise StoreError(
            f"{folder.where(name)} is damaged: the images with which the task has deferred. {again}"
        ) from None


def may_be_secret(images: object) -> bool:
    """Return whether a text in it, such as an image's address, has a part that is stored nowhere, such as a query."""
    value = as_path(images)
    if isinstance(value, str):
        return masked(value) != value
    if isinstance(value, Mapping):
        return any(map(may_be_secret, value.values()))
    return isinstance(value, list | tuple) and any(map(may_be_secret, value))


def _name(task: TaskInstanceKey) -> str:
    return f"{task.path('deferred')}.jsonl"


def _plain(image: object) -> Any:
    """Return the image as JSON has it. Nothing that is asked about it changes, or it would be paid for once more."""
    value = as_path(image)
    if isinstance(value, Mapping):
        return {name if isinstance(name, str) else str(name): _value(name, about) for name, about in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    # What else there is has no address.
    return value if isinstance(value, str | int | float) and not is_missing(value) else None


def _value(name: object, given: object) -> Any:
    """Return what an image's dict has under a name."""
    value = as_path(given) if name == "uri" else given
    if is_missing(value):
        return None
    if name == "fields" and isinstance(value, Mapping):
        # As texts, as they are in a prompt.
        filled = {key: text for key, text in value.items() if isinstance(key, str)}
        return {key: None if is_missing(text) else str(text) for key, text in filled.items()}
    if isinstance(value, str | int | float):
        return value
    if name == "size" and isinstance(value, Integral):
        return int(value)
    if name in ("id", "version") and not isinstance(value, Iterable):
        return str(value)
    return _REFUSED
