"""Listings that do not fit XCom, as files of the store. A file is whole and durable before its path is returned."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from airflow_provider_describer.arguments import parse_int
from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.models import plural
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.shard import json_line

Images = Iterator[dict[str, Any]]


def write_listing(
    images: Images,
    folder: Folder | None,
    task: TaskInstanceKey,
    *,
    inline: int,
    chunk_size: int | None = None,
    max_chunks: int,
) -> list[Any] | str:
    """Return a task's listing: the images themselves if there are at most ``inline``, else the path of a file.

    With ``chunk_size`` it is a list to map tasks over, of lists or of paths; without, one list or one path. At most
    ``inline`` images, or one chunk, are in memory at a time.

    :param folder: the store, for ``listings/<dag_id>/<run_id>/<task_id>[-<map_index>].jsonl`` or, in chunks,
        ``…/0000.jsonl``; a later try of the same task instance replaces the files.
    :param max_chunks: the highest number of tasks that can be mapped.
    :raises BadInput: for more images than fit, before the rest of them is listed.
    :raises StoreError: if a file cannot be written.
    """
    parse_int("inline_limit", inline)
    parse_int("chunk_size", chunk_size, 1)
    first = list(islice(images, inline + 1))
    if len(first) <= inline:
        return first if chunk_size is None else list(_chunks(iter(first), chunk_size, max_chunks))
    if folder is None:
        raise BadInput(
            f"There are more than {inline} {plural(inline, 'image')}, which do not fit XCom. "
            "Give a store (a folder), so that they are listed in files, or a limit."
        )
    name, images = task.path("listings"), chain(first, images)
    if chunk_size is None:
        return _write(folder, f"{name}.jsonl", images)
    chunks = _chunks(images, chunk_size, max_chunks)
    return [_write(folder, f"{name}/{number:04}.jsonl", chunk) for number, chunk in enumerate(chunks)]


def _chunks(images: Images, size: int, max_chunks: int) -> Iterator[list[dict[str, Any]]]:
    number = 0
    while chunk := list(islice(images, size)):
        if number == max_chunks:
            raise BadInput(
                f"There are more than {max_chunks} chunks of {size} {plural(size, 'image')}, and Airflow maps no more "
                "tasks than that ([core] max_map_length). Give a larger chunk_size."
            )
        yield chunk
        number += 1


def _write(folder: Folder, name: str, images: Iterable[dict[str, Any]]) -> str:
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        try:
            file.writelines(json_line(image) for image in images)
            file.flush()
        except OSError as error:
            raise StoreError(f"The temporary file {file.name} of the listing cannot be written: {error}.") from None
        folder.publish(Path(file.name), name)
    return folder.where(name)
