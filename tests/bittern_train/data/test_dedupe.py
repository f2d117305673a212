"""`bittern data dedupe`: near-duplicates become groups; nothing is lost."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.command import one_line
from tests.doubles.data_command import data as command
from tests.doubles.progress import Reports

from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.scene import street
from bittern_train.data import dedupe, near_duplicates


def drawn(seed: int) -> Pixels:
    """A street with things of all sizes in it, (300, 400, 3) BGR."""
    rng = np.random.default_rng(seed)
    picture = np.ascontiguousarray(street.random_picture(rng, stop=bool(seed % 2), size=(400, 300))[:, :, ::-1])
    for _ in range(60):
        corner = tuple(int(c) for c in rng.integers(0, (400, 300)))
        colour = tuple(int(c) for c in rng.integers(0, 255, 3))
        cv2.rectangle(
            picture, corner, (corner[0] + int(rng.integers(4, 60)), corner[1] + int(rng.integers(4, 60))), colour, -1
        )
    return picture


def recoded(picture: Pixels) -> Pixels:
    small = cv2.resize(picture, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR))


MADE: dict[str, Callable[[Pixels], Pixels]] = {
    "recoded": recoded,
    "mirrored": lambda p: recoded(p[:, ::-1]),
    "cropped": lambda p: recoded(p[20:240, 90:390]),
    "turned": lambda p: np.ascontiguousarray(np.rot90(p)),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 distinct pictures with labels, and of the first four one near-duplicate each."""
    root = tmp_path_factory.mktemp("originals") / "set"
    root.mkdir()
    items = []
    for i in range(12):
        cv2.imwrite(str(root / f"{i:02d}.png"), drawn(i))
        items.append(Item(root / f"{i:02d}.png", f"{i:02d}.png", "ab"[i % 2], "train", "", {"source": "drawn"}))
    for i, (name, make) in enumerate(MADE.items()):
        cv2.imwrite(str(root / f"{name}.jpg"), make(drawn(i)))
        items.append(Item(root / f"{name}.jpg", f"{name}.jpg", "ab"[i % 2], "test", "", {"source": "made"}))
    index.write(root / "index.csv", items)
    return root


@pytest.fixture
def data(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "set"))


def groups_of(data: Path) -> dict[str, str]:
    return {item.name: item.group for item in dataset.read(data)}


def change(data: Path, **changes: dict[str, Any]) -> None:
    """Change items of the index by their stem."""
    items = [i._replace(**changes.get(Path(i.name).stem, {})) for i in dataset.read(data)]
    index.write(data / "index.csv", items, keep=False)


def test_near_duplicates_are_found_and_nothing_else(data: Path, tmp_path: Path) -> None:
    done = command("dedupe", data, "--json", "--sheet", tmp_path / "sheet.png")
    assert done.code == 0, done.err
    (found,) = done.lines
    assert (found["pictures"], found["distinct"], found["dropped"], found["unreadable"]) == (16, 12, 0, 0)
    assert {tuple(group["paths"]): group["kinds"] for group in found["groups"]} == {
        ("00.png", "recoded.jpg"): ["near"],
        ("01.png", "mirrored.jpg"): ["mirrored"],
        ("02.png", "cropped.jpg"): ["part"],
        ("03.png", "turned.jpg"): ["part"],
    }
    assert found["groups"][0]["splits"] == ["test", "train"]
    groups = groups_of(data)
    assert groups["recoded.jpg"] == groups["00.png"] == "00.png"
    assert groups["05.png"] == ""
    assert {i.columns["source"] for i in dataset.read(data)} == {"drawn", "made"}
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    assert sheet.shape[1] > 900, "six in a row"
    assert command("undo", data).code == 0
    assert set(groups_of(data).values()) == {""}


def test_groups_are_joined_and_never_split(data: Path) -> None:
    change(data, **{"00": {"group": "track"}, "05": {"group": "track"}, "recoded": {"group": "other"}})
    change(data, **{"06": {"group": "other"}, "07": {"group": "01.png"}})
    assert command("dedupe", data).code == 0
    groups = groups_of(data)
    assert {groups[n] for n in ("00.png", "05.png", "recoded.jpg", "06.png")} == {"track"}
    assert groups["07.png"] == "01.png"
    assert groups["01.png"] == groups["mirrored.jpg"] != "01.png", "somebody else's group is called so"


