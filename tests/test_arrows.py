"""Which package, and which room of the device package, may import which: read from the sources.

A new arrow is a decision, made in ROOMS; an arrow that nobody uses any more has to go from there.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
ROOTS = {"bittern": REPO / "edge", "bittern_convert": REPO / "convert", "bittern_train": REPO / "train"}
PACKAGES = {
    "bittern": {"bittern"},
    "bittern_convert": {"bittern", "bittern_convert"},
    "bittern_train": {"bittern", "bittern_convert", "bittern_train"},
}
# Modules at the top of the device package: any room may import them, and they import no room.
PLAIN = {"errors", "frames", "events", "stated", "version"}
# Rooms of the device package, from the outside in, and which rooms each of them imports.
ROOMS = {
    "cli": "bench doctor page daemon evaluation camera delivery sources decision model config system",
    "bench": "page daemon evaluation camera delivery decision model config scene system",
    "doctor": "sources model scene system",
    "page": "daemon camera delivery evaluation decision model config system",
    "daemon": "camera delivery sources decision model config system",
    "evaluation": "decision model system",
    "camera": "sources config system",
    "delivery": "config system",
    "sources": "model config scene system",
    "decision": "model config",
    "model": "system",
    "config": "system",
    "scene": "",
    "system": "",
}
HOST_ONLY = {
    "tensorflow", "keras", "sklearn", "matplotlib", "rich", "imagehash", "pandas", "scipy", "flatbuffers",
}  # fmt: skip
# What a module of the device may bring in from outside the standard library.
DEVICE = {"click", "numpy", "msgspec", "cv2", "ai_edge_litert", "tflite_runtime", "picamera2", "libcamera"}
# Extras: each imported only where its table stands in the configuration, or its kind of picture is read.
DEVICE |= {"paho", "gpiozero", "prometheus_client", "pillow_heif", "PIL", "starlette", "uvicorn"}
# What the bench compares with, where it is installed.
PEERS = {"bittern.bench.rows": {"mediapipe", "PIL"}}


def files(package: str) -> list[Path]:
    return sorted((ROOTS[package] / package).rglob("*.py"))


def module_of(file: Path, package: str) -> str:
    parts = file.relative_to(ROOTS[package]).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file, package) for package in ROOTS for file in files(package)}


def imports(file: Path, package: str) -> set[str]:
    """Every module that a file imports anywhere, also inside functions, and every module of ours that a string names.

    Such strings are the tables of modules that are imported when used, and the commands that start child processes.
    """
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            assert node.module is not None
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES
            names |= modules
            if len(modules) < len(node.names):
                names.add(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            # Completed when the module is known: all of that package may be meant.
            names |= {m for m in MODULES if m == node.value or (node.value.endswith(".") and m.startswith(node.value))}
    return names - {module_of(file, package)}


ALL = {package: {module_of(f, package): imports(f, package) for f in files(package)} for package in ROOTS}


def room_of(module: str) -> str:
    """The room of a module of the device package; a module at the top is called by its own name."""
    return module.split(".")[1] if "." in module else "bittern"


def test_the_reader_sees_every_kind_of_import() -> None:
    assert "bittern.model.preprocess" in ALL["bittern"]["bittern.model.classifier"], (
        "from bittern.model import preprocess"
    )
    assert "bittern.cli.watch" in ALL["bittern"]["bittern.cli.main"], "a table of names"
    assert "bittern.camera.child" in ALL["bittern"]["bittern.camera.child_handle"], "a child process"
    assert "bittern.sources.picamera" in ALL["bittern"]["bittern.sources.registry"], "imported when used"


@pytest.mark.parametrize("package", ROOTS)
def test_packages_import_in_one_direction(package: str) -> None:
    assert ALL[package], "there is something to read"
    for module, names in ALL[package].items():
        assert {name.split(".")[0] for name in names} & set(ROOTS) <= PACKAGES[package], module


def test_rooms_import_as_the_table_says() -> None:
    arrows: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module, names in ALL["bittern"].items():
        targets = {room_of(name) for name in names if name.split(".")[0] == "bittern"} - PLAIN - {room_of(module)}
        if room_of(module) in PLAIN:
            assert not targets, f"{module} is plain data"
        elif module != "bittern":  # the public names
            arrows[room_of(module)] |= targets
    assert arrows == {room: set(names.split()) for room, names in ROOMS.items()}


def test_no_room_is_in_a_circle() -> None:
    TopologicalSorter({room: names.split() for room, names in ROOMS.items()}).prepare()


@pytest.mark.parametrize("package", ROOTS)
def test_no_module_is_in_a_circle(package: str) -> None:
    try:
        TopologicalSorter(ALL[package]).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_device_imports_nothing_of_the_host() -> None:
    for module, names in ALL["bittern"].items():
        outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"bittern"}
        outside -= PEERS.get(module, set())
        assert not outside & HOST_ONLY, module
        assert outside <= DEVICE, module


def test_the_device_names_no_host_module() -> None:
    for file in files("bittern"):
        text = file.read_text(encoding="utf-8")
        assert "bittern_train" not in text, file
        assert "bittern_convert" not in text, file


def test_only_the_command_line_imports_click() -> None:
    for modules in ALL.values():
        for module, names in modules.items():
            if "click" in names:
                assert "cli" in module.split("."), module


def test_the_runtime_is_imported_in_one_place() -> None:
    for module, names in ALL["bittern"].items():
        if {name.split(".")[0] for name in names} & {"ai_edge_litert", "tflite_runtime"}:
            assert module == "bittern.model.runtime"


@pytest.mark.parametrize("package", ROOTS)
def test_a_module_says_first_what_it_is_for(package: str) -> None:
    for file in files(package):
        text = file.read_text(encoding="utf-8")
        assert text.startswith('"""'), file
        tree = ast.parse(text)
        assert ast.get_docstring(tree), file
        if file.name == "__init__.py" and file.parent != ROOTS["bittern"] / "bittern":
            assert len(tree.body) == 1, f"{file}: a room's __init__ is its docstring"
