"""`bittern replay` of a folder of clips: figures over all of them, each model by itself, nothing misspelt passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from tests.doubles.command import OFTEN

from bittern.cli.replay import replay
from bittern.errors import BitternError, ConfigurationError
from bittern.frames import Frame, Pixels
from bittern.sources.clip import Recorder

FPS = 10


def picture(red: bool) -> Pixels:
    """(48, 64, 3) uint8 BGR with a green corner: a picture with nothing on it would be a covered camera."""
    pixels = np.full((48, 64, 3), (10, 10, 255 if red else 0), np.uint8)
    pixels[:16, :16, 1] = 255
    return pixels


def film(file: Path, seconds: float, red: Sequence[tuple[float, float]]) -> None:
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 48))
    for number in range(round(seconds * FPS)):
        writer.write(picture(any(start <= number / FPS < end for start, end in red)))
    writer.release()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films and a recording: red where labelled, where it is not, and nowhere."""
    folder = tmp_path_factory.mktemp("clips")
    film(folder / "found.avi", 20, [(5, 8)])
    film(folder / "missed.avi", 20, [(5, 8)])
    film(folder / "quiet.avi", 20, [])
    with Recorder(folder / "cam.1", "cam", max_bytes=10**9) as recorder:
        for number in range(100):
            stamp = number * 200_000_000
            recorder.write(Frame(picture(30 <= number < 35), "BGR", 10**15 + stamp, 10**18 + stamp, number, "cam"))
    (folder / "labels").mkdir()
    (folder / "labels/found.red.csv").write_text("start_s,end_s,label\n4.6,8,red\n")
    (folder / "labels/missed.csv").write_text("start_s,end_s,label\n12,13,red\n")
    (folder / "labels/cam.1.red.csv").write_text("start_s,end_s,label\n6,7,red\n")
    return folder


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "clips"))


@pytest.fixture
def often(place: Path, tmp_path: Path) -> Path:
    file = tmp_path / "often.toml"
    file.write_text(f'models = ["{place / "means"}"]\n{OFTEN}')
    return file


