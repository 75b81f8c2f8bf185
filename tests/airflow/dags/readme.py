"""The DAG of README's section "Use" as it stands there; only its paths and its connection are taken from `conf`.

Airflow reads only files in which its own name stands.
"""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[3] / "README.md"
USE = README.read_text(encoding="utf-8").partition("\n## Use\n")[2]
(CODE, *_) = re.findall(r"```python\n(.*?)```", USE, re.DOTALL)
for literal, template in (
    ("/data/descriptions", "{{ dag_run.conf.store }}"),
    ("/data/catalog/**", "{{ dag_run.conf.images }}"),
    ('"image_describer_default"', '"{{ dag_run.conf.conn_id }}"'),
):
    assert CODE.count(literal) == 1, literal
    CODE = CODE.replace(literal, template)
exec(compile(CODE, str(README), "exec"))  # our own README
