"""Kept frames: a data set at every moment, within its bounds, of each scene one; a disk that hangs holds up nobody."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.repetitions import FULL
from tests.doubles.waiting import until, within

from bittern.config.schema import KeepConfig
from bittern.delivery.kept import KeptFrame, KeptFrames, KeptWriter, same_scene, signature_of
from bittern.delivery.snapshots import jpeg_of
from bittern.evaluation import dataset
from bittern.frames import Pixels

NOON_NS = 1_800_000_000_000_000_000
HOUR_NS = 3_600_000_000_000


def scene(seed: int) -> Pixels:
    """(96, 128, 3) uint8: large patches, others for every seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(patches, (128, 96), interpolation=cv2.INTER_NEAREST), np.uint8)


def frame(seed: int = 0, time_ns: int = NOON_NS, pixels: Pixels | None = None) -> KeptFrame:
    picture = scene(seed) if pixels is None else pixels
    return KeptFrame(picture, "BGR", time_ns, "yard", "unsure", "stop_sign 6", "stop", 0.61, '{"stop_sign":{}}')


def size_of(seed: int) -> int:
    return len(jpeg_of(scene(seed), "BGR", 90))


def check(folder: Path) -> list[dataset.Item]:
    """It is a data set, whose pictures are whole; and there are no others."""
    items = dataset.read(folder)
    assert {item.name for item in items} == {file.name for file in folder.glob("*.jpg")}
    assert all(cv2.imread(str(item.path)) is not None for item in items)
    return items


def test_it_is_a_data_set_without_labels(tmp_path: Path) -> None:
    kept = KeptFrames(tmp_path / "kept", KeepConfig())
    name = kept.add(frame())
    (item,) = check(kept.folder)
    assert (item.name, item.label, item.split) == (name, "", "")
    assert item.columns == {
        "time": "2027-01-15T08:00:00.000Z", "source": "yard", "reason": "unsure", "model": "stop_sign 6",
        "answer": "stop", "score": "0.6100", "scores": '{"stop_sign":{}}',
    }  # fmt: skip
    assert kept.folder.stat().st_mode & 0o027 == 0
    read = cv2.imread(str(item.path))
    assert read is not None
    assert float(np.abs(read.astype(int) - scene(0)).mean()) < 8


def test_of_one_scene_there_is_one(tmp_path: Path) -> None:
    kept = KeptFrames(tmp_path, KeepConfig())
    rng = np.random.default_rng(0)
    first = scene(1).astype(int) // 2 + 40
    assert kept.add(frame(pixels=first.astype(np.uint8)))
    for _ in range(3):
        noisy = first + rng.normal(0, 4, first.shape)
        assert kept.add(frame(pixels=noisy.clip(0, 255).astype(np.uint8))) is None, "a camera's noise"
    assert kept.add(frame(pixels=(first * 0.8 + 20).astype(np.uint8))) is None, "less light"
    with_sign = first.astype(np.uint8)
    cv2.circle(with_sign, (70, 40), 9, (30, 30, 220), -1)
    assert kept.add(frame(pixels=with_sign)), "a sign of a fifth of the frame's height"
    kept.close()
    again = KeptFrames(tmp_path, KeepConfig())
    assert again.add(frame(pixels=with_sign)) is None, "a restart knows what is there"
    assert len(check(tmp_path)) == 2


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_scene_is_its_own_and_the_order_does_not_matter(one: int, other: int) -> None:
    a, b = (signature_of(jpeg_of(scene(seed), "BGR", 90)) for seed in (one, other))
    assert same_scene(a, a)
    assert same_scene(a, b) == same_scene(b, a) == (one == other)


def test_frames_of_the_same_minute_are_one_group(tmp_path: Path) -> None:
    kept = KeptFrames(tmp_path, KeepConfig())
    for seed, seconds in enumerate((0, 50, 100, 3000)):
        kept.add(frame(seed, NOON_NS + seconds * 10**9))
    groups = [item.group for item in check(tmp_path)]
    assert groups[0] == groups[1] == groups[2] != groups[3]


@pytest.mark.parametrize("config", [KeepConfig(max_frames=20), KeepConfig(budget_mb=0.03)])
def test_the_oldest_make_room_for_the_newest(tmp_path: Path, config: KeepConfig) -> None:
    kept = KeptFrames(tmp_path, config)
    names = []
    for seed in range(60):
        names.append(kept.add(frame(seed, NOON_NS + seed * HOUR_NS)))
        files = list(tmp_path.glob("*.jpg"))
        assert len(files) <= config.max_frames
        assert sum(file.stat().st_size for file in files) <= config.budget_mb * 1e6
    items = check(tmp_path)
    assert 5 <= len(items) < 60
    assert [item.name for item in items] == names[-len(items) :]
    kept.close()
    smaller = KeptFrames(tmp_path, KeepConfig(max_frames=5))
    assert smaller.add(frame(200))
    assert 1 <= len(check(tmp_path)) <= 5


