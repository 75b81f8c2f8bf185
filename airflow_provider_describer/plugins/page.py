"""The page's app as Airflow's API server runs it: behind Airflow's login and rights, with its settings and connections.

Imported at the first request for the page, and in no other component.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated
from urllib.parse import urlencode

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.team import Team
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI
from sqlalchemy import select

from airflow_provider_describer.gallery.app import create_app
from airflow_provider_describer.gallery.host import Host, NoAccess
from airflow_provider_describer.hooks.storage import buckets_of

SECTION = "describer"


def build_app() -> FastAPI:
    """Return the app of the page and its API."""
    return create_app(
        Host(
            reader=reader,
            login=login,
            stores=lambda: str(conf.get(SECTION, "stores", fallback="") or ""),
            images=lambda: str(conf.get(SECTION, "images", fallback="") or ""),
            open_bucket=buckets_of,
        )
    )


class AirflowReader:
    """A logged-in user of Airflow who may see the page."""

    def __init__(self, user: BaseUser) -> None:
        self._user = user

    def readable(self, dag_ids: Collection[str]) -> frozenset[str]:
        """Return which of these DAGs the user may read: asked of Airflow's auth manager, with each DAG's team.

        A DAG that Airflow does not know any more belongs to no team: where there are teams, nobody may read it.
        """
        if not dag_ids:
            return frozenset()
        manager, teams = get_auth_manager(), _teams(dag_ids)
        has_teams = conf.getboolean("core", "multi_team", fallback=False)
        shared = {dag_id for dag_id in dag_ids if teams.get(dag_id) is None and (dag_id in teams or not has_teams)}
        allowed = manager.filter_authorized_dag_ids(dag_ids=shared, user=self._user, method="GET")
        # Airflow 3.1 asks of many DAGs at once without their teams only.
        for dag_id, team in teams.items():
            details = DagDetails(id=dag_id, team_name=team)
            if team and manager.is_authorized_dag(method="GET", details=details, user=self._user):
                allowed.add(dag_id)
        return frozenset(allowed)


def _teams(dag_ids: Collection[str]) -> dict[str, str | None]:
    """Return the team of each DAG that Airflow knows; None for one that every team shares."""
    wanted = (
        select(DagModel.dag_id, Team.name)
        .join(DagBundleModel, DagModel.bundle_name == DagBundleModel.name, isouter=True)
        .join(DagBundleModel.teams, isouter=True)
        .where(DagModel.dag_id.in_(list(dag_ids)))
    )
    with create_session() as session:
        return {row[0]: row[1] for row in session.execute(wanted)}


def reader(user: Annotated[BaseUser, Depends(get_user)]) -> AirflowReader:
    """Return who asks. Airflow itself refuses a request without a valid token.

    :raises NoAccess: for a user who may not read Airflow's plugins, to whom the UI does not show the page either.
    """
    if not get_auth_manager().is_authorized_view(access_view=AccessView.PLUGINS, user=user):
        raise NoAccess("This page needs the right to read Airflow's plugins. Ask an administrator of Airflow for it.")
    return AirflowReader(user)


def login(back_to: str) -> str:
    """Return the address of Airflow's login form, which then leads to this path."""
    address = get_auth_manager().get_url_login()
    return f"{address}{'&' if '?' in address else '?'}{urlencode({'next': back_to})}"