def test_dry_run_changes_nothing(data: Path) -> None:
    before = sorted((f.name, f.read_bytes()) for f in data.iterdir())
    done = command("dedupe", data, "--dry-run")
    assert done.code == 0
    assert "16 pictures, 12 distinct: 4 sets of near-duplicates, 0 with several labels, 4 in several splits" in done.out
    after = sorted((f.name, f.read_bytes()) for f in data.iterdir() if f.name != ".index.csv.lock")
    assert after == before


def test_drop_leaves_what_is_reported_on_and_what_has_two_labels(data: Path) -> None:
    change(data, recoded={"label": "b"})
    shutil.copyfile(data / "09.png", data / "same.png")
    same = Item(data / "same.png", "same.png", "b", "train", "", {})
    index.write(data / "index.csv", [*dataset.read(data), same], keep=False)
    files = sorted(f.name for f in data.iterdir())
    done = command("dedupe", data, "--drop")
    assert done.code == 0
    assert "1 with several labels" in done.out
    assert "several labels: 00.png (a train), recoded.jpg (b test)" in done.out
    assert "not dropped, because their labels differ: 1 sets" in done.out
    names = set(groups_of(data))
    assert {"00.png", "recoded.jpg"} <= names
    assert names >= {"mirrored.jpg", "cropped.jpg", "turned.jpg"}, "of the split test"
    assert not names & {"01.png", "02.png", "03.png"}
    assert "09.png" in names
    assert "same.png" not in names
    assert {*files, "index.csv.1"} == {f.name for f in data.iterdir() if f.name != ".index.csv.lock"} | {
        f for f in files if f == ".index.csv.lock"
    }


def test_what_cannot_be_read_stays_in_the_index(data: Path) -> None:
    (data / "10.png").write_bytes(b"")
    (data / "11.png").unlink()
    done = command("dedupe", data, "--drop")
    assert done.code == 1
    assert len(done.err.splitlines()) == 2
    assert "10.png: the file is empty" in done.err
    assert "11.png: No such file" in done.err
    assert {"10.png", "11.png"} <= set(groups_of(data))


def test_a_folder_for_each_label_gets_an_index(tmp_path: Path) -> None:
    names = ['Straße, "links"', "grün 🚦"]
    for n, label in enumerate(names):
        (tmp_path / label).mkdir()
        cv2.imwrite(str(tmp_path / "x.png"), drawn(n))
        for i in range(2):
            shutil.copyfile(tmp_path / "x.png", tmp_path / label / f"{i}.png")
    done = command("dedupe", tmp_path)
    assert done.code == 0, done.err
    items = dataset.read(tmp_path / "index.csv")
    assert {i.label for i in items} == set(names)
    assert len({i.group for i in items}) == 2


def test_plain_pictures_are_not_alike(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for grey in range(0, 250, 50):
        cv2.imwrite(str(tmp_path / "a" / f"{grey}.png"), np.full((60, 80, 3), grey, np.uint8))
    cv2.imwrite(str(tmp_path / "a" / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "a" / "line.png"), np.zeros((2, 3000, 3), np.uint8))
    done = command("dedupe", tmp_path, "--json")
    assert done.lines[0]["groups"] == []


def test_bad_input_is_one_line(tmp_path: Path, data: Path) -> None:
    one_line(command("dedupe", tmp_path / "absent"), 2, "no")
    with index.locked(data / "index.csv"):
        one_line(command("dedupe", data), 2, "another command")
    (data / "index.csv").write_bytes("\ufeffpath;label;split;group\r\n00.png;a;;\r\nrecoded.jpg;a;;\r\n".encode())
    assert command("dedupe", data).code == 0, "as a spreadsheet saves it"
    assert groups_of(data) == {"00.png": "00.png", "recoded.jpg": "00.png"}


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20))
def test_groups_are_the_connected_parts(pairs: list[tuple[int, int]]) -> None:
    heads = near_duplicates.groups(12, pairs)
    for first, second in pairs:
        assert heads[first] == heads[second]
    assert all(heads[head] == head <= i for i, head in enumerate(heads))
    assert len(set(heads)) >= 12 - len(pairs)


