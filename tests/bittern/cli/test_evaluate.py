"""`bittern evaluate` as a user meets it: table, JSON, contact sheet, scores, and two models on the same pictures."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from typing import Any, NoReturn

import cv2
import msgspec
import numpy as np
import pytest
from tests.doubles.command import bittern, one_line
from tests.doubles.tflite_files import COLOURS, channel_means, model_folder_of_means, with_files

from bittern import Classifier
from bittern.cli.evaluate import _lines as table
from bittern.evaluation import evaluate
from bittern.evaluation.dataset import Item
from bittern.evaluation.evaluate import Answered
from bittern.model.classifier import Result

# Plain pictures (B, G, R) whose answer is their strongest channel, with its score: so two of the six are mistakes.
PICTURES = {
    "red/a.png": (10, 20, 200),
    "red/b.png": (30, 255, 40),
    "green/a.png": (10, 180, 20),
    "green/b.png": (10, 90, 80),
    "blue/a.png": (250, 0, 0),
    "blue/b.png": (60, 20, 90),
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Those pictures, a model that answers as they are, and one that has red and green the wrong way round."""
    for name, bgr in PICTURES.items():
        file = tmp_path / "set" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((20, 30, 3), bgr, np.uint8))
    for name, labels in (("right", COLOURS), ("swapped", ("green", "red", "blue"))):
        (tmp_path / f"{name}.tflite").write_bytes(with_files(channel_means(), labels_txt="\n".join(labels).encode()))
    (tmp_path / "unlabelled.tflite").write_bytes(channel_means())
    (tmp_path / "colours.txt").write_text("\n".join(COLOURS))
    model_folder_of_means(tmp_path / "two_heads")
    return tmp_path


def strict(text: str) -> Any:
    def no(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=no)


def test_json_has_every_figure(here: Path) -> None:
    done = bittern("evaluate", "right.tflite", "--data", "set", "--json", cwd=here)
    assert (done.code, done.err) == (0, "")
    report = strict(done.out)
    assert {"model", "split", "n", "accuracy", "accuracy_ci95", "auc", "confusion", "alarm_rate"} <= set(report)
    assert (report["n"], report["correct"], report["groups"]) == (6, 4, 6)
    assert report["auc"] is None, "no label of a bare model raises an alarm"
    assert 0 < report["auc_macro"] < 1
    assert report["auc_macro_ci95"][0] <= report["auc_macro"] <= report["auc_macro_ci95"][1]
    assert set(report["per_label"]) == set(COLOURS)
    assert report["per_label"]["red"]["correct"] == 1
    assert report["confusion"]["blue"] == {"red": 1, "green": 0, "blue": 1}
    for key in ("nll", "brier", "calibration_error"):
        assert report[key] > 0
    assert "against" not in report


def test_a_label_without_pictures_has_null_figures(here: Path) -> None:
    (here / "index.csv").write_text("path,split,group\nset/red/a.png,test,\nset/red/b.png,test,\n")
    done = bittern("evaluate", "right.tflite", "--data", "index.csv", "--label", "red", "--json", cwd=here)
    green = strict(done.out)["per_label"]["green"]
    assert green["n"] == 0
    assert (green["recall"], green["recall_ci95"], green["auc_one_vs_rest"]) == (None, None, None)
    assert strict(done.out)["per_label"]["red"]["auc_one_vs_rest"] is None
    text = bittern("evaluate", "right.tflite", "--data", "index.csv", "--label", "red", cwd=here).out
    assert "nan" not in text.lower()
    assert re.search(r"^  green +0 +0 +- +1 +0\.0% \(0\.0% to 79\.3%\) +-$", text, re.M)


def test_the_table_is_aligned(here: Path) -> None:
    done = bittern("evaluate", "right.tflite", "--data", "set", cwd=here)
    first, *rest = done.out.splitlines()
    assert first == "right unverified, bare: set, split all"
    assert rest[0] == "  accuracy  4 of 6 = 66.7% (95 % 30.0% to 90.3%)"
    blank = [i for i, line in enumerate(rest) if not line]
    labels, matrix = rest[blank[0] + 1 : blank[1]], rest[blank[1] + 1 :]
    for block in (labels, matrix):
        assert [line.split()[0] for line in block[1:]] == list(COLOURS)
        assert len({len(line) for line in block}) == 1
    assert [line.split()[1:] for line in matrix[1:]] == [["1", "1", "0"], ["0", "2", "0"], ["1", "0", "1"]]
    assert "alarms" not in done.out
    done = bittern("evaluate", "two_heads", "--data", "set", cwd=here)
    one_line(done, 2, "label 'blue' is not one of the model's: red, grass, sky")


