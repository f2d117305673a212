"""`bittern train --resume`: a training that was killed, interrupted or out of disk goes on, to the same bytes."""

from __future__ import annotations

import contextlib
import errno
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.doubles.drawn_trainings import BITTERN, LONG, TASK, World
from tests.doubles.progress import Interrupting
from tests.doubles.repetitions import times
from tests.doubles.waiting import until

from bittern.errors import BitternError, ConfigurationError
from bittern_convert import run as runs
from bittern_train import checkpoints, session
from bittern_train.checkpoints import Checkpoints, Diverged
from bittern_train.training import Candidate, Choice, FinalFit, Fold

FIRST_FIT = "candidate-0-fold-0.msgpack"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("checkpoints"), TASK)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("checkpoints-long"), LONG)


def test_ctrl_c_in_the_second_fold(world: World, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    partial = checkpoints.folder_of(out)
    with pytest.raises(KeyboardInterrupt):
        world.train(out, Interrupting(KeyboardInterrupt(), "cross-validation", 3))
    assert {file.name for file in partial.iterdir()} == {checkpoints.CONDITIONS, FIRST_FIT}
    resumed = world.train(out, resume=True)
    assert f"going on after the last finished fit in {partial}" in resumed.lines
    world.is_the_same(out)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bytes(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    partial = checkpoints.folder_of(out)
    with subprocess.Popen([BITTERN, *world.command(out)], stderr=subprocess.DEVNULL) as process:
        until(lambda: (partial / FIRST_FIT).exists() or process.poll() is not None, 300)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "in the second fold, or a little later"
    refused = world.call(out)
    assert (refused.exit_code, refused.stderr.splitlines()) == (
        2, [f"bittern: {partial}: an interrupted run is there: --resume goes on, --force starts anew"],
    )  # fmt: skip
    resumed = world.call(out, "--resume")
    shown = capfd.readouterr().err  # progress goes to the real stderr
    assert resumed.exit_code == 0, shown
    assert "going on after the last finished fit" in shown
    world.is_the_same(out)
    assert {file.name for file in tmp_path.iterdir()} == {"mine", "mine.log"}


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(times(8, 2)))
def test_it_may_be_killed_at_any_time_and_again(long: World, tmp_path: Path, attempt: int) -> None:
    """After each new file a little later, until it is finished."""
    out, rng, kills = tmp_path / "mine", np.random.default_rng(attempt), 0
    partial = checkpoints.folder_of(out)
    while not (out / runs.FILE).exists():
        before = {file.name for file in partial.glob("*.msgpack")}
        with subprocess.Popen([BITTERN, *long.command(out, "--resume")], stderr=subprocess.DEVNULL) as process:
            until(lambda: {f.name for f in partial.glob("*.msgpack")} - before or process.poll() is not None, 300)  # noqa: B023
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, 3))
            process.kill()
        kills += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL)
    assert kills > 1
    long.is_the_same(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "step", "done"),
    [
        (KeyboardInterrupt(), "cross-validation", 3),
        (KeyboardInterrupt(), "cross-validation", 7),
        (OSError(errno.ENOSPC, "No space left on device"), "final fit", 1),
    ],
)
def test_ctrl_c_in_any_fit(long: World, tmp_path: Path, error: BaseException, step: str, done: int) -> None:
    out = tmp_path / "mine"
    with pytest.raises(type(error)):
        long.train(out, Interrupting(error, step, done))
    assert not out.exists()
    long.train(out, resume=True)
    long.is_the_same(out)


