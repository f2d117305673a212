"""`bittern data preview`: needs the packages for training, but no TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from bittern.evaluation.dataset import Item
from bittern.model import pictures, preprocess
from bittern_convert.corruption import CORRUPTIONS
from bittern_convert.task import Data, Task
from bittern_train.data import previewing
from bittern_train.data.cli.preview import command


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures of each label, wider than high: grey in the middle, green at the left end, red at the right."""
    for label, grey in (("cat", 90), ("dog", 160)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(3):
            picture = np.full((224, 448, 3), grey, np.uint8)
            picture[:, :112], picture[:, 336:] = (0, 255, 0), (0, 0, 255)
            cv2.imwrite(str(tmp_path / "set" / label / f"{i}.png"), picture)
    return tmp_path


def task(**values: object) -> Task:
    return Task(name="pets", question="which?", labels=("cat", "dog"), data=(Data(path="set"),), **values)  # type: ignore[arg-type]


def test_what_the_network_sees(root: Path) -> None:
    item = Item(root / "set/cat/0.png", "cat/0.png", "cat", "", "", {})
    tiles = previewing.tiles(task(alarm=("cat",)), item, 1, 3, corruptions=True)
    assert len(tiles) == previewing.COLUMNS * (1 + -(-len(CORRUPTIONS) // previewing.COLUMNS))
    whole, network, *copies = tiles[:5]
    assert whole.alarm
    # The square of 224 in the middle of 448 x 224 is shown at half its size; what is beside it is dark.
    assert [whole.picture[112, x].tolist() for x in (20, 112, 200)] == [[0, 85, 0], [90] * 3, [85, 0, 0]]
    assert (whole.picture[:50] == 255).all()
    assert np.array_equal(network.picture, preprocess.preprocess(pictures.decode(item.path))[0])
    assert len({tile.picture.tobytes() for tile in (network, *copies)}) == 4
    assert [tile.lines[0] for tile in copies] == ["copy 1", "copy 2", "copy 3"]
    captions = [tile.lines[0] for tile in tiles[previewing.COLUMNS :] if tile.lines]
    assert captions == [f"{corruption.kind}, {corruption.strength}" for corruption in CORRUPTIONS]


def test_regions_and_views(root: Path) -> None:
    item = Item(root / "set/cat/0.png", "cat/0.png", "cat", "", "", {})
    tiles = previewing.tiles(task(views=("left", "right"), region=(0, 0, 448, 112)), item, 1, 0, corruptions=False)
    whole, left, right = tiles[:3]
    assert len(tiles) == previewing.COLUMNS
    assert (left.lines[1], right.lines[1]) == ("left", "right")
    assert left.picture[112, 112].tolist() == [0, 255, 0]
    assert right.picture[112, 112].tolist() == [255, 0, 0]
    # Of the upper half the two ends are seen.
    assert [whole.picture[y, x].tolist() for y, x in ((80, 20), (80, 112), (140, 20))] == [
        [0, 255, 0],
        [30] * 3,
        [0, 85, 0],
    ]


def test_the_command_needs_no_tensorflow(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (root / "set/dog/1.png").write_bytes(b"")
    (root / "set/dog/2.png").write_bytes(b"")
    out = root / "preview.png"
    done = CliRunner().invoke(command, ["folders", "--data", str(root / "set"), "--out", str(out), "--each", "3"])
    assert done.exit_code == 0, done.output
    assert f"{out}: 4 pictures of the task set" in done.output
    assert "dog/1.png: the file is empty" in done.output
    assert pictures.decode(out).shape[1] == previewing.COLUMNS * 230 + 6


def test_sets_that_are_missing(root: Path) -> None:
    both = Task(name="pets", question="which?", labels=("cat", "dog"), data=(Data(path="gone"), Data(path="set")))
    items, problems = previewing.choose(both, root, 2, 1)
    assert [item.label for item in items] == ["cat", "cat", "dog", "dog"]
    assert len(problems) == 1
    assert "no data at" in problems[0]
    assert previewing.choose(both, root, 2, 1)[0] == items
    assert previewing.choose(both, root, 2, 3)[0] != items
