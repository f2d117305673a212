"""The command line as a user meets it: real processes, their output, exit codes and signals."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from tests.drawn_pictures import folders
from tests.tflite_files import COLOURS, channel_means, model_folder_of_means, with_files

from bittern.cli import COMMANDS
from bittern.scene import Street

BITTERN = str(Path(sys.executable).with_name("bittern"))
HOST = importlib.util.find_spec("tensorflow") is not None


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def bittern(*words: str | Path, stdin: bytes = b"", cwd: Path | None = None, **env: str) -> Done:
    done = subprocess.run(
        [BITTERN, *map(str, words)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=os.environ | {"PYTHONWARNINGS": "error"} | env,
        timeout=60,
    )
    out, err = done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "surrogateescape")
    assert "Traceback" not in err or "--debug" in words
    return Done(done.returncode, out, err)


def one_line(done: Done, code: int, *says: str) -> str:
    """Nothing on stdout, one line on stderr that has all of these words, and the exit code."""
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("bittern: ")
    for words in says:
        assert words in done.err
    assert "internal error" not in done.err
    assert (done.code, done.out) == (code, "")
    return done.err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A folder to work in: pictures of plain colours, a small model, a bare one, and a labelled set."""
    place = tmp_path_factory.mktemp("place")
    for name, bgr in (("red", (0, 0, 255)), ("green", (0, 255, 0)), ("blue", (255, 0, 0))):
        cv2.imwrite(str(place / f"{name}.png"), np.full((30, 40, 3), bgr, np.uint8))
    (place / "more/deep").mkdir(parents=True)
    cv2.imwrite(str(place / "more/a.jpg"), np.full((30, 40, 3), (0, 0, 255), np.uint8))
    cv2.imwrite(str(place / "more/deep/b.bmp"), np.full((30, 40, 3), (255, 0, 0), np.uint8))
    (place / "broken.png").write_bytes((place / "red.png").read_bytes()[:40])
    (place / "text.jpg").write_text("no picture")
    (place / "empty.jpg").write_bytes(b"")
    (place / "nothing").mkdir()
    model_folder_of_means(place / "means")
    (place / "bare.tflite").write_bytes(with_files(channel_means(), labels_txt="\n".join(COLOURS).encode()))
    (place / "unlabelled.tflite").write_bytes(channel_means())
    (place / "colours.txt").write_text("\n".join(COLOURS))
    folders(place / "set", 3)
    return place


