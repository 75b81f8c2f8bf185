"""A vendor of another package in Airflow: connection type, form and hook follow from its class."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TOY = Path(__file__).parents[1] / "servers" / "toy_vendor.py"
SHOWN = """
import json
from airflow_provider_describer.hooks.describer import DescriberHook, ToyHook
from airflow_provider_describer.provider_info import get_provider_info
import airflow_provider_describer.hooks.describer as hooks
type_ = next(row for row in get_provider_info()["connection-types"] if row["connection-type"] == "toy")
own = {"get_connection_form_widgets", "get_ui_field_behaviour"} <= set(vars(ToyHook))
hook = ToyHook()
try:
    hook.account
except Exception as error:
    said = str(error)
print(json.dumps({
    "type": type_, "own_form": own, "name": ToyHook.hook_name, "default": ToyHook.default_conn_name, "said": said,
    "is_hook": issubclass(ToyHook, DescriberHook), "is_one": hooks.ToyHook is ToyHook,
    "answer": hooks.DescriberHook("shop").vendor.model, "missing": hasattr(hooks, "NoHook"),
}))
"""


def test_its_type_its_form_and_its_hook_follow_from_its_class(tmp_path: Path, airflow_db: None) -> None:
    about = tmp_path / "toy-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[airflow_provider_describer.vendors]\ntoy = toy:Toy\n")
    (tmp_path / "toy.py").write_text(TOY.read_text())
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    shop = {"conn_type": "toy", "extra": {"model": "m-1"}}
    environment = os.environ | {"PYTHONPATH": path, "AIRFLOW_CONN_SHOP": json.dumps(shop)}
    run = subprocess.run([sys.executable, "-c", SHOWN], env=environment, capture_output=True, text=True, check=True)
    shown = json.loads(run.stdout.splitlines()[-1])
    assert shown["type"]["hook-class-name"] == "airflow_provider_describer.hooks.describer.ToyHook"
    assert shown["type"]["hook-name"] == shown["name"] == "Toy"
    assert shown["type"]["conn-fields"]["max_words"]["schema"] == {"type": ["integer", "null"], "default": 30}
    assert shown["type"]["conn-fields"]["style"]["schema"] == {"type": ["object", "null"]}
    assert shown["own_form"] and shown["is_hook"] and shown["is_one"] and not shown["missing"]
    assert shown["answer"] == "m-1"
    assert shown["said"].endswith(
        """airflow connections add toy_default --conn-type toy --conn-extra '{"model": "YOUR_MODEL"}'"""
    )
