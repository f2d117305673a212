"""`bittern data import`: every layout becomes a data set, byte for byte or as crops; what is left out is listed."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bittern_train.data import sets
from tests.doubles.command import BITTERN, bittern, one_line
from tests.doubles.repetitions import examples
from tests.doubles.waiting import until

from bittern.errors import BitternError, ConfigurationError
from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item
from bittern_train.data import formats, importing
from bittern_train.data.importing import Imported, Options
from bittern_train.data.tree import open_tree

PLAIN = Options()


def run(source: Path, out: Path, options: Options = PLAIN, **words: object) -> tuple[str, Imported]:
    add = bool(words.pop("add", False))
    tree = open_tree(source, out)
    try:
        contents = formats.read(tree, **words)  # type: ignore[arg-type]
        return contents.format, importing.copy(tree, contents, out, options, lambda done: None, add=add)
    finally:
        tree.close()


def rows(items: list[Item]) -> list[tuple[str, str | None, str, str]]:
    return [(i.name, i.label, i.split, i.group) for i in items]


def reasons(done: Imported) -> dict[str, str]:
    return {left_out.name: left_out.reason for left_out in done.left_out}


def test_a_folder_for_each_label(tmp_path: Path) -> None:
    source = sets.write(tmp_path / "source", sets.FOLDERS)
    kind, done = run(source, tmp_path / "set")
    assert kind == "folders"
    assert rows(done.items) == [
        ("pets/Cat/1.png", "Cat", "", ""),
        ("pets/Cat/deep/er/2.PNG", "Cat", "", ""),
        ("pets/hünd/3.png", "hünd", "", ""),
    ]
    assert dataset.read(tmp_path / "set") == done.items
    assert all(item.path.read_bytes() == sets.FOLDERS[item.name] for item in done.items)
    assert reasons(done) == {"pets/notes.md": ".md file"}
    assert not any(left_out.failed for left_out in done.left_out)
    assert {f.name for f in (tmp_path / "set").iterdir()} == {"pets", "index.csv", ".index.csv.lock"}
    labels = {
        kind: [i.label for i in run(source, tmp_path / kind, label_from=kind)[1].items] for kind in ("last", "path")
    }
    assert labels == {"last": ["Cat", "er", "hünd"], "path": ["Cat", "Cat/deep/er", "hünd"]}


def test_splits_above_the_labels(tmp_path: Path) -> None:
    names = {"d/train/cat/1.png": 1, "d/valid/cat/1.png": 2, "d/Test/dog/1.png": 3}
    source = sets.write(tmp_path / "source", {name: sets.encoded(seed) for name, seed in names.items()})
    _, done = run(source, tmp_path / "set")
    assert [(i.label, i.split) for i in done.items] == [("dog", "test"), ("cat", "train"), ("cat", "val")]
    _, done = run(source, tmp_path / "extra", Options(split="extra"))
    assert {i.split for i in done.items} == {"extra"}


def test_pictures_without_labels(tmp_path: Path) -> None:
    source = sets.write(
        tmp_path / "source", {"1.png": sets.encoded(1), "without-a-suffix": sets.encoded(2), "README": "x"}
    )
    _, done = run(source, tmp_path / "set")
    assert rows(done.items) == [("1.png", "", "", ""), ("without-a-suffix.png", "", "", "")]
    assert reasons(done) == {"README": "not a picture"}
    assert rows(run(source, tmp_path / "named", Options(label="gate"))[1].items)[0][1] == "gate"


def test_a_label_is_the_same_label_on_every_system(tmp_path: Path) -> None:
    """macOS stores "ü" in names as two characters."""
    composed, apart = (unicodedata.normalize(form, "hünd") for form in ("NFC", "NFD"))
    source = sets.write(tmp_path / "source", {f"{composed}/1.png": sets.encoded(1), f"{apart}/2.png": sets.encoded(2)})
    assert {item.label for item in run(source, tmp_path / "set")[1].items} == {composed}


TABLES = {
    "labels.csv": "image,species,by\nin/a.png,cat,me\nb,dog,you\ngone.png,cat,me\n",
    "bom.csv": "\ufefffilename;class;by\r\nin/a.png;cat;me\r\nb.png;dog;you\r\ngone.png;cat;me\r\n",
    "tabs.tsv": "by\tpath\tlabel\nme\t./in/a.png\tcat\nyou\t..\\x\\b.png\tdog\n\t\t\nme\tgone.png\tcat\n",
    "rows.json": json.dumps(
        [
            {"path": p, "label": label, "by": by}
            for p, label, by in (("in/a.png", "cat", "me"), ("in/b.png", "dog", "you"), ("gone.png", "cat", "me"))
        ]
    ),
    "lines.jsonl": '{"path": "a.png", "label": "cat", "by": "me"}\n{"path": "b.png", "label": "dog", "by": "you"}\n'
    '{"path": "gone.png", "label": "cat", "by": "me"}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table(tmp_path: Path, name: str) -> None:
    pictures = {"in/a.png": sets.encoded(1), "in/b.png": sets.encoded(2), "in/c.png": sets.encoded(3)}
    source = sets.write(tmp_path / "source", {**pictures, name: TABLES[name]})
    kind, done = run(source, tmp_path / "set")
    assert kind == "table"
    assert [(*row[:2], i.columns["by"]) for row, i in zip(rows(done.items), done.items, strict=True)] == [
        ("in/a.png", "cat", "me"),
        ("in/b.png", "dog", "you"),
    ]
    assert reasons(done) == {"gone.png": f"named in {name}, but not there", "in/c.png": "is not annotated"}
    assert [left_out.name for left_out in done.left_out if left_out.failed] == ["gone.png"]


def test_other_tables(tmp_path: Path) -> None:
    pictures = {"a.png": sets.encoded(1), "b.png": sets.encoded(2)}
    source = sets.write(tmp_path / "1", {**pictures, "x.json": '{"a.png": "cat", "b.png": 3}'})
    assert [i.label for i in run(source, tmp_path / "1set")[1].items] == ["cat", "3"]
    source = sets.write(tmp_path / "2", {**pictures, "x.csv": "a.png,cat\nb.png,dog\n"})
    assert [i.label for i in run(source, tmp_path / "2set")[1].items] == ["cat", "dog"]
    source = sets.write(
        tmp_path / "3", {**pictures, "x.csv": "path,label\na.png,cat\na.png,dog\nb.png,dog\nb.png,dog\n"}
    )
    done = run(source, tmp_path / "3set")[1]
    assert rows(done.items) == [("b.png", "dog", "", "")]
    assert reasons(done) == {"a.png": "two labels in x.csv: 'cat' and 'dog'"}
    boxes = (
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,80,60,stop,20,10,40,30\na.png,80,60,car,50,30,62,40\n"
    )
    source = sets.write(tmp_path / "4", {**pictures, "x.csv": boxes})
    assert [(i.name, i.label) for i in run(source, tmp_path / "4set")[1].items] == [
        ("a-1.png", "stop"),
        ("a-2.png", "car"),
    ]


def test_a_table_on_its_own(tmp_path: Path) -> None:
    """Its folder may hold other tables, and the data set."""
    source = sets.write(
        tmp_path,
        {"in/a.png": sets.encoded(1), "one.csv": "path,label\na.png,cat\n", "two.csv": "path,label\na.png,dog\n"},
    )
    done = bittern("data", "import", source / "two.csv", "--out", source / "set", "--json")
    assert (done.code, done.err) == (0, "")
    (result,) = done.lines
    assert (result["format"], result["labels"], result["left_out"]) == ("table", {"dog": 1}, [])


RED = (0, 0, 255)


def red(item: Item) -> float:
    """Share of the pixels that are red."""
    picture = cv2.imread(str(item.path))
    assert picture is not None
    return float((np.abs(picture.astype(int) - RED).max(2) < 40).mean())


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("coco", [("stop", "val"), ('car, "old" \U0001f697', "val")]),
        ("yolo", [("stop", "train"), ("give way", "train")]),
        ("voc", [("stop", "")]),
        ("gtsrb", [("3", ""), ("14", ""), ("14", "")]),
        ("edge-impulse", [("stop", "test"), ("stop", "train")]),
        ("frigate", [("person", "")]),
    ],
)
def test_boxes_become_crops(tmp_path: Path, name: str, labels: list[tuple[str, str]]) -> None:
    files = getattr(sets, name.replace("-", "_"))()
    source = sets.zipped(tmp_path / "source.zip", files)
    kind, done = run(source, tmp_path / "set", Options(margin=0))
    assert kind == name
    assert [(i.label, i.split) for i in done.items] == labels
    cropped = [item for item in done.items if "box" in item.columns]
    assert {item.columns["box"] for item in cropped} <= {"20 10 40 30", "50 29 62 41", "62 42 74 54"}
    squares = [item for item in cropped if item.columns["box"] == "20 10 40 30"]
    assert squares
    assert all(red(item) == 1 for item in squares)
    assert all(item.group for item in cropped)
    # With a margin of half of the box on each side, a quarter is red.
    _, done = run(source, tmp_path / "wide", Options(margin=0.5))
    wide = [item for item in done.items if item.columns.get("box", "").startswith("10 0 50 40")]
    assert len(wide) == len(squares)
    assert all(red(item) == pytest.approx(0.25, abs=0.01) for item in wide)
    _, done = run(source, tmp_path / "whole", Options(whole=True))
    assert {item.path.read_bytes() for item in done.items} <= set(files.values())


def test_what_boxes_leave_out(tmp_path: Path) -> None:
    done = run(sets.write(tmp_path / "coco", sets.coco()), tmp_path / "1")[1]
    assert reasons(done) == {
        "gone.png": "named in annotations/instances_val2017.json, but not there",
        "images/b.png": "no box",
        "images/c.png": "its boxes are for 60 x 80 pixels, it has 80 x 60",
        "images/d.png": "is not annotated",
    }
    assert {o.name for o in done.left_out if o.failed} == {"gone.png", "images/c.png"}
    done = run(sets.write(tmp_path / "yolo", sets.yolo()), tmp_path / "2", Options(label="none"))[1]
    assert ("valid/images/b.png", "none", "val", "") in rows(done.items)
    assert reasons(done) == {"valid/images/c.png": "is not annotated"}
    done = run(sets.write(tmp_path / "voc", sets.voc()), tmp_path / "3")[1]
    assert {name: reason[:12] for name, reason in reasons(done).items()} == {
        "Annotations/bomb.xml": "has a docume",
        "Annotations/broken.xml": "broken annot",
    }
    _, done = run(tmp_path / "coco", tmp_path / "4", Options(whole=True))
    assert done.several == 1
    assert rows(done.items)[0][:2] == ("images/a.png", "stop")


def test_tracks_are_groups(tmp_path: Path) -> None:
    done = run(sets.write(tmp_path / "source", sets.gtsrb()), tmp_path / "set", Options(whole=True))[1]
    assert [(i.label, i.group) for i in done.items] == [("3", "3/00000"), ("14", "14/00000"), ("14", "14/00000")]


def test_frigates_clean_copy_is_taken(tmp_path: Path) -> None:
    files = sets.frigate()
    done = run(sets.write(tmp_path / "source", files), tmp_path / "set", Options(whole=True))[1]
    (item,) = done.items
    assert item.name.endswith("-clean.png")
    assert (item.group, item.columns["camera"]) == ("1700000000.123456-abcdef", "gate")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [stop, 'give, way']  # two\nnc: 2\n", {"0": "stop", "1": "give, way"}),
        ("nc: 2\nnames:\n- stop\n- give way\n", {"0": "stop", "1": "give way"}),
        ('names:\n  0: stop\n  7: "give way"\ntrain: x\n', {"0": "stop", "7": "give way"}),
        ("names: {0: stop, 1: give}\n", {"0": "stop", "1": "give"}),
        ("train: x\n", {}),
    ],
)
def test_names_of_a_data_yaml(names: str, expected: dict[str, str]) -> None:
    assert formats._yaml_names(names) == expected


EDGE = st.floats(-50, 150)


@given(EDGE, EDGE, st.floats(1, 150), st.floats(1, 150), st.integers(1, 120), st.integers(1, 120), st.floats(0, 2))
def test_a_crop_is_in_the_picture(
    left: float, top: float, box_width: float, box_height: float, width: int, height: int, margin: float
) -> None:
    x0, y0, x1, y1 = importing.crop_of((left, top, left + box_width, top + box_height), width, height, margin)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    side = max(box_width, box_height) * (1 + 2 * margin)
    if side < min(width, height) - 1:
        assert x1 - x0 == y1 - y0 == max(1, round(side))
        # All of a box that is inside of the picture is in its crop.
        if left >= 0 and left + box_width <= width:
            assert x0 <= left + 1
            assert x1 >= left + box_width - 1


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archives_are_read_in_place(tmp_path: Path, kind: str) -> None:
    files = {**sets.FOLDERS, "__MACOSX/._1.png": "x", "pets/.hidden.png": "x", "pets\\Cat\\4.png": sets.encoded(4)}
    source = tmp_path / f"pets.{kind}"
    if kind == "zip":
        sets.zipped(source, files)
    else:
        sets.tarred(source, files, f"w:{kind.partition('.')[2]}")
    done = run(source, tmp_path / "set")[1]
    assert [i.name for i in done.items] == [
        "pets/Cat/1.png",
        "pets/Cat/4.png",
        "pets/Cat/deep/er/2.PNG",
        "pets/hünd/3.png",
    ]
    assert {f.name for f in tmp_path.iterdir()} == {source.name, "set"}


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a/../../b.png", "..\\b.png", "C:\\b.png"])
def test_archives_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    for source in (
        sets.zipped(tmp_path / "a.zip", {"cat/1.png": sets.encoded(), name: b"x"}),
        sets.tarred(tmp_path / "a.tar", {"cat/1.png": sets.encoded(), name: b"x"}, "w"),
    ):
        one_line(
            bittern("data", "import", source, "--out", tmp_path / "set"), 2, "leads outside of the archive: refused"
        )
        assert not (tmp_path / "set").exists()


def test_bombs_are_refused(tmp_path: Path) -> None:
    """By what they state, before anything is expanded."""
    file = sets.zipped(tmp_path / "bomb.zip", {f"cat/{i}.bmp": bytes(5_000_000) for i in range(4)})
    data = bytearray(file.read_bytes())
    entry = data.index(b"PK\x01\x02")
    while entry >= 0:
        data[entry + 24 : entry + 28] = struct.pack("<I", 2**31)
        entry = data.find(b"PK\x01\x02", entry + 4)
    file.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"bomb.zip: grows to more than .* refused"):
        open_tree(file)
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("cat/1.bmp")
        member.size = 2**40
        archive.fileobj.write(member.tobuf())
    with pytest.raises(ConfigurationError, match="grows to more than"):
        open_tree(tmp_path / "bomb.tar.gz")


def test_links_and_devices_in_archives(tmp_path: Path) -> None:
    file = sets.tarred(tmp_path / "a.tar", {"cat/1.png": sets.encoded()}, "w")
    with tarfile.open(file, "a") as archive:
        for name, kind in (("cat/2.png", tarfile.SYMTYPE), ("cat/3.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    done = run(file, tmp_path / "set")[1]
    assert reasons(done) == dict.fromkeys(("cat/2.png", "cat/3.png"), "link or device in the archive")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("cat/1.png", sets.encoded())
        link = zipfile.ZipInfo("cat/2.png")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    assert reasons(run(tmp_path / "a.zip", tmp_path / "set2")[1]) == {"cat/2.png": "link in the archive"}


def test_links_in_circles(tmp_path: Path) -> None:
    source = sets.write(tmp_path / "source", {"cat/1.png": sets.encoded(1), "dog/1.png": sets.encoded(2)})
    (source / "cat" / "up").symlink_to(source)
    (source / "dog" / "self").symlink_to("self")
    (source / "dog" / "linked.png").symlink_to(source / "cat" / "1.png")
    os.mkfifo(source / "dog" / "pipe.png")
    done = run(source, tmp_path / "set")[1]
    assert [i.name for i in done.items] == ["cat/1.png", "dog/1.png", "dog/linked.png"]
    assert not any(item.path.is_symlink() for item in done.items)
    assert reasons(done) == {
        "cat/up": "link to a folder that is there already",
        "dog/pipe.png": "no regular file",
        "dog/self": "cannot be read (Too many levels of symbolic links)",
    }


def test_broken_pictures_are_listed(tmp_path: Path) -> None:
    whole = sets.encoded(1, ".jpg")
    source = sets.write(
        tmp_path / "source",
        {"cat/1.jpg": whole, "cat/cut.jpg": whole[: len(whole) // 2], "cat/empty.jpg": b"", "cat/text.png": "hello"},
    )
    done = bittern("data", "import", source, "--out", tmp_path / "set")
    assert done.code == 1
    assert done.out.splitlines()[:2] == [f"{tmp_path}/set: 1 pictures (folders)", "  cat  1"]
    assert "left out: 1: the file is empty (cat/empty.jpg)" in done.out
    assert "left out: 1: broken picture, the file is truncated (cat/cut.jpg)" in done.out
    assert "not a picture that can be read" in done.out
    (source / "cat" / "1.jpg").unlink()
    one_line(bittern("data", "import", source, "--out", tmp_path / "none"), 1, "none of 3 pictures could be imported")
    assert not (tmp_path / "none").exists()


def test_names_that_an_index_cannot_hold(tmp_path: Path) -> None:
    source = sets.write(tmp_path / "source", {"cat/a\nb.png": sets.encoded(1), f"cat/{'x' * 250}.png": sets.encoded(2)})
    (source / "cat" / os.fsdecode(b"\xff.png")).write_bytes(sets.encoded(3))
    done = run(source, tmp_path / "set")[1]
    assert [i.name for i in done.items] == ["cat/_.png", "cat/a_b.png", f"cat/{'x' * 196}.png"]
    assert dataset.read(tmp_path / "set") == done.items


def test_adding_to_a_data_set(tmp_path: Path) -> None:
    first = sets.write(tmp_path / "first", {"cat/1.png": sets.encoded(1)})
    second = sets.write(tmp_path / "second", {"cat/1.png": sets.encoded(2), "dog/1.png": sets.encoded(3)})
    assert bittern("data", "import", first, "--out", tmp_path / "set").code == 0
    one_line(bittern("data", "import", second, "--out", tmp_path / "set"), 2, "or add to it (--add)")
    done = bittern("data", "import", second, "--out", tmp_path / "set", "--add")
    assert (done.code, done.out.splitlines()[0]) == (0, f"{tmp_path}/set: 2 pictures (folders), 3 with those before")
    items = dataset.read(tmp_path / "set")
    assert [(i.name, i.columns["source"]) for i in items] == [
        ("cat/1.png", "first"),
        ("cat/1-2.png", "second"),
        ("dog/1.png", "second"),
    ]
    assert [i.path.read_bytes() for i in items] == [sets.encoded(seed) for seed in (1, 2, 3)]
    done = bittern("data", "import", first, "--out", tmp_path / "set", "--add")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"{tmp_path}/set: nothing new (folders): all pictures that can be read are in it already, 3 in all",
        "left out: 1: is in the data set already (cat/1.png)",
    ]
    assert index.versions(tmp_path / "set" / "index.csv") == [1], "it was not written again"
    (first / "cat" / "2.png").write_bytes(b"broken")
    done = bittern("data", "import", first, "--out", tmp_path / "set", "--add")
    assert done.code == 1
    assert "cat/2.png" in done.out
    assert bittern("data", "undo", tmp_path / "set").code == 0
    assert [i.name for i in dataset.read(tmp_path / "set")] == ["cat/1.png"]
    # The files of what was undone are there: they are used again.
    assert bittern("data", "import", second, "--out", tmp_path / "set", "--add").code == 0
    assert len(list((tmp_path / "set").rglob("*.png"))) == 3


def test_where_a_data_set_cannot_be(tmp_path: Path) -> None:
    source = sets.write(tmp_path / "source", {"cat/1.png": sets.encoded(1)})
    words = ("data", "import", source, "--out")
    one_line(bittern(*words, source), 2, "choose another folder")
    one_line(bittern(*words, tmp_path), 2, "choose another folder")
    one_line(bittern(*words, source / "cat" / "1.png"), 2, "expected a folder, got a file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    one_line(bittern(*words, tmp_path / "other"), 2, "is not empty, and has no index.csv")
    one_line(bittern("data", "import", tmp_path / "absent", "--out", tmp_path / "set"), 2, "no such folder or file")
    one_line(bittern("data", "import", tmp_path / "other", "--out", tmp_path / "set"), 2, "no pictures found")
    one_line(bittern(*words, tmp_path / "set", "--format", "coco"), 2, "nothing of the format 'coco'")
    # Inside of the source is well: what is in it does not belong to the source.
    assert bittern(*words, source / "set").code == 0
    done = bittern(*words, source / "set", "--add")
    assert (done.code, done.out.splitlines()[1]) == (0, "left out: 1: is in the data set already (cat/1.png)")
    assert [i.name for i in dataset.read(source / "set")] == ["cat/1.png"]


def test_boxes_of_several_coco_files_are_joined(tmp_path: Path) -> None:
    files = sets.coco()
    first = json.loads(str(files["annotations/instances_val2017.json"]))
    other = first | {"annotations": first["annotations"][:1], "categories": first["categories"][:1]}
    files["annotations/person_keypoints_val2017.json"] = json.dumps(other)
    alone = run(sets.write(tmp_path / "one", sets.coco()), tmp_path / "set1")[1]
    both = run(sets.write(tmp_path / "two", files), tmp_path / "set2")[1]
    assert sorted(i.label or "" for i in both.items) == sorted(i.label or "" for i in alone.items)


def test_a_split_is_said_by_the_folder_not_by_the_picture(tmp_path: Path) -> None:
    box = "<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    files: dict[str, bytes | str] = {}
    for i, name in enumerate(("test (1)", "dev-board")):
        files[f"train/{name}.png"] = sets.encoded(i)
        files[f"train/{name}.xml"] = f"<annotation><object><name>stop</name>{box}</object></annotation>"
    done = run(sets.write(tmp_path / "in", files), tmp_path / "set")[1]
    assert [item.split for item in done.items] == ["train", "train"]


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    big = cv2.imencode(".png", np.random.default_rng(1).integers(0, 256, (1500, 1500, 3), np.uint8))[1].tobytes()
    source = sets.write(tmp_path / "source", {f"cat/{i}.png": big for i in range(40)})
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [BITTERN, "data", "import", str(source), "--out", str(tmp_path / "set")], stderr=subprocess.PIPE
        )
        until(lambda: any(tmp_path.glob("set/.import-*/cat/*")))
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130, error
        assert not (tmp_path / "set").exists()


def test_a_killed_import_is_cleared_by_the_next(tmp_path: Path) -> None:
    source = sets.write(tmp_path / "source", {"cat/1.png": sets.encoded(1)})
    sets.write(tmp_path / "set", {".import-killed/cat/1.png": sets.encoded(1)[:50]})
    done = run(source, tmp_path / "set")[1]
    assert [i.path.read_bytes() for i in done.items] == [sets.encoded(1)]
    assert not (tmp_path / "set" / ".import-killed").exists()


@pytest.mark.fuzz
@pytest.mark.parametrize("name", ["coco", "yolo", "voc", "gtsrb", "edge_impulse", "frigate", "tables"])
def test_mutated_annotations_are_read_or_refused(tmp_path: Path, name: str) -> None:
    tables: dict[str, bytes | str] = {"in/a.png": sets.encoded(), "in/b.png": sets.encoded(), **TABLES}
    files: dict[str, bytes | str] = tables if name == "tables" else getattr(sets, name)()
    sets.write(tmp_path, {k: v for k, v in files.items() if k.endswith((".png", ".jpg", ".ppm"))})
    annotations = {k: v.encode() for k, v in files.items() if isinstance(v, str)}
    rng = random.Random(5)
    words = [
        b"",
        b"\0",
        b"\xff",
        b'"',
        b"null",
        b"[]",
        b"{}",
        b"1e999",
        b"NaN",
        b"-1",
        b"../",
        b"<",
        b"[" * 5000,
        b",;\t\r\n",
    ]
    refusals: list[str] = []
    n = examples(600)
    for _ in range(n):
        for file, whole in annotations.items():
            data = bytearray(whole)
            for _ in range(rng.randint(0, 3)):
                start = rng.randrange(len(data) + 1)
                data[start : start + rng.choice((0, 1, 1, 5, 40))] = rng.choice(words)
            sets.write(tmp_path, {file: bytes(data)})
        tree = open_tree(tmp_path)
        try:
            contents = formats.read(tree)
        except BitternError as error:
            refusals.append(str(error))
            continue
        assert contents.pictures or contents.left_out
        for picture in contents.pictures:
            assert picture.name in tree.sizes
            for box in picture.boxes or ():
                importing.crop_of(box[1:], 80, 60, 0.1)
    assert len(refusals) < n
    assert not any("\n" in line for line in refusals)


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_mutated_archives_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    source = tmp_path / f"a.{kind}"
    if kind == "zip":
        sets.zipped(source, sets.FOLDERS)
    else:
        sets.tarred(source, sets.FOLDERS, f"w:{kind.partition('.')[2]}")
    whole = source.read_bytes()
    rng = random.Random(6)
    refusals: list[str] = []
    for _ in range(examples(1000)):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(data))
            data[start : start + rng.choice((0, 1, 4))] = rng.randbytes(rng.choice((0, 1, 4)))
        source.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.1 else data)
        try:
            tree = open_tree(source)
        except BitternError as error:
            refusals.append(str(error))
            continue
        for name in tree.in_order(tree.sizes):
            try:
                tree.read(name, 1 << 20)
            except OSError as error:
                refusals.append(str(error))
        tree.close()
    assert refusals
    assert not any("\n" in line for line in refusals)
