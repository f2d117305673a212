"""Indexes and folders of pictures; a broken index is refused in one line with its place."""

from __future__ import annotations

import csv
import hashlib
import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item

HEADER = "path,label,split,group\n"


def index(folder: Path, text: str | bytes) -> Path:
    file = folder / "index.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


CELL = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8).filter(lambda s: s.strip() == s)
FILE = st.lists(CELL.filter(lambda s: "/" not in s and s not in (".", "..")), min_size=1, max_size=3).map("/".join)
ROWS = st.lists(st.tuples(FILE, CELL, CELL, CELL, st.text("ab,\"'\n ", max_size=5)), min_size=1, max_size=6)


@given(ROWS.filter(lambda rows: len({row[0] for row in rows}) == len(rows)), st.permutations(range(5)))
def test_an_index_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], order: list[int]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    names = ("path", "label", "split", "group", "note")
    text = io.StringIO()
    writer = csv.writer(text)
    for row in (names, *rows):
        writer.writerow([row[i] for i in order])
    index(folder, text.getvalue())
    expected = [Item(folder / p, p, label, s, g, {"note": note}) for p, label, s, g, note in rows]
    assert dataset.read(folder) == expected
    assert dataset.read(folder / "index.csv") == expected


def test_root_and_missing_labels(tmp_path: Path) -> None:
    (item,) = dataset.read(index(tmp_path, "path,split,group\na/b.jpg,test,g1\n"), Path("/pictures"))
    assert item == Item(Path("/pictures/a/b.jpg"), "a/b.jpg", None, "test", "g1", {})


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    """As spreadsheets write it."""
    (item,) = dataset.read(index(tmp_path, b"\xef\xbb\xbf" + HEADER.encode() + b"a.jpg,x,test,g\r\n"))
    assert (item.name, item.label) == ("a.jpg", "x")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_index_that_a_spreadsheet_saved(tmp_path: Path, delimiter: str, end: str) -> None:
    rows = ["path,label,,", "a.jpg,käfer,,", '"b.jpg","""no, stop; \U0001f6d1\t""",,', ",,,"]
    text = end.join(row.replace(",", delimiter) for row in rows) + end
    items = dataset.read(index(tmp_path, text.encode("utf-8-sig")))
    assert [(i.name, i.label, i.split, i.group, i.columns) for i in items] == [
        ("a.jpg", "käfer", "", "", {}),
        ("b.jpg", f'"no{delimiter} stop; \U0001f6d1\t"', "", "", {}),
    ]


