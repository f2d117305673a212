"""From a folder of pictures to a model folder, through the commands, as somebody at a host would: `make train convert`.

The weights are random, because no others are in the project: these tests say that the way works, not that the network
is good.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doubles import drawn_pictures
from tests.doubles.progress import Reports
from tests.doubles.served import served
from tests.doubles.waiting import until

from bittern import Classifier
from bittern.evaluation import dataset
from bittern_convert import inputs
from bittern_convert import run as runs
from bittern_train import task_files
from bittern_train.data.cli.main import COMMANDS

REPO = Path(__file__).parents[2]
BITTERN = Path(sys.executable).with_name("bittern")
PROGRESS = re.compile(r".+: \d+ of \d+ (after .+|\(\d+%\), about .+ left)")
TASK = (
    drawn_pictures.DISCS_TASK
    + """
limits = ["The weights are random."]
[augment]
copies = 2
turn_degrees = 0
brightness = [0.9, 1.1]
contrast = [0.95, 1.05]
[recipe]
folds = 2
epochs = 2
cut = "block_16_project_BN"
rate = [0.0, 1e-4]
"""
)


def call(
    *arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [str(BITTERN), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=1500, check=False)


def without_progress(stderr: str) -> list[str]:
    """The lines but those that come every half minute: how many depends on the machine."""
    return [line for line in stderr.splitlines() if not PROGRESS.fullmatch(line)]


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    lines = without_progress(done.stderr)
    assert len(lines) == 1, done.stderr
    return lines[0]


class World:
    """A data set, a task file, and what the commands made of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = drawn_pictures.discs(root / "pictures", 11)
        (self.data / "red" / "broken.jpg").write_bytes((self.data / "red" / "000.jpg").read_bytes()[:700])
        self.task = root / "discs.toml"
        self.task.write_text(TASK)
        self.run = root / "runs" / "mine"
        self.model = root / "models" / "mine"
        self.done = self.make("train", "convert", "evaluate")

    def make(self, *targets: str) -> subprocess.CompletedProcess[str]:
        settings = {"TASK": self.task, "DATA": self.data, "RUN": self.run, "MODEL": self.model, "WEIGHTS": "none"}
        command = ["make", *targets, *(f"{k}={v}" for k, v in settings.items())]
        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        return subprocess.run(
            command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=1200, check=False
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("journey"))
    assert made.done.returncode == 0, made.done.stderr
    return made


def test_a_run_is_whole(world: World) -> None:
    names = {f.name for f in world.run.iterdir()}
    assert {
        "model.keras",
        "run.json",
        "history.json",
        "index.csv",
        "out_of_fold.npz",
        "curves.png",
        "confusion.png",
    } <= names
    made = runs.load(world.run)
    assert [Path(line.split(":")[0]).name for line in made.skipped] == ["broken.jpg"]
    assert "skipped" in world.done.stderr
    for picture in ("curves.png", "confusion.png"):
        assert np.asarray(cv2.imread(str(world.run / picture))).std() > 5
    history = json.loads((world.run / "history.json").read_text())
    assert {c["rate"] for c in history["candidates"]} == {0.0, 1e-4}
    assert [len(fit) - 1 for fit in history["final"]] == [made.choice["epochs"]]
    assert not list(world.run.parent.glob(".*"))
    # Of the pictures that choose, one stream each.
    assert made.streams is not None
    chosen = made.metrics["sets"]["all"]["n"]
    assert 0 < made.streams.passings < chosen
    assert made.streams.hours * 3600 == pytest.approx(4.0 * (chosen - made.streams.passings), rel=0.01)
    assert {"temperature", "error_before", "error_after"} <= made.metrics["calibration"].keys()
    assert made.thresholds == {}, "conversion chooses them by the streams"
    # The model, and little else: no copies of the pictures.
    assert sum(f.stat().st_size for f in world.run.iterdir()) - (world.run / "model.keras").stat().st_size < 1e6


def test_training_says_what_it_has_and_what_comes_next(world: World) -> None:
    for line in (
        r"discs: 23 pictures; to train on: \d+ blue, \d+ red; left for testing: \d+ blue, \d+ red",
        r"about \d+ min on this machine, less if folds stop early",
        r"rate 0: correct out of fold .*; balanced accuracy .*, of corrupted versions .* by \d+ min of streams "
        r"(.* passings found|no threshold promises at most 1 false alarm an hour)$",
    ):
        assert re.search(f"^{line}", world.done.stderr, re.MULTILINE), line
    assert f"next: bittern convert {world.run}\n" in world.done.stdout
    assert f"next: bittern classify PICTURE --model {world.model}\n" in world.done.stdout