def test_many_labels_list_what_is_confused_most(model_folder: Path) -> None:
    labels = tuple(f"class_{i}" for i in range(9))
    classifier = Classifier(model_folder)
    head = msgspec.structs.replace(classifier.heads[0], labels=labels, alarm=(), nothing=())
    pairs = [(0, 0)] * 3 + [(4, 2)] * 2 + [(8, 7)] * 4 + [(1, 5)]
    answers = []
    for i, (label, predicted) in enumerate(pairs):
        scores = {x: 1.0 if k == predicted else 0.0 for k, x in enumerate(labels)}
        item = Item(Path("x"), str(i), labels[label], "test", "", {})
        answers.append(Answered(item, labels[label], Result("many", labels[predicted], 1.0, False, scores)))
    text = "\n".join(table(evaluate.report(classifier, head, "test", answers, []), None, "data"))
    assert text.endswith(
        "  true     predicted  n\n  class_8  class_7    4\n  class_4  class_2    2\n  class_1  class_5    1"
    )
    assert "true \\ predicted" not in text


def test_scores_as_csv(here: Path) -> None:
    done = bittern("evaluate", "right.tflite", "--data", "set", "--scores", "scores.csv", cwd=here)
    assert done.code == 0
    with (here / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "answer", "alarm", *COLOURS]
    assert [row["path"] for row in rows] == sorted(PICTURES)
    for row in rows:
        b, g, r = PICTURES[row["path"]]
        assert row["label"] == row["path"].split("/")[0]
        assert [float(row[c]) * 255 for c in COLOURS] == pytest.approx([r, g, b], abs=1)
        assert row["answer"] == COLOURS[int(np.argmax([r, g, b]))]
        assert row["alarm"] == "0"
    # What the CSV says is what the figures are made of.
    report = strict(bittern("evaluate", "right.tflite", "--data", "set", "--json", cwd=here).out)
    assert sum(row["label"] == row["answer"] for row in rows) == report["correct"]


