"""The answers of the page's API: what a reader may see of a store, as JSON values, with long texts cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.gallery.host import Reader
from airflow_provider_describer.gallery.open_stores import OpenStore, OpenStores
from airflow_provider_describer.gallery.search import Filter
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.rows import TaskInstanceKey

PAGE_ROWS = 60
CARD_CHARS = 2000
"""Characters of an error in the gallery, and of a text. The history of an image has the whole text."""
PROMPT_CHARS = 300
"""Characters of a prompt in the gallery."""
PIECE_BYTES = 4 * 1024 * 1024
"""Bytes of a result file that are read at a time."""
_FIELDS = (
    "uri",
    "vendor",
    "model",
    "prompt",
    "lang",
    "status",
    "text",
    "cost_usd",
    "billed",
    "error",
    "described_at",
    "dag_id",
    "run_id",
    "task_id",
    "map_index",
    "try_number",
    "id",
    "failed_rules",
    "review",
    "reviewed_by",
)


class NotThere(BadInput):
    """What was asked for is not in the store, or is not for this reader: which of both is not said."""


def rows(stores: OpenStores, store: OpenStore, wanted: Filter, after: str) -> dict[str, Any]:
    """Return a page of the gallery, and as ``next`` what the next one comes ``after``."""
    page = store.gallery.page(wanted, after=after or None, limit=PAGE_ROWS)
    return {
        "rows": [shown(row, has_thumbnail=stores.has_thumbnail(row, store)) for row in page.rows],
        "next": page.next,
        "searched_to": page.searched_to,
    }


def totals(store: OpenStore, wanted: Filter) -> dict[str, Any]:
    """Return the sums of what a filter wants, and what the page can be filtered by."""
    return asdict(store.gallery.totals(wanted))


def history(stores: OpenStores, store: OpenStore, uri: str, reader: Reader) -> dict[str, Any]:
    """Return all that an image ever had, newest first, with whole texts, and its address if a browser may open it."""
    found = store.visible(store.gallery.history(uri), reader)
    return {
        "rows": [shown(row, has_thumbnail=stores.has_thumbnail(row, store), is_whole=True) for row in reversed(found)],
        "link": uri if found and uri.lower().startswith("https://") else None,
    }


def thumbnail(stores: OpenStores, store: OpenStore, row_id: str, reader: Reader) -> bytes:
    """Return a small picture of a row's image, as WebP.

    :raises NotThere: if there is no such row.
    :raises NoThumbnail: if its image cannot or may not be shown.
    """
    row = store.gallery.row(row_id)
    if row is None or not store.visible([row], reader):
        raise NotThere("There is no such row in this store.")
    return stores.thumbnail(row, store)


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A task's result file: the name to save it under, and its content in pieces."""

    name: str
    folder: Folder
    path: str
    first: bytes

    def pieces(self) -> Iterator[bytes]:
        """Yield the content. Blocking."""
        piece: bytes | None = self.first
        start = 0
        while piece:
            yield piece
            start += len(piece)
            piece = self.folder.read(self.path, start, PIECE_BYTES) if len(piece) == PIECE_BYTES else None


def result_file(store: OpenStore, task: TaskInstanceKey, reader: Reader) -> ResultFile:
    """Return a task's result file, as JSON lines or, where the task has asked for it, as Parquet.

    :raises NotThere: if there is none, or it is not for this reader.
    """
    if task.dag_id in reader.readable({task.dag_id}):
        for ending in ("jsonl", "parquet"):
            path = f"{task.path('results')}.{ending}"
            first = store.folder.read(path, 0, PIECE_BYTES)
            if first is not None:
                parts = [task.dag_id, task.task_id] + ([str(task.map_index)] if task.map_index >= 0 else [])
                return ResultFile(f"{'-'.join(parts)}.{ending}", store.folder, path, first)
    raise NotThere("There are no results of this task in this store. A task writes them when it ends.")


def shown(row: Mapping[str, Any], *, has_thumbnail: bool, is_whole: bool = False) -> dict[str, Any]:
    """Return a row for the page. Without ``is_whole`` its long values are cut, and ``shortened`` tells of the text."""
    answer = {name: _sayable(row.get(name)) for name in _FIELDS}
    if error := answer["error"]:
        answer["error"] = {name: _cut(_sayable(error.get(name)), CARD_CHARS) for name in ("kind", "message")}
    text = answer["text"]
    is_long = text is not None and len(text) > CARD_CHARS
    answer["shortened"] = bool(row.get("text_is_cut")) or (is_long and not is_whole)
    if not is_whole:
        answer["text"] = _cut(text, CARD_CHARS)
        answer["prompt"] = _cut(answer["prompt"], PROMPT_CHARS)
    return answer | {"row": row["row_id"], "thumbnail": has_thumbnail}


def _cut(text: str | None, length: int) -> str | None:
    return text if text is None or len(text) <= length else f"{text[:length]}…"


def _sayable(value: Any) -> Any:
    """Return a value that UTF-8 can hold: a lone surrogate, as in an odd file name, becomes an escape."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
