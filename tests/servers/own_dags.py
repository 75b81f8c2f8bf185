"""An auth manager for tests: a user of the role "viewer" may read the DAGs that begin with the user's own name only."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser


class OwnDags(SimpleAuthManager):
    """Airflow's simple auth manager with a right for each DAG."""

    def is_authorized_dag(
        self, *, user: SimpleAuthManagerUser, details: DagDetails | None = None, **others: Any
    ) -> bool:
        own = user.role == "ADMIN" or (details is not None and (details.id or "").startswith(user.username))
        return own and super().is_authorized_dag(user=user, details=details, **others)