@pytest.mark.slow
def test_nothing_finished_is_nothing_kept(world: World, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "mine"
    with pytest.raises(KeyboardInterrupt):
        world.train(out, Interrupting(KeyboardInterrupt(), "cross-validation", 1))
    assert not list(out.parent.iterdir())


def test_another_training_is_not_resumed(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    partial = checkpoints.folder_of(out)
    before = {"task": "1", "seed": "1", "keras": "3"}
    with (
        contextlib.suppress(KeyboardInterrupt),
        checkpoints.checkpoints(out, before, resume=False, replace=False) as kept,
    ):
        kept.save("final-0", 1)
        raise KeyboardInterrupt

    def resumed(conditions: dict[str, str], *, resume: bool = True, replace: bool = False) -> int | None:
        with checkpoints.checkpoints(out, conditions, resume=resume, replace=replace) as kept:
            return kept.load("final-0", int)

    with pytest.raises(ConfigurationError, match=r"mine\.partial: the interrupted run differs in seed: resume it as "):
        resumed(before | {"seed": "2"})
    with pytest.raises(ConfigurationError, match="differs in task, numpy: "):
        resumed(before | {"task": "2", "numpy": "2"})
    with pytest.raises(ConfigurationError, match="an interrupted run is there: --resume goes on, --force starts anew"):
        resumed(before, resume=False)
    file, conditions = partial / "final-0.msgpack", partial / checkpoints.CONDITIONS
    whole, kept_conditions = file.read_bytes(), conditions.read_bytes()
    file.write_bytes(whole + b"x")
    with pytest.raises(
        BitternError, match=r"final-0\.msgpack: cannot be read \(.*\): remove it, and --resume makes it "
    ):
        resumed(before)
    file.write_bytes(whole)
    conditions.write_bytes(b"{")
    with pytest.raises(
        ConfigurationError, match=r"conditions\.json: cannot be read .* remove that folder to start anew"
    ):
        resumed(before)
    conditions.write_bytes(kept_conditions)
    assert resumed(before) == 1
    assert not partial.exists(), "it was finished"
    assert resumed(before) is None


def test_force_starts_anew(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    with (
        contextlib.suppress(KeyboardInterrupt),
        checkpoints.checkpoints(out, {"seed": "1"}, resume=False, replace=False) as kept,
    ):
        kept.save("final-0", 1)
        raise KeyboardInterrupt
    with checkpoints.checkpoints(out, {"seed": "2"}, resume=False, replace=True) as kept:
        assert kept.load("final-0", int) is None


def test_two_trainings_of_one_run(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    with checkpoints.checkpoints(out, {}, resume=False, replace=False) as kept:
        kept.save("final-0", 1)
        with (
            pytest.raises(ConfigurationError, match=r"mine\.partial: another training is writing there"),
            checkpoints.checkpoints(out, {}, resume=True, replace=False),
        ):
            pass
        assert kept.load("final-0", int) == 1


@pytest.mark.parametrize(
    ("error", "remains"),
    [
        (Diverged("the loss is no number any more"), False),
        (ConfigurationError("/tmp: No space left on device: set TMPDIR to a folder with more room"), True),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), True),
        (MemoryError(), True),
    ],
)
def test_only_what_going_on_cannot_mend_is_not_kept(tmp_path: Path, error: Exception, remains: bool) -> None:
    out = tmp_path / "mine"

    def fail() -> None:
        with checkpoints.checkpoints(out, {}, resume=False, replace=False) as kept:
            kept.save("final-0", 1)
            raise error

    with pytest.raises(type(error)) as raised:
        fail()
    assert raised.value is error
    assert checkpoints.interrupted(out) == checkpoints.folder_of(out).exists() == remains


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"replace": True}])
@pytest.mark.parametrize("name", ["notes.txt", "final-0.msgpack", "photos/1.jpg"])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, name: str, options: dict[str, bool]) -> None:
    out = tmp_path / "mine"
    file = checkpoints.folder_of(out) / name
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    with (
        pytest.raises(ConfigurationError, match=r"mine\.partial: expected an interrupted run, got .* without cond"),
        checkpoints.checkpoints(out, {}, **{"resume": False, "replace": False} | options),
    ):
        pass
    assert file.read_text() == "precious"


def test_only_its_own_files_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    partial = checkpoints.folder_of(out)
    with (
        contextlib.suppress(KeyboardInterrupt),
        checkpoints.checkpoints(out, {}, resume=False, replace=False) as kept,
    ):
        kept.save("final-0", 1)
        (partial / ".final-1.msgpack.abcd").touch()  # killed while it wrote
        (partial / "photos.msgpack").mkdir()
        (partial / "notes.txt").touch()
        raise KeyboardInterrupt
    with checkpoints.checkpoints(out, {}, resume=False, replace=True) as kept:
        assert kept.load("final-0", int) is None
    assert {file.name for file in partial.iterdir()} == {"photos.msgpack", "notes.txt"}


def test_what_a_kill_at_the_first_file_leaves_is_no_obstacle(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    partial = checkpoints.folder_of(out)
    partial.mkdir()
    (partial / ".conditions.json.abcd").write_bytes(b"{")
    with checkpoints.checkpoints(out, {}, resume=False, replace=False):
        assert [file.name for file in partial.iterdir()] == [checkpoints.CONDITIONS]
    assert not partial.exists()


def test_changed_code_is_another_condition(tmp_path: Path) -> None:
    code = tmp_path / "package" / "part" / "module.py"
    code.parent.mkdir(parents=True)
    packages = [tmp_path / "package"]
    versions = []
    for text in ("a = 1", "a = 2"):
        code.write_text(text)
        versions.append([session.code_version(revision, packages) for revision in ("12ab", "12ab-dirty")])
    (clean, dirty), (clean_again, dirty_again) = versions
    assert clean == clean_again
    assert dirty != dirty_again
    assert dirty.startswith(f"{clean}-dirty ")
    assert session.code_version("12ab-dirty") != session.code_version("12ab-dirty", packages)


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    scores = rng.random((3, 2, 2), np.float32)
    row = {"epoch": 0, "loss": float("nan"), "val_loss": np.float64(0.25)}
    fold = Fold([row], [scores, scores[:0]], [[scores[0], np.zeros((), np.float32)]])
    choice = Choice(Candidate(1e-3), 0.5, 0.25, 0.125, 3, scores, [fold], 1.5)
    kept = Checkpoints(tmp_path)
    for name, value in (("fold", fold), ("choice", choice), ("final", FinalFit(fold, [scores]))):
        kept.save(name, value)
        again = kept.load(name, type(value))
        # repr: of NaN, of arrays with their dtypes, and of 0 where it is not 0.0.
        assert repr(again) == repr(value).replace("np.float64(0.25)", "0.25")
    assert len(kept) == 3
    kept.drop("fold", "choice", "final")
    assert kept.load("fold", Fold) is None


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 kB: enough for the k-fold, too small for the final fit."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "bittern-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no right to mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_nothing_is_half_written(world: World, disk: Path) -> None:
    done = world.call(disk / "mine")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("bittern: ")
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    kept = {"conditions.json", "candidate-0.msgpack"}
    assert {file.name for file in disk.rglob("*")} == {"mine.log", "mine.partial"} | kept, "the final fit is too large"
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    assert world.call(disk / "mine", "--resume").exit_code == 0
    world.is_the_same(disk / "mine")
