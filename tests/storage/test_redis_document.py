"""Addresses of a Redis, and what goes wrong there: errors name the server, say what to do, and show no secret."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Answer, LoopbackServer
from redis_server import RedisServer

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.storage import redis_document
from airflow_provider_describer.storage.address import masked, parse_shared_folder, parse_uri
from airflow_provider_describer.storage.cas_document import is_transient
from airflow_provider_describer.storage.redis_document import KEY_PREFIX, RedisDocument, parse_redis_address

SECRET = "p4/ss?w@rd#%"
ENCODED = "p4%2Fss%3Fw%40rd%23%25"


def document(url: str, name: str = "shop.json") -> RedisDocument:
    return RedisDocument(parse_redis_address("limits_path", url), name)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://cache", "redis://cache:6379/0"),
        (" redis://cache:7000/ ", "redis://cache:7000/0"),
        (f"REDIS://:{ENCODED}@cache.example.com/3", "redis://cache.example.com:6379/3"),
        (f"rediss://us%40er:{ENCODED}@[::1]:7000/15?ssl_ca_certs=/ca.pem", "rediss://[::1]:7000/15"),
    ],
)
def test_an_address_is_read_and_shown_without_its_secrets(url: str, shown: str) -> None:
    found = parse_redis_address("limits_path", url)
    assert str(found) == shown
    assert found.password == (SECRET if ENCODED in url else None)
    assert found.user == ("us@er" if "us%40er" in url else None)
    assert SECRET not in repr(found) and "us@er" not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis:///0",
        f"redis:/:{SECRET}@cache",
        f"redis://:{SECRET}@cache/0",
        "redis://cache:port/0",
        "redis://cache:0/0",
        "redis://cache:70000",
        "redis://cache/limits",
        "redis://cache/0/limits",
        "redis://cache/-1",
        "redis://ca che/0",
        "redis://cache/0#x",
        "redis://cache/0?db=1",
        "redis://cache/0?ssl_ca_certs=/ca.pem",
        f"rediss://cache/0?password={ENCODED}",
        "rediss://cache/0?ssl_cert_reqs=maybe",
        "rediss://[cache/0",
    ],
)
def test_an_address_that_cannot_work_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(BadInput, match=r"^limits_path is no address of a Redis server: expected redis://") as caught:
        parse_redis_address("limits_path", url)
    assert "p4" not in str(caught.value) and "cache" not in str(caught.value)


@pytest.mark.parametrize(
    "url", [f"redis://:{SECRET}@cache/0", f"Rediss://u:{SECRET}@cache", f"redis:/u:{SECRET}@cache"]
)
def test_a_store_or_an_image_on_a_redis_is_a_clear_error(url: str) -> None:
    with pytest.raises(BadInput, match=r"^store is an address of a Redis server.*limits_path") as store:
        parse_shared_folder("store", url)
    assert "p4" not in str(store.value) and "p4" not in masked(url)
    if "://" in url:
        with pytest.raises(BadInput, match="images are read from local paths") as image:
            parse_uri(url)
        assert "p4" not in str(image.value)


def test_without_redis_py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(BadInput, match=r"^redis://cache:6379/0 needs the package redis: pip install '.*\[redis\]'"):
        document(f"redis://:{ENCODED}@cache")


USERS = (
    f"requirepass {SECRET}",
    f"user reader on >{SECRET} ~{KEY_PREFIX}* +get",
    f"user describer on >{SECRET} ~{KEY_PREFIX}* +get +set +eval",
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A Redis with a password, whose outages are short."""
    monkeypatch.setattr(redis_document, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(redis_document, "TIMEOUT_S", 0.3)
    with RedisServer(tmp_path / "redis", *USERS) as server:
        yield server


def test_a_user_with_the_rights_that_the_docs_name(server: RedisServer) -> None:
    ours = document(server.at(f"describer:{ENCODED}"))
    assert ours.load() == (None, None)
    token = ours.swap(b"x", None)
    assert ours.load() == (b"x", token)
    ours.close()


@pytest.fixture
def admin(server: RedisServer) -> Iterator[Any]:
    client = server.client(password=SECRET)
    yield client
    client.close()


def fails(action: Callable[[], object], kind: str, words: str, server: RedisServer, *, passes: bool = False) -> None:
    with pytest.raises(StoreError, match=words) as caught:
        action()
    message = str(caught.value)
    assert caught.value.kind == kind and is_transient(caught.value) is passes
    assert message.startswith(f"redis://127.0.0.1:{server.port}/")
    assert "p4" not in message and "reader" not in message and caught.value.__cause__ is None


@pytest.mark.parametrize("login", ["", ":wrong-p4@", f"nobody:{ENCODED}@"])
def test_a_wrong_login(server: RedisServer, login: str) -> None:
    wrong = document(server.url.replace("://", f"://{login}"))
    for action in (wrong.load, lambda: wrong.swap(b"x", None)):
        fails(action, "bad_credentials", r"did not accept the user and password.*limits_path", server)
    wrong.close()


def test_a_user_without_the_right_to_write(server: RedisServer) -> None:
    reader = document(server.at(f"reader:{ENCODED}"))
    assert reader.load() == (None, None)
    fails(lambda: reader.swap(b"x", None), "denied", r"written: .*GET, SET and EVAL for the keys", server)
    reader.close()


def test_what_a_server_refuses_leaves_the_old_document(server: RedisServer, admin: Any) -> None:
    ours = document(server.at(f":{ENCODED}"))
    token = ours.swap(b"old", None)

    def write() -> None:
        ours.swap(b"new", token)

    admin.config_set("maxmemory", "1")
    fails(write, "no_space", r"memory is full.*maxmemory", server)
    admin.config_set("maxmemory", "0")
    admin.config_set("min-replicas-to-write", 1)
    fails(write, "unreachable", r"cannot answer yet \(NOREPLICAS.*Try again", server, passes=True)
    admin.config_set("min-replicas-to-write", 0)
    admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    fails(write, "denied", r"read-only replica.*primary", server)
    admin.execute_command("REPLICAOF", "NO", "ONE")
    assert ours.load() == (b"old", token)
    ours.close()


def test_a_key_of_another_type_is_no_absent_document(server: RedisServer, admin: Any) -> None:
    admin.lpush(f"{KEY_PREFIX}shop.json", "x")
    ours = document(server.at(f":{ENCODED}"))
    for action in (ours.load, lambda: ours.swap(b"x", None)):
        fails(action, "corrupt_limits", r"holds a list.*database of their own", server)
    assert admin.lrange(f"{KEY_PREFIX}shop.json", 0, -1) == [b"x"]
    ours.close()


def test_a_database_that_is_not_there(server: RedisServer) -> None:
    with pytest.raises(StoreError, match=r"/99 \(key .* cannot be read: .*DB index is out of range"):
        document(server.at(f":{ENCODED}").replace("/0", "/99")).load()


def test_a_server_that_does_not_answer_is_no_absent_document(server: RedisServer) -> None:
    ours = document(server.at(f":{ENCODED}"))
    token = ours.swap(b"old", None)
    server.freeze()
    fails(ours.load, "unreachable", r"read: no answer from the server \(Timeout", server, passes=True)
    server.thaw()
    assert ours.load() == (b"old", token)
    server.kill()
    fails(ours.load, "unreachable", r"no answer .*refused.*host, port", server, passes=True)
    fails(lambda: ours.swap(b"x", token), "unreachable", r"written: no answer", server, passes=True)
    server.start()
    assert ours.load() == (b"old", token)
    ours.close()


def test_it_connects_when_it_is_used_and_leaves_no_connection(server: RedisServer, admin: Any) -> None:
    def connections() -> int:
        return len(admin.client_list())

    before = connections()
    ours = document(server.at(f":{ENCODED}"))
    assert connections() == before
    for _ in range(2):
        ours.load()
        assert connections() == before + 1
        ours.close()
        assert connections() == before


class Web(LoopbackServer):
    """Answers everything with its own request, as a careless proxy may."""

    def answer(self, request: Any) -> Answer:
        return Answer(400, request.target.encode())


def test_a_server_that_is_no_redis_is_an_error_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_document, "FIRST_PAUSE_S", 0.01)
    with Web() as web, pytest.raises(StoreError, match=rf"^redis://127\.0\.0\.1:{web.port}/0 ") as caught:
        document(f"redis://u:{ENCODED}@127.0.0.1:{web.port}").load()
    assert SECRET not in str(caught.value)


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_document, "FIRST_PAUSE_S", 0.01)
    certificate = made_certificate(tmp_path / "server.pem")
    with RedisServer(tmp_path / "redis", tls=certificate) as server:
        ours = document(f"{server.url}?ssl_ca_certs={certificate}")
        assert ours.load() == (None, None)
        ours.swap(b"x", None)
        other = document(f"{server.url}?ssl_cert_reqs=none")
        assert other.load()[0] == b"x"
        for wrong, words in ((server.url, "CERTIFICATE_VERIFY_FAILED"), (server.url.replace("rediss", "redis"), "TLS")):
            with pytest.raises(StoreError, match=words):
                document(wrong).load()
        ours.close()
        other.close()


def made_certificate(path: Path) -> Path:
    """Write a key and a certificate for 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis of a test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(plain + built.public_bytes(pem))
    return path
