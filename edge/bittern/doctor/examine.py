"""The doctor: looks at everything that Bittern needs on this machine, and names the command that mends it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from bittern.doctor import camera, hardware, software
from bittern.doctor.findings import Finding, skipped
from bittern.errors import ConfigurationError
from bittern.system import machine
from bittern.system.commands import Runner, run
from bittern.system.machine import Machine

__all__ = ["Examination", "examine"]


class Examination(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        machine: its signature.
        checks: one finding each.
    """

    machine: Machine
    checks: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether no check failed; warnings are allowed."""
        return all(finding.status != "failure" for finding in self.checks)


def examine(
    source: str | None = None,
    *,
    red: bool = False,
    notice: Callable[[str], None] = lambda _: None,
    root: Path = Path("/"),
    runner: Runner = run,
    python: str = sys.executable,
) -> Examination:
    """Look at everything. A broken installation is a finding, never an exception.

    Args:
        source: URI of the camera; None is `picamera:` on a Raspberry Pi and no camera elsewhere.
        red: whether something red is held before the camera.
        notice: is told when that should be.
        root: the folder that holds `proc`, `sys`, `etc` and `boot`.
        runner: runs the commands and the probes.
        python: the interpreter that the probes run in.

    Raises:
        ConfigurationError: `red` without a camera.
    """
    found = machine.read(root, runner)
    is_pi = hardware.is_pi(found)
    uri = source or ("picamera:" if is_pi else None)
    if uri is None and red:
        raise ConfigurationError("--red: this is no Raspberry Pi; name a camera with --source")
    steps, there = software.look(root, runner, python, found)
    checks = [*hardware.check(root, runner, found), *software.check(steps, there, found)]
    if uri is None:
        checks += [skipped("camera", "no Raspberry Pi; name one with --source"), skipped("colours", "no camera")]
    else:
        if red:
            notice("now hold something evenly red before the camera, so that it fills the middle of the picture")
        checks += camera.check(camera.look(runner, python, uri, red), uri, root, there, is_pi)
    return Examination(found, checks)
