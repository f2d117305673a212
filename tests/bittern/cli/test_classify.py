"""The command line as a user meets it: real processes, their output and exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.doubles.command import BITTERN, OFTEN, Done, bittern, one_line
from tests.doubles.tflite_files import COLOURS, model_folder_of_means

from bittern.cli.main import COMMANDS

# --- help and usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda c: " ".join(c) or "bittern")
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    done = bittern(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"Example: {' '.join(('bittern', *command))}" in done.out
    assert bittern(*command, "-h") == done


def test_the_version() -> None:
    assert re.fullmatch(r"bittern, version \d+\.\d+\.\d+\n", bittern("--version").out)


@pytest.mark.parametrize(("setting", "threads"), [(None, "1"), ("2", "2")])
def test_numpy_starts_no_threads_unless_told_to(place: Path, setting: str | None, threads: str) -> None:
    """OpenBLAS starts one a core while numpy is imported."""
    program = """
import os, sys, time
from bittern.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    for _ in range(200):  # a thread that was joined may not yet be gone; those of OpenBLAS stay
        if len(os.listdir("/proc/self/task")) > 1:
            time.sleep(0.01)
    print(end.code, os.environ["OPENBLAS_NUM_THREADS"], len(os.listdir("/proc/self/task")))
"""
    env = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    env |= {} if setting is None else {"OPENBLAS_NUM_THREADS": setting}
    for words in (("classify", "red.png"), ("watch", "--source", "demo:?size=64x48", "--frames", "1")):
        command = [sys.executable, "-c", program, *words, "--model", "means"]
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=60)
        code, variable, running = done.stdout.split()[-3:]
        assert (code, variable) == ("0", threads), done.stderr
        assert setting is not None or running == "1"


def test_without_a_command_the_help_is_shown() -> None:
    done = bittern()
    assert done.code == 2
    assert done.err.startswith("Usage: bittern ")
    assert "\n  classify " in done.err, "in lines, as --help has it"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("clasify", "x.jpg"), ("No such command 'clasify'; did you mean 'classify'?",)),
        (("frobnicate",), ("No such command 'frobnicate'",)),
        (("classify",), ("Missing argument 'IMAGE...'", "Try 'bittern classify --help'")),
        (("classify", "x.jpg", "--modle", "y"), ("No such option", "--model")),
        (("classify", "x.jpg", "--threads", "0"), ("--threads", "1<=x<=64")),
        (("classify", "x.jpg", "--threads", "many"), ("--threads", "many")),
        (("classify", "x.jpg", "--path", "gpu"), ("--path", "gpu", "xnnpack")),
        (("classify", "x.jpg", "--model", "no_such"), ("unknown model 'no_such'", "expected ")),
        (("classify", "x.jpg", "--model", "no/such"), ("no model at no/...",)),
        (("classify", "x.jpg", "--model", ""), ("model",)),
        (("evaluate", "means"), ("Missing option '--data'",)),
        (("evaluate", "means", "--data", "absent"), ("no data at absent",)),
        (("evaluate", "means", "--data", "nothing"), ("nothing: no pictures found",)),
        (("watch", "--frames", "0"), ("--frames",)),
        (("watch", "--fps", "0"), ("fps", "0.1")),
        (("watch", "--fps", "nan"), ("fps",)),
        (("watch", "--source", "dmo:"), ("unknown source 'dmo:'", "did you mean 'demo:'?")),
        (("watch", "--source", "http:"), ("unknown source 'http:'",)),
        (
            ("watch", "--source", "http://a:b@cam/live"),
            ("http://cam is not a source: most IP cameras have an rtsp://",),
        ),
        (("watch", "--source", "absent.mp4"), ("no such file or folder: absent.mp4",)),
        (("watch", "--source", "usb:9", "--once"), ("usb:9",)),
        (("watch", "--source", "picamera:", "--once"), ("picamera",)),
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
    lines = [line for line in done.err.splitlines() if "not verified" not in line]
    one_line(Done(done.code, done.out, "\n".join(lines[-1:]) + "\n"), 2, *says)
    assert [line for line in lines[:-1] if not line.startswith("bittern: watching ")] == []


def test_a_misspelt_model_gets_a_hint(place: Path) -> None:
    one_line(bittern("classify", "x.jpg", "--model", "meens", BITTERN_MODELS=str(place)), 2, "did you mean 'means'?")


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
    answers = [(line["path"], line["model"], line["task"], line["label"], line["alarm"]) for line in done.lines]
    assert answers == [
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
    lines = [line for line in done.err.splitlines() if "not verified" not in line]
    assert [line.startswith(f"bittern: {name}: ") for line, name in zip(lines, bad, strict=True)] == [True] * len(bad)


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
    refusal = bittern("evaluate", model_folder, "--data", index, "--root", place, "--split", "tset")
    one_line(refusal, 2, "no split 'tset'", "test, train")


def test_evaluate_with_labels_that_the_model_does_not_have(place: Path, model_folder: Path) -> None:
    one_line(bittern("evaluate", "means", "--data", "set", cwd=place), 2, "label 'not_stop' is not one of the model's")


def test_models_lists_what_there_is(place: Path, tmp_path: Path) -> None:
    done = bittern("models", "--json", cwd=tmp_path, BITTERN_MODELS=str(place))
    rows = {row["name"]: row for row in done.lines}
    row = rows["means"]
    assert {"name", "folder", "verified", "version", "path", "bytes", "sha256", "tasks", "alarm"} <= set(row)
    assert (row["verified"], row["origin"]) == (False, "unsigned")
    assert (rows["stop_sign"]["verified"], rows["stop_sign"]["origin"]) == (True, "shipped")
    assert row["tasks"] == {"colour_0": list(COLOURS), "colour_1": ["red", "grass", "sky"]}
    text = bittern("models", cwd=tmp_path, BITTERN_MODELS=str(place))
    assert re.search(
        rf"^means  7  0\.00 MB  whole, not signed, runs on .*  {re.escape(row['folder'])}$", text.out, re.M
    )
    assert re.search(r"^stop_sign .*  shipped, verified on ", text.out, re.M)
    # Of many labels the line names the first ones; the object has all.
    assert re.search(r"  gtsrb: speed_limit_20, .*, no_passing and 34 more  ", text.out, re.M)
    assert len(rows["gtsrb"]["tasks"]["gtsrb"]) == 44


def test_a_models_folder_in_the_current_one_neither_wins_nor_loses_silently(tmp_path: Path, place: Path) -> None:
    """Somebody's download, in which a model has the name of a shipped one."""
    (tmp_path / "models").mkdir()
    other = model_folder_of_means(tmp_path / "models/stop_sign")
    picture = place / "red.png"
    refused = bittern("classify", picture, "--model", "stop_sign", cwd=tmp_path)
    one_line(refused, 2, "models/stop_sign is another model than 'stop_sign' in ", "write the path of the one you mean")
    one_line(bittern("classify", picture, cwd=tmp_path), 2, "models/stop_sign is another model")
    assert bittern("classify", picture, "--model", "models/stop_sign", cwd=tmp_path).code == 0
    listed = bittern("models", cwd=tmp_path)
    assert re.search(r"^stop_sign .*  shipped, verified on ", listed.out, re.M)
    assert listed.err == (
        "bittern: models/stop_sign is another model than the stop_sign listed here: use it by its path\n"
    )
    named = bittern("models", cwd=tmp_path, BITTERN_MODELS=str(other.parent))
    assert re.search(r"^stop_sign .*  whole, not signed, ", named.out, re.M), "who asks for it gets it"


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
    "evaluate": "evaluate bare.tflite --data colours --json",
    "watch": "watch --source more --model means --config often.toml",
}


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
    usual = r"bittern: watching |bittern: bare: no manifest|evaluate"
    lines = [line for line in done.stderr.splitlines() if not re.match(usual, line)]
    assert len(lines) == 1, done.stderr
    assert re.match(r"bittern: .*(stdout|No space left)", lines[0])
    assert done.returncode == 1


def test_the_limit_of_pixels_is_an_option(place: Path) -> None:
    words = ("classify", place / "red.png", "--model", place / "means")
    one_line(bittern(*words, "--max-megapixels", "0.00001"), 1, "or allow more with --max-megapixels")
    assert bittern(*words, "--max-megapixels", "200").code == 0
    done = bittern(*words, "--max-megapixels", "200", "--region", "0,0,8,8")
    assert (done.code, "--max-megapixels is at most 50 with it" in done.err) == (2, True)
    assert bittern(*words, "--max-megapixels", "nan").code == 2
