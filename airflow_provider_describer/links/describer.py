"""Links of a task: to its descriptions and its result file on the describer's page, and to the vendor's dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

from airflow_provider_describer.storage.address import masked

if TYPE_CHECKING:
    from airflow_provider_describer.store.rows import TaskInstanceKey

PAGE = "/describer/"
"""Where the API server has the describer's page, below its base URL."""


class TaskLink(BaseOperatorLink):
    """A link whose address the running task finds; see `show_links`.

    Airflow asks for the address when the task ends, defers or is rescheduled, and keeps the answer in XCom. The API
    server reads only that.
    """

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address that the task has found; empty where it has none, and then no link is shown."""
        address: str = getattr(operator, "link_addresses", {}).get(self.name, "")
        return address


class DescriptionsLink(TaskLink):
    """The page with the descriptions of this task instance; of a task that only lists images, those of its DAG run."""

    name = "Descriptions"


class ResultsLink(TaskLink):
    """The result file of this task instance, once it has been written."""

    name = "Results"


class VendorLink(TaskLink):
    """The dashboard of the connection's vendor."""

    name = "Vendor"


def link_addresses(
    base_url: str,
    run: TaskInstanceKey,
    *,
    store: str | None = None,
    dashboard: str | None = None,
    has_results: bool = False,
    whole_run: bool = False,
) -> dict[str, str]:
    """Return the addresses that are known, each by the name of its link.

    :param base_url: of the API server; if empty, the addresses begin with ``/`` and lead to the server that shows them.
    :param run: the task instance.
    :param store: the description store, or None.
    :param dashboard: the address of the vendor's dashboard, or None.
    :param has_results: whether the task instance's result file has been written.
    :param whole_run: lead to the descriptions of the whole DAG run.
    """
    found = {} if dashboard is None else {VendorLink.name: dashboard}
    if store is None:
        return found
    asked: dict[str, str | int] = {"store": masked(store), "dag_id": run.dag_id, "run_id": run.run_id}
    if not whole_run:
        asked["task_id"] = run.task_id
        if run.map_index >= 0:
            asked["map_index"] = run.map_index
    page, query = f"{base_url.rstrip('/')}{PAGE}", urlencode(asked)
    found[DescriptionsLink.name] = f"{page}?{query}"
    if has_results:
        found[ResultsLink.name] = f"{page}results?{query}"
    return found


def show_links(task: Any, run: TaskInstanceKey, **known: Any) -> None:
    """Give a running task's links their addresses, and show those that are new while it goes on running.

    :param task: the operator, which has the links in ``operator_extra_links``.
    :param known: as `link_addresses` takes it: ``store``, ``dashboard``, ``has_results``, ``whole_run``.
    """
    base_url = conf.get("api", "base_url", fallback="") or ""
    before: dict[str, str] = getattr(task, "link_addresses", {})
    task.link_addresses = link_addresses(base_url, run, **known)
    for link in task.operator_extra_links:
        address = task.link_addresses.get(link.name, "")
        if address != before.get(link.name, ""):
            _push(task, run, link, address)


def _push(task: Any, run: TaskInstanceKey, link: BaseOperatorLink, address: str) -> None:
    """Put the address where the API server looks for it, past any XCom backend, as Airflow does at the task's end."""
    from airflow.sdk.bases.xcom import BaseXCom

    try:
        BaseXCom.set(
            link.xcom_key,
            address,
            dag_id=run.dag_id,
            run_id=run.run_id,
            task_id=run.task_id,
            map_index=run.map_index,
        )
    except Exception as error:  # noqa: BLE001  no link is worth a task that has not paid for anything yet
        task.log.warning("The link %s is shown when the task ends, as XCom cannot be written now: %s", link.name, error)
