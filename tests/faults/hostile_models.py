"""Tries and opens hostile models, each in processes of its own: `python -m tests.faults.hostile_models N SEED MODEL`.

A process is forked for the trial, instead of started, so that ten thousand of them take minutes. What passes is opened
and asked in another one, as a command would. Prints one line of JSON with the counts.
"""

from __future__ import annotations

import collections
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tests.doubles.tflite_files import COLOURS, channel_means, hostile

from bittern import Classifier
from bittern.errors import BitternError
from bittern.model import trial

PASSED, REFUSED, TRACEBACK, TWO_LINES = range(4)


def main() -> None:
    """Count what the trial and the process behind it make of the models."""
    n, seed = int(sys.argv[1]), int(sys.argv[2])
    shipped = Path(sys.argv[3]).read_bytes()
    small = [channel_means(), channel_means(heads=2), channel_means((1, 96, 96, 3)), channel_means(dtype="float32")]
    rng = random.Random(seed)
    counts: collections.Counter[str] = collections.Counter()
    slowest_s, largest_kb = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.txt"
        labels.write_text("\n".join(COLOURS))
        file = Path(folder) / "hostile.tflite"
        for number in range(n):
            data = hostile(rng, shipped if number % 10 == 0 else rng.choice(small))
            file.write_bytes(data)
            for stage, work in (("trial", lambda data=data: judge(data)), ("command", lambda: ask(file, labels))):
                code, seconds, kilobytes = forked(work)
                slowest_s, largest_kb = max(slowest_s, seconds), max(largest_kb, kilobytes)
                counts[
                    f"{stage} {('passed', 'refused', 'traceback', 'two lines')[code] if code >= 0 else 'crashed'}"
                ] += 1
                if code != PASSED:
                    break
    print(json.dumps({"n": n, "slowest_s": slowest_s, "largest_mb": largest_kb / 1000, **counts}))


def judge(data: bytes) -> int:
    """What the child of a trial does."""
    reason = trial.judge(data, None, 1)
    return PASSED if reason is None else TWO_LINES if "\n" in reason else REFUSED


def ask(file: Path, labels: Path) -> int:
    """What a command does with a model that passed."""
    try:
        classifier = Classifier(file, labels=labels, tried=True)
        for frame in (np.zeros((240, 320, 3), np.uint8), np.full((240, 320, 3), 255, np.uint8)):
            classifier.classify(frame)
    except BitternError as error:
        return TWO_LINES if "\n" in str(error) else REFUSED
    return PASSED


def forked(work: Callable[[], int]) -> tuple[int, float, int]:
    """Exit code (negative: the signal), seconds of processor time, and most resident memory in kB."""
    pid = os.fork()
    if pid == 0:
        code = TRACEBACK
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            code = work()
        finally:
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss


if __name__ == "__main__":
    main()
