"""Wide pictures: region and views of a task, from the pool to the model folder.

The weights are made by hand: the network's features are how red a picture is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from tests.doubles.progress import Reports

from bittern.errors import ConfigurationError
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.model import preprocess
from bittern_convert import copies
from bittern_convert import run as runs
from bittern_convert.copies import Photo, Sample
from bittern_convert.corruption import CORRUPTIONS, corrupt
from bittern_convert.task import Task
from bittern_train import pool

BITTERN = Path(sys.executable).with_name("bittern")
TASK = Task(name="discs", question="?", labels=("none", "red"), alarm=("red",), nothing=("none",))
# Of pictures of WIDTH x HEIGHT: a strip, above which everything is red.
WIDTH, HEIGHT = 700, 400
REGION = (20, 150, 660, 220)
FILE = """
name = "discs"
question = "Is there a red disc?"
labels = ["none", "red"]
alarm = ["red"]
nothing = ["none"]
region = [20, 150, 660, 220]
views = ["left", "center", "right"]
[backbone]
size = 96
width = 0.35
[[data]]
path = "edge"
[[data]]
path = "rest"
[augment]
copies = 2
turn_degrees = 0
[recipe]
folds = 2
cut = "block_16_project_BN"
rate = [0.0]
"""


def wide(rng: np.random.Generator, x: int | None) -> Pixels:
    """Grey noise below, red above, and a red disc at x; None for no disc."""
    grey = rng.integers(60, 180)
    picture = rng.integers(grey - 30, grey + 30, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture[: REGION[1]] = (30, 30, 220)
    if x is not None:
        cv2.circle(picture, (x, 260), int(rng.integers(70, 90)), (30, 30, 220), -1)
    return picture


def drawn(root: Path) -> Path:
    """Data sets "edge", with a disc at either end, and "rest": a disc in the middle, or none."""
    rng = np.random.default_rng(4)
    rows: dict[str, list[str]] = {"edge": [], "rest": []}
    for folder, label, count, places in (
        ("edge", "red", 12, (110, 590)),
        ("rest", "red", 12, (350,)),
        ("rest", "none", 24, (None,)),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            name = f"{label}{i:02d}.png"
            cv2.imwrite(str(root / folder / name), wide(rng, places[i % len(places)]))
            rows[folder].append(f"{name},{label},{'test' if i % 6 == 5 else 'train'},{label}{i}")
    for folder, lines in rows.items():
        (root / folder / "index.csv").write_text("\n".join(["path,label,split,group", *lines]) + "\n")
    return root


def redness(file: Path) -> Path:
    """Weights of a MobileNetV2 whose every feature is the mean redness of the picture.

    The first convolution takes red minus the others, smoothed; all other layers hand its channel 0 on.
    """
    import keras

    network = keras.applications.MobileNetV2((96, 96, 3), 0.35, include_top=False, weights=None, pooling="avg")
    sums = {layer.name.removesuffix("_add") for layer in network.layers if layer.name.endswith("_add")}
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (np.zeros_like(w) for w in layer.get_weights())
            layer.set_weights([gamma + 1, beta, mean, variance + 1])
        elif layer.weights:
            kernel = np.zeros_like(layer.get_weights()[0])
            if layer.name == "Conv1":
                kernel[:, :, :, 0] = np.array([1, -0.5, -0.5]) / 9
            elif isinstance(layer, keras.layers.DepthwiseConv2D):
                kernel[:, :, 0, 0] = 1 / 9
            elif layer.name == "Conv_1":
                kernel[:, :, 0, :] = 1
            elif layer.name.removesuffix("_project") not in sums:  # there the block's input is added, which is enough
                kernel[:, :, 0, 0] = 1
            layer.set_weights([kernel])
    network.save_weights(file)
    return file


def samples(root: Path, *pictures: Pixels) -> list[Sample]:
    made = []
    for i, picture in enumerate(pictures):
        file = root / f"{i}.png"
        cv2.imwrite(str(file), picture)
        made.append(Sample(Item(file, file.name, "red", "train", file.name, {}), 1, "photo", True))
    return made


def read(task: Task, chosen: list[Sample]) -> list[Photo]:
    return list(pool.decode(task, chosen, Reports()).photos)


def test_side_views_see_the_ends_of_long_pictures(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (100, 400, 3), np.uint8)
    chosen = samples(tmp_path, picture, picture[:, :80])
    views: tuple[preprocess.View, ...] = ("left", "right")
    task = msgspec.structs.replace(TASK, views=views)
    long, tall = pool.viewed(task, read(task, chosen))
    for tensor, view in zip(long, views, strict=True):
        np.testing.assert_array_equal(tensor, preprocess.preprocess(picture, view=view)[0])
    for tensor in tall:
        np.testing.assert_array_equal(tensor, preprocess.preprocess(picture[:, :80])[0])
    # Where only the centre is looked at, the ends are not kept.
    assert read(TASK, chosen)[0].frame.shape == (100, 180, 3)


@pytest.mark.parametrize("views", [("center",), ("left", "right"), ("center", "right")])
def test_large_pictures_are_seen_as_the_device_sees_them(tmp_path: Path, views: tuple[preprocess.View, ...]) -> None:
    rng = np.random.default_rng(4)
    pictures = [rng.integers(0, 256, shape, np.uint8) for shape in ((1153, 1700, 3), (2500, 1301, 3), (1300, 1301, 3))]
    task = msgspec.structs.replace(TASK, views=views)
    chosen = samples(tmp_path, *pictures)
    photos = read(task, chosen)
    assert max(min(photo.frame.shape[:2]) for photo in photos) < 1152, "small in memory"
    drawn, viewed = copies.draw(task, chosen, photos, 1, [0, 1]), pool.viewed(task, photos)
    for picture, made, tensors in zip(pictures, drawn, viewed, strict=True):
        np.testing.assert_array_equal(made[0], preprocess.preprocess(picture)[0])
        assert made.shape == (2, 224, 224, 3)
        different = preprocess.views_of(picture, None, views)
        for i in range(len(views)):
            view = different[i] if len(different) == len(views) else "center"
            np.testing.assert_array_equal(tensors[i], preprocess.preprocess(picture, view=view)[0])


def test_views_are_corrupted_alike(tmp_path: Path) -> None:
    pictures = [np.random.default_rng(i).integers(0, 256, (230, 300, 3), np.uint8) for i in range(5)]
    frames = read(TASK, samples(tmp_path, *pictures))
    plain = list(pool.corrupted(TASK, frames, 3))
    assert {made.shape for made in plain} == {(pool.CORRUPTED, 224, 224, 3)}
    task = msgspec.structs.replace(TASK, views=("right", "center"))
    for made, centred in zip(pool.corrupted(task, frames, 3), plain, strict=True):
        np.testing.assert_array_equal(made[1::2], centred)
        assert (made[0::2] != centred).any()
    # The corruption of a version is one of the known ones, and none comes twice in a round.
    centre, tries = preprocess.preprocess(pictures[0])[0], range(5 * pool.CORRUPTED)
    known = {corrupt(centre, CORRUPTIONS[n % len(CORRUPTIONS)], n).tobytes() for n in tries}
    assert {made.tobytes() for made in plain[0]} <= known


def test_photographs_are_cut_to_the_region_before_all_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    picture = rng.integers(0, 256, (90, 120, 3), np.uint8)
    task = msgspec.structs.replace(TASK, region=(10, 20, 60, 50))
    (photo,) = read(task, samples(tmp_path, picture))
    np.testing.assert_array_equal(photo.frame, picture[20:70, 10:70])
    too_small = samples(tmp_path, picture, picture[:60])
    with pytest.raises(
        ConfigurationError, match=r"1\.png: region .* the frame of 120 x 60 pixels: a task with a region"
    ):
        read(task, too_small)


def test_what_is_outside_the_region_makes_no_near_duplicates(tmp_path: Path) -> None:
    """A camera that does not move: around the region all pictures are alike."""
    rng = np.random.default_rng(3)
    background = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (300, 300))
    for label in TASK.labels:
        (tmp_path / label).mkdir()
        for i in range(4):
            picture = background.copy()
            picture[120:180, 120:180] = cv2.resize(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), (60, 60))
            cv2.imwrite(str(tmp_path / label / f"{i}.png"), picture)

    def groups(task: Task) -> int:
        return len({item.group for item in pool.gather(task, tmp_path, 1, Reports())[1]})

    assert groups(msgspec.structs.replace(TASK, region=(120, 120, 60, 60))) == 8
    assert groups(TASK) < 8


class World:
    """What `train` made of the same pictures with and without views, and `convert` of the first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = drawn(root / "data")
        weights = str(redness(root / "redness.weights.h5"))
        (root / "discs.toml").write_text(FILE)
        (root / "centre.toml").write_text(FILE.replace("views", "# views"))
        for name in ("discs", "centre"):
            self.call("train", f"{name}.toml", "--data", "data", "--weights", weights, "--out", f"runs/{name}")
        self.call("convert", "runs/discs", "--out", "models/discs")
        self.run, self.centre = (runs.load(root / "runs" / name) for name in ("discs", "centre"))
        self.provenance = json.loads((root / "models/discs/manifest.json").read_text())["provenance"]

    def call(self, *words: str) -> str:
        done = subprocess.run(
            [str(BITTERN), *words], cwd=self.root, capture_output=True, text=True, timeout=1200, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("wide"))


