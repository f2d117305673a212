"""Many clips at once: files are matched strictly, and the figures are sums over the clips."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bittern.decision.decision import Settings
from bittern.errors import ConfigurationError
from bittern.evaluation import clips
from bittern.evaluation.clips import ClipFigures, clip_figures, read_index, read_labels, totals, unknown_labels
from bittern.evaluation.tuning import LabelledInterval, Track, judge

NOW = Settings(0.5, 0.25, 5.0, 0.5, 2.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.c.avi"):
        (tmp_path / name).touch()
    (tmp_path / "2024.06").mkdir()
    (tmp_path / "labels").mkdir()
    return tmp_path


def files(folder: Path) -> list[Path]:
    return [folder / name for name in ("2024.06", "a.mp4", "b.c.avi")]


def write(folder: Path, name: str, *rows: str) -> None:
    (folder / "labels" / name).write_text("\n".join(["start_s,end_s,label", *rows]))


# --- intervals -------------------------------------------------------------------------------------------------------


def test_intervals_are_matched_to_clips(folder: Path) -> None:
    write(folder, "a.stop.csv", "5,6,stop", "1,2,stop")
    write(folder, "a.yield.csv", "1,2,yield")
    write(folder, "b.c.csv", "1,2,stop", "1,3,yield")
    write(folder, "2024.06.two.words.csv", "1,2,two.words")
    (folder / "labels" / "notes.txt").write_text("not read")
    assert read_labels(folder / "labels", files(folder)) == {
        "2024.06": [LabelledInterval(1, 2, "two.words")],
        "a.mp4": [LabelledInterval(1, 2, "stop"), LabelledInterval(1, 2, "yield"), LabelledInterval(5, 6, "stop")],
        "b.c.avi": [LabelledInterval(1, 2, "stop"), LabelledInterval(1, 3, "yield")],
    }


def test_a_clip_without_a_file_has_nothing_in_it(folder: Path) -> None:
    write(folder, "a.stop.csv")
    assert read_labels(folder / "labels", files(folder)) == {"2024.06": [], "a.mp4": [], "b.c.avi": []}


@pytest.mark.parametrize(
    ("name", "rows", "says"),
    [
        ("A1.stop.csv", ("1,2,stop",), "no clip 'A1', so its intervals would not count"),
        ("2024.07.csv", ("1,2,stop",), "no clip '2024'"),
        ("b.csv", (), "no clip 'b'"),
        ("a.stop.csv", ("1,2,halt",), "label 'halt', expected 'stop' as in the file's name"),
        ("a.stop.csv", ("3,2,stop",), "row 2: expected 0 <= start_s < end_s"),
    ],
)
def test_a_misspelt_file_is_refused(folder: Path, name: str, rows: tuple[str, ...], says: str) -> None:
    write(folder, name, *rows)
    with pytest.raises(ConfigurationError) as caught:
        read_labels(folder / "labels", files(folder))
    assert name in str(caught.value)
    assert says in str(caught.value)


def test_two_files_may_not_overlap_and_two_clips_not_share_a_name(folder: Path) -> None:
    write(folder, "a.stop.csv", "1,3,stop")
    write(folder, "a.csv", "2,4,stop")
    with pytest.raises(ConfigurationError, match=r"a\.stop\.csv: overlaps an interval of 'stop' in another file"):
        read_labels(folder / "labels", files(folder))
    with pytest.raises(ConfigurationError, match=r"clips a\.mp4 and a\.avi: the same name"):
        read_labels(folder / "labels", [*files(folder), folder / "a.avi"])
    with pytest.raises(ConfigurationError, match="expected a folder of interval files"):
        read_labels(folder / "absent", files(folder))


def test_labels_that_raise_no_alarm() -> None:
    labels = {"a": [LabelledInterval(1, 2, "stop")], "b": [LabelledInterval(1, 2, "no_mask")]}
    assert unknown_labels(labels, ["stop"]) == ["no_mask"]
    with pytest.raises(ConfigurationError, match="did you mean 'stop'"):
        unknown_labels({"a": [LabelledInterval(1, 2, "stpo")]}, ["stop", "no_mask"])


# --- index -----------------------------------------------------------------------------------------------------------


def test_the_index_says_which_model_a_clip_judges(tmp_path: Path) -> None:
    names = ["a.mp4", "b.mp4", "c.mp4"]
    assert read_index(tmp_path, names) is None
    (tmp_path / "index.csv").write_text("clip,note\na.mp4,x\n")
    assert read_index(tmp_path, names) is None
    (tmp_path / "index.csv").write_text('clip,models,note\na.mp4,stop_sign face_mask,"x, y"\nb.mp4,,\nd.mp4,mine,\n')
    index = read_index(tmp_path, names)
    assert index is not None
    assert (index.absent, index.unlisted) == (["d.mp4"], ["c.mp4"])
    assert index.judges("a.mp4", "mine", "stop_sign"), "by its task"
    assert index.judges("a.mp4", "face_mask", "other"), "by its name"
    assert not index.judges("a.mp4", "car_damage", "car_damage")
    assert not index.judges("b.mp4", "stop_sign", "stop_sign")
    assert not index.judges("c.mp4", "stop_sign", "stop_sign")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"models\nx\n", "a column 'models' but none 'clip'"),
        (b"clip,models\n\xff,x\n", "not UTF-8"),
        (b'clip,models\n"a,x\n', "unexpected end of data"),
    ],
)
def test_a_broken_index_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "index.csv").write_bytes(data)
    with pytest.raises(ConfigurationError, match=says):
        read_index(tmp_path, [])


# --- figures ---------------------------------------------------------------------------------------------------------


def of(
    name: str, alarms: list[tuple[float, float]], *intervals: tuple[float, float], clip_s: float = 60
) -> ClipFigures:
    times = np.arange(round(clip_s) + 1, dtype=np.int64) * 10**9
    track = Track("m", "t", "stop", times, np.linspace(0, 1, len(times)), clip_s)
    labelled = [LabelledInterval(*interval, "stop") for interval in intervals]
    return clip_figures(name, track, judge(track, labelled, NOW, alarms))


def test_figures_are_sums_over_the_clips() -> None:
    of_clips = [
        of("a.mp4", [(10.0, 12.0), (30.0, math.inf)], (9, 13), (20, 22), clip_s=36),
        of("b.mp4", [], clip_s=144),
        of("c.mp4", [(7.0, 11.0)], (8, 9), clip_s=180),
    ]
    total = totals(of_clips)
    assert (total.clips, total.intervals, total.detected, total.false_alarms) == (3, 3, 2, 1)
    assert (total.mean_delay_s, total.longest_delay_s) == (0.5, 1.0), "1 s, and 0 of one that began before"
    assert total.hours == pytest.approx(0.1)
    assert total.false_alarms_per_hour == 10
    low, high = total.false_alarms_per_hour_ci95 or (0, 0)
    assert (low, high) == pytest.approx((0.253, 55.716), abs=1e-3)
    alarms = msgspec.to_builtins(of_clips[0])["alarms"]
    assert alarms == [
        {"start_s": 10.0, "end_s": 12.0, "correct": True, "highest_score": pytest.approx(12 / 36, abs=1e-5)},
        {"start_s": 30.0, "end_s": None, "correct": False, "highest_score": 1.0},
    ]
    assert clips.lines(total, of_clips) == [
        "m, stop: 2 of 3 intervals detected (95 % 21% to 94%), delay 0.5 s on average, 1.0 s at most",
        "m, stop: 1 false alarms in 6.0 min of 3 clips: 10 an hour (95 % 0.25 to 56, Poisson)",
        "  clip   seconds  score  detected  false",
        "  a.mp4     36.0   1.00    1 of 2      1  delay 1.0 s, false at 30.0 s (1.00)",
        "  b.mp4    144.0   1.00",
        "  c.mp4    180.0   1.00    1 of 1         delay 0.0 s",
    ]


def test_footage_in_which_nothing_happens() -> None:
    total = totals([of("a.mp4", [], clip_s=3600)])
    assert (total.detected_ci95, total.mean_delay_s) == ((0.0, 1.0), None)
    assert clips.lines(total, [of("a.mp4", [], clip_s=3600)])[:2] == [
        "m, stop: nothing to detect",
        "m, stop: 0 false alarms in 60.0 min of 1 clips: 0 an hour (95 % 0 to 3.7, Poisson)",
    ]
    empty = Track("m", "t", "stop", np.array([], np.int64), np.array([]), 0.0)
    one = clip_figures("still.png", empty, judge(empty, [], NOW, []))
    assert one.highest_score is None
    assert totals([one]).false_alarms_per_hour is None
    assert len(clips.lines(totals([one]), [one])) == 4
