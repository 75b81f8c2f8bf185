"""The page's server without Airflow: headers, errors, hostile rows and addresses, and who sees what."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient
from stored_rows import make_store, stored_row

from airflow_provider_describer.errors import BadInput, BucketError
from airflow_provider_describer.gallery.app import ASSETS, FILES, create_app
from airflow_provider_describer.gallery.host import Host, NoAccess
from airflow_provider_describer.storage.bucket import Bucket

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
)
HOSTILE = "<script>alert(1)</script> \u202egnp.exe <img src=x onerror=alert(1)> \x00 \ud800"


@dataclass
class Someone:
    """A reader, and how often it was asked for DAGs."""

    dags: frozenset[str] | None = None
    asked: list[frozenset[str]] = field(default_factory=list)

    def readable(self, dag_ids: Collection[str]) -> frozenset[str]:
        self.asked.append(frozenset(dag_ids))
        return frozenset(dag_ids) & (self.dags if self.dags is not None else frozenset(dag_ids))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(
        tmp_path / "store",
        [
            *(stored_row(number, dag_id="red", prompt="red prompt", run_id="red run") for number in range(3)),
            *(stored_row(number, dag_id="blue", prompt="blue prompt", run_id="blue run") for number in (10, 11)),
            stored_row(20, dag_id="", run_id="", task_id="", prompt=None, text=HOSTILE, uri=f"/photos/{HOSTILE}.jpg"),
        ],
    )


@pytest.fixture
def page(store: Path) -> Callable[..., TestClient]:
    """Make the page for a reader; ``who`` is an exception for someone who is refused."""

    def make(who: Any = None, stores: str = str(store), open_bucket: Any = None, **more: Any) -> TestClient:
        def reader(request: Request) -> Any:
            if isinstance(who, Exception):
                raise who
            return who or Someone()

        host = Host(
            reader=reader,
            login=lambda back_to: f"/auth/login?next={back_to}",
            stores=lambda: stores,
            images=lambda: "",
            open_bucket=open_bucket or (lambda conn_id: lambda scheme, name: pytest.fail("opened")),
        )
        return TestClient(create_app(host), follow_redirects=False, raise_server_exceptions=False, **more)

    return make


def addresses(store: object) -> list[str]:
    return [
        "/",
        *(f"/assets/{name}" for name in ASSETS),
        "/api/stores",
        f"/api/rows?store={store}",
        f"/api/totals?store={store}",
        f"/api/history?store={store}&image=x",
        f"/api/thumbnail?store={store}&row=x",
        f"/results?store={store}&dag_id=red&run_id=r&task_id=t",
        "/api/unknown",
        "/api/rows",
    ]


def test_every_answer_has_the_security_headers(page: Callable[..., TestClient], store: Path) -> None:
    browser = page()
    for address in addresses(store):
        headers = browser.get(address).headers
        assert headers["content-security-policy"] == POLICY, address
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        is_data = not (address == "/" or address.startswith("/assets/"))
        assert headers["cache-control"] == ("no-store" if is_data else "no-cache")
        assert "access-control-allow-origin" not in headers


def test_the_page_has_no_script_style_or_address_of_its_own() -> None:
    """The policy would block them; and every address is relative, so that the page works below any path."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            if tag == "style" or "style" in values or any(name.startswith("on") for name in values):
                found.append(f"inline: {tag}")
            if tag == "script" and not values.get("src"):
                found.append("inline: script")
            address = values.get("src") or values.get("href")
            if address and not address.startswith(("assets/", "#")):
                found.append(address)

    Reader().feed((FILES / "index.html").read_text(encoding="utf-8"))
    assert found == []
    scripts = "".join((FILES / name).read_text(encoding="utf-8") for name in ASSETS if name.endswith(".js"))
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        ".style.",
    ):
        assert forbidden not in scripts


def test_every_file_of_the_page_can_be_fetched(page: Callable[..., TestClient]) -> None:
    browser = page()
    assert {path.name for path in FILES.iterdir()} == {"index.html", *ASSETS}
    for name, media_type in ASSETS.items():
        answer = browser.get(f"/assets/{name}")
        assert answer.status_code == 200 and answer.content == (FILES / name).read_bytes()
        assert answer.headers["content-type"].partition(";")[0] == media_type