def test_nothing_of_the_users_pictures_was_touched(world: World) -> None:
    files = [f for f in world.data.rglob("*") if f.is_file()]
    assert len(files) == 23


def test_tensorflow_says_nothing(world: World) -> None:
    for noise in ("tensorflow", "cuda", "WARNING", "Estimated count", "XNNPACK"):
        assert noise not in world.done.stderr + world.done.stdout


def test_the_model_folder_keeps_the_contract(world: World) -> None:
    assert {f.name for f in world.model.iterdir()} == {
        "model.tflite",
        "manifest.json",
        "labels.txt",
        "golden.npz",
        "MODEL_CARD.md",
    }
    classifier = Classifier(world.model)
    manifest = classifier.manifest
    assert manifest is not None
    assert manifest.size == (world.model / "model.tflite").stat().st_size <= 3_000_000
    assert manifest.input.scale == pytest.approx(1 / 127.5)
    assert manifest.input.zero_point == 127
    assert manifest.provenance["gate"]["n"] >= 1000
    assert "augmented copies" in manifest.provenance["gate"]["kinds"]
    versions = manifest.provenance["versions"]
    assert (versions["opencv"], versions["threads"]) == (cv2.__version__, str(len(os.sched_getaffinity(0))))
    assert f"opencv {cv2.__version__}; processor " in versions["conversion"]
    assert manifest.provenance["recipe"]["labels"] == ["blue", "red"]
    assert str(world.root) not in (world.model / "manifest.json").read_text()
    card = (world.model / "MODEL_CARD.md").read_text()
    assert "The weights are random." in card
    assert str(world.root) not in card
    kept, all_of_them = manifest.heads[0].streams, runs.load(world.run).streams
    assert kept is not None
    assert all_of_them is not None
    assert (kept.hours, kept.passings, kept.tail) == (all_of_them.hours, all_of_them.passings, all_of_them.tail)
    assert set(kept.points) < set(all_of_them.points)
    assert manifest.heads[0].thresholds["default"].on in {point.on for point in kept.points}
    assert manifest.heads[0].stills
    assert manifest.provenance["streams"]["false"]["minutes"] > 0
    assert "## Streams of a moving camera" in card
    assert "calibration error out of fold" in card
    # The labels are packed into the file too, so it runs without its folder.
    bare = world.root / "alone.tflite"
    shutil.copyfile(world.model / "model.tflite", bare)
    frame = np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    assert Classifier(bare).classify(frame)[0].scores == classifier.classify(frame)[0].scores


def test_evaluate_was_on_the_derived_test_split(world: World) -> None:
    assert "split test" in world.done.stdout
    index = (world.run / "index.csv").read_text()
    assert ",test," in index


@pytest.fixture(scope="module")
def flipping(world: World) -> Path:
    """The run with another network in it: its answer is a small difference of two large numbers, too fine for int8."""
    import keras

    folder = world.root / "flipping"
    shutil.copytree(world.run, folder)
    items = dataset.read(folder / runs.INDEX, world.data)
    copies = inputs.unseen_copies(folder, runs.load(folder), items, Reports())
    bright = (np.stack([copy.tensor for copy in copies]).astype(np.float32) / 127.5 - 1).mean((1, 2)).sum(1)
    middle = float(np.median(bright))
    picture = keras.Input((224, 224, 3), batch_size=1)
    pooled = keras.layers.GlobalAveragePooling2D()(picture)
    large, head = keras.layers.Dense(2, activation="relu"), keras.layers.Dense(2, activation="softmax")
    model = keras.Model(picture, head(large(pooled)))
    # 1000 + brightness and 1000: in int8 a step is 4, which is more than all that the brightness spans.
    large.set_weights([np.array([[1, 0], [1, 0], [1, 0]]), np.array([1000, 1000])])
    head.set_weights([np.array([[9, -9], [-9, 9]]), np.array([-9 * middle, 9 * middle])])
    model.save(folder / "model.keras")
    return folder


