"""The page's own server on loopback, below a path as in Airflow, for visitors who are named by a cookie."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import uvicorn
from fastapi import HTTPException, Request
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from airflow_provider_describer.gallery.app import create_app
from airflow_provider_describer.gallery.host import Host, NoAccess
from airflow_provider_describer.storage.open_bucket import OpenBucket


@dataclass(frozen=True)
class Dags:
    """Someone who may read these DAGs; all if there are none."""

    dag_ids: frozenset[str] = frozenset()

    def readable(self, dag_ids: Collection[str]) -> frozenset[str]:
        return frozenset(dag_ids) & self.dag_ids if self.dag_ids else frozenset(dag_ids)


def reader(request: Request) -> Dags:
    """Who asks is in a cookie: ``nobody`` has no right, ``red`` reads one DAG, and ``admin`` all."""
    match request.cookies.get("who"):
        case "admin":
            return Dags()
        case "red":
            return Dags(frozenset({"red"}))
        case "nobody":
            raise NoAccess("This page needs the right to read Airflow's plugins.")
        case _:
            raise HTTPException(401)


@contextmanager
def served(stores: str, images: str = "") -> Iterator[str]:
    """Serve the page below a path, as Airflow does; yield its address."""

    def unopened(conn_id: str | None) -> OpenBucket:
        def open_bucket(scheme: str, name: str) -> NoReturn:
            raise AssertionError(f"{scheme}://{name} was opened")

        return open_bucket

    host = Host(
        reader=reader,
        login=lambda back_to: f"/auth/login?next={back_to}",
        stores=lambda: stores,
        images=lambda: images,
        open_bucket=unopened,
    )

    async def login(request: Request) -> Response:
        return HTMLResponse("<title>Login</title><h1>Log in to Airflow</h1>")

    app = Starlette(routes=[Route("/auth/login", login), Mount("/airflow/describer", create_app(host))])
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/airflow/describer/"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