@pytest.mark.parametrize("name", ["../app.py", "%2e%2e/app.py", "index.html", "page.css/", "..%2fapp.py", "%00"])
def test_no_other_file_can_be_fetched(page: Callable[..., TestClient], name: str) -> None:
    answer = page().get(f"/assets/{name}")
    assert answer.status_code == 404 and answer.json() == {"error": "There is nothing at this address."}


@pytest.mark.parametrize("refusal", [HTTPException(401, "Not authenticated"), HTTPException(403, "Invalid JWT token")])
def test_without_a_login_there_is_only_the_way_to_it(
    page: Callable[..., TestClient], store: Path, refusal: Exception
) -> None:
    browser = page(refusal)
    for address in addresses(store):
        if address == "/api/unknown":
            continue
        answer = browser.get(address, headers={"accept": "application/json"})
        assert answer.status_code == 401, address
        assert answer.json() == {"error": "Log in to Airflow first: this needs a valid token."}
        answer = browser.get(address, headers={"accept": "text/html"})
        assert answer.status_code == 303 and answer.headers["location"] == f"/auth/login?next={address}"


def test_without_the_right_nothing_is_shown(page: Callable[..., TestClient], store: Path) -> None:
    browser = page(NoAccess("Not for you & <others>."))
    for address in addresses(store):
        if address == "/api/unknown":
            continue
        answer = browser.get(address)
        assert answer.status_code == 403 and answer.json() == {"error": "Not for you & <others>."}, address
    answer = browser.get("/", headers={"accept": "text/html"})
    assert answer.status_code == 403 and "Not for you &amp; &lt;others&gt;." in answer.text


