"""The package as Airflow and an installer see it."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution, entry_points, requires
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest

import airflow_provider_describer
from airflow_provider_describer.decorators.describe_images import describe_images_task

NAME = "airflow-provider-describer"
HOOKS = {
    "image_describer": "airflow_provider_describer.hooks.describer.ImageDescriberHook",
    "openai_compatible": "airflow_provider_describer.hooks.describer.OpenAICompatibleHook",
    "segmind": "airflow_provider_describer.hooks.describer.SegmindHook",
}
DIST = Path(__file__).resolve().parents[2] / "build" / "dist"
of_the_wheel = pytest.mark.skipif(
    os.environ.get("DESCRIBER_EXPECT_WHEEL") != "1", reason="the package is not installed from a wheel here"
)


def airflow_says(command: str, *arguments: str) -> Any:
    """Run an Airflow command, which must have nothing to complain about, and return its JSON."""
    done = subprocess.run([command, *arguments, "-o", "json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # Airflow's own deprecations are none of this package's business.
    said = [line for line in (done.stdout + done.stderr).splitlines() if "describer" in line.lower()]
    complaints = [line for line in said if re.search(r"warning|error|exception|traceback", line, re.IGNORECASE)]
    assert not [line for line in complaints if not line.startswith("[{")]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[")))


def provider_info() -> dict[str, Any]:
    (point,) = entry_points(group="apache_airflow_provider", name="provider_info").select(
        value="airflow_provider_describer.provider_info:get_provider_info"
    )
    info: dict[str, Any] = point.load()()
    return info


@of_the_wheel
def test_the_package_under_test_is_the_built_wheel() -> None:
    assert "site-packages" in Path(airflow_provider_describer.__file__ or "").parts


def test_airflow_lists_the_provider(airflow_command: str) -> None:
    listed = {provider["package_name"]: provider for provider in airflow_says(airflow_command, "providers", "list")}
    assert listed[NAME]["version"] == distribution(NAME).version


def test_airflow_shows_both_connection_types(airflow_command: str) -> None:
    hooks = {hook["connection_type"]: hook for hook in airflow_says(airflow_command, "providers", "hooks")}
    for connection_type, class_name in HOOKS.items():
        assert hooks[connection_type]["class"] == class_name
        assert hooks[connection_type]["conn_id_attribute_name"] == "describer_conn_id"


def test_airflow_lists_the_links_of_tasks(airflow_command: str) -> None:
    listed = {link["extra_link_class_name"] for link in airflow_says(airflow_command, "providers", "links")}
    assert listed >= set(provider_info()["extra-links"])


def test_the_provider_info_fits_the_schema_of_this_airflow() -> None:
    schema = json.loads(Path(airflow.__path__[0], "provider_info.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(provider_info(), schema)


def test_the_provider_info_names_what_exists() -> None:
    info = provider_info()
    assert info["package-name"] == NAME
    named = {row["connection-type"]: row["hook-class-name"] for row in info["connection-types"]}
    assert named == HOOKS
    for connection_type, class_name in named.items():
        module, _, name = class_name.rpartition(".")
        assert getattr(importlib.import_module(module), name).conn_type == connection_type
    links = [path.rpartition(".") for path in info["extra-links"]]
    assert [getattr(importlib.import_module(module), name)().name for module, _, name in links] == [
        "Descriptions",
        "Results",
        "Vendor",
    ]


def test_every_place_names_the_same_documentation() -> None:
    """Airflow takes ``documentation_url`` from the metadata; the registry and the provider info say the same."""
    root = Path(__file__).resolve().parents[2]
    documentation = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
        "Documentation"
    ]
    assert f"\ndocs-url: {documentation}\n" in (root / ".airflow-registry.yaml").read_text(encoding="utf-8")
    assert provider_info()["integrations"][0]["external-doc-url"] == documentation


@of_the_wheel
def test_airflow_knows_the_documentation() -> None:
    from airflow.providers_manager import ProvidersManager

    assert ProvidersManager().providers[NAME].data["documentation-url"].strip().startswith("https://pypi.org/project/")


LOADED = """
import importlib, pkgutil, sys
before = set(sys.modules)
import airflow_provider_describer.provider_info
airflow_provider_describer.provider_info.get_provider_info()
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
from airflow.providers.common.compat.sdk import BaseHook, BaseNotifier, BaseOperator, BaseSensorOperator
from airflow.providers.common.compat.sdk import DecoratedOperator, conf
before = set(sys.modules)
for room in ("hooks", "operators", "sensors", "triggers", "decorators", "links", "notifications"):
    package = importlib.import_module(f"airflow_provider_describer.{room}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
# Every component of Airflow loads the plugin, and only the API server what its page is made of.
import airflow_provider_describer.plugins.descriptions
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
SLOW_TO_LOAD = {
    *("lance", "pyarrow", "pandas", "numpy", "PIL", "obstore", "boto3", "botocore", "google", "httpx", "httpcore"),
    *("anyio", "starlette", "fastapi", "uvicorn", "sqlalchemy", "openlineage"),
}


def test_what_a_dag_file_imports_loads_no_library_that_only_a_running_task_needs() -> None:
    """Every DAG file that uses the package pays for its imports, each time that it is parsed."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=600)
    of_discovery, of_all = (set(line.split()) for line in done.stdout.splitlines()[-2:])
    assert "airflow_provider_describer" in of_discovery & of_all
    assert not of_discovery & {"airflow", *SLOW_TO_LOAD}, "Airflow asks for the provider info at every start"
    assert of_all & SLOW_TO_LOAD == set()


def test_the_decorator_is_where_the_provider_info_says() -> None:
    (decorator,) = provider_info()["task-decorators"]
    module, _, name = decorator["class-name"].rpartition(".")
    assert decorator["name"] == "describe_images"
    assert getattr(importlib.import_module(module), name) is describe_images_task


def test_what_is_needed_without_airflow_is_one_list() -> None:
    """The dependency group `core` repeats the package's dependencies; nothing else keeps the two alike."""
    path = Path(__file__).resolve().parents[2] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))
    own = [line for line in project["project"]["dependencies"] if not line.startswith("apache-airflow")]
    extras = project["project"]["optional-dependencies"]
    buckets = [line for line in extras["amazon"] if line in extras["google"]]
    assert project["dependency-groups"]["core"] == own + extras["emulator"] + buckets


