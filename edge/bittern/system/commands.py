"""Commands of the operating system, each with a time-out: what they printed, or that they are not there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Output(NamedTuple):
    """What became of a command.

    Attributes:
        code: its exit code, negative for the signal that ended it; None if it is not there or took too long.
        out: what it wrote to stdout, also if it was given up.
        err: what it wrote to stderr; for a code of None one line that says why.
    """

    code: int | None
    out: str = ""
    err: str = ""


class Runner(Protocol):
    """Something that runs a command as `run` does."""

    def __call__(self, command: Sequence[str], timeout_s: float = 5.0) -> Output:
        """What became of the command; never raises."""
        ...


def run(command: Sequence[str], timeout_s: float = 5.0) -> Output:
    """Run a command, in English, without stdin.

    Never raises, and never waits longer than `timeout_s` and one second: a process that even SIGKILL does not end,
    because it waits inside a driver, is left behind.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        return Output(None, err=f"{command[0]}: {error.strerror}")
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            out, _ = process.communicate(timeout=1.0)
        except subprocess.TimeoutExpired as late:
            out = late.stdout or b""
        why = f"{command[0]}: no answer within {timeout_s:g} s"
        return Output(None, out.decode(errors="replace"), why)
    return Output(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