def test_only_stores_of_the_setting_are_opened(page: Callable[..., TestClient], store: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", [stored_row(1)])
    browser = page()
    assert browser.get("/api/stores").json() == {"stores": [str(store)]}
    for address in (other, f"{store}/../other", f"{store}/..", "s3://elsewhere/store", "", "file:///etc"):
        for path in ("rows?", "totals?", "history?image=x&", "thumbnail?row=1&"):
            answer = browser.get(f"/api/{path}store={address}")
            assert answer.status_code == 404, (path, address, answer.text)
            assert str(store) not in answer.json()["error"].replace(str(address), "")


def test_stores_below_a_prefix_are_found(page: Callable[..., TestClient], store: Path) -> None:
    browser = page(stores=f"{store.parent}/*")
    assert browser.get("/api/stores").json() == {"stores": [str(store)]}
    assert browser.get(f"/api/rows?store={store}").status_code == 200


def test_without_the_setting_there_are_no_stores(page: Callable[..., TestClient], store: Path) -> None:
    browser = page(stores="")
    assert browser.get("/api/stores").json() == {"stores": []}
    assert browser.get(f"/api/rows?store={store}").status_code == 404


def test_a_setting_that_cannot_be_read_is_not_quoted(page: Callable[..., TestClient]) -> None:
    answer = page(stores="s3://secret-bucket/a b c d").get("/api/stores")
    assert answer.status_code == 400 and "secret" not in answer.text
    assert "[describer] stores" in answer.json()["error"]


def test_hostile_texts_are_data(page: Callable[..., TestClient], store: Path) -> None:
    answer = page().get(f"/api/rows?store={store}")
    assert answer.headers["content-type"] == "application/json"
    row = answer.json()["rows"][0]
    shown = HOSTILE.replace("\ud800", "\\ud800")
    assert row["text"] == shown and row["uri"] == f"/photos/{shown}.jpg"


def test_a_page_of_rows_is_small_whatever_the_texts(page: Callable[..., TestClient], tmp_path: Path) -> None:
    long = "word " * 200_000
    path = make_store(tmp_path / "long", [stored_row(n, text=long, prompt=long) for n in range(3)])
    browser = page(stores=str(path))
    answer = browser.get(f"/api/rows?store={path}")
    assert len(answer.content) < 20_000
    row = answer.json()["rows"][0]
    assert row["shortened"] is True and long.startswith(row["text"].removesuffix("…"))
    (whole,) = browser.get("/api/history", params={"store": str(path), "image": row["uri"]}).json()["rows"]
    assert (whole["text"], whole["shortened"]) == (long, False)


def test_rows_are_paged(page: Callable[..., TestClient], tmp_path: Path) -> None:
    path = make_store(tmp_path / "many", [stored_row(number) for number in range(130)])
    browser = page(stores=str(path))
    first = browser.get("/api/rows", params={"store": str(path)}).json()
    second = browser.get("/api/rows", params={"store": str(path), "after": first["next"]}).json()
    third = browser.get("/api/rows", params={"store": str(path), "after": second["next"]}).json()
    uris = [row["uri"] for answer in (first, second, third) for row in answer["rows"]]
    assert uris == [f"s3://catalog/images/{number:04d}.jpg" for number in reversed(range(130))]
    assert third["next"] is None


def test_a_reader_sees_only_rows_of_readable_dags(page: Callable[..., TestClient], store: Path) -> None:
    browser = page(Someone(frozenset({"red"})))
    rows = browser.get(f"/api/rows?store={store}").json()["rows"]
    assert {row["dag_id"] for row in rows} == {"red", ""}
    totals = browser.get(f"/api/totals?store={store}")
    assert totals.json()["count"] == 4 and "blue" not in totals.text
    everyone = page().get(f"/api/totals?store={store}").json()
    assert everyone["count"] == 6 and "blue prompt" in everyone["prompts"]
    for query in ("dag_id=blue", "run_id=blue run", "prompt=blue prompt"):
        assert browser.get(f"/api/rows?store={store}&{query}").json()["rows"] == []
    hidden = page().get(f"/api/rows?store={store}&dag_id=blue").json()["rows"][0]
    history = browser.get("/api/history", params={"store": str(store), "image": hidden["uri"]}).json()
    assert history == {"rows": [], "link": None}
    missing = browser.get(f"/api/thumbnail?store={store}&row={hidden['row']}")
    assert missing.status_code == 404
    assert missing.json() == browser.get(f"/api/thumbnail?store={store}&row=none").json()


def test_a_reader_without_any_dag_sees_what_no_dag_has_made(page: Callable[..., TestClient], store: Path) -> None:
    browser = page(Someone(frozenset()))
    assert [row["dag_id"] for row in browser.get(f"/api/rows?store={store}").json()["rows"]] == [""]
    assert browser.get(f"/api/totals?store={store}").json()["count"] == 1


def test_only_https_images_are_linked(page: Callable[..., TestClient], tmp_path: Path) -> None:
    uris = ["https://example.com/a.jpg", "http://example.com/b.jpg", "javascript:alert(1)//c.jpg", "s3://b/d.jpg"]
    path = make_store(tmp_path / "links", [stored_row(number, uri=uri) for number, uri in enumerate(uris)])
    browser = page(stores=str(path))
    links = [browser.get("/api/history", params={"store": str(path), "image": uri}).json()["link"] for uri in uris]
    assert links == ["https://example.com/a.jpg", None, None, None]


def test_a_result_file_is_downloaded(page: Callable[..., TestClient], store: Path) -> None:
    (folder := store / "results" / "red" / "run_1").mkdir(parents=True)
    lines = b"".join(b'{"number": %d, "text": "%s"}\n' % (number, b"x" * 1000) for number in range(6000))
    (folder / "describe-2.jsonl").write_bytes(lines)
    query = {"store": str(store), "dag_id": "red", "run_id": "run/1", "task_id": "describe", "map_index": "2"}
    answer = page().get("/results", params=query)
    assert answer.content == lines
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''red-describe-2.jsonl"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert page(Someone(frozenset({"blue"}))).get("/results", params=query).status_code == 404


@pytest.mark.parametrize("name", ["dag_id", "run_id", "task_id"])
def test_a_result_file_is_nowhere_else(page: Callable[..., TestClient], store: Path, name: str) -> None:
    (store.parent / "secret.jsonl").write_text("secret")
    (store / "results").mkdir()
    for value in ("../../../secret", "..", "%2e%2e/secret", "/etc/passwd", "\\..\\secret", "a\r\nset-cookie: b=c"):
        query = {"store": str(store), "dag_id": "red", "run_id": "r", "task_id": "t", name: value}
        answer = page().get("/results", params=query)
        assert answer.status_code == 404 and "secret" not in answer.text and "set-cookie" not in answer.headers


def test_a_missing_result_is_told_to_a_person_on_a_page(page: Callable[..., TestClient], store: Path) -> None:
    query = {"store": str(store), "dag_id": "red", "run_id": "r", "task_id": "t"}
    answer = page(root_path="/team/describer").get("/results", params=query, headers={"accept": "text/html"})
    assert answer.status_code == 404 and "There are no results of this task" in answer.text
    assert 'href="/team/describer/assets/page.css"' in answer.text


def test_a_store_that_cannot_be_read_says_why(page: Callable[..., TestClient]) -> None:
    class Unwilling(Bucket):
        def __init__(self) -> None: ...

        def entries(self, *arguments: Any, **more: Any) -> Any:
            raise BucketError("s3://bucket/store cannot be listed: access denied.", kind="denied")

    browser = page(stores="s3://bucket/store", open_bucket=lambda conn_id: lambda scheme, name: Unwilling())
    answer = browser.get("/api/rows?store=s3://bucket/store")
    assert answer.status_code == 502
    assert answer.json() == {"error": "s3://bucket/store cannot be listed: access denied."}


def test_a_missing_connection_says_which(page: Callable[..., TestClient]) -> None:
    def missing(conn_id: str | None) -> Any:
        raise BadInput(f"storage_conn_id is {conn_id!r}, but there is no such connection.")

    answer = page(stores="s3://bucket/store my_aws", open_bucket=missing).get("/api/rows?store=s3://bucket/store")
    assert answer.status_code == 400 and "my_aws" in answer.json()["error"]


def test_an_error_of_ours_shows_no_insides(page: Callable[..., TestClient]) -> None:
    def broken(conn_id: str | None) -> Any:
        raise RuntimeError("key=SECRET in /home/me/file.py")

    answer = page(stores="s3://bucket/store", open_bucket=broken).get("/api/rows?store=s3://bucket/store")
    assert answer.status_code == 500
    assert answer.json() == {"error": "The page failed (RuntimeError). The API server's log says more."}


@pytest.mark.parametrize(
    "query", ["", "store=x&map_index=one", f"store={'x' * 5000}", "store=x&prompt=" + "p" * 20_000]
)
def test_parameters_that_cannot_be_read_are_named(page: Callable[..., TestClient], query: str) -> None:
    answer = page().get(f"/api/rows?{query}")
    assert answer.status_code == 422 and answer.json()["error"].startswith("These parameters are missing")
    assert "xxxx" not in answer.text and "pppp" not in answer.text


def test_a_wrong_place_to_go_on_from_is_an_error(page: Callable[..., TestClient], store: Path) -> None:
    answer = page().get(f"/api/rows?store={store}&after=1 OR 1=1")
    assert answer.status_code == 400 and "error" in answer.json()


def test_nothing_can_be_changed(page: Callable[..., TestClient], store: Path) -> None:
    before = sorted(path for path in store.rglob("*"))
    browser = page()
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert browser.request(method, f"/api/rows?store={store}").status_code == 405
    for address in addresses(store):
        browser.get(address)
    assert sorted(path for path in store.rglob("*")) == before


def test_the_answers_are_json_that_a_browser_reads(page: Callable[..., TestClient], tmp_path: Path) -> None:
    rows = [stored_row(1, cost_usd=float("nan")), stored_row(2, error={"kind": "odd", "message": "\ud800"}, text=None)]
    path = make_store(tmp_path / "odd", rows)
    answer = page(stores=str(path)).get(f"/api/rows?store={path}")
    json.loads(answer.content.decode("utf-8"), parse_constant=pytest.fail)
    assert answer.json()["rows"][0]["error"] == {"kind": "odd", "message": "\\ud800"}