def test_a_disc_at_the_edge_is_found_by_the_views_alone(world: World) -> None:
    edge, centre = (made.metrics["sets"]["edge"] for made in (world.run, world.centre))
    assert edge["n"] == centre["n"] == 10
    assert edge["correct"] >= 9
    assert centre["correct"] <= 2
    assert world.run.choice["loss"] < world.centre.choice["loss"]
    assert world.run.metrics["sets"]["rest"]["correct"] >= 27
    # The corrupted versions are classified in the same views.
    assert world.run.choice["harmed_accuracy"] > world.centre.choice["harmed_accuracy"]


def test_the_run_says_what_thresholds_are_for(world: World) -> None:
    field = "the deciding one of the views left, center, right of the region 20, 150, 660, 220"
    assert all(t.chosen_for.endswith(f", {field}") for t in world.run.thresholds.values())
    assert world.run.metrics["method"].endswith(f", {field}")
    assert world.centre.metrics["method"].endswith(", the region 20, 150, 660, 220")
    assert world.run.streams is None, "streams show the centre alone"
    assert world.centre.streams is not None
    reason = world.run.thresholds["default"].chosen_for
    assert reason.startswith("balanced accuracy, out of fold: ")


def test_reports_are_of_the_views(world: World) -> None:
    """The figures of conversion are those of `evaluate` with the options that the card names."""
    assert {k: world.provenance["recipe"][k] for k in ("region", "views")} == {
        "region": list(REGION),
        "views": ["left", "center", "right"],
    }
    card = (world.root / "models/discs/MODEL_CARD.md").read_text()
    options = ["--region", "20,150,660,220", "--views", "left,center,right"]
    assert f"`bittern evaluate` `{' '.join(options)}`" in card
    assert 'give the daemon `region = [20, 150, 660, 220]` and `views = ["left", "center", "right"]`' in card
    for name, n in (("edge", 2), ("rest", 6)):
        words = ["evaluate", "models/discs", "--data", f"data/{name}", "--json"]
        reported = json.loads(world.call(*words, *options))
        report = world.provenance["reports"][f"{name}/test"]
        keys = ("n", "correct", "alarms", "nll")
        assert [report[k] for k in keys] == [reported[k] for k in keys]
        assert report["n"] == n == report["harmed"]["n"]
    assert world.provenance["reports"]["edge/test"]["correct"] == 2
    plain = json.loads(world.call("evaluate", "models/discs", "--data", "data/rest", "--json"))
    assert plain["correct"] < world.provenance["reports"]["rest/test"]["correct"], "red above the region misleads"
