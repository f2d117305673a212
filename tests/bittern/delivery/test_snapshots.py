"""Snapshots: never above its budget, never a foreign file, whole files, full and read-only disks."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

from bittern.delivery.snapshots import SnapshotStore, default_folder
from bittern.errors import ConfigurationError
from bittern.events import uuid7
from bittern.frames import Pixels


def noise(side: int) -> Pixels:
    """(side, side, 3) uint8; the larger, the larger its JPEG."""
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)


def decoded(file: Path) -> Pixels:
    pixels = cv2.imread(str(file))
    assert pixels is not None
    return np.asarray(pixels, np.uint8)


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def used(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_the_colours_are_those_of_the_frame(tmp_path: Path, order: str) -> None:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[..., 0 if order == "RGB" else 2] = 200  # red
    name = SnapshotStore(tmp_path, 1.0, 85).add(uuid7(), pixels, order)  # type: ignore[arg-type]
    assert name is not None
    blue, green, red = decoded(tmp_path / name).mean((0, 1))
    assert red > 190
    assert blue < 10
    assert green < 10


def test_names_are_not_interned(tmp_path: Path, interned: list[str]) -> None:
    store = SnapshotStore(tmp_path, 0.02, 85)
    ids = [uuid7() for _ in range(20)]
    assert None not in [store.add(name, noise(32), "BGR") for name in ids]
    assert not [text for text in interned if any(name in text for name in ids)]
    assert 0 < len(files(tmp_path)) < 20, "some were deleted"


def test_a_name_is_the_events_id_and_the_file_is_whole_and_private_to_user_and_group(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    store = SnapshotStore(folder, 1.0, 85)
    event = uuid7()
    assert store.add(event, noise(64), "BGR") == f"{event}.jpg"
    assert files(folder) == [f"{event}.jpg"]
    assert folder.stat().st_mode & 0o027 == 0, "0750, or less by umask"
    assert folder.stat().st_mode & 0o700 == 0o700


def test_quality_is_that_of_the_jpeg(tmp_path: Path) -> None:
    sizes = []
    for quality in (10, 95):
        store = SnapshotStore(tmp_path / str(quality), 1.0, quality)
        store.add(uuid7(), noise(64), "BGR")
        sizes.append(used(store.folder))
    assert sizes[0] < sizes[1] / 2


def test_the_oldest_go_first_and_a_restart_counts_what_is_there(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, 0.1, 85)
    names = [store.add(uuid7(), noise(128), "BGR") for _ in range(20)]
    kept = files(tmp_path)
    assert 2 <= len(kept) < 20
    assert kept == sorted(str(name) for name in names[-len(kept) :])
    for number, name in enumerate(names[-len(kept) :]):  # as time would have passed
        os.utime(tmp_path / str(name), (number, number))
    store = SnapshotStore(tmp_path, 0.1, 85)
    newest = store.add(uuid7(), noise(128), "BGR")
    assert used(tmp_path) <= 100_000
    assert files(tmp_path) == sorted(str(name) for name in [*names[-len(kept) + 1 :], newest])


def test_a_wall_clock_that_was_set_back_does_not_make_the_newest_the_oldest(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, 0.1, 85)
    for hours in range(12, 0, -1):
        name = store.add(uuid7(hours * 3_600_000_000_000), noise(128), "BGR")
        assert name in files(tmp_path)


def test_a_smaller_budget_is_kept_from_the_start(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, 1.0, 85)
    for _ in range(10):
        store.add(uuid7(), noise(128), "BGR")
    assert used(tmp_path) > 100_000
    SnapshotStore(tmp_path, 0.1, 85)
    assert 0 < used(tmp_path) <= 100_000


def test_the_same_event_twice_is_one_file(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, 0.1, 85)
    event = uuid7()
    for _ in range(20):
        assert store.add(event, noise(128), "BGR") == f"{event}.jpg"
    assert files(tmp_path) == [f"{event}.jpg"]


def test_a_picture_larger_than_the_budget_is_said_and_deletes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SnapshotStore(tmp_path, 0.1, 85)
    kept = store.add(uuid7(), noise(64), "BGR")
    for _ in range(3):
        assert store.add(uuid7(), noise(512), "BGR") is None
    assert files(tmp_path) == [kept]
    assert [record.message.split(":")[0] for record in caplog.records] == ["no snapshots"]
    assert "budget_mb" in caplog.text


@pytest.mark.parametrize("name", ["../x", "", "a" * 36, "0000/0000-0000-7000-8000-000000000000"])
def test_what_is_no_id_of_an_event_becomes_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        SnapshotStore(tmp_path, 1.0, 85).add(name, noise(8), "BGR")
    assert files(tmp_path) == []


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    left = tmp_path / f".{uuid7()}.jpg.abc12_x8"
    left.write_bytes(b"half")
    other = tmp_path / ".profile.jpg.bak"
    other.write_bytes(b"mine")
    SnapshotStore(tmp_path, 1.0, 85)
    assert files(tmp_path) == [".profile.jpg.bak"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(8, 220)),
        st.tuples(st.just("again"), st.integers(8, 220)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("foreign"), st.integers(0, 9)),
        st.tuples(st.just("stolen"), st.integers(0, 9)),
    ),
    max_size=25,
)


@hypothesis_settings(max_examples=examples(60))
@given(STEPS)
def test_never_above_the_budget_and_foreign_files_stay(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        foreign: dict[str, bytes] = {}
        store = SnapshotStore(folder, 0.1, 85)
        event = uuid7()
        for step, number in steps:
            if step == "restart":
                store = SnapshotStore(folder, 0.1, 85)
            elif step == "foreign":
                name = ["note.txt", f"x{uuid7()}.jpg", f"{uuid7()}.jpeg", f"{uuid7()}.JPG", ".hidden"][number % 5]
                foreign[name] = bytes(number * 20_000)
                (folder / name).write_bytes(foreign[name])
            elif step == "stolen":
                for file in list(folder.glob("*.jpg"))[number:]:
                    if file.name not in foreign:
                        file.unlink()
            else:
                event = uuid7() if step == "add" else event
                name = str(store.add(event, noise(number), "BGR"))
                assert name == f"{event}.jpg" or (number > 150 and name == "None"), "one too large is not written"
            ours = [file for file in folder.iterdir() if file.name not in foreign]
            assert sum(file.stat().st_size for file in ours) <= 100_000
            assert {name: (folder / name).read_bytes() for name in foreign} == foreign
            if step in ("add", "again") and name != "None":
                assert decoded(folder / name).shape == (number, number, 3), "the newest is there, and whole"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 256 kB; skipped where mounting is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_said_once_and_over_when_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = SnapshotStore(small_disk / "ring", 10.0, 85)
    other = small_disk / "other"
    first = store.add(uuid7(), noise(64), "BGR")
    other.write_bytes(bytes(240_000))
    for _ in range(5):
        assert store.add(uuid7(), noise(256), "BGR") is None
    assert files(store.folder) == [first], "nothing half written"
    other.unlink()
    assert store.add(uuid7(), noise(256), "BGR") is not None
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert "No space left" in messages[0]
    assert messages[1] == "snapshots are being written again"


def test_a_read_only_disk_is_said_once_and_over_when_it_is_writable(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = SnapshotStore(small_disk / "ring", 10.0, 85)
    for _ in range(5):
        assert store.add(uuid7(), noise(64), "BGR") is None
    assert len(caplog.records) == 1
    assert "Read-only file system" in caplog.text
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert store.add(uuid7(), noise(64), "BGR") is not None


def test_the_folder_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert default_folder("Tür/../1") == Path(f"/dev/shm/bittern-{os.getuid()}/Tür_.._1/snapshots")
    assert ".." not in default_folder("..").parts
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_folder("door") == Path("/run/user/7/bittern/door/snapshots")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/bittern/door:/run/other")
    assert default_folder("door") == Path("/run/bittern/door/snapshots")


def test_a_folder_in_shared_memory_that_somebody_else_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    trap = Path(f"/dev/shm/bittern-{2**22 + os.getpid()}")
    monkeypatch.setattr(os, "getuid", lambda: int(trap.name.partition("-")[2]))
    trap.symlink_to("/tmp")
    try:
        with pytest.raises(ConfigurationError, match=r"belongs to another user: set snapshots\.folder"):
            default_folder("door")
        trap.unlink()
        trap.mkdir()  # by the user who runs the test, who is not the user asked for
        with pytest.raises(ConfigurationError, match="belongs to another user"):
            default_folder("door")
    finally:
        trap.rmdir()


def test_importing_it_loads_no_opencv() -> None:
    code = "import sys, bittern.delivery.snapshots; sys.exit('cv2' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
