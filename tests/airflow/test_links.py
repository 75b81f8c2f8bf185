"""The links of tasks, as Airflow's API gives them to the UI."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.links.describer import link_addresses
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.vendors import vendors

Run = Callable[..., Any]
Links = Callable[..., dict[str, str | None]]
DASHBOARDS = {name: str(vendor.dashboard_url) for name, vendor in vendors().items()}
NOTHING = {"Descriptions": None, "Results": None, "Vendor": None}


@pytest.fixture(scope="module")
def api(airflow_db: None) -> Iterator[Any]:
    """A client of Airflow's API, logged in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.api_fastapi.app import create_app, purge_cached_app
        from starlette.testclient import TestClient

        purge_cached_app()
        with TestClient(create_app(apps="core")) as client:
            token = client.get("/auth/token").json()["access_token"]
            client.headers["authorization"] = f"Bearer {token}"
            yield client
        purge_cached_app()


@pytest.fixture
def links(api: Any) -> Links:
    """The addresses of a task's links by their names; None for one that is not shown."""

    def ask(dag_id: str, run_id: str, task: str = "describe") -> dict[str, str | None]:
        task_id, _, index = task.removesuffix("]").partition("[")
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links"
        answer = api.get(path, params={"map_index": int(index or -1)})
        assert answer.status_code == 200, answer.text
        found: dict[str, str | None] = answer.json()["extra_links"]
        return found

    return ask


def asked(address: str | None) -> tuple[str, dict[str, str]]:
    """The page and what it is asked for."""
    parts = urlsplit(address or "")
    return f"{parts.scheme}://{parts.netloc}{parts.path}", {name: value for name, (value,) in query_of(parts.query)}


def query_of(query: str) -> Any:
    return parse_qs(query, strict_parsing=True).items()


# --- addresses ---

RUN = TaskInstanceKey("shop & co", "manual__2026-11-27T01:00:00+00:00", "group.describe")


def test_an_address_survives_any_character_of_its_parts() -> None:
    store = "s3://shop/a folder/50% & more?#"
    found = link_addresses("https://airflow.example/team/", RUN, store=store, dashboard="https://v", has_results=True)
    query = {"store": store, "dag_id": RUN.dag_id, "run_id": RUN.run_id, "task_id": RUN.task_id}
    assert asked(found["Descriptions"]) == ("https://airflow.example/team/describer/", query)
    assert asked(found["Results"]) == ("https://airflow.example/team/describer/results", query)
    assert found["Vendor"] == "https://v"


def test_without_a_base_url_an_address_leads_to_the_server_that_shows_it() -> None:
    assert link_addresses("", RUN, store="/data")["Descriptions"].startswith("/describer/?store=%2Fdata&")


def test_a_mapped_task_has_its_own_page_and_a_whole_run_has_one() -> None:
    run = TaskInstanceKey("shop", "run", "describe", 0)
    one, all_of_it = (
        asked(link_addresses("http://a", run, store="/data", whole_run=whole)["Descriptions"])[1]
        for whole in (False, True)
    )
    assert one == {"store": "/data", "dag_id": "shop", "run_id": "run", "task_id": "describe", "map_index": "0"}
    assert all_of_it == {"store": "/data", "dag_id": "shop", "run_id": "run"}


def test_no_store_has_no_page_and_results_are_linked_once_they_are_there() -> None:
    assert link_addresses("http://a", RUN, dashboard="https://v", has_results=True) == {"Vendor": "https://v"}
    assert set(link_addresses("http://a", RUN, store="/data")) == {"Descriptions"}


def test_a_secret_in_an_address_is_masked() -> None:
    found = link_addresses("http://a", RUN, store="https://user:secret@shop/store?sig=secret", has_results=True)
    assert "secret" not in str(found)


@pytest.mark.parametrize("vendor", DASHBOARDS)
def test_a_dashboard_is_a_page_of_the_vendor(vendor: str) -> None:
    home, page = (urlsplit(url) for url in (vendors()[vendor].base_url, DASHBOARDS[vendor]))
    assert page.scheme == "https" and page.hostname and home.hostname
    assert page.hostname.split(".")[-2:] == home.hostname.split(".")[-2:]


# --- in Airflow ---


