from __future__ import annotations

import base64
import io
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from PIL import Image

from airflow_provider_describer.emulator import EmulatorProcess

DESCRIBE = "/api/openapi-v2/describe-image"


@pytest.fixture(scope="session")
def emulator_process() -> Iterator[EmulatorProcess]:
    with EmulatorProcess() as emulator:
        yield emulator


@pytest.fixture
def emulator(emulator_process: EmulatorProcess) -> EmulatorProcess:
    emulator_process.reset()
    return emulator_process


@pytest.fixture
def http(emulator: EmulatorProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=emulator.url, trust_env=False, timeout=60) as client:
        yield client


def make_image(
    form: str = "JPEG",
    size: tuple[int, int] = (64, 48),
    colour: tuple[int, ...] = (200, 30, 30),
    **options: Any,
) -> bytes:
    target = io.BytesIO()
    Image.new(options.pop("mode", "RGB"), size, colour).save(target, form, **options)
    return target.getvalue()


def make_noise(form: str = "JPEG", size: tuple[int, int] = (200, 150)) -> bytes:
    target = io.BytesIO()
    noise = Image.frombytes("RGB", size, random.Random(7).randbytes(size[0] * size[1] * 3))
    noise.save(target, form)
    return target.getvalue()


def data_uri(data: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def image() -> Callable[..., bytes]:
    return make_image


@pytest.fixture
def noise() -> Callable[..., bytes]:
    return make_noise


@pytest.fixture
def uri() -> Callable[..., str]:
    return data_uri


class Caller:
    """The billable calls, valid unless a test changes something."""

    def __init__(self, emulator: EmulatorProcess, http: httpx.Client) -> None:
        self.emulator = emulator
        self.http = http
        self.bearer = {"Authorization": f"Bearer {emulator.keys['image_describer']}"}
        self.key = {"x-api-key": emulator.keys["segmind"]}
        self.chat_key = {"Authorization": f"Bearer {emulator.keys['openai_compatible']}"}

    def form(self, image: bytes | None = None, **fields: str) -> dict[str, Any]:
        words = {"prompt": "What is it?", **fields}
        picture = make_image() if image is None else image
        return {"data": words, "files": {"image": ("a.jpg", picture, "image/jpeg")}, "headers": self.bearer}

    def describe(self, image: bytes | None = None, **fields: str) -> httpx.Response:
        return self.http.post(DESCRIBE, **self.form(image, **fields))

    def v1(self, image: bytes | None = None) -> httpx.Response:
        picture = make_image() if image is None else image
        return self.http.post("/v1/ideogram-describe", json={"image_file": data_uri(picture)}, headers=self.key)

    def v2(self, image: bytes | None = None) -> httpx.Response:
        picture = make_image() if image is None else image
        return self.http.post("/v2/ideogram-describe", json={"image_file": data_uri(picture)}, headers=self.key)

    def question(self, image: bytes | None = None, **fields: Any) -> dict[str, Any]:
        """The body of a chat completion; a field that is None is left out."""
        picture = make_image() if image is None else image
        parts = [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": data_uri(picture)}},
        ]
        body = {"model": "emulated-vision", "messages": [{"role": "user", "content": parts}], **fields}
        return {name: value for name, value in body.items() if value is not None}

    def chat(self, image: bytes | None = None, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=self.question(image, **fields), headers=self.chat_key)

    def uri(self) -> str:
        return data_uri(make_image())

    def finished(self, submitted: httpx.Response) -> httpx.Response:
        """Poll a v2 request until it has ended one way or the other."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            polled = self.http.get(submitted.json()["response_url"], headers=self.key)
            if polled.status_code != 502 and polled.json().get("status") in ("COMPLETED", "FAILED"):
                return polled
        raise AssertionError("the v2 request did not end within 60 s")

    def send_only(self, image: bytes | None = None, all_but: int = 0) -> socket.socket:
        """Send a call, or all of it but its last bytes, and return the socket with the answer unread."""
        request = self.http.build_request("POST", DESCRIBE, **self.form(image))
        head = b"".join(name + b": " + value + b"\r\n" for name, value in request.headers.raw)
        connection = socket.create_connection((str(request.url.host), request.url.port or 0))
        body = request.read()
        connection.sendall(f"POST {DESCRIBE} HTTP/1.1\r\n".encode() + head + b"\r\n" + body[: len(body) - all_but])
        return connection


@pytest.fixture
def call(emulator: EmulatorProcess, http: httpx.Client) -> Caller:
    return Caller(emulator, http)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "the condition did not become true within 60 s"
        time.sleep(0.01)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[[Callable[[], bool]], None]:
    return eventually


class ImageServer:
    """A web server with one image and several URLs that fail to deliver it."""

    def __init__(self) -> None:
        self.image = make_image("PNG")
        self.closed = threading.Event()
        image_server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                image_server.answer(self)

            def log_message(self, *ignored: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path
        if path == "/never.png":
            self.closed.wait()
            return
        handler.send_response({"/gone.png": 404, "/file.png": 302, "/moved.png": 302}.get(path, 200))
        if path == "/file.png":
            handler.send_header("location", "file:///etc/hostname")
        elif path == "/moved.png":
            handler.send_header("location", "/a.png")
        body = b"<html>no image</html>" if path == "/page.png" else self.image
        handler.send_header("content-length", str(len(body) + (path == "/short.png")))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="session")
def image_server() -> Iterator[ImageServer]:
    image_server = ImageServer()
    yield image_server
    image_server.close()
