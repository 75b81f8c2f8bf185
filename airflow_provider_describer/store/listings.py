"""Listings that do not fit XCom, as files of the store: each is whole and durable before its path is handed on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from airflow_provider_describer.arguments import parse_int
from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.shard import json_line

Images = Iterator[dict[str, Any]]


def write_listing(
    images: Images,
    folder: Folder | None,
    run: TaskInstanceKey,
    *,
    inline: int,
    chunk_size: int | None = None,
    max_chunks: int,
) -> list[Any] | str:
    """Return what a task returns for its images: themselves while they are few, else where they are listed.

    With ``chunk_size`` it is a list to map tasks over, of lists or of paths; without, one list or one path. Never more
    than ``inline`` images are held in memory.

    :param folder: the store, for ``listings/<dag_id>/<run_id>/<task_id>[-<map_index>].jsonl`` or, in chunks,
        ``…/0000.jsonl``; a later try of the same task instance replaces them.
    :param max_chunks: how many tasks can be mapped.
    :raises BadInput: for more images than fit, before the rest of them has been listed.
    :raises StoreError: where they cannot be written.
    """
    parse_int("inline_limit", inline)
    parse_int("chunk_size", chunk_size, 1)
    first = list(islice(images, inline + 1))
    if len(first) <= inline:
        return first if chunk_size is None else list(_within(max_chunks, chunk_size, _chunks(iter(first), chunk_size)))
    if folder is None:
        raise BadInput(
            f"There are more than {inline} images, which do not fit XCom: give a store (a folder), where they are "
            "listed in files, or a limit."
        )
    name, images = run.path("listings"), chain(first, images)
    if chunk_size is None:
        return _write(folder, f"{name}.jsonl", images)
    chunks = _within(max_chunks, chunk_size, _chunks(images, chunk_size))
    return [_write(folder, f"{name}/{number:04}.jsonl", chunk) for number, chunk in enumerate(chunks)]


def _chunks(images: Images, size: int) -> Iterator[list[dict[str, Any]]]:
    return iter(lambda: list(islice(images, size)), [])


def _within(most: int, size: int, chunks: Iterator[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    for number, chunk in enumerate(chunks):
        if number == most:
            raise BadInput(
                f"There are more than {most} chunks of {size} images, and Airflow maps no more tasks than that ([core] "
                "max_map_length). Give a larger chunk_size."
            )
        yield chunk


def _write(folder: Folder, name: str, images: Iterable[dict[str, Any]]) -> str:
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as spool:
        try:
            spool.writelines(json_line(image) for image in images)
            spool.flush()
        except OSError as error:
            raise StoreError(f"The temporary file {spool.name} of the listing cannot be written: {error}.") from None
        folder.publish(Path(spool.name), name)
    return folder.where(name)
