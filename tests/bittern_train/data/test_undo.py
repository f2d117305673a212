"""`bittern data undo`, and the group it is in."""

from __future__ import annotations

from pathlib import Path

from tests.doubles.command import bittern, one_line

from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item


def write(folder: Path, *names: str) -> None:
    index.write(folder / "index.csv", [Item(folder / n, n, "x", "", "", {}) for n in names])


def test_undo(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    write(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path, "c.jpg")
    done = bittern("data", "undo", tmp_path)
    assert (done.code, done.err) == (0, "")
    file = tmp_path / "index.csv"
    assert done.out == (
        f"{file}: restored from index.csv.2, 2 pictures; the index before is index.csv.undone; older versions left: 1\n"
    )
    assert [i.name for i in dataset.read(tmp_path / "index.csv.undone")] == ["c.jpg"]
    done = bittern("data", "undo", tmp_path / "index.csv", "--json")
    assert done.lines == [{"index": str(file), "restored": "index.csv.1", "pictures": 1, "older": 0}]
    assert [i.name for i in dataset.read(tmp_path)] == ["a.jpg"]
    one_line(bittern("data", "undo", tmp_path), 2, "nothing to undo")
    write(tmp_path, "d.jpg")
    file.unlink()
    done = bittern("data", "undo", tmp_path)
    assert done.out == f"{file}: restored from index.csv.1, 1 pictures; older versions left: 0\n"


def test_what_cannot_be_undone(tmp_path: Path) -> None:
    one_line(bittern("data", "undo", tmp_path / "absent"), 2, "no such folder")
    write(tmp_path, "a.jpg")
    write(tmp_path, "b.jpg")
    with index.locked(tmp_path / "index.csv"):
        one_line(bittern("data", "undo", tmp_path), 2, "another command", "wait until it has ended")
    assert [i.name for i in dataset.read(tmp_path)] == ["b.jpg"]


def test_a_misspelt_subcommand() -> None:
    done = bittern("data", "undoo")
    assert done.code == 2
    assert "did you mean 'undo'?" in done.err
