"""Runs commands of the operating system, each with a time-out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class CommandResult(NamedTuple):
    """The result of a command.

    Attributes:
        code: its exit code, negative for the signal that ended it; None if it does not exist or took too long.
        out: its stdout, also after a time-out.
        err: its stderr; if the code is None, one line with the reason.
    """

    code: int | None
    out: str = ""
    err: str = ""


class Runner(Protocol):
    """Anything that runs a command like `run`."""

    def __call__(self, command: Sequence[str], timeout_s: float = 5.0, stdin: str = "") -> CommandResult:
        """Run the command; never raises."""
        ...


def run(command: Sequence[str], timeout_s: float = 5.0, stdin: str = "") -> CommandResult:
    """Run a command with an English locale, and a short text on its stdin.

    Never raises, and never waits longer than `timeout_s` plus one second: a process that even SIGKILL does not end,
    because it is stuck in a driver, is left behind.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        return CommandResult(None, err=f"{command[0]}: {error.strerror}")
    try:
        out, err = process.communicate(stdin.encode("utf-8", "surrogateescape"), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            out, _ = process.communicate(timeout=1.0)
        except subprocess.TimeoutExpired as expired:
            out = expired.stdout or b""
        reason = f"{command[0]}: no answer within {timeout_s:g} s"
        return CommandResult(None, out.decode(errors="replace"), reason)
    return CommandResult(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