def test_alarms_in_the_scores_and_a_file_for_each_head(here: Path) -> None:
    for name in ("green", "blue"):
        for picture in (here / "set" / name).iterdir():
            picture.unlink()
        (here / "set" / name).rmdir()
    done = bittern(
        "evaluate", "two_heads", "--data", "set", "--scores", "s.csv", "--sheet", "m.png", "--json", cwd=here
    )
    assert done.code == 0
    assert [row["task"] for row in done.lines] == ["colour_0", "colour_1"]
    for task, answer in (("colour_0", "green"), ("colour_1", "grass")):
        with (here / f"s-{task}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["answer"], row["alarm"]) for row in rows] == [("red", "1"), (answer, "0")]
        assert (here / f"m-{task}.png").exists()
    assert not (here / "s.csv").exists()
    first = done.lines[0]
    assert (first["alarm_labels"], first["threshold"], first["alarms"], first["alarm_n"]) == (["red"], 0.5, 1, 2)
    assert (first["missed_alarms"], first["missed_alarm_rate"]) == (1, 0.5)
    assert (first["false_alarms"], first["false_alarm_rate"], first["false_alarm_rate_ci95"]) == (0, None, None)
    text = bittern("evaluate", "two_heads", "--data", "set", cwd=here).out
    assert re.search(r"^  alarms    1 of 2 = 50\.0% \(95 % .*\) at threshold 0\.500$", text, re.M)
    assert re.search(r"^    false   0 of 0$", text, re.M)
    assert re.search(r"^    missed  1 of 2 = 50\.0% \(95 % ", text, re.M)


def test_the_sheet_shows_the_most_confident_mistake_first(here: Path) -> None:
    done = bittern("evaluate", "right.tflite", "--data", "set", "--sheet", "worst.png", cwd=here)
    assert (done.code, done.err) == (0, "")
    sheet = np.asarray(cv2.imread(str(here / "worst.png")))
    # Two tiles of 224 with gaps of 6: red/b.png, which is green, then blue/b.png, which is rather red.
    assert sheet.shape[1] == 2 * 224 + 3 * 6
    assert sheet[6 + 112, 6 + 112].tolist() == list(PICTURES["red/b.png"])
    assert sheet[6 + 112, 2 * 6 + 224 + 112].tolist() == list(PICTURES["blue/b.png"])
    assert (sheet[6 + 224 : 6 + 224 + 34, 6 : 6 + 224] < 128).any(), "a caption"


def test_without_a_mistake_there_is_no_sheet(here: Path) -> None:
    for name in ("red/b.png", "blue/b.png"):
        (here / "set" / name).unlink()
    done = bittern("evaluate", "right.tflite", "--data", "set", "--sheet", "worst.png", cwd=here)
    assert done.code == 0
    assert done.err == "bittern: --sheet: no mistakes, so worst.png was not written\n"
    assert not (here / "worst.png").exists()


@pytest.mark.parametrize("option", ["--sheet", "--scores"])
def test_output_goes_where_it_can_be_and_harms_nothing(here: Path, option: str) -> None:
    one_line(
        bittern("evaluate", "right.tflite", "--data", "set", option, "absent/x", cwd=here), 2, f"{option}: no folder"
    )
    assert "is a directory" in one_line(bittern("evaluate", "right.tflite", "--data", "set", option, ".", cwd=here), 2)
    (here / "index.csv").write_text("path,label,split,group\nset/red/a.png,red,test,\n")
    os.symlink("set/red/a.png", here / "link")  # noqa: PTH211
    for target in ("set/red/a.png", "index.csv", "link"):
        before = (here / target).read_bytes()
        done = bittern("evaluate", "right.tflite", "--data", "index.csv", option, target, cwd=here)
        one_line(done, 2, f"{option}: {target} is one of the files that are read")
        assert (here / target).read_bytes() == before


@pytest.mark.parametrize("option", ["--sheet", "--scores"])
def test_a_disk_that_takes_no_file_does_not_take_the_figures(here: Path, option: str) -> None:
    plain = bittern("evaluate", "right.tflite", "--data", "set", cwd=here)
    done = bittern("evaluate", "right.tflite", "--data", "set", option, "/proc/x.png", cwd=here)
    assert done.out == plain.out
    assert done.err == "bittern: [Errno 2] No such file or directory: '/proc/x.png'\n"
    assert done.code == 1


def test_against_another_model(here: Path) -> None:
    words = ("evaluate", "right.tflite", "--data", "set", "--against", "swapped.tflite")
    done = bittern(*words, "--json", cwd=here)
    assert (done.code, done.err) == (0, "")
    report = strict(done.out)
    against = report["against"]
    # The other one has red and green the wrong way round: blue/a.png, and red/b.png, which is green.
    assert (report["model"], report["correct"], against["model"], against["correct"]) == ("right", 4, "swapped", 2)
    assert against["only_first_correct"] == ["green/a.png", "green/b.png", "red/a.png"]
    assert against["only_other_correct"] == ["red/b.png"]
    assert against["difference"] == pytest.approx(2 / 6)
    assert against["difference_ci95"][0] < 2 / 6 < against["difference_ci95"][1]
    assert against["mcnemar_p"] == 0.625
    text = bittern(*words, cwd=here).out
    assert "against   swapped unverified, bare: 2 of 6 = 33.3%" in text
    assert re.search(r"^            \+33\.3 points \(95 % -\d+\.\d to \+\d+\.\d\)$", text, re.M)
    assert "correct only here: 3, only there: 1; McNemar's exact p = 0.625" in text


def test_labels_are_for_the_model_that_has_none(here: Path) -> None:
    words = ("evaluate", "two_heads", "--data", "set", "--labels", "colours.txt")
    assert "--labels is for a bare .tflite file" in bittern(*words, cwd=here).err
    assert "--labels is for a bare" in bittern(*words, "--against", "two_heads", cwd=here).err
    refusal = bittern(*words, "--against", "unlabelled.tflite", cwd=here)
    one_line(refusal, 2, "unlabelled: has no head 'colour_0' to compare with; it has bare")
    done = bittern(
        "evaluate",
        "unlabelled.tflite",
        "--labels",
        "colours.txt",
        "--against",
        "right.tflite",
        "--data",
        "set",
        cwd=here,
    )
    assert "correct only here: 0, only there: 0;" in done.out


def test_names_that_are_no_utf8(here: Path) -> None:
    picture = (here / "set/red/a.png").read_bytes()
    name = os.fsencode(here / "set/red") + b"/\xff.png"
    with open(name, "wb") as file:  # noqa: PTH123 - bytes
        file.write(picture)
    with open(os.fsencode(here / "set/red") + b"/\xfe.png", "wb") as file:  # noqa: PTH123
        file.write(b"no picture")
    done = bittern(
        "evaluate",
        "right.tflite",
        "--against",
        "swapped.tflite",
        "--data",
        "set",
        "--json",
        "--scores",
        "s.csv",
        cwd=here,
    )
    assert done.code == 1, "one cannot be read"
    report = strict(done.out)
    assert report["n"] == 7
    assert r"red/\xfe.png" in report["skipped"][0]
    assert r"red/\xff.png" in report["against"]["only_first_correct"]
    assert b"red/\xff.png,red,red,0," in (here / "s.csv").read_bytes()


def indexed(here: Path) -> Path:
    rows = [f"{name},{name.split('/')[0]},test,{n},{'day' if n % 2 else 'night'}" for n, name in enumerate(PICTURES)]
    (here / "set" / "index.csv").write_text("\n".join(["path,label,split,group,light", *rows]) + "\n")
    return here


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (["light=night"], ["red/a.png", "green/a.png", "blue/a.png"]),
        (["label=red"], ["red/a.png", "red/b.png"]),
        (["label=red", "light=night"], ["red/a.png"]),
    ],
)
def test_where_takes_only_some_pictures(here: Path, where: list[str], names: list[str]) -> None:
    options = [word for one in where for word in ("--where", one)]
    words = ("evaluate", "right.tflite", "--data", "set", *options, "--json", "--scores", "s.csv")
    done = bittern(*words, cwd=indexed(here))
    assert (done.code, done.err) == (0, "")
    assert strict(done.out)["n"] == len(names)
    assert [line.split(",")[0] for line in (here / "s.csv").read_text().splitlines()[1:]] == names


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("light", "expected COLUMN=VALUE, got 'light'"),
        ("colour=red", "no column 'colour' to select by; it has label, light"),
        ("light=dusk", "no picture has light=dusk"),
        ("light=day --where light=night", "a column is given twice"),
    ],
)
def test_where_that_fits_nothing_is_one_line(here: Path, where: str, says: str) -> None:
    done = bittern("evaluate", "right.tflite", "--data", "set", "--where", *where.split(), cwd=indexed(here))
    assert says in one_line(done, 2)


