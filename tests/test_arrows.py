"""Which module may import which: read from the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
ROOTS = {"bittern": REPO / "edge", "bittern_convert": REPO / "convert", "bittern_train": REPO / "train"}
MAY_IMPORT = {
    "bittern": {"bittern"},
    "bittern_convert": {"bittern", "bittern_convert"},
    "bittern_train": {"bittern", "bittern_convert", "bittern_train"},
}
HOST_ONLY = {
    "tensorflow",
    "keras",
    "sklearn",
    "matplotlib",
    "rich",
    "imagehash",
    "PIL",
    "pandas",
    "scipy",
    "flatbuffers",
}
# What a module of the device may bring in from outside the standard library.
DEVICE = {"click", "numpy", "msgspec", "cv2", "ai_edge_litert", "tflite_runtime", "picamera2", "libcamera"}
# Extras: each imported only where its table stands in the configuration.
DEVICE |= {"paho", "gpiozero", "prometheus_client"}
# What the bench compares with, where it is installed.
PEERS = {"bittern.bench.rows": {"mediapipe", "PIL"}}
PLAIN = ("manifest", "config", "toml_file", "events", "frames", "errors")
STATIONS = {"bittern.sources", "bittern.classifier", "bittern.decision"}


def files(package: str) -> list[Path]:
    return sorted((ROOTS[package] / package).rglob("*.py"))


def module_of(file: Path, package: str) -> str:
    parts = file.relative_to(ROOTS[package]).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, package: str) -> set[str]:
    """Every module that a file imports anywhere, also `from x import y` where y is a module, and import_module("x")."""
    own = module_of(file, package)
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            assert node.module is not None
            found.add(node.module)
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if any(module_of(other, p) == name for p in ROOTS for other in files(p)):
                    found.add(name)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
            "import_module",
            "__import__",
        ):
            (argument,) = node.args[:1]
            if isinstance(argument, ast.Constant):
                found.add(str(argument.value))
    return found - {own}


ALL = {package: {module_of(f, package): imports(f, package) for f in files(package)} for package in ROOTS}


def test_there_is_something_to_read() -> None:
    assert all(len(modules) >= 5 for modules in ALL.values())
    assert "bittern.contract" in ALL["bittern"]["bittern.classifier"], "`from bittern import contract` is seen"


@pytest.mark.parametrize("package", ROOTS)
def test_packages_import_in_one_direction(package: str) -> None:
    for module, names in ALL[package].items():
        ours = {name.split(".")[0] for name in names} & set(ROOTS)
        assert ours <= MAY_IMPORT[package], module


def test_the_device_imports_nothing_of_the_host() -> None:
    import sys

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


@pytest.mark.parametrize("name", PLAIN)
def test_plain_data_imports_nobody(name: str) -> None:
    ours = {i for i in ALL["bittern"][f"bittern.{name}"] if i.split(".")[0] == "bittern"}
    assert ours <= {"bittern.errors", "bittern.toml_file"}


def test_only_the_pipeline_and_its_commands_know_several_stations() -> None:
    for module, names in ALL["bittern"].items():
        known = {s for s in STATIONS if s in names or module.startswith(s)}
        if module not in (
            "bittern.pipeline",
            "bittern.watch",
            "bittern.daemon",
            "bittern.cli.watch",
            "bittern.cli.replay",
        ):
            assert len(known) <= 1, (module, known)
    assert {"bittern.classifier", "bittern.decision"} <= ALL["bittern"]["bittern.pipeline"]


def test_only_the_command_line_imports_click() -> None:
    for package, modules in ALL.items():
        for module, names in modules.items():
            if "click" in names:
                assert module.removeprefix(f"{package}.").split(".")[0] == "cli", module


def test_the_runtime_is_imported_in_one_place() -> None:
    for module, names in ALL["bittern"].items():
        if {name.split(".")[0] for name in names} & {"ai_edge_litert", "tflite_runtime"}:
            assert module == "bittern.runtime"


def test_a_module_says_first_what_it_is_for_and_is_one_thing() -> None:
    for package in ROOTS:
        for file in files(package):
            text = file.read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(text)), file
            assert text.startswith('"""'), file
            assert len(text.splitlines()) <= 400, f"{file} is two things"
