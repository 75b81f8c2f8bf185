"""One document on a Redis server: a key, which a script replaces only while it holds what was read."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.storage.address import is_redis
from airflow_provider_describer.storage.cas_document import (
    CasDocument,
    Changed,
    Token,
    is_transient,
    open_document,
)
from airflow_provider_describer.storage.open_bucket import OpenBucket

if TYPE_CHECKING:
    from redis import Redis

KEY_PREFIX = "airflow-provider-describer:"
"""Before a document's name: other programs may use the same database."""
TIMEOUT_S = 5.0
"""Seconds for connecting, and for each answer."""
TRIES, FIRST_PAUSE_S = 4, 0.2
"""Tries of a command while the server cannot be reached; the longest pause after the first, then three times it."""
_SWAP = """
if redis.call('GET', KEYS[1]) ~= (ARGV[2] or false) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
"""GET returns false where there is no such key. A server runs no other command during a script."""
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
_EXPECTED = (
    "expected redis://user:password@host:6379/0, or rediss:// for TLS; user, password, port and database may be left "
    f"out, and only rediss:// takes options, which are {', '.join(_TLS_OPTIONS)} (none, optional or required). In user "
    "and password, write %2F for '/', %3F for '?', %23 for '#', %40 for '@' and %25 for '%'."
)
_MAY_PASS = ("BusyLoadingError", "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS")
_REFUSALS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("AuthenticationError", "AuthenticationWrongNumberOfArgsError", "NOAUTH", "WRONGPASS"),
        "bad_credentials",
        "the server did not accept the user and password. Correct them in limits_path (redis://user:password@host)",
    ),
    (
        ("NoPermissionError", "NOPERM"),
        "denied",
        f"the user lacks rights there. It needs the commands GET, SET and EVAL for the keys {KEY_PREFIX}*",
    ),
    (
        ("WRONGTYPE",),
        "corrupt_limits",
        "the key holds a list, a hash or the like, so another program uses it. Give the limits a database of their own",
    ),
    (("ReadOnlyError", "READONLY"), "denied", "the server is a read-only replica. Name its primary server instead"),
    (
        ("OutOfMemoryError", "OOM"),
        "no_space",
        "the server's memory is full. Raise its maxmemory, or remove other data",
    ),
    (("MISCONF",), "no_space", "the server cannot save its data to disk. See the server's log"),
    (
        ("MovedError", "AskError", "MOVED", "ASK", "ClusterCrossSlotError"),
        "unsupported",
        "the server is one node of a cluster, and the key is on another one. Name a server outside a cluster",
    ),
    (_MAY_PASS, "unreachable", "the server cannot answer yet ({detail}). Try again later"),
    (
        ("ConnectionError", "TimeoutError"),
        "unreachable",
        "no answer from the server ({detail}). Check host, port and whether it wants rediss:// (TLS), or try again",
    ),
)
"""What an error's class or the server's own word means: the kind, and what to do."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis server is, and who logs in. Its text leaves user, password and options out."""

    scheme: str
    host: str
    port: int
    database: int
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    options: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/{self.database}"


def parse_redis_address(argument: str, url: str) -> RedisAddress:
    """Return what a redis:// or rediss:// address says.

    :param argument: what messages call it.
    :raises BadInput: for any other; the message does not show it, as it may hold a password.
    """
    wrong = BadInput(f"{argument} is no address of a Redis server: {_EXPECTED}")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else ())
    except ValueError:
        raise wrong from None
    allowed = _TLS_OPTIONS if parts.scheme == "rediss" else ()
    fits = (
        parts.scheme in ("redis", "rediss")
        and re.fullmatch(r"[\w.:-]{1,253}", parts.hostname or "", re.ASCII)
        and port != 0
        and re.fullmatch(r"(/[0-9]{0,5})?", parts.path)
        and not parts.fragment
        and options.keys() <= set(allowed)
        and options.get("ssl_cert_reqs", "none") in ("none", "optional", "required")
    )
    if not fits:
        raise wrong
    return RedisAddress(
        parts.scheme,
        parts.hostname or "",
        port or 6379,
        int(parts.path.strip("/") or 0),
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
        options,
    )


def open_shared_document(argument: str, place: str, name: str, open_bucket: OpenBucket | None) -> CasDocument:
    """Return the document of that name in a folder as `open_document` does, or on a Redis server; nothing is read yet.

    :raises BadInput: as `open_document`; for an address that is none, and where redis-py is not installed.
    """
    if is_redis(place):
        return RedisDocument(parse_redis_address(argument, place), name)
    return open_document(argument, place, name, open_bucket, others=("redis://", "rediss://"))


class RedisDocument:
    """A key of a Redis server, shared by all machines. Its content is its token.

    It connects when it is first used, and again after `close`.
    """

    write_interval, poll_interval = 0.02, 0.25

    def __init__(self, address: RedisAddress, name: str) -> None:
        self._address, self._key = address, f"{KEY_PREFIX}{name}"
        self.where = f"{address} (key {self._key!r})"
        self._client = _client(address)

    def load(self) -> tuple[bytes | None, Token]:
        content = self._run("read", lambda: self._client.get(self._key))
        return content, content

    def swap(self, content: bytes, token: Token) -> Token:
        values = (content,) if token is None else (content, token)
        if not self._run("written", lambda: self._client.eval(_SWAP, 1, self._key, *values)):
            # Or it was written by the try before this one, whose answer was lost.
            raise Changed
        return content

    def close(self) -> None:
        self._client.close()

    def _run(self, doing: str, command: Callable[[], Any]) -> Any:
        """Run a command, and again while the server cannot be reached."""
        from redis.exceptions import RedisError

        pause = FIRST_PAUSE_S
        for number in range(1, TRIES + 1):
            try:
                return command()
            except (RedisError, OSError, UnicodeError) as error:
                failure = self._failure(error, doing)
                if number == TRIES or not is_transient(failure):
                    raise failure from None
            time.sleep(pause * random.random())  # noqa: S311  # no secret
            pause *= 3
        raise AssertionError

    def _failure(self, error: Exception, doing: str) -> StoreError:
        # A server of another kind may repeat what it was sent.
        detail = re.split(r",? with args | script: ", str(error))[0]
        for secret in filter(None, (self._address.password, self._address.user)):
            detail = detail.replace(secret, "…")
        marks = {type(error).__name__, *re.findall(r"\b[A-Z]{3,}\b", detail)}
        kind, reason = next(
            ((kind, reason) for names, kind, reason in _REFUSALS if not marks.isdisjoint(names)),
            ("", "the server refused it, or is no Redis server ({detail})"),
        )
        reason = reason.format(detail=detail[:200].rstrip("."))
        return StoreError(f"{self.where} cannot be {doing}: {reason}.", kind=kind or None)


def _client(address: RedisAddress) -> Redis:
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise BadInput(f"{address} needs the package redis: pip install 'airflow-provider-describer[redis]'.") from None
    tls: dict[str, Any] = {"ssl": True, **address.options} if address.scheme == "rediss" else {}
    return Redis(
        address.host,
        address.port,
        address.database,
        username=address.user,
        password=address.password,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        # Tries are counted here: its own are multiplied by those of each connection, and repeat a wrong password.
        retry=Retry(NoBackoff(), 0),
        # The older form of answers, which every server knows.
        protocol=2,
        **tls,
    )
