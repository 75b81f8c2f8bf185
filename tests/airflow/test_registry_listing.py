"""`.airflow-registry.yaml` names this package, and only classes that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import airflow_provider_describer.hooks.describer
import airflow_provider_describer.operators.describe
import airflow_provider_describer.sensors.images

LISTING = (Path(__file__).resolve().parents[2] / ".airflow-registry.yaml").read_text(encoding="utf-8")
MODULES = re.findall(r"^  - module: (\S+)$", LISTING, re.MULTILINE)


def test_the_listing_names_this_package() -> None:
    assert "\npackage-name: airflow-provider-describer\n" in LISTING


def test_every_listed_class_exists() -> None:
    for path in MODULES:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type), path


def test_all_public_operators_sensors_and_hooks_are_listed() -> None:
    listed = {path.rpartition(".")[2] for path in MODULES}
    for module in (
        airflow_provider_describer.hooks.describer,
        airflow_provider_describer.operators.describe,
        airflow_provider_describer.sensors.images,
    ):
        own = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
        assert {name for name in own if re.search(r"(Operator|Sensor|[a-z]Hook)$", name)} - {"DescriberHook"} <= listed
