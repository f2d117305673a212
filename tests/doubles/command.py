"""The command `bittern` in a real process, and what its errors must look like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

BITTERN = str(Path(sys.executable).with_name("bittern"))


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def alarms(self) -> list[Any]:
        """The events of a watch that are no states."""
        return [event for event in self.lines if event["type"] != "state"]


def bittern(*words: str | Path, stdin: bytes = b"", cwd: Path | None = None, **env: str) -> Done:
    done = subprocess.run(
        [BITTERN, *map(str, words)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=os.environ | {"PYTHONWARNINGS": "error"} | env,
        timeout=60,
    )
    out, err = done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "surrogateescape")
    assert "Traceback" not in err or "--debug" in words
    return Done(done.returncode, out, err)


def one_line(done: Done, code: int, *says: str) -> str:
    """Nothing on stdout, one line on stderr that has all of these words, and the exit code."""
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("bittern: ")
    for words in says:
        assert words in done.err
    assert "internal error" not in done.err
    assert (done.code, done.out) == (code, "")
    return done.err


OFTEN = "[decision]\nvotes = 1\nof = 1\ncooldown_s = 0\nmin_off_s = 0\n"


EVENT = {"id", "type", "time", "monotonic_ns", "source", "model", "model_version", "task", "label", "score", "frame"}
STATE = {"id", "type", "time", "monotonic_ns", "source", "state", "detail"}
