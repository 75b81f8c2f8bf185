"""A client to send with, and how a server that behaves would answer."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_describer.errors import DescriberError
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import Flow
from airflow_provider_describer.http.transport import ssl_context
from airflow_provider_describer.vendors.wire import Request, Response

if TYPE_CHECKING:
    from tests.conftest import Loopback, Visit

Serve = Callable[[Any], "Loopback"]

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
        return await attempt(client, request)


async def attempt(client: AsyncClient, request: Request) -> Response | DescriberError:
    """Send it over this client; errors are returned, as they are what is looked at."""
    try:
        return await client.arun(ask(request))
    except DescriberError as error:
        return error


def send_once(serve: Serve, talk: Any, *body: bytes, timeout: float = 10.0) -> tuple[Any, Loopback]:
    """Send a billable call to such a server, and return what came of it."""

    async def scene() -> tuple[Any, Loopback]:
        async with serve(talk) as server:
            return await send(call(server.url, body), timeout=timeout), server

    return asyncio.run(scene())


class Tools:
    """What the tests beside this file use, as they cannot import each other."""

    polite = staticmethod(polite)
    ask = staticmethod(ask)
    call = staticmethod(call)
    send = staticmethod(send)
    key = KEY
    attempt = staticmethod(attempt)
    send_once = staticmethod(send_once)

    def __init__(self, serve: type[Loopback]) -> None:
        self.serve = serve


@pytest.fixture
def tools(loopback: type[Loopback]) -> Tools:
    return Tools(loopback)


NAME = "cdn.shop.example"


class Names:
    """The machine's resolver, asked for names; addresses are still its own business."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[list[str]] = []
        self.asked = 0
        self.was_asked = threading.Event()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: Any, port: Any, *args: Any, **settings: Any) -> Any:
        if host != NAME:
            return self._real(host, port, *args, **settings)
        if settings.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not an address")
        self.asked += 1
        self.was_asked.set()
        addresses = self.answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


class Authority:
    """Signs certificates; trusted by whoever is told to (`trusted`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of these tests")])
        own = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.file = self._keep("authority", own)

    def server(self, *names: str) -> ssl.SSLContext:
        """What a server needs that these host names and addresses belong to."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of these tests")])
        signed = self._sign(subject, key, x509.SubjectAlternativeName([_general_name(name) for name in names]))
        secret = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, secret, serialization.NoEncryption())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._keep("-".join(names).replace(":", "."), signed, pem))
        return context

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, about: x509.ExtensionType) -> x509.Certificate:
        now = datetime.now(UTC)
        signs = isinstance(about, x509.BasicConstraints)
        usage = x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(about, critical=signs)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _keep(self, name: str, certificate: x509.Certificate, key: bytes = b"") -> Path:
        path = self._folder / f"{name}.pem"
        path.write_bytes(key + certificate.public_bytes(serialization.Encoding.PEM))
        return path


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """The machine trusts that authority, and as long as this lasts no other."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    ssl_context.cache_clear()
    yield authority
    ssl_context.cache_clear()


@pytest.fixture(params=["plain", "tls"])
def serve(tools: Tools, trusted: Authority, request: pytest.FixtureRequest) -> Serve:
    """Servers without and with TLS."""
    tls = trusted.server("127.0.0.1") if request.param == "tls" else None
    return lambda talk: tools.serve(talk, tls)
