"""A server on a free port of this machine, which can be told to misbehave, and remembers what it was asked."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qsl, unquote


@dataclass(frozen=True)
class Asked:
    """One request. ``target`` is its path and query as they came; ``headers`` know no case."""

    method: str
    target: str
    headers: Message = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def raw_path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    @property
    def raw_query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))


@dataclass(frozen=True)
class Answer:
    """One answer. Its length is that of its body, unless a header tells another, as that of a HEAD does."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def xml_error(status: int, code: str, message: str = "") -> Answer:
    """What both clouds answer where something is wrong."""
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


@dataclass
class Fault:
    """What is answered in place of an answer; None: nothing, the connection is cut. ``carried_out``: after the deed."""

    answer: Answer | None
    method: str
    path: str
    times: float
    carried_out: bool

    def takes(self, asked: Asked) -> bool:
        fits = re.fullmatch(self.method, asked.method) and re.search(self.path, asked.path)
        return self.times > 0 and fits is not None


class LoopbackServer:
    """Answers as `answer` does, except where a fault says otherwise."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def answer(self, asked: Asked) -> Answer:
        raise NotImplementedError

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # -- faults: ``method`` and ``path`` are patterns, ``times`` is how often from now on -----------------------------

    def fail(
        self, status: int, code: str, message: str = "", *, method: str = ".*", path: str = "", times: float = 1
    ) -> None:
        """Answer with an error and do nothing."""
        self.instead(xml_error(status, code, message), method=method, path=path, times=times)

    def slow_down(self, **when: object) -> None:
        """Throttle."""
        self.fail(503, "SlowDown", "Please reduce your request rate.", **when)  # type: ignore[arg-type]

    def deny(self, **when: object) -> None:
        """Refuse, from now on."""
        self.fail(403, "AccessDenied", "Access Denied", **{"times": float("inf"), **when})  # type: ignore[arg-type]

    def instead(self, answer: Answer, *, method: str = ".*", path: str = "", times: float = 1) -> None:
        """Give this answer and do nothing."""
        self._faults.append(Fault(answer, method, path, times, carried_out=False))

    def lose_answers(self, *, method: str = ".*", path: str = "", times: float = 1) -> None:
        """Do what is asked, then cut the connection."""
        self._faults.append(Fault(None, method, path, times, carried_out=True))

    def cut(self, *, method: str = ".*", path: str = "", times: float = 1) -> None:
        """Cut the connection and do nothing."""
        self._faults.append(Fault(None, method, path, times, carried_out=False))

    def calm(self) -> None:
        """Behave, and forget what was asked."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def asked(self, method: str = ".*", path: str = "") -> list[Asked]:
        """Return the requests that came, in their order."""
        return [one for one in self.requests if re.fullmatch(method, one.method) and re.search(path, one.path)]

    def respond(self, asked: Asked) -> Answer | None:
        """Return the answer to be given; None where the connection is to be cut."""
        with self._lock:
            self.requests.append(asked)
            fault = next((one for one in self._faults if one.takes(asked)), None)
            if fault:
                fault.times -= 1
        if fault and not fault.carried_out:
            return fault.answer
        answer = self.answer(asked)
        return fault.answer if fault else answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that hung up, as those do that tests kill."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _handler_of(server: LoopbackServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 16

        def _serve(self) -> None:
            asked = Asked(self.command, self.path, self.headers, self._body())
            answer = server.respond(asked)
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            headers = {"Content-Length": str(len(answer.body)), **answer.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))
            chunks = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._serve)
    return Handler
