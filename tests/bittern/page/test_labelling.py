"""Decisions about pictures: on the disk at once, in the index soon, taken back, taken up after a kill."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset, index
from bittern.page import corrections, labelling, likeness
from bittern.page.label_api import LabelInterface, Thumbnail
from bittern.page.labelling import Decided, Labelling
from bittern.page.workers import WorkerPool
from bittern.system import fileio

STOP = Decided("labelled", "stop")
PNG = bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, none with a label."""
    for name in ("a", "b", "c", "d", "sub/e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(PNG)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def names(folder: Path) -> dict[str, str | None]:
    return {item.name: item.label for item in dataset.read(folder)}


def test_only_pictures_with_a_label_are_in_the_index(folder: Path) -> None:
    with labelling.opened(folder, with_folders=False) as session:
        assert [item.name for item in session.items] == ["a.png", "b.png", "c.png", "d.png", "sub/e.png"]
        assert session.decide("tab", [(0, 0), (4, 0)], STOP) == []
        session.decide("tab", [(1, 0)], Decided("rejected"))
        session.decide("tab", [(2, 0)], Decided("skipped"))
    assert names(folder) == {"a.png": "stop", "sub/e.png": "stop"}
    assert [item.name for item in dataset.read(folder / labelling.REJECTED)] == ["b.png"]
    with labelling.opened(folder) as session:
        assert [one.state for one in session.decided] == ["labelled", "rejected", "skipped", "", "labelled"]
        assert session.labels() == {"stop": 2}
    assert sorted(path.name for path in folder.glob("*.png")) == ["a.png", "b.png", "c.png", "d.png"]


def test_names_of_folders_are_labels_where_there_is_no_index(folder: Path) -> None:
    with labelling.opened(folder) as session:
        assert session.decided[4] == Decided("labelled", "sub")
        session.decide("tab", [(0, 0)], STOP)
    assert names(folder) == {"a.png": "stop", "sub/e.png": "sub"}


def test_an_index_keeps_its_columns_and_its_older_self(folder: Path) -> None:
    (folder / "index.csv").write_text("path,label,split,group,source\na.png,go,train,g1,web\nb.png,,val,g2,web\n")
    with labelling.opened(folder) as session:
        session.decide("tab", [(0, 0)], STOP)
        session.save()
        session.decide("tab", [(1, 0)], STOP)
    rows = dataset.read(folder)
    assert [(row.name, row.label, row.split, row.group, row.columns) for row in rows] == [
        ("a.png", "stop", "train", "g1", {"source": "web"}),
        ("b.png", "stop", "val", "g2", {"source": "web"}),
    ]
    index.undo(folder / "index.csv")  # one session is one change
    assert names(folder) == {"a.png": "go", "b.png": ""}


def test_a_row_without_a_label_stays_a_row(folder: Path) -> None:
    (folder / "index.csv").write_text("path,label,split,group\na.png,go,test,g1\nb.png,,val,g2\n")
    with labelling.opened(folder) as session:
        session.decide("tab", [(2, 0)], STOP)
    assert [(row.name, row.label, row.split) for row in dataset.read(folder)] == [
        ("a.png", "go", "test"),
        ("b.png", "", "val"),
        ("c.png", "stop", ""),
    ]


def test_a_killed_session_is_taken_up(folder: Path) -> None:
    def killed() -> None:
        session = Labelling(folder / "index.csv", folder, *labelling._read(folder / "index.csv", folder, False))
        session.decide("tab", [(0, 0)], STOP)
        session.decide("tab", [(1, 0), (2, 0)], Decided("rejected"))
        session._stream.write(b'[["d.png","labelled","st')  # cut off by a power cut
        session._stream.close()

    killed()
    assert not (folder / "index.csv").exists()
    with labelling.opened(folder, with_folders=False) as session:
        assert [one.state for one in session.decided] == ["labelled", "rejected", "rejected", "", ""]
    assert names(folder) == {"a.png": "stop"}


def test_two_tabs_do_not_fight(folder: Path) -> None:
    with labelling.opened(folder, with_folders=False) as session:
        session.decide("one", [(0, 0), (1, 0)], STOP)
        assert session.decide("two", [(0, 0), (2, 0)], Decided("rejected")) == [0], "it has not seen the label"
        assert session.decided[0] == STOP
        assert session.decided[2] == Decided("rejected")
        session.decide("two", [(1, session.numbers[1])], Decided("labelled", "go"))
        assert session.undo("one") == [0], "the other one has been decided again by somebody else"
        assert [one.label for one in session.decided[:2]] == ["", "go"]
        assert session.undo("one") == []
        assert session.undo("two") == [1]
        assert session.undo("two") == [2]
        assert session.decided[:3] == [Decided(), STOP, Decided()]


def test_two_sessions_on_one_index_are_refused(folder: Path) -> None:
    with (
        labelling.opened(folder),
        pytest.raises(ConfigurationError, match="another command"),
        labelling.opened(folder),
    ):
        pass


def test_a_part_of_a_picture_is_a_file_of_its_own(folder: Path) -> None:
    with labelling.opened(folder, with_folders=False) as session:
        box = (1, 2, 5, 6)
        file = session.region_file(0, box)
        file.parent.mkdir()
        file.write_bytes(PNG)
        session.decide("tab", [(0, 0)], Decided("labelled", "stop", box))
    (row,) = dataset.read(folder)
    assert row.path.read_bytes() == PNG
    assert row.name == "regions/a.png.1-2-5-6.png"
    assert (row.group, row.columns) == ("a.png", {"original": "a.png", "box": "1 2 5 6"})
    with labelling.opened(folder) as session:
        assert [item.name for item in session.items][:2] == ["a.png", "b.png"]
        assert session.decided[0] == Decided("labelled", "stop", box)
        session.decide("tab", [(0, 0)], STOP)  # the whole picture after all
    assert names(folder) == {"a.png": "stop"}


def test_when_nothing_has_a_label_any_more_the_old_index_is_kept(folder: Path) -> None:
    (folder / "index.csv").write_text("path,label,split,group\na.png,go,,a\n")
    with labelling.opened(folder) as session:
        session.decide("tab", [(0, 0)], Decided("rejected"))
    assert not (folder / "index.csv").exists()
    assert index.undo(folder / "index.csv") == 1
    assert names(folder) == {"a.png": "go"}


def test_skipping_leaves_a_label(folder: Path) -> None:
    with labelling.opened(folder, with_folders=False) as session:
        session.decide("tab", [(0, 0)], STOP)
        session.decide("tab", [(0, session.numbers[0])], Decided("skipped"))
        assert session.decided[0] == STOP


def test_names_that_no_index_can_hold_are_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / os.fsdecode(b"odd\xff.png")).write_bytes(PNG)
    with labelling.opened(folder) as session:
        assert len(session.items) == 5
        session.decide("tab", [(0, 0)], STOP)
        session.decide("tab", [(1, 0)], Decided("rejected"))
    caplog.clear()
    with labelling.opened(folder):  # its own files are nothing that is left out
        pass
    (record,) = caplog.records
    assert "left out: 1 .txt; 1 pictures whose names are not Unicode" in record.getMessage()