# --- help and usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda c: " ".join(c) or "bittern")
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    done = bittern(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"Example: {' '.join(('bittern', *command))}" in done.out
    assert bittern(*command, "-h") == done


def test_the_version() -> None:
    assert re.fullmatch(r"bittern, version \d+\.\d+\.\d+\n", bittern("--version").out)


def test_help_lists_the_commands_and_says_how_to_get_the_others() -> None:
    out = bittern("--help").out
    assert all(re.search(rf"^  {name} ", out, re.M) for name in COMMANDS)
    assert ("pip install 'bittern[train]'" in out) is not HOST


def test_without_a_command_the_help_is_shown() -> None:
    done = bittern()
    assert done.code == 2
    assert "Usage: bittern" in done.out + done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("clasify", "x.jpg"), ("No such command 'clasify'", "Did you mean 'classify'?")),
        (("frobnicate",), ("No such command 'frobnicate'",)),
        (("classify",), ("Missing argument 'IMAGE...'", "Try 'bittern classify --help'")),
        (("classify", "x.jpg", "--modle", "y"), ("No such option", "--model")),
        (("classify", "x.jpg", "--threads", "0"), ("--threads", "1<=x<=64")),
        (("classify", "x.jpg", "--threads", "many"), ("--threads", "many")),
        (("classify", "x.jpg", "--path", "gpu"), ("--path", "gpu", "xnnpack")),
        (("classify", "x.jpg", "--model", "no_such"), ("unknown model 'no_such'", "expected ")),
        (("classify", "x.jpg", "--model", "no/such"), ("no model at no/such",)),
        (("classify", "x.jpg", "--model", ""), ("model",)),
        (("evaluate", "means"), ("Missing option '--data'",)),
        (("evaluate", "means", "--data", "absent"), ("no data at absent",)),
        (("evaluate", "means", "--data", "nothing"), ("nothing: no pictures found",)),
        (("watch", "--frames", "0"), ("--frames",)),
        (("watch", "--fps", "0"), ("fps", "0.1")),
        (("watch", "--fps", "nan"), ("fps",)),
        (("watch", "--source", "dmo:"), ("unknown source 'dmo:'", "did you mean demo:?")),
        (("watch", "--source", "http:"), ("unknown source 'http:'",)),
        (("watch", "--source", "absent.mp4"), ("no such file or folder: absent.mp4",)),
        (("watch", "--source", "usb:9"), ("usb:9",)),
        (("watch", "--source", "picamera:"), ("picamera",)),
        (("watch", "--source", "demo:?spede=1"), ("unknown option 'spede'",)),
        (("watch", "--source", "demo:", "--sheet", "absent/sheet.png"), ("--sheet", "no folder absent")),
        (("watch", "--source", "text.jpg"), ("text.jpg",)),
        (("watch", "--config", "absent.toml"), ("absent.toml: No such file",)),
        (("watch", "--source", "demo:", "--model", "bare.tflite"), ("no label that raises an alarm",)),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) and v and isinstance(v[0], str) else None,
)
def test_wrong_usage_is_one_line_and_exit_code_2(place: Path, words: tuple[str, ...], says: tuple[str, ...]) -> None:
    more = ("--model", "means") if words[0] == "watch" and "--model" not in words else ()
    done = bittern(*words, *more, cwd=place)
    told = [line for line in done.err.splitlines() if "not verified" not in line]
    one_line(Done(done.code, done.out, "\n".join(told[-1:]) + "\n"), 2, *says)
    assert [line for line in told[:-1] if not line.startswith("bittern: watching ")] == []


def test_a_misspelt_model_gets_a_hint(place: Path) -> None:
    one_line(bittern("classify", "x.jpg", "--model", "meens", BITTERN_MODELS=str(place)), 2, "did you mean 'means'?")


@pytest.mark.skipif(HOST, reason="TensorFlow is installed")
@pytest.mark.parametrize("words", [("train", "stop_sign", "--data", "set", "--out", "run"), ("convert", "run")])
def test_a_host_command_without_tensorflow_is_one_line(place: Path, words: tuple[str, ...]) -> None:
    one_line(bittern(*words, cwd=place), 2, f"{words[0]} needs the host packages", "pip install 'bittern[train]'")
    assert not (place / "run").exists()


def test_debug_shows_the_traceback(place: Path) -> None:
    done = bittern("--debug", "classify", "x.jpg", "--model", "no_such", cwd=place)
    assert "Traceback (most recent call last)" in done.err
    assert "ConfigurationError: unknown model 'no_such'" in done.err
    assert done.code != 0


# --- classify --------------------------------------------------------------------------------------------------------


def test_classify_as_text(place: Path) -> None:
    done = bittern("classify", "red.png", "blue.png", "--model", "bare.tflite", cwd=place)
    assert done.code == 0
    assert done.err == "bittern: bare: no manifest: not verified\n"
    first, second = done.out.splitlines()
    assert re.fullmatch(r"red\.png  red  1\.000  -  \d+\.\d ms", first)
    assert re.fullmatch(r"blue\.png  blue  1\.000  -  \d+\.\d ms", second)


def test_classify_as_json_keeps_its_names(place: Path, model_folder: Path) -> None:
    done = bittern("classify", "red.png", "--json", "--model", model_folder, cwd=place)
    assert (done.code, done.err) == (0, "")
    (answer,) = done.lines
    assert {"path", "model", "label", "score", "alarm", "scores", "time_ms"} <= set(answer)
    assert answer["path"] == "red.png"
    assert answer["label"] in answer["scores"]
    assert answer["score"] == max(answer["scores"].values())
    assert isinstance(answer["alarm"], bool)
    assert answer["time_ms"] > 0


