"""A DAG whose tasks use the hook themselves, with connections from the metadata database."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from airflow_provider_describer.errors import DescriberError
from airflow_provider_describer.hooks.describer import DescriberHook


@dag(params={"image": "", "conn_id": "", "broken": []})
def hooked() -> None:
    @task
    def blocking(params: dict[str, Any]) -> str:
        return DescriberHook(params["conn_id"]).describe(params["image"]).text

    @task
    def complaints(params: dict[str, Any]) -> list[str]:
        def complaint(conn_id: str) -> str:
            try:
                DescriberHook(conn_id).describe(params["image"])
            except DescriberError as error:
                return f"{type(error).__name__}: {error}"
            return "none"

        return [complaint(conn_id) for conn_id in params["broken"]]

    blocking()
    complaints()


hooked_dag = hooked()