def test_without_a_split_every_set_and_split_for_testing_is_evaluated(here: Path) -> None:
    rows = [
        ("red/a.png", "train", "ours"),
        ("red/b.png", "test", "ours"),
        ("green/a.png", "seed_test", "ours"),
        ("green/b.png", "test", "theirs"),
        ("blue/a.png", "test", "theirs"),
        ("blue/b.png", "extra", "theirs"),
    ]
    lines = [f"{name},{name.split('/')[0]},{split},{name},{set_name}" for name, split, set_name in rows]
    (here / "set" / "index.csv").write_text("\n".join(["path,label,split,group,set", *lines]) + "\n")
    words = ("evaluate", "right.tflite", "--data", "set")
    done = bittern(*words, "--json", "--scores", "s.csv", "--sheet", "worst.png", cwd=here)
    assert (done.code, done.err) == (0, "")
    assert [(f["set"], f["split"], f["n"], f["correct"]) for f in done.lines] == [
        ("ours", "seed_test", 1, 1),
        ("ours", "test", 1, 0),
        ("theirs", "test", 2, 2),
    ]
    paths = [line.split(",")[0] for line in (here / "s.csv").read_text().splitlines()[1:]]
    assert paths == ["green/a.png", "red/b.png", "green/b.png", "blue/a.png"]
    assert np.asarray(cv2.imread(str(here / "worst.png"))).shape[1] == 224 + 2 * 6, "one mistake of them all"
    (together,) = bittern(*words, "--split", "test", "--json", cwd=here).lines
    assert (together["split"], together["n"], "set" in together) == ("test", 3, False)
    (theirs,) = bittern(*words, "--where", "set=theirs", "--json", cwd=here).lines
    assert (theirs["set"], theirs["n"]) == ("theirs", 2)
    heads = [line for line in bittern(*words, cwd=here).out.splitlines() if line.startswith("right ")]
    assert heads[1] == "right unverified, bare: set, set ours, split test"

    (here / "set" / "red" / "b.png").write_text("no picture")
    done = bittern(*words, "--json", cwd=here)
    assert (done.code, len(done.lines)) == (1, 2)
    assert done.err.splitlines()[-1] == "bittern: set, set ours, split test: no picture could be read"
    refusal = bittern(*words, "--where", "label=red", "--where", "set=ours", "--split", "val", cwd=here)
    one_line(refusal, 2, "no split 'val'; it has test, train")


def test_a_split_of_pictures_without_one_is_refused(here: Path) -> None:
    words = ("evaluate", "right.tflite", "--split", "test", "--data")
    refusal = bittern(*words, "set", cwd=here)
    one_line(refusal, 2, "set has no index.csv, so there is no split 'test': leave out --split")
    (here / "index.csv").write_text("path,label,split,group\nset/red/a.png,red,,\n")
    refusal = bittern(*words, "index.csv", cwd=here)
    one_line(refusal, 2, "index.csv gives no picture a split, so there is no split 'test': leave out --split")


def test_without_a_split_for_testing_it_says_which_there_are(here: Path) -> None:
    (here / "index.csv").write_text("path,label,split,group\nset/red/a.png,red,train,\nset/red/b.png,red,val,\n")
    done = bittern("evaluate", "right.tflite", "--data", "index.csv", cwd=here)
    one_line(done, 2, "index.csv: no split for testing; it has train, val: choose one with --split")


def test_two_outputs_of_one_name_are_refused(here: Path) -> None:
    words = ("--sheet", "out.png", "--scores", "./out.png")
    done = bittern("evaluate", "right.tflite", "--data", "set", *words, cwd=here)
    assert "both out.png: give two different names" in one_line(done, 2)
    assert not (here / "out.png").exists()
