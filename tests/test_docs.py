"""The documentation is true to the code: its tables have every kind of error, its Python can be read by Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "airflow_provider_describer"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RESULTS = ROOT / "docs" / "results.md"


def texts(node: ast.AST | None) -> Iterator[str]:
    """The texts that an expression may give and that look like a kind."""
    if isinstance(node, ast.IfExp | ast.BoolOp):
        for part in (node.body, node.orelse) if isinstance(node, ast.IfExp) else node.values:
            yield from texts(part)
    elif isinstance(node, ast.Dict | ast.Tuple | ast.List | ast.Set):
        for member in [*node.keys] if isinstance(node, ast.Dict) else [*node.elts]:
            yield from texts(member)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch("[a-z_]+", node.value):
        yield node.value


def kinds_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The kinds of error that a module names: ``kind="x"``, ``kind = "x"``, and what …KIND… and …FAILURES hold."""
    for node in ast.walk(tree):
        found: list[ast.AST | None] = []
        if isinstance(node, ast.keyword) and node.arg == "kind":
            found = [node.value]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if any("kind" in name.lower() or "FAILURES" in name for name in names):
                found = [node.value]
        elif isinstance(node, ast.FunctionDef) and re.search("kind|_failure", node.name):
            found = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return)]
        for text in (text for value in found for text in texts(value)):
            yield text, getattr(node, "lineno", 0)


def named_kinds() -> dict[str, str]:
    """Each kind of error in the source, and where it stands. The emulator stands for the outside world."""
    kinds: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        # In a form a kind is a type of JSON schema; the page's errors are in no row.
        if not {"emulator", "gallery"} & set(path.parts) and path.name != "fields.py":
            for kind, line in kinds_in(ast.parse(path.read_text(encoding="utf-8"))):
                kinds.setdefault(kind, f"{path.relative_to(ROOT)}:{line}")
    return kinds


def documented_kinds() -> set[str]:
    after = RESULTS.read_text(encoding="utf-8").partition("## Kinds of `error`")[2]
    cells = re.findall(r"^\| (`.+?) \|", after, re.MULTILINE)
    return {kind for cell in cells for kind in re.findall("`([a-z_]+)`", cell)}


def test_the_source_is_searched_for_kinds() -> None:
    kinds = named_kinds()
    assert {"budget", "corrupt", "harmful_content", "denied", "invalid_key", "spend_limit", "ambiguous"} <= set(kinds)


def test_every_kind_of_error_is_explained() -> None:
    missing = {kind: where for kind, where in named_kinds().items() if kind not in documented_kinds()}
    assert missing == {}, (
        f"{RESULTS.relative_to(ROOT)} does not explain these kinds of error (each with where it is raised). Add it to "
        "the table that fits, as a line such as: | `kind` | what it means | what to do |"
    )


def test_no_kind_is_explained_that_is_not_there() -> None:
    assert documented_kinds() - set(named_kinds()) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_documentation_can_be_parsed(page: Path) -> None:
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        ast.parse(code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_dag_in_the_documentation_has_one_run_at_a_time(page: Path) -> None:
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        with_reason = re.findall(r"max_active_runs=1(?:,|\)\n?)  # \w+", code)
        assert len(re.findall(r"@dag\b|\bDAG\(", code)) == len(with_reason)


def prose(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"^```.*?^```$|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and Sphinx make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,4} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file and a heading that exist. An address outside is not asked, and has to look like one."""
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if "://" in target:
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/[\w./%#?=~-]*)?", target), target
            continue
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target
