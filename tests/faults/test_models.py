"""Faults 18, 19, 20 and 33: a model folder that is altered, old, bad, changed while it runs, or that blocks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.doubles.camera_process import children
from tests.doubles.model_files import altered
from tests.doubles.repetitions import pass_mark, times
from tests.doubles.tflite_files import crashing, model_folder_of_means

from bittern import Classifier
from bittern.config.schema import ReloadConfig, WatchConfig
from bittern.daemon.reloader import Reloader
from bittern.decision.pipeline import Pipeline
from bittern.frames import Pixels
from bittern.model import golden
from bittern.model.classifier import Result
from bittern.scene import street

Record = Callable[..., None]
# Of the shipped model's folder.
FILES = ("model.tflite", "manifest.json", "golden.npz", "labels.txt", "MODEL_CARD.md")
SLOWDOWN = 1.5


def outcome(
    model: Path, old: Classifier, while_it_runs: Callable[[], None] = lambda: None, *, timeout_s: float = 60.0
) -> str:
    """Why a reload refuses a model, in one line; "" if it is taken."""
    limits = ReloadConfig(max_slowdown=SLOWDOWN, timeout_s=timeout_s)
    pipeline = Pipeline([old], WatchConfig())
    with contextlib.closing(Reloader(WatchConfig(models=(str(model),), reload=limits))) as reloader:
        reloader.start(pipeline.classifiers)
        while (exchange := reloader.finish(pipeline)) is None:
            while_it_runs()
            time.sleep(0.005)
    if exchange.done:
        return ""
    assert pipeline.classifiers == (old,)
    reason = exchange.state.detail.removeprefix("the old ones stay in use: ")
    assert "\n" not in reason
    assert "internal error" not in reason
    return reason


def frame() -> Pixels:
    return street.random_picture(np.random.default_rng(20), stop=True, size=(320, 240))


# --- 18: altered, or older than what runs ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_18_one_bit_flipped_in_every_file(name: str, model_copy: Path, record: Record) -> None:
    old = Classifier(model_copy)
    expected = old.classify(frame())
    file = model_copy / name
    whole = file.read_bytes()
    rng = random.Random(18)
    refused = same = higher = 0
    runs = times(60, 3)
    for _ in range(runs):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        reason = outcome(model_copy, old)
        if reason:
            refused += 1
            assert str(model_copy) in reason
            continue
        # Bits that mean nothing (a space), or that make a higher version of it.
        again = Classifier(model_copy)
        assert again.classify(frame()) == expected
        assert again.data == old.data
        if again.manifest == old.manifest:
            same += 1
        else:
            assert again.version != old.version
            higher += 1
        assert name == "manifest.json"
    assert old.classify(frame()) == expected
    if name != "manifest.json":
        assert refused == runs
    figure = f"{refused} refused, {same} without any meaning, {higher} a higher version"
    record(18, f"one bit flipped in {name}", runs, figure, "refused in one line, or the same model; the old one runs")


@pytest.mark.parametrize("version", ["0.9", "0", "1rc1"])
def test_18_older_than_what_runs(version: str, model_copy: Path, record: Record) -> None:
    old = Classifier(model_copy)
    assert old.version == "1"
    altered(model_copy, lambda fields: fields.update(version=version))
    reason = outcome(model_copy, old)
    assert f"version {version} is older" in reason
    record(18, f"version {version} over 1", 1, "refused", "refused in one line; the old one runs")


# --- 19: bad in itself -----------------------------------------------------------------------------------------------


def replaced(folder: Path, data: bytes) -> Path:
    """The model folder with another model, whose manifest is right about it."""
    (folder / "model.tflite").write_bytes(data)
    return altered(folder, lambda fields: fields.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data)))


def other_answers(folder: Path) -> Path:
    """The model folder with golden vectors that say something else."""
    vectors = {path: golden.load(folder / golden.FILE, path) for path in ("xnnpack", "builtin")}
    outputs = {
        path: [[np.bitwise_xor(o, np.uint8(0x20)) for o in v.outputs] for v in of] for path, of in vectors.items()
    }
    of = vectors["xnnpack"]
    golden.save(folder / golden.FILE, [v.frame for v in of], [v.tensor for v in of], outputs)
    return folder


def test_19_golden_vectors_differ(tmp_path: Path, record: Record) -> None:
    old = Classifier(model_folder_of_means(tmp_path / "old"))
    runs = times(3, 1)
    for i in range(runs):
        new = other_answers(model_folder_of_means(tmp_path / f"new{i}", version="8"))
        assert "golden frame 0 is 32 output steps off" in outcome(new, old)
    record(19, "golden vectors differ", runs, "refused", "old one runs on; the reason is said")


def test_19_crashes(tmp_path: Path, record: Record) -> None:
    old = Classifier(model_folder_of_means(tmp_path / "old"))
    runs = times(3, 1)
    for i in range(runs):
        new = replaced(model_folder_of_means(tmp_path / f"new{i}", version="8"), crashing())
        assert "its check crashed with SIGSEGV" in outcome(new, old)
    record(19, "crashes the runtime (SIGSEGV)", runs, "refused", "old one runs on; the reason is said")


def test_19_hangs(tmp_path: Path, record: Record) -> None:
    old = Classifier(model_folder_of_means(tmp_path / "old"))
    new = model_folder_of_means(tmp_path / "new", version="8")
    runs = times(3, 1)
    longest = 0.0
    for _ in range(runs):
        began = time.monotonic()
        reason = outcome(new, old, stop_the_check, timeout_s=1.0)
        longest = max(longest, time.monotonic() - began)
        assert "longer than 1 s" in reason
        assert children() == set()
    assert longest < pass_mark(1.0 + 2.0)
    record(19, "hangs (SIGSTOP)", runs, f"refused after {longest:.1f} s", "within its 1 s + 2 s; old one runs on")


def test_19_twice_as_slow(tmp_path: Path, record: Record) -> None:
    side = 512
    old = Classifier(model_folder_of_means(tmp_path / "old", size=side))
    as_fast = model_folder_of_means(tmp_path / "as_fast", size=side, version="8")
    slow = model_folder_of_means(tmp_path / "slow", size=round(side * 2**0.5), version="8")
    runs = times(3, 1)
    ratios = []
    for _ in range(runs):
        assert outcome(as_fast, old) == ""
        reason = outcome(slow, old)
        assert f"expected at most {SLOWDOWN:g} (reload.max_slowdown)" in reason
        ratios.append(float(reason.split(" times the ")[0].split()[-1]))
    measured = f"{min(ratios):.2f} to {max(ratios):.2f} times: refused; the same again: taken"
    record(19, "twice as slow", runs, measured, f"refused above {SLOWDOWN:g} times; old one runs on")


def stop_the_check() -> None:
    for pid in children():
        # Not between fork and exec, where this process waits for it: that is the machine's own, and never long.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended
            if b"bittern.model.candidate" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGSTOP)


# --- 20: changed while it runs ---------------------------------------------------------------------------------------


class Answers:
    """A main loop that goes on."""

    def __init__(self, classifier: Classifier, picture: Pixels) -> None:
        self.answers: list[list[Result]] = []
        self._classifier, self._picture = classifier, picture

    def __call__(self) -> None:
        self.answers.append(self._classifier.classify(self._picture))


def write_in_place(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(1000)
        opened.write(bytes(2**20))


def truncate(file: Path) -> None:
    os.truncate(file, 4096)


def rename_over(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"\0\0\0\0TFL3" + bytes(2**20))
    other.replace(file)


@pytest.mark.parametrize("harm", [write_in_place, truncate, rename_over])
def test_20_the_file_changes_under_a_running_model(
    harm: Callable[[Path], None], model_folder: Path, tmp_path: Path, record: Record
) -> None:
    runs = times(10, 1)
    picture = frame()
    for i in range(runs):
        folder = Path(shutil.copytree(model_folder, tmp_path / f"{i}"))
        old = Classifier(folder)
        expected = old.classify(picture)
        assert not any(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())
        harm(folder / json.loads((folder / "manifest.json").read_bytes())["file"])
        running = Answers(old, picture)
        reason = outcome(folder, old, running)
        assert "copy it again" in reason
        assert running.answers == [expected] * len(running.answers)
        assert len(running.answers) > 5
        shutil.copytree(model_folder, folder, dirs_exist_ok=True)
        assert outcome(folder, old) == "", "mended, it is taken again"
    what = harm.__name__.replace("_", " ")
    record(20, what, runs, "same answers, reload refused, no SIGBUS", "running model unaffected; reload refuses")


# --- 33: a file that is huge, never ends, or blocks ------------------------------------------------------------------


def sparse(file: Path) -> None:
    file.touch()
    os.truncate(file, 3 * 2**30)


def bomb(file: Path) -> None:
    """3 MB that become 3 GB, named in the manifest if that has hashes of files."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("frame_0.npy", "w") as member:
        shape = {"descr": "|u1", "fortran_order": False, "shape": (3 * 10**9,)}
        np.lib.format.write_array_header_1_0(member, shape)
        for _ in range(times(3000, 100)):
            member.write(bytes(10**6))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    altered(file.parent, lambda fields: fields["files"].update({file.name: digest}))


