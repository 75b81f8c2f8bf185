"""The page *Descriptions* of Airflow's UI, under Browse: the images of a store with their texts and their cost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
"""An ASGI application."""

PREFIX = "/describer"
"""Where the page is, below the ``[api] base_url``."""


class AppOnDemand:
    """An ASGI application that is built at its first request, in a thread: what it imports takes a second."""

    def __init__(self, build: Callable[[], App]) -> None:
        self._build = build
        self._lock = threading.Lock()
        self._app: App | None = None

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        app = self._app
        if app is None:
            app = await asyncio.to_thread(self._built)
        await app(scope, receive, send)

    def _built(self) -> App:
        with self._lock:
            if self._app is None:
                self._app = self._build()
            return self._app


def _build_app() -> App:
    from airflow_provider_describer.plugins.page import build_app

    return build_app()


class DescriberPlugin(AirflowPlugin):
    """Adds the page *Descriptions*. Airflow finds it by the entry point ``airflow.plugins``.

    It is not in the provider's information: Airflow loads plugins from there only where providers are not discovered
    lazily, and then a second time.
    """

    name = "describer"
    fastapi_apps = [{"app": AppOnDemand(_build_app), "url_prefix": PREFIX, "name": "Describer"}]  # noqa: RUF012  # as Airflow's
    external_views = [  # noqa: RUF012  # as Airflow's
        {
            "name": "Descriptions",
            # Relative to the UI's own address, which may be below a path.
            "href": f"{PREFIX.removeprefix('/')}/",
            "destination": "nav",
            "category": "browse",
            "url_route": PREFIX.removeprefix("/"),
            "icon": f"{PREFIX.removeprefix('/')}/assets/icon.svg",
            "icon_dark_mode": f"{PREFIX.removeprefix('/')}/assets/icon_dark.svg",
        }
    ]
