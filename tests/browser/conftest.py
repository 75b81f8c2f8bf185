"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
sync_api.expect.set_options(timeout=60_000)
NAMES = ("chromium", "chromium-browser", "google-chrome")
# The first as Chromium as root has no sandbox; the others so that it asks nothing of the network.
SWITCHES = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]


# For each test anew: while Playwright is open, no other test of this process could run an event loop.
@pytest.fixture
def chromium() -> Iterator[object]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"there is no browser: none of {', '.join(NAMES)} is on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open a page for someone. In the end no page may have run a script of others, or asked another server."""
    contexts, wrong = [], []

    def visit(address: str, who: str | None = "admin", expect_errors: bool = False, **how):
        context = chromium.new_context(viewport=how.pop("viewport", {"width": 1280, "height": 900}), **how)
        contexts.append(context)
        origin = "/".join(address.split("/")[:3])
        if who is not None:
            context.add_cookies([{"name": "who", "value": who, "url": origin}])
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
        page.on("pageerror", lambda error: wrong.append(f"an error: {error}"))

        def look_at_request(request):
            if not request.url.startswith(origin):
                wrong.append(f"a request to {request.url}")

        def look_at_console(said):
            if said.type == "error" and not expect_errors:
                wrong.append(f"{said.text} {said.location}")

        page.on("request", look_at_request)
        page.on("console", look_at_console)
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with a picture of each number that tests use."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(4):
        image.new("RGB", (640, 480), (60 * number, 120, 200)).save(folder / f"{number:04d}.jpg")
    return folder