def pipe(file: Path) -> None:
    os.mkfifo(file)


def link_to_pipe(file: Path) -> None:
    os.mkfifo(file.parent.parent / "pipe")
    file.symlink_to(file.parent.parent / "pipe")


def device(file: Path) -> None:
    file.symlink_to("/dev/zero")


BLOCKING = [
    *((pipe, name) for name in FILES),
    *((harm, name) for harm in (sparse, link_to_pipe, device) for name in FILES),
    (bomb, "golden.npz"),
]


@pytest.mark.parametrize(
    ("harm", "name"), [BLOCKING[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in BLOCKING[1:])]
)
def test_33_a_file_that_is_huge_endless_or_blocks(
    harm: Callable[[Path], None], name: str, model_copy: Path, tmp_path: Path, record: Record
) -> None:
    old = Classifier(model_copy)
    whole = Path(shutil.copytree(model_copy, tmp_path / "whole"))
    runs = times(5, 1)
    longest = grown = 0.0
    for _ in range(runs):
        (model_copy / name).unlink()
        harm(model_copy / name)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        reason = outcome(model_copy, old)
        longest = max(longest, time.monotonic() - began)
        grown = max(grown, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        assert "larger than the limit of" in reason or "expected a regular file" in reason
        (model_copy / name).unlink()
        (tmp_path / "pipe").unlink(missing_ok=True)
        shutil.copytree(whole, model_copy, dirs_exist_ok=True)
        assert outcome(model_copy, old) == "", "mended, it is taken again"
    assert grown < 50
    figure = f"refused within {longest:.1f} s, memory {grown:+.0f} MB, the next reload works"
    what = f"{name}: {harm.__name__.replace('_', ' ')}"
    record(33, what, runs, figure, "refused in one line; the daemon's own memory flat; the next SIGHUP works")
