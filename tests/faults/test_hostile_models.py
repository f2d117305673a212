"""Fault 34: .tflite files with hostile content, with and without a manifest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import REPO
from tests.doubles.command import bittern, one_line
from tests.doubles.model_files import bare
from tests.doubles.repetitions import FULL, times
from tests.doubles.tflite_files import COLOURS, crashing, model_folder_of_means, with_files
from tests.faults.test_models import replaced

Record = Callable[..., None]


def test_34_the_other_models_are_listed(tmp_path: Path, record: Record) -> None:
    model_folder_of_means(tmp_path / "means")
    replaced(model_folder_of_means(tmp_path / "hostile", name="hostile"), crashing())
    done = bittern("models", cwd=tmp_path, BITTERN_MODELS=str(tmp_path))
    lines = {line.split()[0]: line for line in done.out.splitlines()}
    assert done.code == 1
    assert "whole, not signed, runs on" in lines["means"]
    assert "verified on" in lines["stop_sign"], "a shipped one"
    assert "REFUSED" in lines["hostile"]
    assert "crashes the runtime (SIGSEGV)" in lines["hostile"]
    file = bare(tmp_path, with_files(crashing(), labels_txt="\n".join(COLOURS).encode()))
    for model in ("hostile", file):
        done = bittern("classify", "any.jpg", "--model", str(model), cwd=tmp_path, BITTERN_MODELS=str(tmp_path))
        one_line(done, 2, "crashes the runtime (SIGSEGV)")
    record(
        34, "crashes the runtime, with and without a manifest", 2, "refused", "one line, exit 2; others still listed"
    )


@pytest.mark.fuzz
def test_34_hostile_models(model_folder: Path, record: Record) -> None:
    n = times(10_000, 60)
    command = [sys.executable, "-m", "tests.faults.hostile_models", str(n), "34", str(model_folder / "model.tflite")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["n"] == n
    for never in ("trial traceback", "trial two lines", "command traceback", "command two lines", "command crashed"):
        assert never not in counts, counts
    assert counts["trial refused"] > n / 20
    assert counts["trial passed"] > n / 20, "the changes reach both ways out"
    assert counts["command passed"] > n / 50
    if FULL:
        assert counts["trial crashed"] > n / 1000, "and some of them crash the runtime"
    assert counts["slowest_s"] < 5
    assert counts["largest_mb"] < 500
    figure = f"{counts.get('trial crashed', 0)} crashed the trial, none what comes behind it; at most "
    figure += f"{counts['slowest_s']:.1f} s, {counts['largest_mb']:.0f} MB"
    record(34, "hostile .tflite", n, figure, "no crash, no traceback, under 5 s and 500 MB")
