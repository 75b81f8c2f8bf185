"""The hook: describes images through an Airflow connection of any vendor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from types import new_class
from typing import Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException, BaseHook

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.arguments import is_none
from airflow_provider_describer.engine.single import describe_one
from airflow_provider_describer.engine.task_arguments import read_arguments
from airflow_provider_describer.errors import BadConnection, DescriberError, UnexpectedAnswer
from airflow_provider_describer.hooks.connection import aread_connection, read_connection
from airflow_provider_describer.hooks.form import form_of_3_1
from airflow_provider_describer.hooks.storage import buckets_of, open_ahead
from airflow_provider_describer.http.client import AsyncClient, in_event_loop, run
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.http.retry import RetryPolicy
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.images.reference import parse_image
from airflow_provider_describer.images.trust import Trust, guard_of
from airflow_provider_describer.models import Description
from airflow_provider_describer.vendors import get_vendor, vendors
from airflow_provider_describer.vendors.vendor import Vendor

T = TypeVar("T")


class DescriberHook(BaseHook):
    """Describes images through a connection; its type (``image_describer``, ``segmind``) names the vendor.

    It raises the errors of :mod:`airflow_provider_describer.errors`.

    :param describer_conn_id: the Airflow connection.
    :param policy: how calls are retried; by default five attempts, and never a call whose answer was lost.
    :param transport: an ``httpx.AsyncBaseTransport`` such as ``httpx.MockTransport``, for tests.
    """

    conn_name_attr = "describer_conn_id"
    default_conn_name = "image_describer_default"
    conn_type = "image_describer"
    hook_name = "Image Describer"

    def __init_subclass__(cls, vendor: str | None = None, **kwargs: Any) -> None:
        """Give the hook of a vendor its connection type, its name, its default connection and its form."""
        super().__init_subclass__(**kwargs)
        if vendor is not None:
            cls.conn_type, cls.hook_name = vendor, get_vendor(vendor).title
            cls.default_conn_name = f"{vendor}_default"
            for name, method in form_of_3_1(vendor).items():
                setattr(cls, name, method)

    def __init__(
        self,
        describer_conn_id: str | None = None,
        *,
        policy: RetryPolicy | None = None,
        transport: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.describer_conn_id = describer_conn_id or self.default_conn_name
        self.policy = policy or RetryPolicy()
        self._transport = transport
        self._account: Account | None = None

    @property
    def account(self) -> Account:
        """The connection, parsed and checked.

        :raises BadConnection: naming the connection, the field and the fix.
        """
        if self._account is None:
            self._account = _account_of(self.describer_conn_id, read_connection(*self._named))
        return self._account

    async def aload(self) -> Account:
        """Return :attr:`account` in a trigger or an async task, where connections are read without blocking."""
        if self._account is None:
            self._account = _account_of(self.describer_conn_id, await aread_connection(*self._named))
        return self._account

    @property
    def _named(self) -> tuple[str, str, str]:
        """The connection, the argument that names it, and the type that it would probably have."""
        conn_id = self.describer_conn_id
        conn_type = next((name for name in vendors() if name in conn_id.lower()), self.conn_type)
        return conn_id, f"{self.conn_name_attr} is {conn_id!r}", conn_type

    @property
    def vendor(self) -> Vendor:
        """The vendor that the connection's type names, with the model that the connection names."""
        return get_vendor(self.account.vendor).configured(self.account)

    def vendor_calls(self, policy: RetryPolicy | None = None) -> VendorCalls:
        """Return the vendor, the account and the retry policy of all calls through this hook."""
        return VendorCalls(self.vendor, self.account, policy or self.policy)

    def client(self, connections: int = 1, *, timeout: float = inf) -> AsyncClient:
        """Return a new HTTP client for the vendor, with the connection's timeout, or with a shorter one."""
        seconds = min(timeout, self.account.timeout)
        return AsyncClient(timeout=seconds, connections=connections, transport=self._transport)

    def image_client(self) -> AsyncClient:
        """Return a new HTTP client for images, which connects only to addresses that the connection allows."""
        guard = guard_of(self.account.allow_private_hosts)
        return AsyncClient(timeout=self.account.timeout, transport=self._transport, guard=guard)

    @property
    def new_client(self) -> Callable[[int], AsyncClient] | None:
        """What makes the clients of a job; None for the job's own."""
        return self.client if self._transport else None

    def describe(
        self, image: Any, *, prompt: str | None = None, lang: str | None = None, storage_conn_id: str | None = None
    ) -> Description:
        """Describe one image with one billable call, within the connection's limits. Blocking.

        Without a ``limits_path``, all hooks of the connection in this process count together. A wait for the rate up to
        the policy's ``max_wait`` is sat out.

        Text that a template renders is read as the operators read it: a ``prompt`` of ``None`` is no prompt.

        :param image: a uri or path, or a dict ``{"uri", "prompt"?, "lang"?, "fields"?}``.
        :param prompt: what to say about it; by default the vendor's own wording. Segmind's model takes none.
        :param lang: the language of the description; English by default.
        :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform`` for ``s3://`` and ``gs://``.
        :raises RateLimited: where the wait is longer, or the day's money is spent: nothing was sent, and ``retry_at``
            says when it works again.
        :raises DescriberError: its class says what to do.
        """
        return self._blocking(lambda: self.adescribe(image, prompt=prompt, lang=lang, storage_conn_id=storage_conn_id))

    async def adescribe(
        self, image: Any, *, prompt: str | None = None, lang: str | None = None, storage_conn_id: str | None = None
    ) -> Description:
        """Describe one image as :meth:`describe` does, in a running event loop."""
        asked = {"image": image, "prompt": prompt, "storage_conn_id": storage_conn_id}
        given = read_arguments(asked if is_none(lang) else {**asked, "lang": lang}, now=0.0)
        account = await self.aload()
        self.warn_of_ignored(given.prompt)
        vendor_calls = self.vendor_calls()
        open_bucket = buckets_of(given.storage_conn_id)
        lang = getattr(given, "lang", vendor_calls.vendor.default_lang)
        request = parse_image(given.image, vendor_calls.vendor, prompt=given.prompt, lang=lang)
        # Reading the storage connection blocks, perhaps on the network.
        await asyncio.to_thread(open_ahead, open_bucket, [account.limits_path, request.image.uri])
        async with self.client() as client, self.image_client() as images:
            reader = Reader(images, trust=Trust(None, account.allow_private_hosts), open_bucket=open_bucket)
            return await describe_one(vendor_calls, request, reader, client, open_bucket)

    def warn_of_ignored(self, prompt: str | None) -> None:
        """Log a warning if the vendor ignores prompts."""
        if prompt is not None and self.vendor.default_prompt is None:
            self.log.warning("%s's %s takes no prompt: it is ignored.", self.vendor.title, self.vendor.model)

    def credits(self) -> float:
        """Return the account's balance in USD. Never billed.

        :raises BadInput: for a vendor that publishes none (Image Describer).
        """
        return self._blocking(self.acredits)

    async def acredits(self) -> float:
        """Return the balance as :meth:`credits` does, in a running event loop."""
        await self.aload()
        async with self.client() as client:
            return await client.arun(self.vendor_calls().credits())

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the key works, and a sentence about it. Never billed, never raises."""
        works = False
        try:
            works, message = True, self._blocking(self._acheck)
        except UnexpectedAnswer as error:
            message = f"{error} Is {self.account.base_url} the vendor's API? It is the host of the connection."
        except (DescriberError, AirflowException) as error:
            # Airflow's own errors: the connection is missing, or a field of it cannot be decrypted.
            message = str(error)
        # Airflow's test button makes up a connection id.
        name = f"onnection {self.describer_conn_id!r}"
        return works, message.replace(f"C{name}", "This connection").replace(f"c{name}", "this connection")

    async def _acheck(self) -> str:
        async with self.client() as client:
            return await client.arun(self.vendor_calls().check())

    def _blocking(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run async work from blocking code, with the connection already read in the blocking way."""
        if not in_event_loop():
            _ = self.account
        try:
            # In an event loop this raises an error that says to await the async method.
            return run(work())
        except DescriberError as error:
            # A task's log shows the traceback: our own frames, and errors behind this one, say nothing more.
            self.log.debug("%s", type(error).__name__, exc_info=error)
            raise error.with_traceback(None) from None


class ImageDescriberHook(DescriberHook, vendor="image_describer"):
    """Connections of type ``image_describer``."""


class SegmindHook(DescriberHook, vendor="segmind"):
    """Connections of type ``segmind``."""


def __getattr__(name: str) -> type[DescriberHook]:
    """Return the hook class of a vendor that has none above: the one that the vendor's ``hook_class`` names."""
    for vendor in vendors().values():
        if vendor.hook_class == name:
            hook = new_class(name, (DescriberHook,), {"vendor": vendor.name})
            hook.__module__, hook.__doc__ = __name__, f"Connections of type ``{vendor.name}``."
            globals()[name] = hook
            return hook
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _account_of(conn_id: str, connection: Any) -> Account:
    if connection.conn_type not in vendors():
        raise BadConnection(
            f"Connection {conn_id!r}: its type is {connection.conn_type!r}, expected one of {', '.join(vendors())}. "
            "Choose the type under Admin > Connections."
        )
    return account_from_connection(
        get_vendor(connection.conn_type).defaults(),
        conn_id=conn_id,
        password=connection.password,
        host=connection.host,
        schema=connection.schema,
        port=connection.port,
        extra=connection.extra,
    )
