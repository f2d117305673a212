"""The pool of a task: what may be trained on, what may choose, and what is neither."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from tests.doubles import drawn_pictures
from tests.doubles.progress import Reports

from bittern.errors import ConfigurationError
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern_convert import copies
from bittern_convert.copies import Sample
from bittern_convert.task import Augment, Data, Drawn, Erratum, Recipe, Task
from bittern_train import pool, training

TASK = Task(name="signs", question="which?", labels=("not_stop", "stop"), alarm=("stop",))


def gather(task: Task, root: Path, seed: int) -> tuple[list[Sample], list[Item]]:
    return pool.gather(task, root, seed, Reports())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_pictures.folders(tmp_path_factory.mktemp("data") / "signs", 15)


def indexed(root: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """A data set of flat pictures, each with a brightness of its own: path, label, split, group."""
    root.mkdir()
    for i, (path, *_) in enumerate(rows):
        cv2.imwrite(str(root / path), np.full((40, 50, 3), 10 * i, np.uint8))
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        writer.writerows(rows)
    return root


def test_splits_keep_their_meaning(tmp_path: Path) -> None:
    root = indexed(
        tmp_path / "set",
        [
            ("a.png", "stop", "train", "g1"),
            ("b.png", "not_stop", "val", "g2"),
            ("c.png", "stop", "extra", "g3"),
            ("d.png", "stop", "test", "g4"),
            ("e.png", "stop", "dup", "g4"),
        ],
    )
    samples, everything = gather(TASK, root, seed=1)
    assert {s.item.name: s.chooses for s in samples} == {
        "a.png": True,
        "b.png": True,
        "c.png": False,
    }
    assert [i.name for i in everything] == ["a.png", "b.png", "c.png", "d.png"]


def test_a_task_corrects_what_is_trained_on_and_nothing_else(tmp_path: Path) -> None:
    root = indexed(
        tmp_path / "set",
        [
            ("a.png", "stop", "train", "g1"),
            ("b.png", "not_stop", "val", "g2"),
            ("c.png", "stop", "extra", "g3"),
            ("d.png", "stop", "test", "g4"),
        ],
    )
    before = (root / "index.csv").read_bytes()

    def labels(*errata: Erratum) -> dict[str, str | None]:
        task = msgspec.structs.replace(TASK, data=(Data(path="set", errata=errata),))
        return {item.name: item.label for item in gather(task, tmp_path, seed=1)[1]}

    assert labels(Erratum(path="b.png", label="stop", why="a stop sign"), Erratum(path="c.png", why="no road")) == {
        "set/a.png": "stop",
        "set/b.png": "stop",
        "set/d.png": "stop",
    }
    assert (root / "index.csv").read_bytes() == before
    with pytest.raises(ConfigurationError, match=r"d\.png is of the split 'test': errata are of what is trained on"):
        labels(Erratum(path="d.png", label="not_stop", why="a tree"))
    with pytest.raises(ConfigurationError, match=r"e\.png is not among its pictures"):
        labels(Erratum(path="e.png", why="a tree"))


def test_of_a_large_extra_set_a_stable_part_of_many_groups_is_taken(tmp_path: Path) -> None:
    indexed(tmp_path / "own", [("a.png", "stop", "train", "g1"), ("b.png", "not_stop", "val", "g2")])
    rows = [(f"{i}.png", "tree", "extra", f"g{i // 4}") for i in range(20)]
    indexed(tmp_path / "large", rows)
    indexed(tmp_path / "larger", [*rows, ("z.png", "tree", "test", "z")])

    def taken(path: str, most: int) -> list[str]:
        extra = Data(path=path, label="not_stop", extra=True, most=most)
        task = msgspec.structs.replace(TASK, data=(Data(path="own"), extra))
        return [Path(s.item.name).name for s in gather(task, tmp_path, seed=most)[0][2:]]

    assert len({int(Path(name).stem) // 4 for name in taken("large", 5)}) == 5
    assert set(taken("large", 5)) < set(taken("large", 7)) < set(taken("large", 50))
    assert len(taken("large", 7)) == 7
    assert taken("large", 50) == [name for name, *_ in rows]
    assert taken("larger", 7) == taken("large", 7)
    with pytest.raises(ValueError, match="only a set with extra = true can be cut"):
        Data(most=3)


def test_pictures_of_another_task_may_be_extra(tmp_path: Path) -> None:
    """Under a label of this task, whatever that set calls them; nothing is chosen with them or reported on."""
    indexed(tmp_path / "own", [("a.png", "stop", "train", "g1"), ("b.png", "not_stop", "val", "g2")])
    indexed(
        tmp_path / "other",
        [
            ("a.png", "yield", "train", "g1"),
            ("b.png", "tree", "train", "g2"),
            ("c.png", "yield", "val", "g3"),
            ("d.png", "yield", "test", "g4"),
        ],
    )
    other = Data(path="other", where={"label": "yield"}, label="not_stop", extra=True)
    task = msgspec.structs.replace(TASK, data=(Data(path="own"), other))
    samples, everything = gather(task, tmp_path, seed=1)
    assert [(s.item.name, s.item.label, s.item.split, s.chooses) for s in samples] == [
        ("own/a.png", "stop", "train", True),
        ("own/b.png", "not_stop", "val", True),
        ("other/a.png", "not_stop", "extra", False),
        ("other/c.png", "not_stop", "extra", False),
    ]
    assert everything == [s.item for s in samples]


@pytest.mark.parametrize(
    ("splits", "message"),
    [(("test", "twin"), "none of its splits may be trained on"), (("train", ""), "1 of 2 pictures have no split")],
)
def test_an_extra_set_that_gives_nothing_or_is_unclear_is_refused(
    tmp_path: Path, splits: tuple[str, str], message: str
) -> None:
    indexed(tmp_path / "own", [("a.png", "stop", "train", "g1"), ("b.png", "not_stop", "val", "g2")])
    indexed(tmp_path / "more", [(f"{i}.png", "stop", split, f"g{i}") for i, split in enumerate(splits)])
    task = msgspec.structs.replace(TASK, data=(Data(path="own"), Data(path="more", extra=True)))
    with pytest.raises(ConfigurationError, match=message):
        gather(task, tmp_path, seed=1)


def test_a_folder_without_an_index_may_be_extra_as_a_whole(folders: Path, tmp_path: Path) -> None:
    indexed(tmp_path / "own", [("a.png", "stop", "train", "g1"), ("b.png", "not_stop", "val", "g2")])
    shutil.copytree(folders, tmp_path / "more")
    task = msgspec.structs.replace(TASK, data=(Data(path="own"), Data(path="more", extra=True)))
    samples, everything = gather(task, tmp_path, seed=1)
    added = [s for s in samples if s.item.columns["set"] == "more"]
    assert len(added) == len([*(tmp_path / "more").glob("*/*.jpg")]) == 30
    assert {(s.item.split, s.chooses) for s in added} == {("extra", False)}
    assert everything == [s.item for s in samples]


def test_derived_splits_are_seeded_and_cross_no_group(folders: Path) -> None:
    twin = cv2.imread(str(folders / "stop" / "003.jpg"))
    cv2.imwrite(str(folders / "stop" / "twin.jpg"), cv2.resize(twin, None, fx=0.9, fy=0.9))
    first = gather(TASK, folders, seed=1)[1]
    assert [(i.split, i.group) for i in first] == [(i.split, i.group) for i in gather(TASK, folders, seed=1)[1]]
    assert [i.split for i in first] != [i.split for i in gather(TASK, folders, seed=2)[1]]
    by_group: dict[str, set[str]] = {}
    for item in first:
        by_group.setdefault(item.group, set()).add(item.split)
    assert all(len(splits) == 1 for splits in by_group.values())
    group_of = {i.name: i.group for i in first}
    assert group_of["stop/twin.jpg"] == group_of["stop/003.jpg"]
    for label in TASK.labels:
        share = np.mean([i.split == "test" for i in first if i.label == label])
        assert 0.1 <= share <= 0.3
    assert not (folders / "index.csv").exists()


def test_groups_of_an_index_without_splits_stay_together(tmp_path: Path) -> None:
    """Twenty tracks of four pictures each, as of a video; no two pictures look alike."""
    rng = np.random.default_rng(1)
    root = tmp_path / "tracks"
    root.mkdir()
    rows = ["path,label,split,group"]
    for i in range(80):
        cells = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f"{i}.png"), cv2.resize(cells, (60, 50), interpolation=cv2.INTER_CUBIC))
        rows.append(f"{i}.png,{('stop', 'not_stop')[i // 4 % 2]},,track{i // 4}")
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    _, everything = gather(TASK, root, seed=1)
    splits: dict[int, set[tuple[str, str]]] = {}
    for item in everything:
        splits.setdefault(int(Path(item.name).stem) // 4, set()).add((item.split, item.group))
    assert all(len(pairs) == 1 for pairs in splits.values())
    assert {split for pairs in splits.values() for split, _ in pairs} == {"train", "test"}


def test_an_index_in_which_some_pictures_have_no_split_is_refused(tmp_path: Path) -> None:
    root = indexed(tmp_path / "set", [("a.png", "stop", "train", "g1"), ("b.png", "stop", "", "g2")])
    with pytest.raises(ConfigurationError, match="1 of 2 pictures have no split"):
        gather(TASK, root, seed=1)


def test_broken_files_are_skipped_and_listed(tmp_path: Path) -> None:
    root = drawn_pictures.folders(tmp_path / "signs", 6)
    (root / "stop" / "empty.jpg").write_bytes(b"")
    (root / "stop" / "text.png").write_text("no picture")
    task = msgspec.structs.replace(TASK)
    samples, _ = gather(task, root, seed=3)
    broken = {i for i, s in enumerate(samples) if s.item.name in ("stop/empty.jpg", "stop/text.png")}
    decoded = pool.decode(task, samples, Reports())
    assert decoded.positions == [i for i in range(len(samples)) if i not in broken]
    assert decoded.samples == [samples[i] for i in decoded.positions]
    assert len(decoded.photos) == len(decoded.samples)
    assert len(decoded.skipped) == len(broken)
    assert all(str(root.resolve()) in line and "\n" not in line for line in decoded.skipped)


def test_a_picture_with_two_labels_is_named(tmp_path: Path) -> None:
    root = drawn_pictures.folders(tmp_path / "signs", 6)
    assert two_labels(root) is None
    (root / "stop" / "twin.jpg").write_bytes((root / "stop" / "003.jpg").read_bytes())
    assert two_labels(root) is None, "the same picture twice with one label"
    (root / "not_stop" / "twin.jpg").write_bytes((root / "stop" / "003.jpg").read_bytes())
    line = two_labels(root)
    assert line is not None
    assert line.startswith("pictures with two labels: 1 (")
    assert "not_stop/twin.jpg is 'not_stop'" in line
    assert ".jpg is 'stop'" in line


def two_labels(root: Path) -> str | None:
    task = msgspec.structs.replace(TASK, data=(Data(extra=True),))
    samples, _ = gather(task, root, seed=1)
    return pool.two_labels(task, pool.decode(task, samples, Reports()))


def test_a_class_with_too_few_pictures_is_refused(tmp_path: Path) -> None:
    root = indexed(tmp_path / "set", [("a.png", "stop", "train", "g1"), ("b.png", "not_stop", "train", "g2")])
    samples, _ = gather(TASK, root, seed=1)
    with pytest.raises(ConfigurationError, match="'not_stop' has 1 distinct"):
        pool.check_classes(TASK, samples)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(path="missing"), "no data at"),
        (Data(where={"has_sign": "1"}), "no column 'has_sign' to select by; it has label"),
        (Data(where={"label": "yield"}), "no picture has label=yield"),
    ],
)
def test_missing_data_is_one_line(folders: Path, data: Data, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        gather(msgspec.structs.replace(TASK, data=(data,)), folders, seed=1)


def test_a_folder_whose_name_is_no_label_is_refused(folders: Path) -> None:
    other = msgspec.structs.replace(TASK, labels=("stop", "yield"))
    with pytest.raises(ConfigurationError, match="'not_stop' is not one of the task's: stop, yield"):
        gather(other, folders, seed=1)


def test_drawn_pictures_train_but_never_choose(folders: Path) -> None:
    task = msgspec.structs.replace(TASK, drawn=Drawn(with_sign="stop", without_sign="not_stop", streets=6, pasted=4))
    plain, _ = gather(task, folders, seed=1)
    samples = copies.with_drawn(task, plain, seed=1)
    drawn = [s for s in samples if s.kind != "photo"]
    assert [s.kind for s in drawn].count("street") == 6
    assert [s.kind for s in drawn].count("pasted") == 4
    assert not any(s.chooses for s in drawn)
    by_name = {s.item.name: s for s in plain}
    for s in drawn:
        if s.kind == "pasted":
            assert (s.target, by_name[s.item.name].target) == (1, 0)
            assert s.item.group == by_name[s.item.name].item.group


def test_processes_draw_the_same_copies_as_threads(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, photos, *_ = pool.decode(TASK, gather(TASK, folders, seed=1)[0][:3], Reports())
    by_threads = copies.digest(copies.draw(TASK, samples, photos, 1, range(3)))
    monkeypatch.setattr(copies, "WORTH_PROCESSES", 1)
    assert copies.digest(copies.draw(TASK, samples, photos, 1, range(3))) == by_threads


def test_pictures_that_are_not_held_are_read_again(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = gather(TASK, folders, seed=1)[0][:4]
    held = pool.decode(TASK, chosen, Reports()).photos
    monkeypatch.setattr(pool, "IN_MEMORY", held[0].frame.nbytes)
    samples, photos, *_ = pool.decode(TASK, chosen, Reports())
    assert photos[0].frame is photos[0].frame, "the first one is held"
    assert photos[1].frame is not photos[1].frame
    for a, b in zip(photos.some([3, 0]), held.some([3, 0]), strict=True):
        np.testing.assert_array_equal(a.frame, b.frame)
    expected = copies.digest(copies.draw(TASK, samples, held, 1, [0, 1]))
    assert copies.digest(copies.draw(TASK, samples, photos, 1, [0, 1])) == expected


def test_with_one_fold_only_val_is_validated_on(tmp_path: Path) -> None:
    rows = [("a.png", "stop", "train", "g1"), ("b.png", "not_stop", "train", "g2"), ("c.png", "stop", "val", "g3")]
    task = msgspec.structs.replace(TASK, recipe=Recipe(folds=1))
    samples, _ = gather(task, indexed(tmp_path / "set", rows), seed=1)
    assert [s.chooses for s in samples] == [False, False, True]
    with pytest.raises(ConfigurationError, match="'not_stop' has 0 distinct pictures in val, at least 1 are needed"):
        pool.check_classes(task, samples)
    splits = training.split(samples, np.array([1, 0, 1]), 1, seed=1)
    (part,) = splits.parts
    assert (splits.targets.tolist(), part.validated.tolist(), part.trained.tolist()) == ([1], [0], [0, 1])


@pytest.mark.parametrize(
    ("trained", "label"),
    [
        ([], "not_stop"),
        ([("c.png", "stop", "train", "g3")], "not_stop"),
        ([("c.png", "not_stop", "train", "g3")], "stop"),
        ([("c.png", "not_stop", "extra", "g3"), ("d.png", "stop", "train", "g2")], "stop"),  # a group of val
        ([("c.png", "not_stop", "extra", "g3"), ("d.png", "stop", "train", "g4")], None),
    ],
)
def test_with_one_fold_every_label_is_trained_on(
    tmp_path: Path, trained: list[tuple[str, str, str, str]], label: str | None
) -> None:
    rows = [("a.png", "not_stop", "val", "g1"), ("b.png", "stop", "val", "g2"), *trained]
    task = msgspec.structs.replace(TASK, recipe=Recipe(folds=1))
    samples, _ = gather(task, indexed(tmp_path / "set", rows), seed=1)
    if label is None:
        pool.check_classes(task, samples)
    else:
        with pytest.raises(ConfigurationError, match=f"label '{label}' has pictures in val, but none to train on: add"):
            pool.check_classes(task, samples)


def test_with_one_fold_drawn_pictures_are_trained_on(tmp_path: Path) -> None:
    rows = [("a.png", "stop", "val", "g1"), ("b.png", "not_stop", "val", "g2"), ("c.png", "not_stop", "train", "g3")]
    drawn = Drawn(with_sign="stop", without_sign="not_stop", streets=4, pasted=0)
    task = msgspec.structs.replace(TASK, recipe=Recipe(folds=1), drawn=drawn)
    samples, _ = gather(task, indexed(tmp_path / "set", rows), seed=1)
    with pytest.raises(ConfigurationError, match="'stop' has pictures in val, but none to train on"):
        pool.check_classes(task, samples)
    pool.check_classes(task, copies.with_drawn(task, samples, seed=1))


def test_photographs_are_kept_at_twice_the_side_of_what_is_altered(tmp_path: Path) -> None:
    data = cv2.imencode(".png", np.random.default_rng(1).integers(0, 256, (600, 700, 3), np.uint8))[1].tobytes()
    sample = Sample(Item(tmp_path / "a.png", "a.png", "stop", "train", "", {}), 1, "photo", False)

    def kept(side: int) -> tuple[int, ...]:
        return copies.keep(msgspec.structs.replace(TASK, augment=Augment(side=side)), sample, data).frame.shape

    assert Augment().side == 288
    assert kept(288) == (600, 700, 3)
    assert kept(64) == (150, 175, 3)
    assert kept(16) == (33, 38, 3)


def test_copies_are_the_picture_then_altered_and_the_same_for_a_seed(folders: Path) -> None:
    samples, _ = gather(TASK, folders, seed=1)
    samples, photos, *_ = pool.decode(TASK, samples[:3], Reports())

    def made(seed: int, numbers: list[int]) -> list[Pixels]:
        return list(copies.draw(TASK, samples, photos, seed, numbers))

    first = made(1, [0, 1, 2])
    assert [t.shape for t in first] == [(3, 224, 224, 3)] * 3
    for a, b in zip(first, made(1, [0, 1, 2]), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(first, made(2, [0, 1]), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        assert (a[1] != b[1]).any()
    # A copy does not depend on which others are made, or on its neighbours.
    np.testing.assert_array_equal(first[1][2], next(iter(copies.draw(TASK, samples[1:2], photos[1:2], 1, [2])))[0])


def test_a_group_on_both_sides_of_a_split_is_refused(tmp_path: Path) -> None:
    root = indexed(tmp_path / "set", [("a.png", "stop", "train", "g1"), ("b.png", "stop", "test", "g1")])
    with pytest.raises(ConfigurationError, match="'g1' is on both sides"):
        gather(TASK, root, seed=1)


def test_an_empty_group_is_a_picture_alone(tmp_path: Path) -> None:
    root = indexed(tmp_path / "set", [("a.png", "stop", "train", ""), ("b.png", "stop", "test", "")])
    assert len(gather(TASK, root, seed=1)[1]) == 2


def test_pictures_behind_a_link_are_pictures(tmp_path: Path) -> None:
    root = indexed(tmp_path / "set", [("a.png", "stop", "train", "g1"), ("b.png", "not_stop", "train", "g2")])
    (root / "a.png").rename(tmp_path / "elsewhere.png")
    (root / "a.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "link").symlink_to(root)
    samples, everything = gather(TASK, tmp_path / "link", seed=1)
    decoded = pool.decode(TASK, samples, Reports())
    assert len(decoded.samples) == 2
    pool.write_index(tmp_path / "index.csv", everything, decoded.digests)
    row = f"a.png,stop,train,g1,link,{hashlib.sha256((root / 'a.png').read_bytes()).hexdigest()}"
    assert row in (tmp_path / "index.csv").read_text().splitlines()


def test_the_digest_is_that_of_the_picture_that_was_decoded(tmp_path: Path) -> None:
    """Whatever becomes of the file while the network is trained; that of a broken file too."""
    root = indexed(tmp_path / "set", [("a.png", "stop", "train", "g1"), ("b.png", "not_stop", "train", "g2")])
    (root / "b.png").write_bytes(b"no picture")
    before = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in ("a.png", "b.png")}
    samples, everything = gather(TASK, root, seed=1)
    decoded = pool.decode(TASK, samples, Reports())
    cv2.imwrite(str(root / "a.png"), np.full((40, 50, 3), 200, np.uint8))
    (root / "b.png").unlink()
    pool.write_index(tmp_path / "index.csv", everything, decoded.digests)
    with (tmp_path / "index.csv").open(newline="") as file:
        assert {row["path"]: row["sha256"] for row in csv.DictReader(file)} == before


def test_signs_are_drawn_into_tiny_pictures_too(tmp_path: Path) -> None:
    root = tmp_path / "set"
    indexed(root, [(f"{i}.png", ("stop", "not_stop")[i % 2], "train", f"g{i}") for i in range(4)])
    for file in root.glob("*.png"):
        cv2.imwrite(str(file), np.full((9, 12, 3), 90, np.uint8))
    task = msgspec.structs.replace(TASK, drawn=Drawn(with_sign="stop", without_sign="not_stop", pasted=2))
    samples = copies.with_drawn(task, gather(task, root, seed=1)[0], seed=1)
    samples, photos, *_ = pool.decode(task, samples, Reports())
    tensors = list(copies.draw(task, samples, photos, 1, [0, 1]))
    assert [t.shape for t in tensors] == [(2, 224, 224, 3)] * 6