def run(*words: object) -> Result:
    done = CliRunner().invoke(replay, [str(word) for word in words])
    if isinstance(done.exception, BitternError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def objects(done: Result, task: str = "colour_0") -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Of one head: the figures over all clips, and those of each."""
    total, *clips = [o for o in map(json.loads, done.stdout.splitlines()) if o["task"] == task]
    return total, {clip["clip"]: clip for clip in clips}


def test_figures_over_all_clips(folder: Path, often: Path) -> None:
    done = run(folder, "--labels", folder / "labels", "--config", often, "--json")
    assert done.exit_code == 0
    total, clips = objects(done)
    assert list(clips) == ["cam.1", "found.avi", "missed.avi", "quiet.avi"]
    assert (total["clips"], total["intervals"], total["found"], total["false_alarms"]) == (4, 3, 2, 1)
    assert total["mean_delay_s"] == pytest.approx(0.2, abs=0.01)
    assert total["longest_delay_s"] == pytest.approx(0.4, abs=0.01)
    assert total["hours"] * 3600 == pytest.approx(4 * 19.8, abs=0.1)
    assert total["false_alarms_per_hour"] == pytest.approx(3600 / (4 * 19.8), rel=0.01)
    low, high = total["false_alarms_per_hour_ci95"]
    assert low < total["false_alarms_per_hour"] < high
    assert [(c["found"], c["false_alarms"]) for c in clips.values()] == [(1, 0), (1, 0), (0, 1), (0, 0)]
    (false,) = clips["missed.avi"]["alarms"]
    assert (false["start_s"], false["end_s"], false["correct"]) == (5.0, 8.0, False)
    assert "looked at 400 of 700 frames of 4 clips" in done.stderr
    every = run(folder, "--labels", folder / "labels", "--config", often, "--every-frame")
    assert "looked at 700 of 700 frames of 4 clips" in every.stderr
    assert every.stdout.count("means, red: 2 of 3 intervals detected (95 % 21% to 94%)") == 2, "for each head"
    assert "  missed.avi     19.9   1.00    0 of 1      1  false at 5.0 s (1.00)\n" in every.stdout


def test_every_clip_gives_the_figures_that_it_gives_alone(folder: Path, often: Path) -> None:
    """Decisions start afresh: in the clip after one that ends with an alarm on, the alarm goes on again at once."""
    film(folder / "a.avi", 5, [(3, 9)])
    film(folder / "b.avi", 5, [(0, 2)])
    _, clips = objects(run(folder, "--labels", folder / "labels", "--config", often, "--json"))
    (first,), (second,) = clips["a.avi"]["alarms"], clips["b.avi"]["alarms"]
    assert (first["start_s"], first["end_s"]) == (3.0, None)
    assert (second["start_s"], second["end_s"]) == (0.0, 2.0)


def test_a_model_does_not_depend_on_the_others(folder: Path, place: Path, model_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "two.toml"
    config.write_text(
        "[decision]\nthreshold = 0.6\n"
        '[[alarm]]\nlabel = "stop"\nmin_off_s = 9\n'
        '[[alarm]]\nlabel = "red"\nmin_off_s = 1\n'
    )
    words = (folder, "--labels", folder / "labels", "--json", "--config", config, "--model", place / "means")
    both = run(*words, "--model", model_folder)
    (folder / "index.csv").write_text(
        "clip,models\nfound.avi,means\nquiet.avi,stop_sign\nmissed.avi,means stop_sign\ncam.1,\n"
    )
    some = run(*words, "--model", model_folder)
    whole, all_clips = objects(both)
    total, clips = objects(some)
    assert whole["clips"] == 4
    assert list(clips) == ["found.avi", "missed.avi"]
    assert all(clips[name] == all_clips[name] for name in clips)
    stops = objects(some, "stop_sign")
    assert list(stops[1]) == ["missed.avi", "quiet.avi"]
    assert (total["clips"], stops[0]["clips"], stops[0]["intervals"]) == (2, 2, 0)


def test_a_picture_of_each_clip(folder: Path, often: Path, tmp_path: Path) -> None:
    run(folder, "--labels", folder / "labels", "--config", often, "--plot", tmp_path / "plots")
    files = sorted((tmp_path / "plots").iterdir())
    assert [file.name for file in files] == ["cam.1.png", "found.png", "missed.png", "quiet.png"]
    pictures = {file.stem: cv2.imread(str(file)) for file in files}
    correct, false = (70, 150, 40), (40, 40, 215)
    for name, colours in {"found": (True, False), "missed": (False, True), "quiet": (False, False)}.items():
        drawing = pictures[name]
        assert drawing is not None
        assert drawing.shape[1] == 1200
        assert tuple(bool((drawing == colour).all(2).sum() > 100) for colour in (correct, false)) == colours


def test_what_cannot_be_read_does_not_stop_the_rest(folder: Path, often: Path) -> None:
    (folder / "broken.mp4").write_bytes(b"\0" * 5000)
    (folder / "cam.1/00000004.png").write_bytes(b"")
    done = run(folder, "--labels", folder / "labels", "--config", often, "--json")
    assert done.exit_code == 1
    assert "broken.mp4: not a video" in done.stderr
    total, clips = objects(done)
    assert (total["clips"], total["found"]) == (4, 2)
    assert "broken.mp4" not in clips
    (folder / "index.csv").write_text("clip,models\nfound.avi,means\ngone.avi,means\n")
    done = run(folder, "--labels", folder / "labels", "--config", often)
    assert done.exit_code == 1
    assert "gone.avi: named in index.csv, but there is no such clip" in done.stderr
    assert "quiet.avi: not in index.csv, so not used" in done.stderr
    for name in ("found.avi", "missed.avi", "quiet.avi"):
        (folder / name).write_bytes(b"\0" * 5000)
    with pytest.raises(BitternError, match="no clip could be read"):
        run(folder, "--labels", folder / "labels", "--config", often)


def test_what_does_not_fit_is_refused(folder: Path, often: Path, tmp_path: Path) -> None:
    words = (folder, "--labels", folder / "labels", "--config", often)
    assert run(folder, "--config", often).exit_code == 2
    assert run(*words, "--tune", "at most 1 false alarm an hour").exit_code == 2
    with pytest.raises(ConfigurationError, match="expected a folder, for a PNG of each clip"):
        run(*words, "--plot", tmp_path / "x.png")
    with pytest.raises(ConfigurationError, match="expected a folder of interval files"):
        run(folder, "--labels", folder / "labels/missed.csv", "--config", often)
    (folder / "labels/fuond.red.csv").write_text("start_s,end_s,label\n1,2,red\n")
    with pytest.raises(
        ConfigurationError, match=r"no clip 'fuond', so its intervals would not count; did you mean 'found'"
    ):
        run(*words)
    (folder / "labels/fuond.red.csv").unlink()
    (folder / "labels/quiet.rde.csv").write_text("start_s,end_s,label\n1,2,rde\n")
    with pytest.raises(
        ConfigurationError, match="intervals of 'rde', which does not raise an alarm; did you mean 'red'"
    ):
        run(*words)
    (folder / "labels/quiet.rde.csv").rename(folder / "labels/quiet.elephant.csv")
    (folder / "labels/quiet.elephant.csv").write_text("start_s,end_s,label\n1,2,elephant\n")
    assert "intervals of 'elephant' are not used" in run(*words).stderr
    (folder / "index.csv").write_text("clip,models\nfound.avi,another\n")
    with pytest.raises(ConfigurationError, match="no clip judges the model 'means'"):
        run(*words)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"there are no clips in .*empty: expected video files or recordings"):
        run(tmp_path / "empty", "--labels", folder / "labels", "--config", often)
