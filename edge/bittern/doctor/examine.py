"""The doctor: checks everything that Bittern needs on this machine and names the command that fixes a problem."""

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
    """The result of an examination.

    Attributes:
        machine: the machine's signature.
        checks: one finding per check.
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
    """Run all checks. A broken installation is a finding, never an exception.

    Args:
        source: URI of the camera; None is `picamera:` on a Raspberry Pi and no camera elsewhere.
        red: whether something red is held in front of the camera.
        notice: called with a message when it is time for that.
        root: the folder that contains `proc`, `sys`, `etc` and `boot`.
        runner: runs the commands and the probes.
        python: the interpreter for the probes.

    Raises:
        ConfigurationError: `red` without a camera.
    """
    signature = machine.read(root, runner)
    is_pi = hardware.is_pi(signature)
    uri = source or ("picamera:" if is_pi else None)
    if uri is None and red:
        raise ConfigurationError("--red: not a Raspberry Pi; name a camera with --source")
    steps, installation = software.run_probe(root, runner, python, signature)
    checks = [*hardware.check(root, runner, signature), *software.check(steps, installation, signature)]
    if uri is None:
        checks += [skipped("camera", "not a Raspberry Pi; name one with --source"), skipped("colours", "no camera")]
    else:
        if red:
            notice("now hold something evenly red in front of the camera, so that it fills the middle of the picture")
        checks += camera.check(camera.run_probe(runner, python, uri, red), uri, root, installation, is_pi)
    return Examination(signature, checks)
