"""The language of the probes: child processes that try what may crash or hang, and print one line a step."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bittern.errors import one_line
from bittern.system.commands import Runner

_MARK = '{"step":'


class Step(msgspec.Struct, frozen=True):
    """What became of one step.

    Attributes:
        step: its name.
        said: what the probe found; None if the step did not come to its end.
        error: "ValueError: numpy.dtype size changed", or how the process ended; None if it went well.
    """

    step: str
    said: dict[str, Any] | None = None
    error: str | None = None


def take(step: str, do: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """In a probe: do one step and print what became of it; None if it failed."""
    _print({"step": step})  # a crash ends the process in the middle of the step that was named last
    try:
        said = do()
    except Exception as error:  # whatever a broken installation raises is a finding
        _print({"step": step, "error": f"{type(error).__name__}: {one_line(error)}"})
        return None
    _print({"step": step, "said": said})
    return said


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def probe(runner: Runner, python: str, module: str, arguments: Sequence[str], timeout_s: float) -> dict[str, Step]:
    """Run a probe, a module of this package that is started as a program, and read its steps.

    Returns:
        Every step that was begun, by name, in their order. If the process did not end by itself, the step that it
        was in has that as its error; a probe that did not even begin has one step, "start".
    """
    # -P: the folder that the user is in is no place to import from.
    done = runner((python, "-P", "-m", module, *arguments), timeout_s)
    steps: dict[str, Step] = {}
    for line in done.out.splitlines():
        if line.startswith(_MARK):  # libraries may print something too
            step = msgspec.json.decode(line, type=Step)
            steps[step.step] = step
    if done.code is None or done.code < 0:
        how = f"crashed with {_signal(-done.code)}" if done.code is not None else f"no answer within {timeout_s:g} s"
    elif done.code > 0:
        how = (done.err.strip().splitlines() or [f"exit code {done.code}"])[-1]
    else:
        return steps
    last = next(reversed(steps.values()), Step("start"))
    if last.said is None and last.error is None:
        steps[last.step] = Step(last.step, error=how)
    return steps


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