def test_classify_folders_and_several_models(place: Path) -> None:
    done = bittern("classify", "more", "green.png", "--model", "means", "--model", "bare.tflite", "--json", cwd=place)
    assert done.code == 0
    seen = [(line["path"], line["model"], line["task"], line["label"], line["alarm"]) for line in done.lines]
    assert seen == [
        (path, *answer)
        for path, first, second, alarm in (
            ("more/a.jpg", "red", "red", True),
            ("more/deep/b.bmp", "blue", "sky", False),
            ("green.png", "green", "grass", False),
        )
        for answer in (
            ("means", "colour_0", first, alarm),
            ("means", "colour_1", second, alarm),
            ("bare", "bare", first, False),
        )
    ]
    text = bittern("classify", "red.png", "--model", "means", "--model", "bare.tflite", cwd=place)
    assert [line.split()[:3] for line in text.out.splitlines()] == [
        ["red.png", "means", "red"],
        ["red.png", "means", "red"],
        ["red.png", "bare", "red"],
    ]
    assert "ALARM" in text.out


def test_classify_a_picture_on_stdin(place: Path) -> None:
    done = bittern("classify", "-", "--model", "means", "--json", cwd=place, stdin=(place / "green.png").read_bytes())
    assert done.code == 0
    assert [(line["path"], line["label"]) for line in done.lines] == [("-", "green"), ("-", "grass")]
    for data, says in ((b"", "empty"), (b"no picture", "not a picture")):
        one_line(bittern("classify", "-", "--model", "means", cwd=place, stdin=data), 1, "stdin: ", says)


def test_a_closed_stdin_is_one_line(place: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {BITTERN} classify - --model means <&-"], cwd=place, capture_output=True, text=True
    )
    one_line(Done(done.returncode, done.stdout, done.stderr), 1, "stdin")


def test_an_unreadable_picture_among_others_fails_alone(place: Path) -> None:
    bad = ["broken.png", "text.jpg", "empty.jpg", "absent.jpg", "nothing", "x" * 300]
    done = bittern("classify", "red.png", *bad, "blue.png", "--model", "bare.tflite", "--json", cwd=place)
    assert done.code == 1
    assert [line["path"] for line in done.lines] == ["red.png", "blue.png"]
    told = [line for line in done.err.splitlines() if "not verified" not in line]
    assert [line.startswith(f"bittern: {name}: ") for line, name in zip(told, bad, strict=True)] == [True] * len(bad)


