"""The locks: each holds what pyproject.toml asks for, by exact version and hash, and no index."""

from __future__ import annotations

import argparse
import itertools
import platform
import re
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).parents[1]
LOCKS = REPO / "locks"
PYPROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
# Systems that the locks are for: Python, machine.
SYSTEMS = list(itertools.product(("3.11", "3.12", "3.13", "3.14"), ("x86_64", "aarch64")))
PI_32_BIT = ("3.11", "armv7l")


def environment(python: str, machine: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.7",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }


def holds(requirement: Requirement, system: tuple[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment(*system))


def requirements(extras: list[str], groups: list[str], *, project: bool) -> list[Requirement]:
    """What pyproject.toml asks for: groups, and the project with these extras, which may name others of its own."""
    texts = [text for group in groups for text in PYPROJECT["dependency-groups"][group]]
    if project:
        texts += PYPROJECT["project"]["dependencies"]
    result = []
    for extra in extras:
        texts += PYPROJECT["project"]["optional-dependencies"][extra]
    for requirement in map(Requirement, texts):
        if requirement.name == "bittern":
            result += requirements(sorted(requirement.extras), [], project=False)
        else:
            result.append(requirement)
    return result


@dataclass(frozen=True)
class Lock:
    """A file of locks/, as `uv pip compile` wrote it."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def options(self) -> argparse.Namespace:
        """The command in the file's head."""
        parser = argparse.ArgumentParser()
        for option in ("--extra", "--group", "--no-emit-package"):
            parser.add_argument(option, action="append", default=[])
        for option in ("--python-version", "--project", "-c", "-o"):
            parser.add_argument(option)
        for option in ("--universal", "--generate-hashes"):
            parser.add_argument(option, action="store_true")
        parser.add_argument("source", nargs="?")
        command = self.text.splitlines()[1].removeprefix("#    uv pip compile ")
        return parser.parse_args(command.split())

    @cached_property
    def required(self) -> list[Requirement]:
        groups = [group.removeprefix("pyproject.toml:") for group in self.options.group]
        named = requirements(self.options.extra, groups, project=self.options.source == "pyproject.toml")
        return [requirement for requirement in named if requirement.name not in self.options.no_emit_package]

    @cached_property
    def systems(self) -> list[tuple[str, str]]:
        return [*SYSTEMS, PI_32_BIT] if self.options.project else SYSTEMS

    @cached_property
    def blocks(self) -> list[str]:
        """One a pinned package: its requirement, its hashes, and who asks for it."""
        body = re.sub(r"^#.*\n", "", self.text, flags=re.MULTILINE)
        return [block for block in re.split(r"\n(?=\S)", body.strip()) if block]

    @cached_property
    def pins(self) -> list[Requirement]:
        return [Requirement(block.splitlines()[0].rstrip("\\")) for block in self.blocks]

    def versions(self, system: tuple[str, str]) -> dict[str, str]:
        """The version of every package on a system."""
        return {pin.name: str(pin.specifier).removeprefix("==") for pin in self.pins if holds(pin, system)}


ALL = [Lock(path) for path in sorted(LOCKS.glob("*.txt"))]


@pytest.fixture(params=ALL, ids=lambda lock: lock.path.stem)
def lock(request: pytest.FixtureRequest) -> Lock:
    param: Lock = request.param
    return param


def test_it_holds_what_pyproject_asks_for(lock: Lock) -> None:
    for system in lock.systems:
        versions = lock.versions(system)
        for requirement in lock.required:
            version = versions.get(canonicalize_name(requirement.name))
            if holds(requirement, system) and (version is None or version not in requirement.specifier):
                pytest.fail(
                    f"run make lock: pyproject.toml asks for {requirement}, "
                    f"{lock.path.name} has {version or 'none'} for Python {system[0]} on {system[1]}"
                )


def test_it_holds_nothing_that_pyproject_no_longer_asks_for(lock: Lock) -> None:
    asking = {pin.name for pin, block in zip(lock.pins, lock.blocks, strict=True) if "bittern (pyproject.toml" in block}
    gone = asking - {canonicalize_name(requirement.name) for requirement in lock.required}
    assert not gone, f"run make lock: pyproject.toml no longer asks for {', '.join(sorted(gone))} of {lock.path.name}"


def test_every_package_has_one_version_and_its_hashes(lock: Lock) -> None:
    assert lock.pins
    for pin, block in zip(lock.pins, lock.blocks, strict=True):
        assert re.fullmatch(r"==[\w.+!]+", str(pin.specifier)), pin
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", block), pin
    for system in lock.systems:
        names = [pin.name for pin in lock.pins if holds(pin, system)]
        assert len(names) == len(set(names)), system


def test_it_names_no_index_and_no_folder(lock: Lock) -> None:
    for word in ("://", "--index", "--extra-index", "--find-links", " @ ", str(Path.home())):
        assert word not in lock.text
    assert lock.options.universal
    assert lock.options.generate_hashes
    assert lock.options.python_version == PYPROJECT["project"]["requires-python"].removeprefix(">=")


def test_what_builds_the_project_is_locked() -> None:
    groups = PYPROJECT["dependency-groups"]
    assert set(PYPROJECT["build-system"]["requires"]) <= set(groups["build"])


def test_a_raspberry_pi_gets_no_numpy_and_no_opencv_beside_debians() -> None:
    for name in ("pi.txt", "pi-dev.txt"):
        assert not [pin for pin in Lock(LOCKS / name).pins if pin.name.startswith(("numpy", "opencv"))]


def test_make_renews_every_lock_and_installs_nothing_else() -> None:
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    for lock in ALL:
        assert f"-o locks/{lock.path.name}\n" in makefile
    installs = [line for line in makefile.splitlines() if "$(PIP)" in line]
    assert len(installs) == 4
    assert all("--require-hashes -r locks/" in line or "--no-index" in line for line in installs)


def test_this_environment_is_the_locked_one() -> None:
    """What `make` installed here has the versions of the locks."""
    over_debian = "include-system-site-packages = true" in Path(sys.prefix, "pyvenv.cfg").read_text(encoding="utf-8")
    system = (".".join(platform.python_version_tuple()[:2]), platform.machine())
    locked: dict[str, str] = {}
    for name in ("build.txt", "pi-dev.txt" if over_debian else "dev.txt"):
        locked |= Lock(LOCKS / name).versions(system)
    installed = {
        canonicalize_name(distribution.metadata["Name"]): distribution.version
        for distribution in metadata.distributions(path=[sysconfig.get_path("purelib")])
    }
    for name, version in installed.items():
        assert locked.get(name, version) == version, f"run make .venv/.dev: {name} is {version} here"
