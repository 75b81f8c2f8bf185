"""The DAGs of the documentation as they stand there, over the folder that $DOCUMENTED names in place of /data.

Airflow reads only files in which its own name stands.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[3] / "docs"
DATA = os.environ.get("DOCUMENTED", "/data")

for page in ("recipes.md", "start.md"):
    for code in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL):
        if "@dag(" in code:
            # start.md finds its folder from its own place. This module's own `__file__` stays: Airflow 3.1 reads it.
            names = {"__name__": __name__, "__file__": f"{DATA}/airflow/dags/{page}"}
            exec(compile(code.replace("/data", DATA), str(DOCS / page), "exec"), names)  # our own documentation
            globals().update({name: value for name, value in names.items() if not name.startswith("__")})
