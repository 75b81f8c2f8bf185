"""The page in Airflow's API server: it is found once, stands behind the login, and shows each user what is theirs."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import pytest
from packaging.version import Version
from stored_rows import make_store, stored_row

PATHS = (
    "/describer/",
    "/describer/assets/page.js",
    "/describer/api/stores",
    "/describer/api/rows?store=x",
    "/describer/api/totals?store=x",
    "/describer/api/history?store=x&image=y",
    "/describer/api/thumbnail?store=x&row=1",
    "/describer/results?store=x&dag_id=d&run_id=r&task_id=t",
)
has_teams = pytest.mark.skipif(
    Version(airflow.__version__) < Version("3.2"), reason="this Airflow's users have no teams"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two DAGs, and of a call that was made outside Airflow."""
    own = [stored_row(number, dag_id="ann_catalog", run_id="ann_run", prompt="ann's prompt") for number in range(3)]
    others = [stored_row(10, dag_id="ben_secret", run_id="ben_run", prompt="ben's prompt", text="Ben's picture.")]
    outside = [stored_row(20, dag_id="", run_id="", task_id="", text="Made by hand.")]
    path = make_store(tmp_path_factory.mktemp("store"), [*own, *others, *outside])
    (results := path / "results" / "ben_secret" / "ben_run").mkdir(parents=True)
    (results / "describe.jsonl").write_text('{"text": "Ben\'s picture."}\n')
    (results := path / "results" / "ann_catalog" / "ann_run").mkdir(parents=True)
    (results / "describe.jsonl").write_text('{"text": "Ann\'s picture."}\n')
    return path


@pytest.fixture(scope="module")
def browser(airflow_db: None) -> Iterator[Any]:
    """Airflow's API server as it is; one, because making it takes seconds. Settings are read at each request."""
    from airflow.api_fastapi.app import create_app, purge_cached_app
    from fastapi.testclient import TestClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "False")
        patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "own_dags.OwnDags")
        patch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        purge_cached_app()
        yield TestClient(create_app(apps="core"), follow_redirects=False)
        purge_cached_app()