@pytest.fixture
def base_url(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/team")
    return "https://airflow.example/team/describer/"


@pytest.mark.parametrize("vendor", DASHBOARDS)
def test_a_task_with_a_store_has_all_three(
    accounts: EmulatorProcess,
    run: Run,
    links: Links,
    base_url: str,
    pictures: list[str],
    tmp_path: Path,
    vendor: str,
) -> None:
    ran = run("stored", images=pictures[:2], conn_id=f"{vendor}_default", store=str(tmp_path))
    found = links("stored", ran.run_id)
    query = {"store": str(tmp_path), "dag_id": "stored", "run_id": ran.run_id, "task_id": "describe"}
    assert asked(found["Descriptions"]) == (base_url, query)
    assert asked(found["Results"]) == (f"{base_url}results", query)
    # A server of one's own has no dashboard that we know.
    assert found.get("Vendor") == (None if vendor == "openai_compatible" else DASHBOARDS[vendor])
    assert not [key for key in accounts.keys.values() if key in str(found)]


def test_each_mapped_task_has_its_own(
    accounts: EmulatorProcess, run: Run, links: Links, base_url: str, pictures: list[str], tmp_path: Path
) -> None:
    ran = run("one_stored", images=pictures[:2], store=str(tmp_path))
    indexes = [asked(links("one_stored", ran.run_id, f"describe[{i}]")["Results"])[1]["map_index"] for i in range(2)]
    assert indexes == ["0", "1"]


def test_what_a_task_does_not_have_is_not_linked(
    accounts: EmulatorProcess, run: Run, links: Links, pictures: list[str], tmp_path: Path
) -> None:
    ran = run("inline", images=pictures[:1])
    assert links("inline", ran.run_id) == {**NOTHING, "Vendor": DASHBOARDS["image_describer"]}
    planned = run("planned", images=pictures[:1], store=str(tmp_path))
    found = links("planned", planned.run_id)
    assert found["Results"] is None and (found["Descriptions"] or "").startswith("/describer/?store=")


def test_a_task_that_cannot_begin_has_none(run: Run, links: Links, pictures: list[str], tmp_path: Path) -> None:
    ran = run("stored", images=pictures[:1], conn_id="nobody", store=str(tmp_path))
    assert ran.states["describe"] == "failed" or ran.tries["describe"] > 1
    assert links("stored", ran.run_id) == NOTHING


def test_a_task_that_fails_midway_keeps_them(
    emulator: EmulatorProcess,
    connect: Callable[..., None],
    run: Run,
    links: Links,
    pictures: list[str],
    tmp_path: Path,
) -> None:
    connect("shop", conn_type="segmind", password=emulator.keys["segmind"], host=emulator.url)
    emulator.faults({"segmind": {"credits": 0.015}})
    ran = run("stored", images=pictures, conn_id="shop", store=str(tmp_path))
    assert ran.states["describe"] == "failed"
    assert None not in links("stored", ran.run_id).values()


def test_a_listing_task_leads_to_what_its_run_describes(
    accounts: EmulatorProcess, run: Run, links: Links, base_url: str, pictures: list[str], tmp_path: Path
) -> None:
    ran = run("listed", file="listing.py", path=str(Path(pictures[0]).parent), store=str(tmp_path))
    found = links("listed", ran.run_id, "list")
    query = {"store": str(tmp_path), "dag_id": "listed", "run_id": ran.run_id}
    assert {name: asked(address) for name, address in found.items()} == {"Descriptions": (base_url, query)}


def test_sensors_have_them(
    accounts: EmulatorProcess,
    connect: Callable[..., None],
    run: Run,
    links: Links,
    pictures: list[str],
    tmp_path: Path,
) -> None:
    connect("shop", conn_type="segmind", password=accounts.keys["segmind"], host=accounts.url)
    listing = tmp_path / "images.jsonl"
    listing.write_text("".join(f'{{"uri": "{uri}"}}\n' for uri in pictures[:2]), encoding="utf-8")
    ran = run("sensing", file="waiting.py", listing=str(listing), store=str(tmp_path / "store"))
    assert None not in links("sensing", ran.run_id).values()
    accounts.faults({"segmind": {"credits": 2.5}})
    solvent = run("credits_poke", file="sensing.py")
    assert links("credits_poke", solvent.run_id, "wait") == {"Vendor": DASHBOARDS["segmind"]}


@pytest.fixture
def asking_site(pictures: list[str]) -> Iterator[Any]:
    """A web server with one picture, which calls `asked` before it answers."""

    class Site(ThreadingHTTPServer):
        asked: Callable[[], None] = staticmethod(lambda: None)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, Site)
            self.server.asked()
            picture = Path(pictures[0]).read_bytes()
            self.send_response(200)
            self.send_header("content-type", "image/png")
            self.send_header("content-length", str(len(picture)))
            self.end_headers()
            self.wfile.write(picture)

        def log_message(self, *_: object) -> None:
            pass

    with Site(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("name", ["stored", "one_stored"])
def test_they_are_there_while_the_task_runs(
    emulator: EmulatorProcess,
    connect: Callable[..., None],
    run: Run,
    links: Links,
    api: Any,
    asking_site: Any,
    tmp_path: Path,
    name: str,
) -> None:
    extra = {"allow_private_hosts": True, "image_transport": "inline"}
    key = emulator.keys["image_describer"]
    connect("image_describer_default", conn_type="image_describer", password=key, host=emulator.url, extra=extra)
    seen: list[dict[str, str | None]] = []

    def look() -> None:
        (running,) = api.get(f"/api/v2/dags/{name}/dagRuns", params={"state": "running"}).json()["dag_runs"]
        seen.append(links(name, running["dag_run_id"], "describe[0]" if name == "one_stored" else "describe"))

    asking_site.asked = look
    ran = run(name, images=[f"http://127.0.0.1:{asking_site.server_port}/a.png"], store=str(tmp_path))
    assert set(ran.states.values()) == {"success"}, ran.errors
    assert {name: bool(address) for name, address in seen[0].items()} == {
        "Descriptions": True,
        "Results": False,
        "Vendor": True,
    }
    then = links(name, ran.run_id, "describe[0]" if name == "one_stored" else "describe")
    assert {**then, "Results": None} == seen[0]
    assert then["Results"]