def test_memory_holds_no_matrix_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of a few rows the same is found as in one, and no more than a block is held at a time."""
    described = [near_duplicates.describe(make(drawn(i))) for i in range(4) for make in (np.array, recoded)]
    expected = near_duplicates.find(described, Reports())
    assert [(p.first, p.second) for p in expected] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    monkeypatch.setattr(near_duplicates, "_BLOCK", 1)
    assert near_duplicates.find(described, Reports()) == expected
    count, rng = 3000, np.random.default_rng(0)
    quick = near_duplicates.describe_quickly(np.zeros((32, 32), np.uint8), np.zeros((4, 4, 3), np.uint8), small=False)
    many = [quick._replace(hashes=rng.random(quick.hashes.shape) < 0.5) for _ in range(count)]
    monkeypatch.setattr(near_duplicates, "_BLOCK", 10 * count)
    tracemalloc.start()
    try:
        assert near_duplicates.find(many, Reports()) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < count * count, "less than a byte for each pair"


def test_json_is_one_object(data: Path) -> None:
    done = command("dedupe", data, "--json", "--dry-run")
    assert json.loads(done.out)["index"] == str(data / "index.csv")
    assert dedupe.find(dataset.read(data), Reports()).distinct == 12


def test_drop_leaves_the_one_with_a_label(data: Path) -> None:
    rows = [i._replace(label="") if i.name == "mirrored.jpg" else i for i in dataset.read(data)]
    index.write(data / "index.csv", rows, keep=False)
    assert command("dedupe", data, "--drop").code == 0
    assert "01.png" in groups_of(data)
    assert "mirrored.jpg" not in groups_of(data)


def test_of_many_that_are_alike_no_more_pairs_are_named_than_connect_them() -> None:
    burst = [near_duplicates.describe(recoded(np.roll(drawn(1), shift, axis=1))) for shift in range(12)]
    others = [near_duplicates.describe(drawn(2)), near_duplicates.describe(drawn(1)[:, ::-1].copy())]
    pairs = near_duplicates.find([*burst, *others], Reports())
    assert len({pair.kind for pair in pairs}) > 1
    assert sum(pair.kind == "near" for pair in pairs) == 11
    assert near_duplicates.groups(14, [(p.first, p.second) for p in pairs]) == [*[0] * 12, 12, 0]


def test_the_quick_hash_is_near_that_of_imagehash() -> None:
    shown = [(squeezed(drawn(i)), drawn(i)[:16, :16]) for i in range(10)]
    quick = [near_duplicates.describe_quickly(*one, small=False).hashes[0] for one in shown]
    whole = [near_duplicates.describe(drawn(i)).hashes[0] for i in range(10)]
    assert max(np.count_nonzero(a != b) for a, b in zip(quick, whole, strict=True)) <= 4


def squeezed(picture: Pixels) -> Pixels:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA), np.uint8)


def sign(limit: str, seed: int) -> Pixels:
    """A traffic sign of 44 pixels in soft light, a third of which is its own."""
    lights = [np.random.default_rng(n).integers(0, 200, (3, 3, 3), np.uint8) for n in (4, seed)]
    common, own = (cv2.resize(light, (220, 220), interpolation=cv2.INTER_CUBIC) for light in lights)
    picture = cv2.addWeighted(common, 0.7, own, 0.3, 0)
    cv2.circle(picture, (110, 110), 60, (240, 240, 240), -1)
    cv2.circle(picture, (110, 110), 60, (30, 30, 200), 16)
    cv2.putText(picture, limit, (70, 130), cv2.FONT_HERSHEY_SIMPLEX, 2.0, (20, 20, 20), 8)
    return np.asarray(cv2.resize(picture, (44, 44), interpolation=cv2.INTER_AREA), np.uint8)


def test_small_pictures_of_two_kinds_are_no_duplicates() -> None:
    kinds = [sign("30", 1), sign("50", 2), sign("80", 3)]
    coded = [np.asarray(cv2.imdecode(cv2.imencode(".jpg", kind)[1], cv2.IMREAD_COLOR)) for kind in kinds]
    pairs = near_duplicates.find([near_duplicates.describe(one) for one in (*kinds, *coded)], Reports())
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 3), (1, 4), (2, 5)]
