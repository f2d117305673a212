"""The protocol of the probes: child processes that try things that may crash or hang, and print one line per step."""

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


class ProbeStep(msgspec.Struct, frozen=True):
    """The outcome of one step.

    Attributes:
        step: its name.
        result: the probe's result; None if the step did not finish.
        error: such as "ValueError: numpy.dtype size changed", or how the process ended; None if the step succeeded.
    """

    step: str
    result: dict[str, Any] | None = None
    error: str | None = None


def take(step: str, do: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """In a probe: run one step and print its outcome. Returns its result; None if it failed."""
    _print({"step": step})  # if the process crashes, the last step printed is the culprit
    try:
        result = do()
    except Exception as error:  # anything that a broken installation raises is a finding
        _print({"step": step, "error": f"{type(error).__name__}: {one_line(error)}"})
        return None
    _print({"step": step, "result": result})
    return result


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def probe(
    runner: Runner, python: str, module: str, arguments: Sequence[str], timeout_s: float, stdin: str = ""
) -> dict[str, ProbeStep]:
    """Run a probe, a module of this package that is started as a program, and read its steps.

    Returns:
        Every step that was started, by name, in order. If the process crashed or was killed, its last step has that
        as the error; a probe that did not even start has one step, "start".
    """
    # -P: do not import from the current folder.
    done = runner((python, "-P", "-m", module, *arguments), timeout_s, stdin)
    steps: dict[str, ProbeStep] = {}
    for line in done.out.splitlines():
        if line.startswith(_MARK):  # libraries may print other lines
            step = msgspec.json.decode(line, type=ProbeStep)
            steps[step.step] = step
    if done.code is None or done.code < 0:
        error = f"crashed with {_signal(-done.code)}" if done.code is not None else f"no answer within {timeout_s:g} s"
    elif done.code > 0:
        error = (done.err.strip().splitlines() or [f"exit code {done.code}"])[-1]
    else:
        return steps
    last = next(reversed(steps.values()), ProbeStep("start"))
    if last.result is None and last.error is None:
        steps[last.step] = ProbeStep(last.step, error=error)
    return steps


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