def test_corrections_of_the_page_can_be_labelled(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(PNG)
    corrections.add(tmp_path / "set", {"1.png": tmp_path / "1.png"}, "go", {"source": "page"})
    with labelling.opened(tmp_path / "set") as session:
        assert session.decided == [Decided("labelled", "go")]
        session.decide("tab", [(0, 0)], STOP)
    (row,) = dataset.read(tmp_path / "set")
    assert (row.name, row.label, row.columns) == ("pictures/1.png", "stop", {"source": "page"})


@pytest.mark.parametrize("what", ["nothing", "empty", "broken"])
def test_what_cannot_be_labelled(folder: Path, what: str) -> None:
    place = folder / what
    if what != "nothing":
        place.mkdir()
    if what == "broken":
        (place / "index.csv").write_text("label\nx\n")
    with pytest.raises(ConfigurationError), labelling.opened(place):
        pass


DECISIONS = st.sampled_from([STOP, Decided("labelled", 'a "b", c'), Decided("rejected"), Decided("skipped"), Decided()])
STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.sets(st.integers(0, 4), min_size=1), DECISIONS | st.none()))


@given(STEPS, st.booleans())
def test_what_is_read_again_is_what_was_decided(steps: list[tuple[str, set[int], Decided | None]], save: bool) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        for name in "abcde":
            (folder / f"{name}.png").write_bytes(PNG)
        with labelling.opened(folder) as session:
            for tab, positions, decision in steps:
                if decision is None:
                    session.undo(tab)
                else:
                    versions = [(position, session.numbers[position]) for position in sorted(positions)]
                    assert session.decide(tab, versions, decision) == []
                if save:
                    session.save()
            expected = list(session.decided)
            assert {change.position for change in session.since(0)} >= {
                i for i, one in enumerate(expected) if one.state
            }
        with labelling.opened(folder) as session:
            assert session.decided == expected
    finally:
        shutil.rmtree(folder)


