"""A client to send with, and how a server that behaves would answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.client.flow import Flow
from airflow_provider_describer.client.transport import AsyncClient
from airflow_provider_describer.errors import DescriberError
from airflow_provider_describer.vendors.wire import Request, Response

if TYPE_CHECKING:
    from tests.conftest import Loopback, Visit

KEY = "sk-Very.Secret/0123+456="


async def polite(visit: Visit) -> None:
    """Answer every request on the connection."""
    while await visit.request():
        visit.answer(b'{"ok": true}')


def ask(request: Request) -> Flow[Response]:
    """The shortest flow there is."""
    response: Response = yield request
    return response


def call(url: str, body: tuple[bytes, ...] = (b"picture",), *, billable: bool = True, **about: Any) -> Request:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "text/plain"}
    return Request("POST", url, headers, body, billable=billable, secrets=(KEY,), **about)


async def send(request: Request, **settings: Any) -> Response | DescriberError:
    """Send it over a client of its own; errors are returned, as they are what is looked at."""
    async with AsyncClient(**{"timeout": 10.0, **settings}) as client:
        try:
            return await client.arun(ask(request))
        except DescriberError as error:
            return error


class Tools:
    """What the tests beside this file use, as they cannot import each other."""

    polite = staticmethod(polite)
    ask = staticmethod(ask)
    call = staticmethod(call)
    send = staticmethod(send)
    key = KEY

    def __init__(self, serve: type[Loopback]) -> None:
        self.serve = serve


@pytest.fixture
def tools(loopback: type[Loopback]) -> Tools:
    return Tools(loopback)