def test_a_failed_parity_check_packages_nothing_and_shows_what_flipped(flipping: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "discs"
    line = one_line(call("convert", flipping, "--out", out), 1)
    assert "the parity check failed: the answer is the same on" in line
    assert not out.exists()
    assert not list(out.parent.glob(".*"))
    assert np.asarray(cv2.imread(str(flipping / "flipped.png"))).shape[1] > 224


def test_a_conversion_that_is_ended_leaves_nothing(flipping: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "discs"
    with subprocess.Popen(
        [BITTERN, "convert", flipping, "--out", out], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: out.parent.is_dir() and any(out.parent.iterdir()), 120)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout, without_progress(stderr)) == (130, "", ["bittern: interrupted"])
    assert not list(out.parent.iterdir())


def test_what_is_there_is_not_replaced_without_force(world: World) -> None:
    before = (world.model / "manifest.json").read_bytes()
    assert "--force" in one_line(call("convert", world.run, "--out", world.model), 2)
    assert "--force" in one_line(call("train", world.task, "--data", world.data, "--out", world.run), 2)
    assert (world.model / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "stop_sing", "--data", "."), "did you mean 'stop_sign'"),
        (("train", "{task}", "--data", "{root}/nowhere"), "no data at"),
        (("train", "{task}", "--data", "{data}", "--weights", "{root}/none.h5"), "no file"),
        (("train", "{task}", "--data", "{data}", "--weights", "{task}"), "not weights of MobileNetV2"),
        (("train", "folders", "--data", "{data}/red"), "no pictures found"),
        (("train", "{task}", "--data", "{data}", "--thorough"), '--thorough goes with "folders"'),
        (("convert", "{root}/nowhere"), "no run at"),
        (("convert", "{data}"), "not finished"),
        (("convert", "{run}", "--data", "{root}/nowhere", "--out", "{root}/x"), "say with --data where they are now"),
    ],
)
def test_wrong_usage_is_one_line(world: World, tmp_path: Path, arguments: Sequence[str], message: str) -> None:
    places = {"task": world.task, "root": world.root, "data": world.data, "run": world.run}
    done = call(*(a.format(**places) for a in arguments), cwd=tmp_path)
    assert message in one_line(done, 2)
    assert done.stdout == ""


def test_imagenet_that_cannot_be_fetched_names_file_and_place(world: World, tmp_path: Path) -> None:
    # A proxy that nobody listens on: the machine is offline whatever network it has.
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:9", "KERAS_HOME": str(tmp_path / "keras")}
    done = call("train", world.task, "--data", world.data, "--out", tmp_path / "run", env=environment)
    line = one_line(done, 2)
    assert "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5" in line
    assert str(tmp_path / "keras" / "models") in line


