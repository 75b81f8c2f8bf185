"""A Redis of a test's own, and a gate before it that loses answers. Tests are skipped where its program is missing."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Self

MAX_WAIT_S = 60.0


class RedisServer:
    """Keeps what was written through `kill -9`, as the docs ask for; ``settings`` are lines of its configuration."""

    def __init__(self, folder: Path, *settings: str, keeps: bool = True, tls: Path | None = None) -> None:
        if shutil.which("redis-server") is None:
            import pytest

            pytest.skip("there is no redis-server")
        self._folder, self._tls = folder, tls
        self.port = _free_port()
        ports = [f"port {self.port}"]
        if tls:
            files = [f"tls-cert-file {tls}", f"tls-key-file {tls}", f"tls-ca-cert-file {tls}", "tls-auth-clients no"]
            ports = ["port 0", f"tls-port {self.port}", *files]
        durable = ["appendonly yes", "appendfsync always"] if keeps else ["appendonly no"]
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "redis.conf"
        lines = ["bind 127.0.0.1", *ports, f"dir {folder}", 'save ""', "logfile redis.log", *durable, *settings]
        self._config.write_text("\n".join(lines), encoding="utf-8")

    @property
    def url(self) -> str:
        return f"{'rediss' if self._tls else 'redis'}://127.0.0.1:{self.port}/0"

    def at(self, login: str) -> str:
        """Return the address with ``user:password`` in it."""
        return self.url.replace("://", f"://{login}@")

    def client(self, **settings: Any) -> Any:
        """Return redis-py's client, to look at the server and to change it."""
        import redis

        return redis.Redis(port=self.port, **settings)

    def start(self) -> None:
        self._process = subprocess.Popen(["redis-server", str(self._config)])
        deadline = time.monotonic() + MAX_WAIT_S
        while not self._listens():
            assert self._process.poll() is None, (self._folder / "redis.log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """`kill -9` it."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Let it answer nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class RedisGate:
    """Passes everything on to a Redis. It cuts a connection after the server has done what ``lose`` counts."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.before_loss: list[int] = []
        """How many writes are answered before the next one whose answer is lost, for each loss to come."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self.lost = 0
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # It ends the `accept`, which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        """Take turns, as a client of ours does: a command, its answer."""
        with client, socket.create_connection(("127.0.0.1", self._server.port)) as server:
            while command := client.recv(1 << 20):
                server.sendall(command)
                answer = server.recv(1 << 20)
                if b"EVAL" in command and self._loses():
                    return
                client.sendall(answer)

    def _loses(self) -> bool:
        with self._lock:
            if not self.before_loss:
                return False
            self.before_loss[0] -= 1
            if self.before_loss[0] >= 0:
                return False
            self.before_loss.pop(0)
            self.lost += 1
            return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