def test_links_of_the_user_are_followed(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/link").symlink_to(tmp_path)
    (item,) = dataset.read(index(tmp_path / "set", HEADER + "link/a.jpg,x,test,g\n"))
    assert item.path == tmp_path / "set/link/a.jpg"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column path; expected path,label,split,group"),
        ("\n\n", "no column path"),
        (HEADER, "the index has no pictures"),
        ("file,label\na.jpg,x\n", "no column path"),
        ("PATH,label,split,group\na.jpg,x,test,g\n", "no column path"),
        ("path,label,Split,group\na.jpg,x,test,g\n", "index.csv:1: column 'Split': did you mean 'split'?"),
        ("path,label,split,groups\na.jpg,x,test,g\n", "index.csv:1: column 'groups': did you mean 'group'?"),
        ("path,label,label\na.jpg,x,y\n", "index.csv:1: two columns are called 'label'"),
        ("path,label,\na.jpg,x,\nb.jpg,x,y\n", "index.csv:3: a value in a column that has no name"),
        (HEADER + '"a\nb.jpg",x,test,g\nc.jpg,x\n', "index.csv:4: expected 4 values"),
        (HEADER + "a.jpg,x,test\n", "index.csv:2: expected 4 values"),
        (HEADER + "a.jpg,x,test,g\nb.jpg,x,test,g,more\n", "index.csv:3: expected 4 values"),
        (HEADER + "../a.jpg,x,test,g\n", "index.csv:2: path '../a.jpg' is empty or leads outside"),
        (HEADER + "a/../../b.jpg,x,test,g\n", "leads outside"),
        (HEADER + "/etc/passwd,x,test,g\n", "leads outside"),
        (HEADER + ",x,test,g\n", "is empty or leads outside"),
        (HEADER + ".,x,test,g\n", "index.csv:2: "),
        (HEADER + "a.jpg,x,test,g\nb.jpg,y,test,g\na.jpg,x,test,g\n", "index.csv:4: "),
        (HEADER + "a\0.jpg,x,test,g\n", "index.csv"),
        (HEADER + 'a.jpg,x,test,g\n"b.jpg,x,test,g\n', "index.csv:3: cannot read the index"),
        (HEADER + '"a"b.jpg,x,test,g\n', "index.csv:2: cannot read the index"),
        (HEADER + "a" * 200_000 + ",x,test,g\n", "index.csv:2: cannot read the index"),
        (HEADER.encode() + b"a,x,test,g\n\xff\xfe.jpg,x,test,g\n", "index.csv:3: cannot read the index"),
        (HEADER.encode("utf-16"), "cannot read the index"),
    ],
    ids=lambda v: repr(v[:60]),
)
def test_a_broken_index_is_one_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    file = index(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        dataset.read(file)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert says in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.fuzz
def test_mutated_indexes_are_read_or_refused(tmp_path: Path) -> None:
    whole = (HEADER + "".join(f"stop/{i}.jpg,stop,test,g{i}\n" for i in range(4))).encode()
    rng = random.Random(8)
    messages = []
    n = examples(10_000)
    for _ in range(n):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            offset = rng.randrange(len(data))
            data[offset : offset + rng.randint(0, 2)] = bytes(rng.choices(b",\"'\n\r\0\xff./ ab", k=rng.randint(0, 3)))
        try:
            items = dataset.read(index(tmp_path, bytes(data)))
        except ConfigurationError as error:
            messages.append(str(error))
        else:
            assert all(item.path.resolve().is_relative_to(tmp_path.resolve()) for item in items)
    assert n * 0.05 < len(messages) < n * 0.95
    assert not any("\n" in line for line in messages)


def test_folders(tmp_path: Path) -> None:
    for name in ("stop/b.png", "stop/a.JPG", "stop/deep/c.webp", "go/d.bmp", ".cache/e.png", "notes.txt", "f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    items = dataset.read(tmp_path)
    assert [(i.label, i.name, i.split, i.group) for i in items] == [
        ("go", "go/d.bmp", "", "go/d.bmp"),
        ("stop", "stop/a.JPG", "", "stop/a.JPG"),
        ("stop", "stop/b.png", "", "stop/b.png"),
        ("stop", "stop/deep/c.webp", "", "stop/deep/c.webp"),
    ]
    assert all(item.path == tmp_path / item.name for item in items)


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no data at"):
        dataset.read(tmp_path / "absent")
    (tmp_path / "stop").mkdir()
    (tmp_path / "loose.png").touch()
    with pytest.raises(ConfigurationError, match="no pictures found"):
        dataset.read(tmp_path)


def test_the_digest_is_over_what_matters() -> None:
    item = Item(Path("/x/a.jpg"), "a.jpg", "stop", "test", "g", {"source": "s"})
    assert dataset.digest([item]) == hashlib.sha256(b"a.jpg,stop,test,g\n").hexdigest()
    assert dataset.digest([item._replace(path=Path("/y/a.jpg"), columns={})]) == dataset.digest([item])
    for other in ({"name": "b.jpg"}, {"label": None}, {"split": "val"}, {"group": "h"}):
        assert dataset.digest([item._replace(**other)]) != dataset.digest([item])
    assert dataset.digest([item, item]) != dataset.digest([item])


@given(n=st.integers(0, 60), most=st.integers(0, 70), seed=st.integers(0, 9))
def test_a_sample_keeps_the_order_and_no_more_than_asked_for(n: int, most: int, seed: int) -> None:
    items = [Item(Path(f"{i}"), f"{i}", None, "", "", {}) for i in range(n)]
    chosen = dataset.sample(items, most, seed)
    assert len(chosen) == min(n, most)
    assert [items.index(item) for item in chosen] == sorted(items.index(item) for item in chosen)
    assert chosen == dataset.sample(items, most, seed)
