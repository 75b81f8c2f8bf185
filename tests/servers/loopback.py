"""A server on a free port of this machine, which misbehaves on demand and records its requests."""

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
class Request:
    """One request. ``target`` is its path and query as they came; ``headers`` ignore case."""

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
    """One answer. Its length is that of its body, unless a header says otherwise, as for HEAD.

    With a ``Transfer-Encoding``, its body is sent in chunks and no length is told.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def xml_error(status: int, code: str, message: str = "") -> Answer:
    """Return an error as both clouds send it."""
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


@dataclass
class Fault:
    """An answer in place of the real one; None cuts the connection. ``carried_out``: the request takes effect first."""

    answer: Answer | None
    method: str
    path: str
    times: float
    carried_out: bool

    def matches(self, request: Request) -> bool:
        found = re.fullmatch(self.method, request.method) and re.search(self.path, request.path)
        return self.times > 0 and found is not None


class LoopbackServer:
    """Answers as `answer` does, except where a fault applies."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def answer(self, request: Request) -> Answer:
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
        """Answer with an error; the request takes no effect."""
        self.instead(xml_error(status, code, message), method=method, path=path, times=times)

    def slow_down(self, **when: object) -> None:
        """Throttle."""
        self.fail(503, "SlowDown", "Please reduce your request rate.", **when)  # type: ignore[arg-type]

    def deny(self, **when: object) -> None:
        """Refuse from now on."""
        self.fail(403, "AccessDenied", "Access Denied", **{"times": float("inf"), **when})  # type: ignore[arg-type]

    def instead(self, answer: Answer, *, method: str = ".*", path: str = "", times: float = 1) -> None:
        """Give this answer; the request takes no effect."""
        self._faults.append(Fault(answer, method, path, times, carried_out=False))

    def lose_answers(self, *, method: str = ".*", path: str = "", times: float = 1) -> None:
        """Let the request take effect, then cut the connection."""
        self._faults.append(Fault(None, method, path, times, carried_out=True))

    def cut(self, *, method: str = ".*", path: str = "", times: float = 1) -> None:
        """Cut the connection; the request takes no effect."""
        self._faults.append(Fault(None, method, path, times, carried_out=False))

    def reset(self) -> None:
        """Remove all faults and forget the recorded requests."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def received(self, method: str = ".*", path: str = "") -> list[Request]:
        """Return the matching requests, in order."""
        return [one for one in self.requests if re.fullmatch(method, one.method) and re.search(path, one.path)]

    def respond(self, request: Request) -> Answer | None:
        """Return the answer; None to cut the connection."""
        with self._lock:
            self.requests.append(request)
            fault = next((one for one in self._faults if one.matches(request)), None)
            if fault:
                fault.times -= 1
        if fault and not fault.carried_out:
            return fault.answer
        answer = self.answer(request)
        return fault.answer if fault else answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that hung up, as killed ones do."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _handler_of(server: LoopbackServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 16

        def _serve(self) -> None:
            request = Request(self.command, self.path, self.headers, self._body())
            answer = server.respond(request)
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            chunked = "Transfer-Encoding" in answer.headers
            headers = {**({} if chunked else {"Content-Length": str(len(answer.body))}), **answer.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                body = answer.body
                self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body)

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
