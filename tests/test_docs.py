"""The pages: code, files, targets of make and links that they name are there; and a name has one meaning."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
ROOTS = {"bittern": REPO / "edge", "bittern_convert": REPO / "convert", "bittern_train": REPO / "train"}
PAGES = sorted([*REPO.glob("*.md"), *(REPO / "docs").glob("*.md")])
FOLDERS = r"edge|convert|train|tests|docs|models|deploy|locks|\.ci"
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)`")
TARGETS = re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
NAME = re.compile(r"`((?:bittern|bittern_convert|bittern_train)(?:\.\w+)+)`")
GLOSSARY = re.findall(r"^\| (.+?) \| .+ \| `([\w.]+)` \|$", (REPO / "docs/glossary.md").read_text(), re.MULTILINE)


def defined(nodes: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a module or class defines, by name; not what it imports."""
    names: dict[str, ast.stmt] = {}
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign):
            names |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
    return names


def is_there(name: str) -> bool:
    """Whether a dotted name is a package, a module, or defined in a module or class; nothing is imported."""
    package, *parts = name.split(".")
    path = ROOTS[package] / package
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    if not parts:
        return True
    file = path / f"{parts.pop(0)}.py"
    if not file.is_file():
        return False
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for part in parts:
        names = defined(body)
        if part not in names:
            return False
        node = names[part]
        body = node.body if isinstance(node, ast.ClassDef) else []
    return True


def test_the_reader_of_names_can_fail() -> None:
    assert is_there("bittern.decision")
    assert is_there("bittern.frames.Frame.number")
    for wrong in ("bittern.absent", "bittern.frames.Absent", "bittern.frames.Frame.absent", "bittern.frames.np"):
        assert not is_there(wrong), wrong


def test_every_word_of_the_glossary_has_one_row_and_its_code() -> None:
    words = [word for word, _ in GLOSSARY]
    assert len(words) > 50
    assert sorted(set(words)) == sorted(words)
    assert [(word, name) for word, name in GLOSSARY if not is_there(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name != "CHANGELOG.md":  # which speaks of the past too
        assert [name for name in NAME.findall(text) if not is_there(name)] == []
        assert [path for path in PATH.findall(text) if "NAME" not in path and not (REPO / path).exists()] == []
        assert set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.MULTILINE)) <= set(TARGETS)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target


def test_the_tables_that_contributing_names_are_there() -> None:
    """A name in capitals is assigned in a module, or a variable that the Makefile reads."""
    names = set(re.findall(r"`(_?[A-Z][A-Z_]{2,})`", (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assigned = set(re.findall(r"\$\((\w+)\)", (REPO / "Makefile").read_text(encoding="utf-8")))
    for root in ("edge", "convert", "train", "tests"):
        for file in (REPO / root).rglob("*.py"):
            assigned |= set(re.findall(r"^(\w+)(?:: .+)? = ", file.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(names) > 5
    assert names <= assigned


def test_a_class_has_its_name_for_itself() -> None:
    """No other class, and no type alias, has the name of a public class; aliases of one type may be repeated."""
    places: dict[str, set[str]] = {}
    classes: set[str] = set()
    for package, root in ROOTS.items():
        for file in (root / package).rglob("*.py"):
            for name, node in defined(ast.parse(file.read_text(encoding="utf-8")).body).items():
                places.setdefault(name, set()).add(str(file.relative_to(root)))
                if isinstance(node, ast.ClassDef) and not name.startswith("_"):
                    classes.add(name)
    assert {name: places[name] for name in classes if len(places[name]) > 1} == {}
