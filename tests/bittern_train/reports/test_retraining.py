"""What a retraining is made of: corrections by a file's bytes, no test picture, mistakes first; and the verdict."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.progress import Reports
from tests.doubles.small_runs import small_run

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset, index, metrics
from bittern.evaluation.dataset import Item
from bittern_convert import run as runs
from bittern_train import retraining


def picture(file: Path, seed: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8))
    return file


class World:
    """A run with test pictures, and newly labelled pictures: new ones, corrected, known, tested and without a label."""

    def __init__(self, root: Path) -> None:
        self.run = small_run(root, each=12)
        self.made = runs.load(self.run)
        self.data = Path(self.made.data)
        items = dataset.read(self.run / runs.INDEX, self.data)
        self.items = [item._replace(split="test" if i % 6 == 5 else "train") for i, item in enumerate(items)]
        self.added = root / "added"
        blue, other, *_ = [item for item in self.items if item.label == "blue" and item.split == "train"]
        test = next(item for item in self.items if item.split == "test")
        rows = []
        for name, source, label in (
            ("corrected.jpg", blue.path, "red"), ("known.jpg", other.path, "blue"), ("test.jpg", test.path, "red"),
        ):  # fmt: skip
            self.added.mkdir(exist_ok=True)
            shutil.copy(source, self.added / name)
            rows.append((name, label))
        for i, label in enumerate(("red", "red", "blue", "")):
            picture(self.added / f"new-{i}.png", i)
            rows.append((f"new-{i}.png", label))
        index.write(
            self.added / "index.csv", [Item(self.added / name, name, label, "", "walk", {}) for name, label in rows]
        )
        self.corrected, self.test = blue, test
        self.sorted = retraining.sort(self.made, self.items, dataset.read(self.added))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("retraining"))


def test_new_corrected_known_tested_and_unlabelled_are_told_apart(world: World) -> None:
    ordered = world.sorted
    assert [item.name for item in ordered.new] == ["new-0.png", "new-1.png", "new-2.png"]
    assert ordered.corrected == {world.corrected.name}
    assert (ordered.unlabelled, ordered.known, ordered.tested) == (1, 1, 1)
    labels = {item.name: item.label for item in ordered.old}
    assert labels[world.corrected.name] == "red"
    assert labels[world.test.name] == world.test.label, "a test picture stays as it is"


def test_a_new_picture_that_is_nearly_a_test_picture_is_left_out(tmp_path: Path) -> None:
    """By the picture, though its bytes differ, and by its group."""
    photograph = cv2.resize(np.random.default_rng(3).integers(0, 256, (9, 12, 3), np.uint8), (400, 300))
    names = ("test.png", "again.jpg", "other.png", "same-walk.png")
    for name in (names[0], names[1]):
        cv2.imwrite(str(tmp_path / name), photograph)
    for seed, name in enumerate(names[2:]):
        picture(tmp_path / name, 70 + seed)
    test, again, other, walk = (Item(tmp_path / name, name, "red", "", "", {}) for name in names)
    test = test._replace(split="test", group="walk-3")
    pictures = retraining.RetrainingPictures(
        [test], [again, other, walk._replace(group="walk-3")], frozenset(), 0, 0, 0
    )
    left = retraining.without_near_duplicates(pictures, Reports())
    assert [item.name for item in left.new] == ["other.png"]
    assert left.tested == 2
    with pytest.raises(ConfigurationError, match="near-duplicates of the run's test pictures"):
        retraining.without_near_duplicates(pictures._replace(new=[again]), Reports())


def test_the_data_set_has_all_of_them_and_mistakes_three_times(world: World, tmp_path: Path) -> None:
    answers = np.array([0, 1, 0, 0])  # of new-0 (red: wrong), new-1, new-2 and the corrected one (red: wrong)
    mistakes = retraining.mistaken(world.made, world.sorted, answers)
    assert mistakes == {"added/new-0.png", f"before/{world.corrected.name}"}
    task = retraining.assemble(msgspec_replaced(world.made), world.data, world.sorted, mistakes, tmp_path / "links")
    assert [data.path for data in task.data] == ["before", "added"]
    assert task.recipe.rate == (1e-4,)
    before, added = (dataset.read(tmp_path / "links" / data.path) for data in task.data)
    assert len(before) == len(world.items) + retraining.WEIGHT - 1
    assert len(added) == 3 + retraining.WEIGHT - 1
    for items in (before, added):
        assert all(item.path.is_file() for item in items)
    by_bytes: dict[str, list[Item]] = {}
    for item in (*before, *added):
        by_bytes.setdefault(hashlib.sha256(item.path.read_bytes()).hexdigest(), []).append(item)
    often = [items for items in by_bytes.values() if len(items) > 1]
    assert len(often) == 2
    for items in often:
        assert [item.split for item in items] == ["train", "extra", "extra"], "no choice is made with what is repeated"
        assert len({item.group for item in items}) == 1
        assert {item.label for item in items} == {"red"}
    assert {item.split for item in before} == {"train", "test", "extra"}
    assert sum(item.split == "test" for item in before) == sum(item.split == "test" for item in world.items)


def test_an_interrupted_attempt_makes_the_same_data_set_again(world: World, tmp_path: Path) -> None:
    made, links = msgspec_replaced(world.made), tmp_path / "links"
    task = retraining.assemble(made, world.data, world.sorted, frozenset(), links)
    before = (links / "before" / "index.csv").read_bytes()
    assert retraining.assemble(made, world.data, world.sorted, frozenset(), links, again=True) == task
    other = world.sorted._replace(new=world.sorted.new[1:])
    with pytest.raises(ConfigurationError, match=r"links links to other pictures or labels: remove it, or give "):
        retraining.assemble(made, world.data, other, frozenset(), links, again=True)
    assert (links / "before" / "index.csv").read_bytes() == before
    assert [folder.name for folder in tmp_path.iterdir()] == ["links"]


def msgspec_replaced(made: runs.Run) -> runs.Run:
    import msgspec

    return msgspec.structs.replace(made, choice={"rate": 1e-4})


def test_what_cannot_be_retrained_is_one_line(world: World, tmp_path: Path) -> None:
    added = dataset.read(world.added)
    with pytest.raises(ConfigurationError, match="no test pictures"):
        retraining.sort(world.made, [item._replace(split="train") for item in world.items], added)
    with pytest.raises(
        ConfigurationError, match="nothing to train on: of 1 pictures 0 have no label, 1 are in the run"
    ):
        retraining.sort(world.made, world.items, [item for item in added if item.name == "known.jpg"])
    with pytest.raises(ConfigurationError, match="'green' is not one of the run's"):
        retraining.sort(world.made, world.items, [added[0]._replace(label="green")])
    gone = added[0]._replace(path=tmp_path / "gone.jpg")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        retraining.sort(world.made, world.items, [gone])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_the_new_network_is_kept_if_it_is_not_worse(pictures: list[tuple[bool, bool]]) -> None:
    items = [Item(Path(str(i)), str(i), "red", "test", str(i), {}) for i in range(len(pictures))]
    targets = np.ones(len(items), np.int64)
    was, now = (np.array([pair[k] for pair in pictures]).astype(np.int64) for k in (0, 1))
    verdict = retraining.judge(items, targets, was, now)
    assert verdict.keep == (now.sum() >= was.sum())
    assert (verdict.old_correct, verdict.new_correct) == (was.sum(), now.sum())
    assert verdict.mcnemar_p == metrics.mcnemar(len(verdict.only_old), len(verdict.only_new))
    low, high = verdict.difference_ci95
    assert low <= (now.sum() - was.sum()) / len(items) <= high or len(items) < 3
