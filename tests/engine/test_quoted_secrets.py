"""A vendor that quotes what it was sent: nothing of a signature in the store, the results, the error or the log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import InvalidKey
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.index import read_history

if TYPE_CHECKING:
    from tests.conftest import Result, Shop

HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
TOKEN = "IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3QtMSJHMEUCIQ" + "Ab3/+xYz" * 30 + "=="
QUERIES = {
    "s3": (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20251121%2Feu-west-1%2Fs3%2Faws4_request"
        f"&X-Amz-Date=20251121T070720Z&X-Amz-Expires=3600&X-Amz-Security-Token={quote(TOKEN, safe='')}"
        f"&X-Amz-SignedHeaders=host&X-Amz-Signature={HEX}"
    ),
    "gcs": (
        "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=robot%40shop.iam.gserviceaccount.com%2F20251121%2Fauto"
        f"&X-Goog-Date=20251121T070720Z&X-Goog-Expires=3600&X-Goog-SignedHeaders=host&X-Goog-Signature={HEX * 8}"
    ),
    "cdn": f"w=100&t={HEX}",
}
GRAMS = {secret[at : at + 12] for secret in (HEX, TOKEN) for at in range(len(secret) - 11)} | {"AKIAIOSFODNN7EXAMPLE"}


@pytest.fixture
def web(draw: Callable[..., bytes]) -> Iterator[str]:
    """A server of distinct pictures, ``/<number>.jpg``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = draw(int(self.path.partition(".")[0].strip("/")))
            self.send_response(200)
            self.send_header("content-type", "image/jpeg")
            self.send_header("content-length", str(len(content)))
            self.send_header("etag", f'"{len(content)}-{self.path.partition(".")[0]}"')
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def check_nothing_is_told(result: Result, store: Path, log: str) -> None:
    files = [path for path in store.rglob("*") if path.is_file()]
    assert any("journal" in str(path) for path in files) and any("results" in str(path) for path in files)
    shown = {str(path): path.read_text(errors="replace") for path in files}
    # Texts in the table are packed.
    shown["store"] = str(list(read_history(open_folder(store))))
    shown |= {"manifest": repr(result.manifest), "error": repr(result.error), "rows": repr(result.rows), "log": log}
    shown["lines"] = "\n".join(result.lines)
    assert {name for name, text in shown.items() if any(gram in text for gram in GRAMS)} == set()


@pytest.mark.parametrize("kind", QUERIES)
def test_a_presigned_address_that_the_vendor_quotes_is_told_nowhere(
    any_shop: Shop, web: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    any_shop.breaks("quoted_image")
    images = [f"{web}/{number}.jpg?{QUERIES[kind]}" for number in range(12)]
    with caplog.at_level(logging.DEBUG):
        result = any_shop.describe(images)
    assert result.counts["rejected"] == 12
    assert {entry["image_via"] for entry in result.ledger["entries"]} == {"url"}
    assert result.ledger["billed"] == 0
    messages = [row["error"]["message"] for row in result.rows]
    assert all("Could not use the image" in message for message in messages)
    assert len({message.partition("Could not")[0] for message in messages}) == 1
    check_nothing_is_told(result, any_shop.store, caplog.text)


def test_image_data_that_the_vendor_quotes_is_cut(any_shop: Shop, draw: Callable[..., bytes], tmp_path: Path) -> None:
    any_shop.breaks("quoted_image")
    path = tmp_path / "large.png"
    path.write_bytes(draw(1, "PNG", (400, 300)))
    result = any_shop.describe([path], fields={"image_transport": "inline"})
    (row,) = result.of("rejected")
    assert len(row["error"]["message"]) < 200
    assert "iVBORw0KGgo" not in row["error"]["message"]


@pytest.mark.parametrize("vendor", ["image_describer", "segmind"])
def test_a_key_that_is_a_word_hides_no_word(shop: Shop, pictures: Callable[..., list[Path]], vendor: str) -> None:
    paths = pictures(2)
    shop.vendor = vendor
    texts = {row["uri"]: row["text"] for row in shop.describe(paths, store=None).rows}
    with EmulatorProcess(image_describer_key="a", segmind_key="a") as emulator:
        shop.emulator = emulator
        result = shop.describe(paths)
        assert {row["uri"]: row["text"] for row in result.rows} == texts
        assert result.ledger["billed"] == 2
        shop.key = "image"
        refused = shop.describe(paths, store=None)
    assert type(refused.error) is InvalidKey and "***" not in str(refused.error)
