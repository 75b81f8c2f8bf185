"""The addresses of the page's API, and of the download of a task's results. See `answers` for what they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse

from airflow_provider_describer.gallery import answers
from airflow_provider_describer.gallery.host import Host, Reader
from airflow_provider_describer.gallery.open_stores import OpenStore, OpenStores
from airflow_provider_describer.gallery.search import Filter
from airflow_provider_describer.store.rows import TaskInstanceKey

T = TypeVar("T")

THREADS, THUMBNAIL_THREADS = 8, 4
"""Requests that read stores, and that make thumbnails, at a time: the server's own threads stay free for others."""
Text = Annotated[str, Query(max_length=4096)]
LongText = Annotated[str | None, Query(max_length=10_000)]
Asked = Callable[[OpenStore, Reader], Filter]


def asked_rows(  # noqa: PLR0913  # the page's filters, each a parameter of its address
    *,
    q: Text = "",
    status: Text = "",
    dag_id: Text = "",
    run_id: Text = "",
    task_id: Text = "",
    map_index: int | None = None,
    vendor: Text = "",
    prompt: LongText = None,
    rule: Text = "",
    review: Text = "",
) -> Asked:
    """Return what makes the request's filter, which leaves out what the reader may not see of a store."""
    names: dict[str, Any] = {"text": q, "status": status, "dag_id": dag_id, "run_id": run_id, "task_id": task_id}
    names |= {"map_index": map_index, "vendor": vendor, "prompt": prompt, "rule": rule, "review": review}
    return lambda store, reader: Filter(**names, dag_ids=store.readable(reader))


def routes(host: Host) -> APIRouter:
    """Return the routes. All of them need a reader."""
    router = APIRouter()
    stores = OpenStores(host)
    threads, thumbnail_threads = CapacityLimiter(THREADS), CapacityLimiter(THUMBNAIL_THREADS)
    may_see = Depends(host.reader)
    filters = Depends(asked_rows)

    async def read(answer: Callable[[], T]) -> T:
        return await to_thread.run_sync(answer, limiter=threads)

    @router.get("/api/stores")
    async def named_stores(reader: Reader = may_see) -> Response:
        return JSONResponse(await read(lambda: {"stores": stores.addresses()}))

    @router.get("/api/rows")
    async def rows(store: Text, after: Text = "", asked: Asked = filters, reader: Reader = may_see) -> Response:
        def answer() -> dict[str, Any]:
            return answers.rows(stores, opened := stores.open(store), asked(opened, reader), after)

        return JSONResponse(await read(answer))

    @router.get("/api/totals")
    async def totals(store: Text, asked: Asked = filters, reader: Reader = may_see) -> Response:
        def answer() -> dict[str, Any]:
            return answers.totals(opened := stores.open(store), asked(opened, reader))

        return JSONResponse(await read(answer))

    @router.get("/api/history")
    async def history(store: Text, image: Text, reader: Reader = may_see) -> Response:
        return JSONResponse(await read(lambda: answers.history(stores, stores.open(store), image, reader)))

    @router.get("/api/thumbnail")
    async def thumbnail(store: Text, row: Text, reader: Reader = may_see) -> Response:
        def answer() -> bytes:
            return answers.thumbnail(stores, stores.open(store), row, reader)

        picture = await to_thread.run_sync(answer, limiter=thumbnail_threads)
        return Response(picture, media_type="image/webp", headers={"Cache-Control": "private, max-age=300"})

    @router.get("/results")
    async def results(
        store: Text, dag_id: Text, run_id: Text, task_id: Text, map_index: int = -1, reader: Reader = may_see
    ) -> Response:
        task = TaskInstanceKey(dag_id, run_id, task_id, map_index)
        file = await read(lambda: answers.result_file(stores.open(store), task, reader))
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name, safe='')}"}
        return StreamingResponse(file.pieces(), media_type="application/octet-stream", headers=headers)

    return router