def test_bursts_lie_together_in_the_order_of_likeness() -> None:
    rng = np.random.default_rng(3)
    scenes = rng.integers(0, 256, (150, 24, 32, 3))
    frames = np.clip(scenes[:, None] + rng.integers(-6, 7, (150, 8, 24, 32, 3)), 0, 255).astype(np.uint8)
    shuffled = rng.permutation(1200)
    features = b"".join(likeness.features(frames[i // 8, i % 8]) for i in shuffled)
    order = likeness.order(features)
    assert sorted(order) == list(range(1200))
    scene = [int(shuffled[i]) // 8 for i in order]
    runs = 1 + sum(one != other for one, other in itertools.pairwise(scene))
    assert runs <= 152, "a burst is in one piece"


def test_an_order_of_few_or_equal_pictures() -> None:
    assert likeness.order(b"") == []
    assert likeness.order(bytes(likeness.FEATURES)) == [0]
    assert sorted(likeness.order(bytes(likeness.FEATURES * 1000))) == list(range(1000))


def test_a_region_that_is_taken_back_has_its_file(folder: Path) -> None:
    cv2.imwrite(str(folder / "a.png"), np.zeros((60, 60, 3), np.uint8))
    box = (0, 0, 30, 30)
    with labelling.opened(folder, with_folders=False) as session:
        fileio.write(session.region_file(0, box), PNG)
        session.decide("tab", [(0, 0)], Decided("labelled", "stop", box))
        session.save()
        session.decide("tab", [(0, 1)], STOP)
        session.save()
        session.undo("tab")
    (row,) = dataset.read(folder)
    assert row.name.startswith("regions/")
    assert row.path.is_file()


def test_a_corrected_picture_stays_in_its_split_and_group(tmp_path: Path) -> None:
    file = tmp_path / "picture"
    file.write_bytes(PNG)
    corrections.add(tmp_path, {"a.png": file}, "stop", {})
    (row,) = dataset.read(tmp_path)
    index.write(tmp_path / "index.csv", [row._replace(split="test", group="g1")])
    corrections.add(tmp_path, {"a.png": file}, "go", {})
    (row,) = dataset.read(tmp_path)
    assert (row.label, row.split, row.group) == ("go", "test", "g1")
    corrections.add(tmp_path, {"b.png": file}, "stop", {})
    corrections.remove(tmp_path, ["a.png"])
    index.undo(tmp_path / "index.csv")
    assert all(item.path.is_file() for item in dataset.read(tmp_path))


def test_pictures_that_are_corrected_together_are_one_change(tmp_path: Path) -> None:
    """One that is gone keeps nobody from correcting the others."""
    files = {f"{i}.png": tmp_path / f"{i}.png" for i in range(5)}
    for file in list(files.values())[:4]:
        file.write_bytes(PNG)
    folder = tmp_path / "set"
    assert corrections.add(folder, {"9.png": tmp_path / "9.png"}, "go", {}) == ["9.png"]
    assert not folder.exists()
    assert corrections.add(folder, files, "go", {"source": "page"}) == ["4.png"]
    assert corrections.add(folder, {name: files[name] for name in ("1.png", "3.png")}, "stop", {}) == []
    labels = [(item.name, item.label) for item in dataset.read(folder)]
    assert labels == [(f"pictures/{i}.png", "stop" if i in (1, 3) else "go") for i in range(4)]
    corrections.remove(folder, ["0.png", "1.png"])
    assert [item.name for item in dataset.read(folder)] == ["pictures/2.png", "pictures/3.png"]
    assert index.versions(folder / "index.csv") == [1, 2], "three changes, and the first had nothing before it"


def test_an_index_is_read_and_written_without_opencv() -> None:
    code = "import sys, bittern.page.corrections, bittern.page.review; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_cache_of_thumbnails_counts_what_it_holds(folder: Path) -> None:
    """Two tabs may ask for the same one at the same time, and both have it made."""
    with labelling.opened(folder, with_folders=False) as session:
        routes = LabelInterface(session, WorkerPool({}), WorkerPool({}), ())
        for _ in range(2):
            routes._remember((0, 192), Thumbnail(640, 480, bytes(1000)))
        assert routes._cached == 1000
        routes._remember((1, 192), Thumbnail(640, 480, bytes(64 * 2**20)))
        assert sum(len(one.jpeg) for one in routes._cache.values()) == routes._cached
