"""`bittern replay`: the events of the day, the same again and again, and thresholds from a clip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from tests.doubles.command import EVENT, OFTEN, bittern, one_line
from tests.doubles.scripted_clips import driven, frames, still

from bittern import Classifier
from bittern.cli.replay import replay
from bittern.config.schema import DecisionConfig, GateConfig, WatchConfig
from bittern.decision.pipeline import Pipeline
from bittern.errors import BitternError, ConfigurationError
from bittern.events import Event, to_line
from bittern.frames import Frame
from bittern.sources.clip import Recorder
from bittern.sources.registry import open_source


def run(*words: object) -> Result:
    done = CliRunner().invoke(replay, [str(word) for word in words])
    if isinstance(done.exception, BitternError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def lines(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def keep(folder: Path, frames: list[Frame]) -> Path:
    with Recorder(folder, "cam", max_bytes=10**9) as recorder:
        for frame in frames:
            recorder.write(frame)
    return folder


def coloured(shape: tuple[int, int], red: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR of one red, with a green corner: a picture with nothing on it would be a covered camera."""
    pixels = np.full((*shape, 3), (10, 10, red), np.uint8)
    pixels[: shape[0] // 3, : shape[1] // 3, 1] = 255
    return pixels


@pytest.fixture(scope="module")
def means_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames a second apart, red in 2 to 4 and 7, of which only every third was kept."""
    frames = []
    for number in range(10):
        pixels = coloured((30, 40), 255 if number in (2, 3, 4, 7) else 0)
        stamp = 10**15 + number * 10**9
        frames.append(Frame(pixels, "BGR", stamp, 1_700_000_000 * 10**9 + stamp, number * 3, "cam"))
    return keep(tmp_path_factory.mktemp("clips") / "red", frames)


@pytest.fixture
def often(place: Path, tmp_path: Path) -> Path:
    file = tmp_path / "often.toml"
    file.write_text(f'name = "the gate"\nmodels = ["{place / "means"}"]\n{OFTEN}')
    return file


def test_a_recording_replays_with_the_clock_of_its_day(means_clip: Path, often: Path) -> None:
    done = run(means_clip, "--config", often)
    events = lines(done)
    assert all(set(event) == EVENT for event in events)
    of_head = [e for e in events if e["task"] == "colour_0"]
    assert [(e["type"], e["frame"]) for e in of_head] == [
        ("alarm.on", 6), ("alarm.off", 15), ("alarm.on", 21), ("alarm.off", 24),
    ]  # fmt: skip
    assert of_head[0]["monotonic_ns"] == 10**15 + 2 * 10**9
    assert of_head[0]["time"] == "2023-11-26T12:00:02.000Z"
    assert {e["source"] for e in events} == {"the gate"}
    assert "looked at 10 of 10 frames, 9.0 s, in " in done.stderr
    assert "times real time), 0 still and not classified, 8 events" in done.stderr
    assert done.stdout == run(means_clip, "--config", often).stdout, "to the byte, ids too"
    assert len({e["id"] for e in events}) == 8


def test_watch_reads_a_recording_with_its_own_times(means_clip: Path, often: Path) -> None:
    done = bittern("watch", "--source", means_clip, "--config", often)
    assert done.code == 0
    replayed = lines(run(means_clip, "--config", often))
    assert [without_id(event) for event in done.alarms] == [without_id(event) for event in replayed]
    assert "10 frames in" in done.err


def without_id(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "id"}


def test_a_replay_gives_the_events_that_came_live(model_folder: Path, tmp_path: Path) -> None:
    """The demo's camera, its frames seen by two pipelines and recorded at the same time."""
    gates = (GateConfig(enabled=False), GateConfig(threshold=40.0))
    live: list[list[Event]] = [[], []]
    model = Classifier(model_folder)
    pipelines = [Pipeline([model], WatchConfig(gate=gate)) for gate in gates]
    with open_source("demo:?fps=8&laps=1") as source, Recorder(tmp_path / "c", source.name, max_bytes=10**9) as clip:
        for frame in source:
            for pipeline, events in zip(pipelines, live, strict=True):
                events += pipeline.step(frame).events
            clip.write(frame)
    config = tmp_path / "c.toml"
    for gate, events in zip(gates, live, strict=True):
        assert [event.type for event in events] == ["alarm.on", "alarm.off"]
        config.write_text(f"fps = 8\n[gate]\nenabled = {str(gate.enabled).lower()}\nthreshold = {gate.threshold}\n")
        replayed = lines(run(tmp_path / "c", "--config", config, "--model", model_folder))
        assert [without_id(e) for e in replayed] == [without_id(json.loads(to_line(e))) for e in events]


def test_a_folder_and_a_video_count_from_their_first_frame(place: Path, often: Path, tmp_path: Path) -> None:
    (tmp_path / "film").mkdir()
    for i, red in enumerate((0, 255, 255, 0)):
        cv2.imwrite(str(tmp_path / f"film/{i}.png"), coloured((30, 40), red))
    events = lines(run(tmp_path / "film", "--config", often))
    assert [(e["type"], e["frame"], e["time"]) for e in events if e["task"] == "colour_1"] == [
        ("alarm.on", 1, "1970-01-01T00:00:01.000Z"),
        ("alarm.off", 3, "1970-01-01T00:00:03.000Z"),
    ]
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for red in (0, 0, 255, 255, 0, 0):
        writer.write(coloured((48, 64), red))
    writer.release()
    done = run(film, "--config", often)
    assert [(e["type"], e["frame"]) for e in lines(done) if e["task"] == "colour_0"] == [
        ("alarm.on", 2),
        ("alarm.off", 4),
    ]
    assert "looked at 3 of 6 frames, 0.4 s" in done.stderr


def test_a_video_is_looked_at_as_a_camera_would_be(place: Path, often: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    for number in range(50):
        writer.write(coloured((48, 64), 255 if number in (7, 8, 14, 15, 16, 30) else 0))
    writer.release()
    for words, looked, changes in (
        ((), "10 of 50", [("alarm.on", 15), ("alarm.off", 20), ("alarm.on", 30), ("alarm.off", 35)]),
        (
            ("--every-frame",),
            "50 of 50",
            [
                ("alarm.on", 7),
                ("alarm.off", 9),
                ("alarm.on", 14),
                ("alarm.off", 17),
                ("alarm.on", 30),
                ("alarm.off", 31),
            ],
        ),
    ):
        done = run(film, "--config", often, *words)
        assert [(e["type"], e["frame"]) for e in lines(done) if e["task"] == "colour_0"] == changes
        assert f"looked at {looked} frames" in done.stderr
        watched = bittern("watch", "--source", film, "--config", often, *words)
        assert [(e["type"], e["frame"]) for e in watched.alarms if e["task"] == "colour_0"] == changes
        assert f"{looked.removesuffix(' of 50') if words else looked} frames in" in watched.err


def test_a_covered_camera_raises_nothing_as_it_would_not_live(often: Path, tmp_path: Path) -> None:
    flat = [np.full((30, 40, 3), (10, 10, 255 * (number % 2)), np.uint8) for number in range(10)]
    frames = [Frame(pixels, "BGR", 10**15 + i * 10**9, 10**18, i, "cam") for i, pixels in enumerate(flat)]
    covered = keep(tmp_path / "covered", frames)
    done = run(covered, "--config", often)
    assert done.stdout == ""
    assert "10 of 10 frames" in done.stderr
    with pytest.raises(BitternError, match="no frame shows anything"):
        run(covered, "--config", often, "--plot", tmp_path / "plot.png")


def test_pictures_that_cannot_be_read_are_exit_code_1(means_clip: Path, often: Path, tmp_path: Path) -> None:
    import shutil

    clip = Path(shutil.copytree(means_clip, tmp_path / "clip"))
    (clip / "00000005.png").write_bytes(b"")
    done = run(clip, "--config", often)
    assert done.exit_code == 1
    assert len(lines(done)) == 8
    for file in clip.glob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(BitternError, match="no frame could be read"):
        run(clip, "--config", often)


def test_what_cannot_be_replayed_is_said_in_one_line(means_clip: Path, place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'demo:' is a camera, not a clip: record it first"):
        run("demo:", "--model", place / "means")
    with pytest.raises(ConfigurationError, match="no such file or folder"):
        run(tmp_path / "absent", "--model", place / "means")
    with pytest.raises(ConfigurationError, match="no folder"):
        run(means_clip, "--plot", tmp_path / "absent/x.png")
    assert run(means_clip, "--tune", "at most 1 false alarm an hour").exit_code == 2
    assert run(means_clip, "--json").exit_code == 2
    labels = tmp_path / "labels.csv"
    labels.write_text("start_s,end_s,label\n1,2,rad\n")
    with pytest.raises(
        ConfigurationError, match="label 'rad' does not raise an alarm; these do: 'red'; did you mean 'red'"
    ):
        run(means_clip, "--model", place / "means", "--labels", labels)


def test_a_recording_does_not_delete_what_it_reads(means_clip: Path, tmp_path: Path) -> None:
    clip = Path(shutil.copytree(means_clip, tmp_path / "clips" / "one"))
    before = sorted(file.name for file in clip.iterdir())
    for out in (clip, clip.parent, tmp_path / "clips" / ".." / "clips"):
        says = "the source is read from there"
        one_line(bittern("record", "--source", clip, "--out", out, "--force"), 2, says)
    assert sorted(file.name for file in clip.iterdir()) == before


def test_a_recording_of_pictures_that_cannot_be_read_says_so(means_clip: Path, tmp_path: Path) -> None:
    clip = Path(shutil.copytree(means_clip, tmp_path / "clip"))
    (clip / "00000003.png").write_text("no picture")
    done = bittern("record", "--source", clip, "--out", tmp_path / "out")
    assert done.code == 1
    assert "00000003.png" in done.err


@pytest.mark.parametrize("words", ["--max-mb inf", "--max-mb nan", "--seconds nan", "--seconds inf", "--fps nan"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, words: str) -> None:
    one_line(bittern("record", "--source", "demo:", "--out", tmp_path / "out", *words.split()), 2, "--")


def test_in_a_shell(means_clip: Path, place: Path, tmp_path: Path) -> None:
    assert len(bittern("replay", means_clip, "--model", place / "means").lines) == 4
    says = "is a camera, not a clip: record it first with `bittern record`"
    one_line(bittern("replay", "demo:", "--model", place / "means"), 2, says)
    one_line(bittern("record", "--source", "demo:", "--out", means_clip), 2, "--force deletes it first")
    one_line(bittern("replay", means_clip, "--labels", tmp_path / "absent.csv"), 2, "expected labelled intervals")


# --- labelled intervals ----------------------------------------------------------------------------------------------


def labelled(folder: Path, *rows: str) -> Path:
    file = folder / "labels.csv"
    file.write_text("\n".join(["start_s,end_s,label", *rows]))
    return file


def test_labels_say_what_was_found(means_clip: Path, often: Path, tmp_path: Path) -> None:
    file = labelled(tmp_path, "1.5,4.5,red", "8.6,9,red")
    done = run(means_clip, "--config", often, "--labels", file, "--plot", tmp_path / "plot.png")
    assert len(lines(done)) == 8, "the events all the same"
    assert done.stderr.count("means, red: 1 of 2 intervals detected") == 2, "for each head"
    assert "delay 0.50 s on average" in done.stderr
    assert done.stderr.count("false alarms: 1 in the 5.0 s outside") == 0
    assert "false alarms: 1 in" in done.stderr
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture is not None
    assert picture.shape[1] == 1200
    false_red = (picture == (40, 40, 215)).all(2).sum()
    right_green = (picture == (70, 150, 40)).all(2).sum()
    assert false_red > 100
    assert right_green > 2 * false_red, "three seconds against one"


def test_labels_without_rows_are_footage_in_which_nothing_happens(
    means_clip: Path, often: Path, tmp_path: Path
) -> None:
    file = labelled(tmp_path)
    done = run(means_clip, "--config", often, "--labels", file, "--plot", tmp_path / "plot.png")
    assert done.exit_code == 0
    assert done.stderr.count("means, red: nothing to detect\n") == 2, "for each head"
    assert done.stderr.count("false alarms: 2 in the 9.0 s outside of the intervals") == 0
    assert done.stderr.count("false alarms: 2 in the 0.1 min") == 2
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture is not None
    assert (picture == (40, 40, 215)).all(2).sum() > 100, "false"
    assert not (picture == (70, 150, 40)).all(2).any(), "none is correct"
    with pytest.raises(ConfigurationError, match="no intervals: --tune needs rows such as"):
        run(means_clip, "--config", often, "--labels", file, "--tune", "at most 1 false alarm an hour")


def test_without_labels_no_alarm_is_false(means_clip: Path, often: Path, tmp_path: Path) -> None:
    run(means_clip, "--config", often, "--plot", tmp_path / "plot.png")
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture is not None
    assert not (picture == (40, 40, 215)).all(2).any()
    assert (picture == (120, 120, 120)).all(2).sum() > 100


@pytest.fixture(scope="module")
def street_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sign for 7 s of 30, and again for 5 s."""

    def shows_sign(t: float) -> bool:
        return 6 <= t < 13 or 20 <= t < 25

    pictures = still(1, 30.0, shows_sign, sign_px=130, at=(230, 120), noise=3.0)
    return keep(tmp_path_factory.mktemp("clips") / "street", list(frames(pictures)))


def test_tune_prints_a_configuration_that_does_what_it_says(
    street_clip: Path, model_folder: Path, tmp_path: Path
) -> None:
    from bittern.config import schema

    file = labelled(tmp_path, "6,12.9,stop", "20,24.9,stop")
    bound = "at most 1 false alarm an hour"
    words = (street_clip, "--model", model_folder, "--labels", file, "--tune", bound)
    done = run(*words, "--plot", tmp_path / "plot.png")
    assert done.exit_code == 0
    assert "fitted to it" in done.stdout
    assert "2 of 2 intervals detected (95 % 34% to 100%)" in done.stdout
    assert "a clip of 3.0 h" in done.stdout
    (tmp_path / "found.toml").write_text(done.stdout)
    config = schema.load(tmp_path / "found.toml")
    assert isinstance(config.decision.threshold, float)
    assert config == WatchConfig(decision=config.decision)
    assert (config.decision.cooldown_s, config.decision.min_off_s) == (
        DecisionConfig().cooldown_s,
        DecisionConfig().min_off_s,
    )
    again = run(street_clip, "--config", tmp_path / "found.toml", "--model", model_folder, "--labels", file)
    assert [e["type"] for e in lines(again)] == ["alarm.on", "alarm.off"] * 2
    assert "2 of 2 intervals detected" in again.stderr
    assert "false alarms: 0 in" in again.stderr
    (tuned,) = lines(run(*words, "--json"))
    assert (tuned["threshold"], tuned["evidence"]) == (config.decision.threshold, config.decision.evidence)
    assert (tuned["found"], tuned["intervals"], tuned["false_alarms"]) == (2, 2, 0)
    assert tuned["false_alarms_at_most"] > 100, "half a minute says next to nothing"


def test_tune_refuses_what_cannot_be_kept(street_clip: Path, model_folder: Path, tmp_path: Path) -> None:
    file = labelled(tmp_path, "20,24.9,stop")
    words = ("--model", model_folder, "--labels", file, "--plot", tmp_path / "p.png")
    done = run(street_clip, *words, "--tune", "at most 0 false alarms a day")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "nearest: 1 false alarms, 1 of 1 detected with threshold" in done.stderr
    assert (tmp_path / "p.png").exists()


def test_tune_for_each_label_of_several(means_clip: Path, place: Path, tmp_path: Path) -> None:
    from bittern.config import schema

    file = labelled(tmp_path, "1.5,4.5,red", "6.5,7.5,red")
    bound = "at most 1 false alarm an hour"
    done = run(means_clip, "--model", place / "means", "--labels", file, "--tune", bound)
    assert done.exit_code == 0
    (tmp_path / "found.toml").write_text(done.stdout)
    config = schema.load(tmp_path / "found.toml")
    assert [(a.model, a.label) for a in config.alarm] == [("means", "red")] * 2


def test_a_drive_from_clip_to_thresholds(model_folder: Path, tmp_path: Path) -> None:
    clip = keep(tmp_path / "clip", list(frames(driven(2))))
    whole = [e["monotonic_ns"] / 1e9 for e in lines(run(clip, "--model", model_folder))]
    file = labelled(tmp_path, f"{whole[0] - 2},{whole[1]},stop")
    done = run(clip, "--model", model_folder, "--labels", file, "--tune", "at most 1 false alarm a day", "--json")
    (tuned,) = lines(done)
    assert tuned["found"] == 1
    assert tuned["mean_delay_s"] < 2, "sooner than with the model's own threshold"
