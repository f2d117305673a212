"""The doctor's probe in a real process: on this installation, on broken ones, and on damaged models."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doubles.pi_machines import pi

from bittern.doctor import software
from bittern.doctor.findings import Finding
from bittern.doctor.steps import ProbeStep, probe
from bittern.model import manifest, runtime
from bittern.system import machine
from bittern.system.commands import run


def found_here() -> list[Finding]:
    here = machine.read()
    steps, interpreter = software.run_probe(Path("/"), run, sys.executable, here)
    return software.check(steps, interpreter, here)


def finding(checks: list[Finding], check: str) -> Finding:
    (match,) = [f for f in checks if f.check == check]
    return match


@pytest.fixture
def shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python imports from before all others."""
    folder = tmp_path / "shadow"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def only_copy(model_copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the shipped model that wins over the shipped one, in a folder that is no checkout."""
    models = tmp_path / "models"
    models.mkdir()
    folder = model_copy.rename(models / "stop_sign")
    monkeypatch.setenv("BITTERN_MODELS", str(models))
    return folder


def test_this_installation() -> None:
    checks = found_here()
    assert {f.status for f in checks} == {"ok"}
    assert finding(checks, "numpy").finding.startswith(np.__version__)
    assert finding(checks, "opencv").finding.startswith(cv2.__version__)
    assert finding(checks, "runtime").finding.startswith(
        f"{runtime.DISTRIBUTION} {runtime.version()}; XNNPACK runs the graph"
    )
    assert finding(checks, "golden stop_sign").finding == "replayed on xnnpack"


def test_what_the_fakes_say_is_what_the_probe_says(tmp_path: Path) -> None:
    """The faked machines of the other tests speak the language of the real probe."""
    fake = pi(tmp_path, "pi4", "trixie")
    prepared = [json.loads(line) for lines in fake.software.values() for line in lines]
    real = probe(run, sys.executable, "bittern.doctor.probe_software", (), 60)
    for line in prepared:
        if "result" in line and line["step"] != "simplejpeg":  # which is not installed here
            result = real[line["step"]].result
            assert result is not None
            assert set(result) == set(line["result"]) or line["step"] == "models"
    assert [name for name in real if " " not in name] == ["python", "numpy", "cv2", "runtime", "models"]


@pytest.mark.parametrize(
    ("module", "code", "check", "says"),
    [
        ("numpy", "raise ImportError('libopenblas.so.0: cannot open')", "numpy", "ImportError: libopenblas.so.0"),
        ("numpy", "import os; os.kill(os.getpid(), 4)", "numpy", "crashed with SIGILL"),
        ("cv2", "import ctypes; ctypes.string_at(0)", "opencv", "crashed with SIGSEGV"),
        ("cv2", "raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')", "opencv", "missing"),
        ("cv2", "raise SystemExit(3)", "opencv", "exit code 3"),
        ("simplejpeg", "raise ValueError('numpy.dtype size changed')", "numpy", "numpy.dtype size changed"),
        ("ai_edge_litert", "raise ImportError('no')", "runtime", "does not load"),
    ],
)
def test_a_broken_module(shadow: Path, module: str, code: str, check: str, says: str) -> None:
    (shadow / f"{module}.py").write_text(code)
    checks = found_here()
    broken = finding(checks, check)
    assert broken.status == "failure"
    assert says in broken.finding
    assert broken.fix
    assert "Traceback" not in broken.finding


def test_an_import_that_hangs(shadow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shadow / "numpy.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(software, "TIMEOUT_S", 6.0)
    broken = finding(found_here(), "numpy")
    assert (broken.status, broken.finding) == ("failure", "does not load: no answer within 6 s")


def test_what_a_library_prints_is_not_taken_for_a_step(shadow: Path) -> None:
    (shadow / "simplejpeg.py").write_text("print('{\"step\"'); print('hello'); __version__ = '1'")
    assert {f.status for f in found_here()} == {"ok"}


def test_a_folder_of_the_user_is_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> None:
    monkeypatch.setenv("BITTERN_MODELS", str(model_folder.parent))
    (tmp_path / "numpy.py").write_text("raise ImportError('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    assert finding(found_here(), "numpy").status == "ok"


def test_a_python_that_does_not_start(tmp_path: Path) -> None:
    steps = probe(run, str(tmp_path / "python"), "bittern.doctor.probe_software", (), 5)
    assert steps == {"start": ProbeStep("start", error="no answer within 5 s")} or steps["start"].error


def test_a_damaged_model(only_copy: Path) -> None:
    with (only_copy / "model.tflite").open("r+b") as file:
        file.seek(100_000)
        file.write(b"\x55" * 16)
    checks = found_here()
    broken = finding(checks, "model stop_sign")
    assert broken.status == "failure"
    assert "the manifest says" in broken.finding
    assert broken.fix is not None
    assert "make deploy" in broken.fix
    assert finding(checks, "golden stop_sign").status == "skipped"


def test_a_cut_model_is_not_blamed_on_the_runtime(only_copy: Path) -> None:
    with (only_copy / "model.tflite").open("r+b") as file:
        file.truncate(100_000)
    checks = found_here()
    assert "the manifest says" in finding(checks, "model stop_sign").finding
    judged = finding(checks, "runtime")
    assert judged.status == "ok", "by the other models"
    assert "stop_sign" not in judged.finding


def test_golden_vectors_that_do_not_replay(only_copy: Path) -> None:
    with np.load(only_copy / "golden.npz") as archive:
        arrays = dict(archive)
    for name in arrays:
        if name.startswith(("xnnpack", "builtin")):
            arrays[name] = 255 - arrays[name]
    np.savez_compressed(only_copy / "golden.npz", **arrays)
    manifest.write(only_copy, manifest.read(only_copy))
    broken = finding(found_here(), "golden stop_sign")
    assert broken.status == "failure"
    assert "output steps off" in broken.finding
    assert broken.fix is not None
    assert "--no-deps ai-edge-litert==" in broken.fix


def test_a_manifest_that_is_gone_is_a_model_less(only_copy: Path) -> None:
    (only_copy / "manifest.json").write_text("{")
    broken = finding(found_here(), "model stop_sign")
    assert broken.status == "failure"
    assert "cannot be read" in broken.finding


def test_a_model_in_a_checkout_comes_back_from_git(only_copy: Path) -> None:
    (only_copy.parent / ".git").mkdir()
    (only_copy / "model.tflite").write_bytes(b"")
    assert finding(found_here(), "model stop_sign").fix == f"git -C {only_copy} restore ."