def test_a_frame_larger_than_the_budget_is_left_out(tmp_path: Path) -> None:
    kept = KeptFrames(tmp_path, KeepConfig(budget_mb=0.1))
    kept.add(frame(1))
    noise = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    assert kept.add(frame(pixels=noise)) is None
    assert len(check(tmp_path)) == 1


def test_what_a_power_cut_left_is_brought_together(tmp_path: Path) -> None:
    kept = KeptFrames(tmp_path, KeepConfig())
    names = [kept.add(frame(seed, NOON_NS + seed * HOUR_NS)) for seed in range(3)]
    index = (tmp_path / "index.csv").read_text()
    kept.close()
    (tmp_path / str(names[0])).unlink()  # in the index only
    lines = index.splitlines(keepends=True)
    (tmp_path / "index.csv").write_text("".join(line for line in lines if str(names[2]) not in line))
    unfinished = tmp_path / f".{names[1]}.abc_123"
    unfinished.write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("the owner's")
    again = KeptFrames(tmp_path, KeepConfig())
    assert again.add(frame(1)) is None
    assert again.add(frame(9, NOON_NS + 9 * HOUR_NS))
    items = {item.name: item for item in check(tmp_path)}
    assert {str(names[1]), str(names[2])} < {*items}
    assert items[str(names[2])].columns["time"] == "2027-01-15T10:00:00.000Z"
    assert not unfinished.exists()
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("text", [b"\xff\xfe", b"path,label\nx,y\n", b'path,label,"', b""])
def test_an_index_that_cannot_be_read_loses_no_picture(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    kept = KeptFrames(tmp_path, KeepConfig())
    kept.add(frame(1))
    kept.close()
    (tmp_path / "index.csv").write_bytes(text)
    assert KeptFrames(tmp_path, KeepConfig()).add(frame(2))
    assert len(check(tmp_path)) == 2
    assert ("begins anew" in caplog.text) == bool(text)


PROGRAM = """
import sys
from pathlib import Path
from tests.bittern.delivery.test_kept import HOUR_NS, NOON_NS, frame
from bittern.config.schema import KeepConfig
from bittern.delivery.kept import KeptFrames
kept = KeptFrames(Path(sys.argv[1]), KeepConfig(max_frames=6))
for seed in range(10_000):
    kept.add(frame(seed + int(sys.argv[2]), NOON_NS + seed * HOUR_NS))
    print(seed, flush=True)
"""


def test_killed_at_any_moment_it_is_a_data_set(tmp_path: Path) -> None:
    rng = random.Random(4)
    for run in range(60 if FULL else 3):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(run * 10_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 15)):
                assert process.stdout.readline()
            time.sleep(rng.random() * 0.01)  # somewhere between two frames
            process.kill()
        named = {item.name for item in dataset.read(tmp_path)}
        files = {file.name for file in tmp_path.glob("*.jpg")}
        assert named <= files, "whatever is in the index exists"
        assert all(cv2.imread(str(tmp_path / name)) is not None for name in files), "and is whole"
        assert len(files) <= 7


def test_two_processes_do_not_share_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = KeptFrames(tmp_path, KeepConfig())
    first.add(frame(1))
    writer = KeptWriter(KeptFrames(tmp_path, KeepConfig()), live=True)
    with caplog.at_level(logging.INFO):
        writer.put(frame(2))
        until(lambda: "another process keeps its frames there" in caplog.text)
        first.close()
        writer.put(frame(3))
        until(lambda: "frames are being kept again" in caplog.text)
    writer.close(5)
    assert len(check(tmp_path)) == 2


def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wakes = threading.Event()

    class Hanging(KeptFrames):
        def add(self, frame: KeptFrame) -> str | None:
            wakes.wait(60)
            return None

    writer = KeptWriter(Hanging(tmp_path / "kept", KeepConfig()), live=True)
    with within():
        for seed in range(50):
            writer.put(frame(seed))
        writer.close(0.2)
    assert writer.full
    wakes.set()
    assert caplog.text.count("the disk does not keep up") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system")
def test_a_full_disk_leaves_what_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], capture_output=True
    ).returncode:
        pytest.skip("no mount here")
    try:
        writer = KeptWriter(KeptFrames(tmp_path, KeepConfig()), live=False)
        for seed in range(40):
            writer.put(frame(seed))
        writer.close(20)
        assert "No space left on device" in caplog.text
        assert caplog.text.count("frames are not kept") < 5
        assert check(tmp_path)
        assert not list(tmp_path.glob(".*.jpg.*"))
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