@pytest.fixture
def ask(browser: Any, store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What the server answers to a user: ``ask(path, name, role)``."""
    monkeypatch.setenv("AIRFLOW__DESCRIBER__STORES", str(store))

    def ask(path: str, name: str = "", role: str | None = "VIEWER", *, token: str | None = None, **more: Any) -> Any:
        headers = {"accept": "application/json"} | more.pop("headers", {})
        token = token or (token_of(name, role, **more) if name else None)
        return browser.get(path, headers=headers | ({"authorization": f"Bearer {token}"} if token else {}))

    return ask


def token_of(name: str, role: str | None, teams: list[str] | None = None, **more: Any) -> str:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    known = {"teams": teams} if teams is not None else {}
    return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=name, role=role, **known), **more)


def test_airflow_finds_the_plugin_once_and_without_a_complaint(
    airflow_db: None, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.providers_manager import ProvidersManager

    (point,) = entry_points(group="airflow.plugins", name="describer")
    plugin = point.load()
    assert plugin.name == "describer" and plugin.external_views[0]["category"] == "browse"
    # Airflow would load what is listed here too, where providers are not discovered lazily.
    ProvidersManager().initialize_providers_plugins()
    assert "describer" not in {found.name for found in ProvidersManager().plugins}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING and "describer" in record.msg]


def test_the_ui_is_told_of_the_page(ask: Callable[..., Any]) -> None:
    answer = ask("/api/v2/plugins", "ann").json()
    (plugin,) = [plugin for plugin in answer["plugins"] if plugin["name"] == "describer"]
    (view,) = plugin["external_views"]
    assert (view["name"], view["href"], view["url_route"]) == ("Descriptions", "describer/", "describer")
    assert [app["url_prefix"] for app in plugin["fastapi_apps"]] == ["/describer"]
    assert ask("/api/v2/plugins/importErrors", "ann").json()["import_errors"] == []


def test_a_component_that_loads_the_plugin_imports_no_part_of_the_page() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import airflow.plugins_manager, airflow.providers.common.compat.sdk\n"
        "airflow.providers.common.compat.sdk.AirflowPlugin\n"
        "known = set(sys.modules)\n"
        "import airflow_provider_describer.plugins.descriptions\n"
        "print(*sorted(set(sys.modules) - known))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = [name for name in loaded if name.startswith("airflow_provider_describer")]
    # Some versions of Airflow have imported the package itself by then.
    assert set(ours) - {"airflow_provider_describer"} == {
        "airflow_provider_describer.plugins",
        "airflow_provider_describer.plugins.descriptions",
    }
    heavy = {"fastapi", "starlette", "PIL", "lance", "pyarrow", "httpx", "sqlalchemy"}
    assert not heavy & {name.partition(".")[0] for name in loaded}


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_answered_without_a_valid_login(ask: Callable[..., Any], path: str) -> None:
    expired = token_of("ann", "VIEWER", expiration_time_in_seconds=-60)
    foreign = expired.rpartition(".")[0] + "." + "A" * 86
    for token in (None, "nonsense", expired, foreign):
        answer = ask(path, token=token)
        assert answer.status_code == 401, (token, answer.text)
        assert answer.json() == {"error": "Log in to Airflow first: this needs a valid token."}
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PATHS)
def test_a_user_without_rights_is_refused(ask: Callable[..., Any], path: str) -> None:
    answer = ask(path, "nobody", None)
    assert answer.status_code == 403, answer.text
    assert "right to read Airflow's plugins" in answer.json()["error"]


def test_a_browser_is_led_to_the_login_and_back(ask: Callable[..., Any]) -> None:
    answer = ask("/describer/?store=s3%3A%2F%2Fb%2Fs&q=a%26b", headers={"accept": "text/html,*/*"})
    assert answer.status_code == 303
    address, _, next_page = answer.headers["location"].partition("?next=")
    assert address.endswith("/auth/login")
    assert next_page == "%2Fdescriber%2F%3Fstore%3Ds3%253A%252F%252Fb%252Fs%26q%3Da%2526b"


def test_a_cookie_is_a_login_too(ask: Callable[..., Any]) -> None:
    answer = ask("/describer/api/stores", headers={"cookie": f"_token={token_of('ann', 'VIEWER')}"})
    assert answer.status_code == 200, answer.text
    assert ask("/describer/api/stores", headers={"cookie": "_token=nonsense"}).status_code == 401


def test_a_viewer_sees_the_named_store(ask: Callable[..., Any], store: Path) -> None:
    page = ask("/describer/", "ann")
    assert page.status_code == 200 and "<h1>Descriptions</h1>" in page.text
    assert "frame-ancestors 'self'" in page.headers["content-security-policy"]
    assert ask("/describer/api/stores", "ann").json() == {"stores": [str(store)]}
    assert len(ask(f"/describer/api/rows?store={store}", "boss", "ADMIN").json()["rows"]) == 5
    assert ask("/describer/api/rows?store=/elsewhere", "ann").status_code == 404


def test_rows_of_a_dag_that_the_user_may_not_read_are_nowhere(ask: Callable[..., Any], store: Path) -> None:
    rows = ask(f"/describer/api/rows?store={store}", "ann").json()["rows"]
    assert {row["dag_id"] for row in rows} == {"ann_catalog", ""}
    everything = ask(f"/describer/api/rows?store={store}", "boss", "ADMIN").json()["rows"]
    (hidden,) = [row for row in everything if row["dag_id"] == "ben_secret"]
    answers = [
        ask(f"/describer/api/rows?store={store}&dag_id=ben_secret", "ann"),
        ask(f"/describer/api/rows?store={store}&q=Ben", "ann"),
        ask(f"/describer/api/totals?store={store}", "ann"),
        ask(f"/describer/api/history?store={store}&image={hidden['uri']}", "ann"),
        ask(f"/describer/api/thumbnail?store={store}&row={hidden['row']}", "ann"),
        ask(f"/describer/results?store={store}&dag_id=ben_secret&run_id=ben_run&task_id=describe", "ann"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 404, 404]
    assert not [answer.text for answer in answers if "Ben" in answer.text or "ben_" in answer.text]
    assert answers[2].json()["count"] == 4
    own = ask(f"/describer/results?store={store}&dag_id=ann_catalog&run_id=ann_run&task_id=describe", "ann")
    assert own.text == '{"text": "Ann\'s picture."}\n'
    assert own.headers["content-disposition"].startswith("attachment;")


@has_teams
def test_a_team_sees_nothing_of_another_team_s_dags(
    ask: Callable[..., Any], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.team import Team
    from airflow.utils.session import create_session

    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    with create_session() as session:
        for team, dag_id in (("red", "ann_catalog"), ("blue", "ben_secret")):
            bundle = DagBundleModel(name=f"{team}_bundle")
            bundle.teams.append(Team(name=team))
            session.add(bundle)
            session.flush()
            session.add(DagModel(dag_id=dag_id, bundle_name=bundle.name, fileloc="f", relative_fileloc="f"))
    try:
        rows = ask(f"/describer/api/rows?store={store}", "ann", teams=["red"]).json()["rows"]
        assert {row["dag_id"] for row in rows} == {"ann_catalog", ""}
        rows = ask(f"/describer/api/rows?store={store}", "ann", teams=[]).json()["rows"]
        assert {row["dag_id"] for row in rows} == {""}
        with create_session() as session:
            session.query(DagModel).filter_by(dag_id="ben_secret").delete()
        # A DAG that was deleted is of no team: it is no one's to read.
        rows = ask(f"/describer/api/rows?store={store}", "ben", teams=["blue"]).json()["rows"]
        assert {row["dag_id"] for row in rows} == {""}
    finally:
        with create_session() as session:
            session.query(DagModel).filter(DagModel.dag_id.in_(["ann_catalog", "ben_secret"])).delete()
            for team in session.query(Team).all():
                session.delete(team)
            session.query(DagBundleModel).filter(DagBundleModel.name.like("%_bundle")).delete()


def test_without_the_setting_there_is_no_store(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__DESCRIBER__STORES")
    assert ask("/describer/api/stores", "ann").json() == {"stores": []}


def test_a_wrong_setting_is_not_shown_to_readers(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DESCRIBER__STORES", "s3://secret-bucket/store too many words")
    answer = ask("/describer/api/stores", "ann")
    assert answer.status_code == 400 and "secret-bucket" not in answer.text
    assert "cannot be read" in answer.json()["error"]


def test_a_store_is_opened_with_its_connection_of_the_database(
    ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models import Connection
    from airflow.utils.session import create_session

    monkeypatch.setenv("AIRFLOW__DESCRIBER__STORES", "s3://bucket/store page_http, s3://bucket/other page_missing")
    with create_session() as session:
        session.add(Connection("page_http", "http", host="example.com", password="hidden-word"))
    try:
        answer = ask("/describer/api/rows?store=s3://bucket/store", "ann")
        assert answer.status_code == 400 and "a connection of type 'http'" in answer.json()["error"]
        assert "hidden-word" not in answer.text and "page_missing" not in answer.text
        answer = ask("/describer/api/rows?store=s3://bucket/other", "ann")
        assert answer.status_code == 400 and "there is no such connection" in answer.json()["error"]
    finally:
        with create_session() as session:
            session.query(Connection).filter_by(conn_id="page_http").delete()