@pytest.mark.slow
def test_a_folder_per_class_needs_no_task_file(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.data, tmp_path / "My Discs")
    arguments = ["--data", "My Discs/", "--alarm", "red", "--weights", "none", "--out", "runs/mine"]
    done = call("train", "folders", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("the quick way, for fewer than 500 pictures: ")
    made = runs.load(tmp_path / "runs" / "mine")
    assert made.task == task_files.quick(task_files.from_folders(["blue", "red"], "My Discs", ("red",)))
    assert (made.task.name, made.task.labels, made.task.alarm) == ("my_discs", ("blue", "red"), ("red",))


def test_from_a_run_to_the_loop(world: World, tmp_path: Path) -> None:
    """The README's commands for pictures of one's own, after training and conversion."""
    (tmp_path / "runs").symlink_to(world.run.parent)
    for name in ("mine", "older"):
        shutil.copytree(world.model, tmp_path / "models" / name)
    shutil.copytree(world.data, tmp_path / "pictures", ignore=shutil.ignore_patterns("broken.jpg"))
    options = ["--against", "models/older", "--sheet", "worst.png", "--scores", "scores.csv"]
    done = call(
        *("evaluate", "models/mine", "--data", "runs/mine/index.csv", "--root", "pictures/"), *options, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "runs" / "mine" / "index.csv").read_text().splitlines()
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + sum(",test," in row for row in index)
    manifest = Classifier(tmp_path / "models" / "mine").manifest
    assert manifest is not None
    assert (manifest.name, manifest.heads[0].task, manifest.heads[0].alarm) == ("mine", "discs", ("red",))
    shutil.copytree(world.data / "red", tmp_path / "red", ignore=shutil.ignore_patterns("broken.jpg"))
    watched = call("watch", "--source", "red", "--model", "mine", cwd=tmp_path)
    assert watched.returncode == 0, watched.stderr
    # Random weights need not be correct; events of a model that is are in tests/e2e/test_demo.py.
    assert "10 frames" in watched.stderr or "11 frames" in watched.stderr


def test_too_few_labels_or_pictures(world: World, tmp_path: Path) -> None:
    one_class = tmp_path / "one"
    shutil.copytree(world.data / "red", one_class / "red")
    assert "two labels" in one_line(call("train", "folders", "--data", one_class, cwd=tmp_path), 2)
    few = tmp_path / "few"
    for label in ("red", "blue"):
        (few / label).mkdir(parents=True)
        shutil.copyfile(world.data / label / "001.jpg", few / label / "001.jpg")
    error = one_line(call("train", "folders", "--data", few, "--weights", "none", cwd=tmp_path), 2)
    assert "label 'blue' has 1 picture, at least 3 are needed for 3 folds: add pictures" in error
    assert not (tmp_path / "runs" / "few").exists()


def test_only_a_run_or_a_model_is_replaced(world: World, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    (album / "only-copy.jpg").write_bytes(b"precious")
    assert "not replaced" in one_line(call("train", world.task, "--data", world.data, "--out", album, "--force"), 2)
    assert "not replaced" in one_line(call("convert", world.run, "--out", album, "--force"), 2)
    assert (album / "only-copy.jpg").read_bytes() == b"precious"


def test_the_walk_of_the_data_page_ends_with_an_event(world: World, tmp_path: Path) -> None:
    """Its commands, one after the other in one folder; only training and conversion are those of the world."""
    page = (REPO / "docs" / "data.md").read_text(encoding="utf-8")
    task, watch = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    commands = [
        c for block in re.findall(r"<!-- walk -->\n```sh\n(.*?)```", page, re.DOTALL) for c in block.splitlines()
    ]
    # The labels of the world's model are what is open or closed.
    commands, task = [_in_colour(command) for command in commands], _in_colour(task)
    assert {word.split()[2] for word in commands if "bittern data" in word} == set(COMMANDS) - {"undo"}
    pictures = drawn_pictures.folders(tmp_path / "drawn", 22, seed=2)
    (pictures / "stop").rename(pictures / "red")
    (pictures / "not_stop").rename(pictures / "blue")
    (tmp_path / "snapshots").mkdir()
    for i in range(3):
        (pictures / "red" / f"{i:03d}.jpg").rename(tmp_path / "snapshots" / f"{i}.jpg")
    (tmp_path / "downloads").mkdir()
    shutil.make_archive(str(tmp_path / "downloads" / "gates"), "zip", pictures)
    (tmp_path / "gate.toml").write_text(task)
    decision = "[decision]\nthreshold = 0.01\nvotes = 1\n[gate]\nenabled = false\n"
    (tmp_path / "watch.toml").write_text(watch.replace("usb:0", "drawn/red") + decision)
    output = {}
    for command in commands:
        words = command.split()[1:]
        if words[:2] == ["data", "label"]:
            _label(tmp_path / words[2], words[3:])
        elif words[0] in ("train", "convert"):
            shutil.copytree(world.run if words[0] == "train" else world.model, tmp_path / words[-1])
        else:
            done = call(*words, cwd=tmp_path)
            assert done.returncode == 0, (command, done.stderr)
            output[command] = done.stdout
    assert len(dataset.read(tmp_path / "small")) == 44
    assert (tmp_path / "preview.png").stat().st_size > 10_000
    assert (tmp_path / "check.html").stat().st_size > 1000
    (shown,) = re.findall(r"<!-- output of split -->\n```\n(.*?)```", page, re.DOTALL)
    assert _in_colour(shown).split() == output["bittern data split set/"].split()
    events = [json.loads(line) for line in output["bittern watch --config watch.toml"].splitlines()]
    alarm = next(event for event in events if event["type"] == "alarm.on")
    assert (alarm["model"], alarm["label"]) == ("mine", "red"), "the world's model has its own name"
    (event,) = re.findall(r"```json\n(.*)\n```", page)
    assert json.loads(event).keys() <= alarm.keys()


def _in_colour(text: str) -> str:
    return re.sub(r"\bclosed\b", "blue", re.sub(r"\bopen\b", "red", text))


def _label(folder: Path, words: Sequence[str]) -> None:
    """Label as red what has no label, as the page of `bittern data label` does."""
    with served(folder, *words, "--data", folder.parent / "page", command="data label") as site:
        names = site.ask("/api/labels").json["names"]
        versions = [[names.index(item.name), 0] for item in dataset.read(folder) if not item.label]
        assert len(versions) == 3
        body = {"state": "labelled", "label": "red", "tab": "walk", "since": 0, "seen": versions}
        assert site.ask("/api/labels/decide", json.dumps(body).encode()).json["conflicts"] == []
    assert all(item.label for item in dataset.read(folder))
