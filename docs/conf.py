"""How Sphinx builds these pages: ``make docs`` writes them to build/docs/html, and every warning is an error."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = PROJECT["name"]
author = "the developers of airflow-provider-describer"
release = version = PROJECT["version"]
language = "en"

extensions = ["myst_parser", "autoapi.extension", "sphinx_copybutton", "sphinxcontrib.mermaid"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["images"]
# A name of ours that leads nowhere is an error; names of other packages, and of hidden rooms, are shown without a link.
nitpicky = True
# Docstrings write code in single quotes of this kind.
default_role = "code"

# The API reference is read from the source. Nothing is imported, so no Airflow, cloud or database is needed.
autoapi_dirs = [str(ROOT / "airflow_provider_describer")]
autoapi_generate_api_docs = False
autoapi_add_toctree_entry = False
autoapi_python_class_content = "class"
autoapi_options = ["members", "show-inheritance"]
# Rooms of which no page shows a class; what others import from them stays unresolved.
HIDDEN = ("arrivals", "engine", "gallery", "http", "images", "quota", "storage", "vendors")
autoapi_ignore = [f"*/{room}/*" for room in HIDDEN]
suppress_warnings = ["autoapi.python_import_resolution"]
nitpick_ignore_regex = [
    ("py:.*", r"(?!airflow_provider_describer\.).*"),
    ("py:.*", rf"airflow_provider_describer\.({'|'.join(HIDDEN)})\..*"),
]
autosummary_generate = False

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
# A prompt is no part of a command.
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_copyright = False


def setup(app: Any) -> None:
    app.connect("source-read", without_links_out)


def without_links_out(app: Any, page: str, source: list[str]) -> None:
    """Leave the names of Markdown files above docs/ as names: GitHub shows these files, and the built pages do not."""
    source[0] = re.sub(r"\[([^]]+)\]\(\.\./[A-Z]+\.md\)", r"`\1`", source[0])