@pytest.fixture(scope="module")
def wheel() -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(next(DIST.glob("*.whl"))) as archive:
        yield archive


@of_the_wheel
def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"airflow_provider_describer"}
    assert "airflow_provider_describer/py.typed" in names
    assert not [name for name in names if "test" in name.lower() or name.endswith((".pyc", ".lock"))]
    assert [name for name in names if name.endswith("dist-info/licenses/LICENSE")]


@of_the_wheel
def test_the_wheel_asks_for_what_the_package_imports() -> None:
    needed = [line for line in requires(NAME) or () if "extra ==" not in line]
    names = {re.match(r"[\w-]+", line)[0] for line in needed}  # type: ignore[index]
    assert names == {
        "apache-airflow",
        "apache-airflow-providers-common-compat",
        "apache-airflow-providers-standard",
        "anyio",
        "httpcore",
        "httpx",
        "pyarrow",
        "pylance",
        "regex",
        "sniffio",
    }


@of_the_wheel
def test_the_source_distribution_can_be_built_and_tested() -> None:
    with tarfile.open(next(DIST.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "Makefile",
        "docs/conf.py",
        "docs/index.md",
        "airflow_provider_describer/py.typed",
    }
    assert expected <= names
    assert {"tests/airflow/test_package.py", "demo/run.py", "constraints/airflow-3.3.txt"} <= names
    assert not [
        name for name in names if name.startswith((".venv", ".git/", "build", ".cache")) or "__pycache__" in name
    ]
