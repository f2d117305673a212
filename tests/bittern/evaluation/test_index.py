"""An index is written whole, read back as it was, kept for `undo`, and changed by one command at a time."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.errors import BitternError, ConfigurationError
from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)


def item(name: str, label: str | None = "x", split: str = "", group: str = "", **columns: str) -> Item:
    return Item(Path(name), name, label, split, group, columns)


def names(file: Path) -> list[str]:
    return [i.name for i in dataset.read(file)]


@given(st.lists(st.tuples(NAME, TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=5, unique_by=lambda row: row[0]))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str, str, str]]
) -> None:
    """Whatever a label holds: commas, quotes, line breaks, emoji, semicolons, nothing."""
    file = tmp_path_factory.getbasetemp() / "written.csv"
    items = [Item(file.parent / n, n, label, split, group, {"note": note}) for n, label, split, group, note in rows]
    index.write(file, items, keep=False)
    assert dataset.read(file) == items


def test_columns(tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    index.write(file, [item("a.jpg", None, author="me"), item("b.jpg", None, "test", "g", source="web")])
    assert file.read_text() == "path,split,group,author,source\na.jpg,,,me,\nb.jpg,test,g,,web\n"
    index.write(file, [item("a.jpg", None), item("b.jpg", "stop")])
    assert file.read_text() == "path,label,split,group\na.jpg,,,\nb.jpg,stop,,\n"


def test_old_ones_are_kept_and_come_back(tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    for count in range(1, 13):
        index.write(file, [item(f"{i}.jpg") for i in range(count)])
        index.write(file, [item(f"{i}.jpg") for i in range(count)])  # no change
    index.write(file, [item("further.jpg")], keep=False)
    assert index.versions(file) == list(range(1, 12))
    assert len(names(tmp_path / "index.csv.11")) == 11
    assert index.undo(file) == 11
    assert names(tmp_path / "index.csv.undone") == ["further.jpg"]
    assert (len(names(file)), index.versions(file)) == (11, list(range(1, 11)))
    for number in range(10, 0, -1):
        assert index.undo(file) == number
    assert names(file) == ["0.jpg"]
    with pytest.raises(ConfigurationError, match="nothing to undo"):
        index.undo(file)


def test_undo_mends_an_index_that_is_broken_or_gone(tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    for spoil in (lambda: file.write_bytes(b"\xff"), file.unlink):
        index.write(file, [item("a.jpg")])
        index.write(file, [item("b.jpg")])
        spoil()
        index.undo(file)
        assert names(file) == ["a.jpg"]
        file.unlink()


def test_a_change_that_was_interrupted_is_not_undone_twice(tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    index.write(file, [item("a.jpg")])
    index.write(file, [item("b.jpg")])
    (tmp_path / "index.csv.2").write_bytes(file.read_bytes())  # kept, and then the power went
    index.undo(file)
    assert (names(file), index.versions(file)) == (["a.jpg"], [])


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file = tmp_path / "index.csv"
    file.symlink_to(tmp_path / "real" / "other.csv")
    index.write(file, [item("a.jpg")])
    index.write(file, [item("b.jpg")])
    assert file.is_symlink()
    assert names(tmp_path / "real" / "other.csv") == ["b.jpg"]
    assert index.undo(file) == 1
    assert names(file) == ["a.jpg"]


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([], "no picture left"),
        ([item("../a.jpg")], "'../a.jpg' is empty or leads outside"),
        ([item("a.jpg"), item("a.jpg")], "'a.jpg' would appear twice"),
        ([item("a.jpg"), item(os.fsdecode(b"\xff.jpg"))], "row 3 holds a name that is not Unicode"),
        ([item("a.jpg", "x" * 200_000)], "'a.jpg': a text of 200000 characters is too long"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, items: list[Item], says: str) -> None:
    file = tmp_path / "index.csv"
    index.write(file, [item("a.jpg")])
    before = file.read_bytes()
    with pytest.raises(ConfigurationError, match=says):
        index.write(file, items)
    assert file.read_bytes() == before
    assert index.versions(file) == []


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """The old index stays, whole, and nothing half-written beside it."""
    file = tmp_path / "index.csv"
    index.write(file, [item("a.jpg")])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        with pytest.raises(BitternError, match="cannot write the index"):
            index.write(file, [item(f"{i:0100d}.jpg") for i in range(500)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert names(file) == ["a.jpg"]
    assert {f.name for f in tmp_path.iterdir()} <= {"index.csv", "index.csv.1"}
    # Kept, but nothing was changed: there is nothing to take back.
    with pytest.raises(ConfigurationError, match="nothing to undo"):
        index.undo(file)


def test_one_command_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    with index.locked(file):
        code = (
            "import sys; from pathlib import Path; from bittern.errors import BitternError\n"
            "from bittern.evaluation import index\n"
            "try:\n    with index.locked(Path(sys.argv[1])): print('mine')\n"
            "except BitternError as error: print(error, error.exit_code)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
        expected = f"{file}: another command (process {os.getpid()}) is changing this index: wait until it has ended 2"
        assert done.stdout.strip() == expected
    with index.locked(file):
        pass
    with pytest.raises(ConfigurationError, match="no such folder"), index.locked(tmp_path / "absent" / "index.csv"):
        pass
