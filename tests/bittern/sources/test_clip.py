"""A clip keeps every frame as it came, survives its recorder, and is refused in one line if it is broken."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from tests.doubles.repetitions import examples

from bittern.cli.record import record
from bittern.errors import BitternError, ConfigurationError
from bittern.frames import Frame, Order
from bittern.sources.clip import INDEX, ClipSource, Recorder, is_clip
from bittern.sources.demo import DemoSource

MB = 10**6


def frame_of(number: int, order: Order = "BGR", size: tuple[int, int] = (30, 40)) -> Frame:
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
    return Frame(pixels, order, 10**15 + number * 40_000_001, 1_700_000_000_000_000_007 + number, number, "cam")


def recorded(folder: Path, numbers: list[int], **options: Any) -> Path:
    with Recorder(folder, "cam", **({"max_bytes": MB} | options)) as recorder:
        for number in numbers:
            recorder.write(frame_of(number))
    return folder


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_frames_come_back_as_they_were(tmp_path: Path, order: Order) -> None:
    frames = [frame_of(number, order) for number in (3, 4, 9)]
    with Recorder(tmp_path / "clip", "cam", max_bytes=MB) as recorder:
        for frame in frames:
            recorder.write(frame)
    assert recorder.frames == 3
    assert recorder.bytes == sum(file.stat().st_size for file in (tmp_path / "clip").glob("*.png"))
    source = ClipSource(tmp_path / "clip")
    assert (source.live, source.length, source.name) == (False, 3, "cam")
    for frame, decoded in zip(frames, source, strict=True):
        assert np.array_equal(decoded.pixels, frame.pixels if order == "BGR" else frame.pixels[:, :, ::-1])
        assert (decoded.order, decoded.source) == ("BGR", "cam")
        assert (decoded.monotonic_ns, decoded.time_ns) == (frame.monotonic_ns, frame.time_ns)
        assert decoded.number == frame.number
    assert source.read() is None
    source.close()


def test_jpeg_is_smaller_and_nearly_the_same(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(frame_of(1, size=(200, 300)).pixels, (0, 0), 4)
    frame = Frame(np.asarray(smooth, np.uint8), "BGR", 0, 0, 0, "cam")
    sizes = []
    for name, quality in (("png", None), ("jpg", 95)):
        with Recorder(tmp_path / name, "cam", max_bytes=MB, jpeg_quality=quality) as recorder:
            recorder.write(frame)
        sizes.append(recorder.bytes)
        decoded = ClipSource(tmp_path / name).read()
        assert decoded is not None
        assert np.abs(decoded.pixels.astype(int) - smooth).mean() < (1e-9 if quality is None else 3)
    assert sizes[1] < sizes[0] / 2


def test_what_a_killed_recorder_leaves_is_a_shorter_clip(tmp_path: Path) -> None:
    """Cut at every byte of the last two lines, with the picture of the next frame half written."""
    clip = recorded(tmp_path / "clip", [0, 1, 2])
    whole = (clip / INDEX).read_bytes()
    (clip / "00000003.png").write_bytes(b"\x89PNG\r\n")
    lines = whole.splitlines(keepends=True)
    for length in range(len(lines[0]) + len(lines[1]), len(whole) + 1):
        (clip / INDEX).write_bytes(whole[:length])
        frames = list(ClipSource(clip))
        assert [frame.number for frame in frames] == list(range(whole[:length].count(b"\n") - 1))


def test_a_picture_that_is_gone_is_skipped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = recorded(tmp_path / "clip", [0, 1, 2])
    (clip / "00000001.png").write_bytes(b"")
    source = ClipSource(clip)
    assert [frame.number for frame in source] == [0, 2]
    assert source.unreadable == 1
    assert "00000001.png" in caplog.text


def line(**changed: Any) -> str:
    return json.dumps({"number": 1, "monotonic_ns": 5, "time_ns": 5} | changed)


HEAD = json.dumps({"clip": 1, "source": "cam", "suffix": "png"})


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "empty"),
        (["{}"], "line 1: Object missing required field `clip`"),
        ([HEAD.replace("1", "2")], "line 1: "),
        ([HEAD.replace("png", "../png")], "line 1: "),
        ([HEAD, "no json"], "line 2: "),
        ([HEAD, line(number=-1)], "line 2: "),
        ([HEAD, line(file="/etc/passwd")], "line 2: Object contains unknown field `file`"),
        ([HEAD, line(time_ns=2**80)], "line 2: "),
        ([HEAD, line(), line(number=2, monotonic_ns=4)], "line 3: earlier than the line before"),
        ([HEAD, line(), line(monotonic_ns=6)], "line 3: earlier"),
    ],
    ids=lambda v: str(v)[-40:],
)
def test_a_broken_index_is_refused_in_one_line(tmp_path: Path, lines: list[str], says: str) -> None:
    (tmp_path / INDEX).write_text("".join(text + "\n" for text in lines))
    with pytest.raises(ConfigurationError) as caught:
        ClipSource(tmp_path)
    assert says in str(caught.value)
    assert str(tmp_path / INDEX) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.fuzz
def test_mutated_indexes_are_read_or_refused(tmp_path: Path) -> None:
    clip = recorded(tmp_path / "clip", [0, 1, 2])
    whole = (clip / INDEX).read_bytes()
    rng, messages = random.Random(5), []
    n = examples(10_000)
    for _ in range(n):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(data))
            data[start : start + rng.randint(0, 3)] = bytes(rng.choices(b'{}":,-019eanpg\n\xff\0', k=rng.randint(0, 3)))
        (clip / INDEX).write_bytes(data)
        try:
            ClipSource(clip)
        except ConfigurationError as error:
            messages.append(str(error))
    assert n * 0.1 < len(messages) < n
    assert not any("\n" in message for message in messages)


# --- room ------------------------------------------------------------------------------------------------------------


def test_a_clip_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    clip = recorded(tmp_path / "clip", [0, 1, 2])
    with pytest.raises(ConfigurationError, match="already exists; --force"):
        recorded(clip, [5])
    assert len(list(ClipSource(clip))) == 3
    recorded(clip, [5], force=True)
    assert sorted(file.name for file in clip.iterdir()) == ["00000000.png", INDEX]
    assert [frame.number for frame in ClipSource(clip)] == [5]


@pytest.mark.parametrize("other", ["holiday.jpg", "notes.txt", ".hidden", "00000001.png.bak"])
def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path, other: str) -> None:
    clip = recorded(tmp_path / "clip", [0])
    (clip / other).write_text("mine")
    for force in (False, True):
        with pytest.raises(ConfigurationError, match="not part of a clip"):
            recorded(clip, [5], force=force)
    assert len(list(clip.iterdir())) == 3
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigurationError, match="is a file"):
        recorded(tmp_path / "file", [5], force=True)
    with pytest.raises(ConfigurationError, match="no folder"):
        recorded(tmp_path / "absent/clip", [5])


def test_it_is_full_by_size_and_when_the_disk_is_nearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Recorder(tmp_path / "clip", "cam", max_bytes=5000) as recorder:
        assert recorder.full() is None
        recorder.write(frame_of(0))
        recorder.write(frame_of(1))
        assert recorder.full() == "0.005 MB written"
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 10**8))
        recorder.bytes = 0
        assert recorder.full() == "less than 256 MiB of disk space left"


def test_a_full_disk_ends_the_clip_before_the_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Recorder(tmp_path / "clip", "cam", max_bytes=MB) as recorder:
        recorder.write(frame_of(0))

        def full(self: Path, data: bytes) -> int:
            with self.open("wb") as file:
                file.write(data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(BitternError, match="No space left on device: the clip ends with 1 frames"):
            recorder.write(frame_of(1))
    assert sorted(file.name for file in (tmp_path / "clip").iterdir()) == ["00000000.png", INDEX]
    assert len(list(ClipSource(tmp_path / "clip"))) == 1


# --- the command -----------------------------------------------------------------------------------------------------


def run(*words: object) -> Result:
    return CliRunner().invoke(record, [str(word) for word in words])


def test_record_keeps_what_the_source_gave(tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    done = run("--source", "demo:?fps=20&size=64x48", "--fps", "20", "--seconds", "0.6", "--out", clip)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    frames = list(ClipSource(clip))
    assert 2 <= len(frames) <= 12
    assert f"{len(frames)} frames" in done.stderr
    street = DemoSource("", DemoSource.Options(fps=20, size="64x48"))._street
    for frame in frames:
        assert np.array_equal(frame.pixels[:, :, ::-1], street.render(frame.number / 20).pixels)
        assert frame.monotonic_ns - frames[0].monotonic_ns == round((frame.number - frames[0].number) / 20 * 1e9)
        assert abs(frame.time_ns - time.time_ns()) < 600e9


def test_the_rate_is_that_of_watch(tmp_path: Path) -> None:
    """A busy machine may record fewer frames, but never more."""
    done = run("--source", "demo:?fps=50&size=64x48", "--seconds", "1", "--out", tmp_path / "clip")
    assert len(list(ClipSource(tmp_path / "clip"))) <= 6
    assert "skipped (--fps 5)" in done.stderr
    config = tmp_path / "c.toml"
    config.write_text('source = "demo:"\nfps = 25\n[camera]\nfps = 50\nsize = "64x48"\nlaps = 1\n')
    done = run("--config", config, "--seconds", "1", "--out", tmp_path / "clip", "--force")
    assert done.exit_code == 0, done.output
    frames = list(ClipSource(tmp_path / "clip"))
    assert len(frames) <= 26
    assert closest(frames) < 100
    assert "skipped (--fps 25)" in done.stderr


def closest(frames: list[Frame]) -> float:
    """The least time from one frame to the next, in ms."""
    return float(np.diff([frame.monotonic_ns for frame in frames]).min()) / 1e6


@pytest.mark.parametrize("camera_fps", [6, 8, 10, 15, 30])
def test_a_recording_is_whole_at_its_rate_and_thinned_below_it(tmp_path: Path, camera_fps: float) -> None:
    """Frames as the recorder takes them: the newest one, at turns that are a period and up to 20 ms apart."""
    turns = np.cumsum(0.2 + np.random.default_rng(1).uniform(0, 0.02, 60))
    numbers = [int(turn * camera_fps) for turn in turns]
    with Recorder(tmp_path / "clip", "cam", max_bytes=MB) as recorder:
        for number in numbers:
            pixels = np.full((8, 8, 3), number % 256, np.uint8)
            recorder.write(Frame(pixels, "BGR", round(number / camera_fps * 1e9), number, number, "cam"))
    assert len(set(np.diff(numbers))) > 1, "there is jitter"
    for fps, kept in ((5.0, 60), (2.5, 30)):
        source = ClipSource(tmp_path / "clip")
        source.thin(fps)
        taken = [frame.number for frame in source]
        assert len(taken) + source.left_out == 60
        assert set(taken) <= set(numbers)
        assert abs(len(taken) - kept) <= (0 if kept == 60 else 3)


def test_record_ends_at_its_size(tmp_path: Path) -> None:
    done = run("--source", "demo:?fps=100&size=640x480", "--fps", "100", "--max-mb", "1", "--out", tmp_path / "clip")
    assert done.exit_code == 0
    assert "1 MB written: the clip ends here" in done.stderr
    size = sum(file.stat().st_size for file in (tmp_path / "clip").iterdir())
    assert 1 * MB <= size < 2 * MB


def process(clip: Path) -> subprocess.Popen[bytes]:
    program = "import sys; from bittern.cli.record import record; record(sys.argv[1:])"
    words = ["--source", "demo:?fps=60&size=160x120", "--fps", "60", "--out", str(clip)]
    running = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE)
    for _ in range(3000):
        if (clip / "00000003.png").exists():
            return running
        time.sleep(0.01)
    raise AssertionError("no frame was recorded")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_leaves_a_whole_clip(tmp_path: Path, number: signal.Signals) -> None:
    rng = random.Random(number)
    for turn in range(2):
        clip = tmp_path / f"clip{turn}"
        running = process(clip)
        time.sleep(rng.uniform(0, 0.2))
        running.send_signal(number)
        _, err = running.communicate(timeout=10)
        assert is_clip(clip)
        source = ClipSource(clip)
        assert len(list(source)) == source.length >= 3
        if number != signal.SIGKILL:
            assert running.returncode == 0
            assert f"{source.length} frames" in err.decode()
            assert len(list(clip.glob("*.png"))) == source.length