def test_a_folder_with_a_broken_picture(place: Path, tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes((place / "red.png").read_bytes())
    (tmp_path / "b.png").write_bytes(b"no picture")
    done = bittern("classify", tmp_path, "--model", place / "means")
    assert done.code == 1
    assert len(done.out.splitlines()) == 4
    assert done.err.startswith(f"bittern: {tmp_path / 'b.png'}: ")


def test_names_that_are_not_utf8(place: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"gr\xfcn.png")
    (tmp_path / name).write_bytes((place / "green.png").read_bytes())
    (tmp_path / os.fsdecode(b"kaputt\xff.png")).write_bytes(b"no picture")
    for options in ((), ("--json",)):
        done = bittern("classify", ".", "--model", place / "bare.tflite", *options, cwd=tmp_path)
        assert done.code == 1
        assert "internal error" not in done.err
        assert len(done.out.splitlines()) == 1
        assert "green" in done.out


def test_bare_models_and_their_labels(place: Path) -> None:
    one_line(bittern("classify", "red.png", "--model", "unlabelled.tflite", cwd=place), 2, "--labels")
    done = bittern("classify", "red.png", "--model", "unlabelled.tflite", "--labels", "colours.txt", cwd=place)
    assert done.code == 0
    assert "red  1.000" in done.out


def test_a_folder_of_pictures_named_as_a_model_does_not_hide_it(place: Path, tmp_path: Path) -> None:
    (tmp_path / "means").mkdir()
    done = bittern("classify", place / "red.png", "--model", "means", cwd=tmp_path, BITTERN_MODELS=str(place))
    assert (done.code, done.err) == (0, "")


def test_the_runtime_keeps_quiet(place: Path, model_folder: Path) -> None:
    done = bittern("classify", "red.png", "--model", model_folder, cwd=place)
    assert (done.code, done.err) == (0, "")


# --- evaluate, models ------------------------------------------------------------------------------------------------


def test_evaluate_as_json_keeps_its_names(place: Path, model_folder: Path) -> None:
    done = bittern("evaluate", model_folder, "--data", "set", "--json", cwd=place)
    assert done.code == 0
    (report,) = done.lines
    names = {"model", "split", "n", "accuracy", "accuracy_ci95", "auc", "confusion", "alarm_rate"}
    assert names <= set(report)
    assert (report["n"], report["split"]) == (6, "all")
    assert sum(sum(row.values()) for row in report["confusion"].values()) == 6
    low, high = report["accuracy_ci95"]
    assert 0 <= low <= report["accuracy"] <= high <= 1


def test_evaluate_as_text(place: Path, model_folder: Path) -> None:
    done = bittern("evaluate", model_folder, "--data", "set", cwd=place)
    assert done.code == 0
    assert re.search(r"accuracy  \d of 6 = \d+\.\d% \(95 % \d", done.out)
    assert re.search(r"alarms    \d of 6", done.out)


def test_evaluate_an_index(place: Path, model_folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    index.write_text(
        "path,label,split,group\nset/stop/000.jpg,stop,test,a\nset/stop/001.jpg,stop,train,b\n"
        "broken.png,stop,test,c\nset/not_stop/000.jpg,not_stop,test,d\n"
    )
    done = bittern("evaluate", model_folder, "--data", index, "--root", place, "--json")
    assert done.code == 1, "a picture could not be read"
    assert done.lines[0]["n"] == 2
    assert "broken.png" in done.lines[0]["skipped"][0]
    assert "broken.png" in done.err
    told = bittern("evaluate", model_folder, "--data", index, "--root", place, "--split", "tset")
    one_line(told, 2, "no split 'tset'", "test, train")


def test_evaluate_with_labels_that_the_model_does_not_have(place: Path, model_folder: Path) -> None:
    one_line(bittern("evaluate", "means", "--data", "set", cwd=place), 2, "label 'not_stop' is not one of the model's")


def test_models_lists_what_there_is(place: Path, tmp_path: Path) -> None:
    done = bittern("models", "--json", cwd=tmp_path, BITTERN_MODELS=str(place))
    rows = {row["name"]: row for row in done.lines}
    row = rows["means"]
    assert {"name", "folder", "verified", "version", "path", "bytes", "sha256", "tasks", "alarm"} <= set(row)
    assert row["verified"] is True
    assert row["tasks"] == {"colour_0": list(COLOURS), "colour_1": ["red", "grass", "sky"]}
    text = bittern("models", cwd=tmp_path, BITTERN_MODELS=str(place))
    assert re.search(r"^means  7  0\.00 MB  verified on ", text.out, re.M)


def test_models_says_which_is_refused(tmp_path: Path) -> None:
    with (model_folder_of_means(tmp_path / "spoilt") / "model.tflite").open("ab") as file:
        file.write(b"\0")
    done = bittern("models", "--json", cwd=tmp_path, BITTERN_MODELS=str(tmp_path))
    assert done.code == 1
    row = {row["name"]: row for row in done.lines}["spoilt"]
    assert row["verified"] is False
    assert "copy it again" in row["reason"]
    text = bittern("models", cwd=tmp_path, BITTERN_MODELS=str(tmp_path))
    assert text.code == 1
    assert "spoilt  REFUSED  " in text.out


# --- stdout that goes away -------------------------------------------------------------------------------------------

STDOUT = {
    "closed": ">&-",
    "closed pipe": "| :",
    "full": "> /dev/full",
}
PRINTS = {
    "help": "--help",
    "classify": "classify red.png --model means",
    "classify --json": "classify more --model means --json",
    "models": "models",
    "evaluate": "evaluate means --data colours --json",
    "watch": "watch --source more --model means --config often.toml",
}
OFTEN = "[decision]\nvotes = 1\nof = 1\ncooldown_s = 0\nmin_off_s = 0\n"


@pytest.mark.parametrize("stdout", STDOUT)
@pytest.mark.parametrize("words", PRINTS)
def test_a_stdout_that_takes_nothing_is_one_line(place: Path, words: str, stdout: str) -> None:
    (place / "often.toml").write_text(OFTEN)
    for colour in COLOURS:
        (place / "colours" / colour).mkdir(parents=True, exist_ok=True)
        (place / "colours" / colour / "a.png").write_bytes((place / f"{colour}.png").read_bytes())
    if "|" in STDOUT[stdout]:
        # The reader is gone before anything is written: not left to chance, as `bittern ... | :` would.
        reader, writer = os.pipe()
        os.close(reader)
        command, output = f"exec {BITTERN} {PRINTS[words]}", writer
    else:
        command, output = f"exec {BITTERN} {PRINTS[words]} {STDOUT[stdout]}", subprocess.DEVNULL
    done = subprocess.run(
        ["sh", "-c", command],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
        env=os.environ | {"BITTERN_MODELS": str(place)},
    )
    if "|" in STDOUT[stdout]:
        os.close(output)
    told = [line for line in done.stderr.splitlines() if not re.match(r"bittern: watching |evaluate ", line)]
    assert len(told) == 1, done.stderr
    assert re.match(r"bittern: .*(stdout|No space left)", told[0])
    assert done.returncode == 1


# --- watch -----------------------------------------------------------------------------------------------------------

EVENT = {"id", "type", "time", "monotonic_ns", "source", "model", "model_version", "task", "label", "score", "frame"}


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Pictures that a folder source gives one a second: red in the second, third and fifth."""
    (tmp_path / "film").mkdir()
    for i, red in enumerate((0, 255, 255, 0, 255, 0)):
        cv2.imwrite(str(tmp_path / f"film/{i}.png"), np.full((30, 40, 3), (10, 10, red), np.uint8))
    return tmp_path / "film"


def test_watch_prints_an_event_a_line(place: Path, film: Path, tmp_path: Path) -> None:
    config = tmp_path / "watch.toml"
    config.write_text(f'source = "{film}"\nname = "the gate"\nmodels = ["{place / "means"}"]\n{OFTEN}')
    done = bittern("watch", "--config", config)
    assert done.code == 0
    assert "6 frames in" in done.err
    assert "8 events" in done.err
    events = done.lines
    assert all(set(event) == EVENT for event in events)
    of_head = [event for event in events if event["task"] == "colour_1"]
    assert [(e["type"], e["frame"], e["label"]) for e in of_head] == [
        ("alarm.on", 1, "red"),
        ("alarm.off", 3, "red"),
        ("alarm.on", 4, "red"),
        ("alarm.off", 5, "red"),
    ]
    assert [e["monotonic_ns"] for e in of_head] == [1_000_000_000, 3_000_000_000, 4_000_000_000, 5_000_000_000]
    assert {(e["source"], e["model"], e["model_version"]) for e in events} == {("the gate", "means", "7")}
    assert [e["score"] for e in of_head] == [1.0, 0.0, 1.0, 0.0]
    assert len({e["id"] for e in events}) == 8
    moments = [datetime.fromisoformat(e["time"]) for e in of_head]
    assert moments == sorted(moments)
    assert all(e["time"].endswith("Z") for e in events)


def test_votes_and_cooldown_come_from_the_file(place: Path, film: Path, tmp_path: Path) -> None:
    config = tmp_path / "watch.toml"
    config.write_text("[decision]\nvotes = 2\nof = 2\ncooldown_s = 60\nmin_off_s = 0\n")
    done = bittern("watch", "--config", config, "--source", film, "--model", place / "means")
    seen = [(e["type"], e["frame"]) for e in done.lines if e["task"] == "colour_0"]
    assert seen == [("alarm.on", 2), ("alarm.off", 3)]


def test_watch_a_live_source_for_some_frames(place: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    words = ("--fps", "20", "--frames", "12", "--model", place / "means")
    done = bittern("watch", "--source", "demo:?fps=40&size=160x120", "--sheet", sheet, *words)
    assert done.code == 0
    found = re.search(r"12 frames in (\d+\.\d) s, (\d+) dropped", done.err)
    assert found is not None
    assert 0.4 <= float(found[1]) < 3
    assert int(found[2]) >= 5, "the cap leaves frames out"
    picture = cv2.imread(str(sheet))
    assert picture is not None
    assert picture.shape[2] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_threshold_that_the_model_does_not_have(place: Path, tmp_path: Path) -> None:
    config = tmp_path / "watch.toml"
    for text, says in (
        ('[decision]\nthreshold = "quite"', "has no threshold 'quite'"),
        ("[decision]\noff = 0.9", "decision.off 0.9 is above the threshold 0.5"),
        ("[decision]\nvots = 3", "did you mean 'votes'"),
        ("[decision]\nvotes = 9", "votes 9 is more than of 3"),
        ("fps = 'fast'", "$.fps"),
        ("fps 3", "line 1"),
        ("x = " + "[" * 20_000, ""),
    ):
        config.write_text(text)
        done = bittern("watch", "--config", config, "--source", "demo:", "--model", place / "means")
        told = [line for line in done.err.splitlines() if "watching" not in line]
        one_line(Done(done.code, done.out, "\n".join(told) + "\n"), 2, says)


# --- signals ---------------------------------------------------------------------------------------------------------


def takes_signals(pid: int) -> bool:
    """Whether a process has its own handler for SIGTERM, as Linux says it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    found = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.M)
    return found is not None and bool(int(found[1], 16) >> (signal.SIGTERM - 1) & 1)


def until_it_takes_signals(process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        if takes_signals(process.pid) or process.poll() is not None:
            return
        time.sleep(0.005)
    raise AssertionError("no handler for SIGTERM")


@pytest.fixture(scope="module")
def busy(place: Path) -> list[str]:
    """A command that prints events all the time: the threshold is the median of what the model says to the street."""
    street = Street(1, (64, 48))
    means = [street.render(t / 10).pixels[:, 8:56, 0].mean() / 255 for t in range(120)]
    (place / "busy.toml").write_text(f"{OFTEN}threshold = {np.median(means):.4f}\noff = {np.median(means):.4f}\n")
    words = ["--source", "demo:?fps=240&size=64x48", "--fps", "240", "--model", "means"]
    return [BITTERN, "watch", "--config", "busy.toml", *words]


def stopped(busy: list[str], place: Path, number: signal.Signals, delay: float) -> tuple[int, float, bytes, bytes]:
    process = subprocess.Popen(busy, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until_it_takes_signals(process)
    time.sleep(delay)
    process.send_signal(number)
    begin = time.monotonic()
    out, err = process.communicate(timeout=30)
    return process.returncode, time.monotonic() - begin, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_ends_it_cleanly(busy: list[str], place: Path, number: signal.Signals) -> None:
    rng = random.Random(number)
    delays = [rng.uniform(0, 1.5) for _ in range(20)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda delay: stopped(busy, place, number, delay), delays))
    for (code, seconds, out, err), delay in zip(results, delays, strict=True):
        where = f"{number.name} after {delay:.3f} s: {err.decode()}"
        assert code == 0, where
        assert seconds < 2, where
        assert out.endswith(b"\n") or not out, where
        assert all(set(json.loads(line)) == EVENT for line in out.splitlines()), where
        assert b"Traceback" not in err, where
        assert b"internal error" not in err, where
    assert sum(bool(out) for _, _, out, _ in results) >= 5, "some were stopped while events were printed"


def test_signals_are_taken_before_the_heavy_imports(busy: list[str], place: Path) -> None:
    process = subprocess.Popen(busy, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until_it_takes_signals(process)
    loaded = Path(f"/proc/{process.pid}/maps").read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "/cv2" not in loaded
    assert "tensorflow" not in loaded
    assert "ai_edge_litert" not in loaded


def test_a_second_signal_does_no_harm(busy: list[str], place: Path) -> None:
    process = subprocess.Popen(busy, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until_it_takes_signals(process)
    time.sleep(0.8)
    for _ in range(5):
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert b"Traceback" not in err
    assert b"internal error" not in err
    assert process.returncode == 0


def test_a_sheet_is_left_by_a_stopped_watch(place: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    words = ["watch", "--source", "demo:?size=64x48", "--model", "means", "--sheet", str(sheet)]
    process = subprocess.Popen([BITTERN, *words], cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until_it_takes_signals(process)
    time.sleep(1.5)
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert cv2.imread(str(sheet)) is not None
