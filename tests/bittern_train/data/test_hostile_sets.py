"""`bittern data check` and `dedupe` on what users bring: broken pictures and indexes, odd names, links in circles."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import pytest
from tests.bittern_train.data.test_dedupe import drawn
from tests.doubles.command import one_line
from tests.doubles.data_command import data as command
from tests.doubles.picture_files import mutate
from tests.doubles.repetitions import examples

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset, index


@pytest.mark.fuzz
def test_broken_pictures_are_lines(tmp_path: Path) -> None:
    rng = random.Random(1)
    whole = [bytes(cv2.imencode(suffix, drawn(n))[1]) for n, suffix in enumerate((".jpg", ".png", ".webp", ".bmp"))]
    count = examples(200)
    (tmp_path / "a").mkdir()
    for i in range(count):
        (tmp_path / "a" / f"{i}.jpg").write_bytes(mutate(rng, rng.choice(whole), whole))
    for name in ("check", "dedupe"):
        done = command(name, tmp_path, "--json")
        assert done.code in (0, 1)
        (report,) = done.lines
        assert report["pictures"] == count
        lines = [line for line in done.err.splitlines() if line.startswith("bittern: ")]
        assert (len(lines) > 0) == (done.code == 1)
    assert len(dataset.read(tmp_path)) == count, "nothing is lost"


@pytest.mark.fuzz
def test_broken_indexes_are_one_line(tmp_path: Path) -> None:
    rng = random.Random(2)
    cv2.imwrite(str(tmp_path / "x.png"), drawn(1))
    whole = b'\xef\xbb\xbfpath;label;split;group\r\nx.png;"a;\r\n\xf0\x9f\x9a\xa6";train;\r\n'
    file = tmp_path / "index.csv"
    outcomes = set()
    for _ in range(examples(200)):
        data = mutate(rng, whole, [whole, b"path,label\nx.png,,\n"])
        file.write_bytes(data)
        for number in index.versions(file):
            file.with_name(f"{file.name}.{number}").unlink()
        try:
            before = [item._replace(group="", label=item.label or "") for item in dataset.read(tmp_path)]
        except ConfigurationError:
            before = []
        done = command("dedupe", tmp_path)
        outcomes.add(done.code)
        if not before:
            one_line(done, 2, "index.csv")
            assert file.read_bytes() == data
            continue
        assert [item._replace(group="", label=item.label or "") for item in dataset.read(tmp_path)] == before
        unreadable = [item.name for item in before if not item.path.is_file()]
        assert done.code == bool(unreadable), done.err
        assert len(done.err.splitlines()) == len(unreadable)
        kept = [file.with_name(f"{file.name}.{number}").read_bytes() for number in index.versions(file)]
        assert kept == ([] if file.read_bytes() == data else [data]), "what was there can be brought back"
    assert outcomes == {0, 1, 2}, "some indexes are read, and some are not"


def test_odd_names_and_links_in_circles(tmp_path: Path) -> None:
    label = 'a, "b"\n🚦'
    (tmp_path / label).mkdir()
    for i, name in enumerate(("Ä,;.png", "line\nbreak.png", "'quote\".png")):
        cv2.imwrite(str(tmp_path / "x.png"), drawn(i))
        (tmp_path / "x.png").rename(tmp_path / label / name)
    (tmp_path / label / "circle").symlink_to(tmp_path)
    (tmp_path / label / "self.png").symlink_to("self.png")
    (tmp_path / label / "empty.png").touch()
    done = command("dedupe", tmp_path, "--sheet", tmp_path / "sheet.png")
    assert done.code == 1, "one is empty"
    assert "no sheet: nothing to show" in done.out
    done = command("check", tmp_path, "--html", tmp_path / "check.html")
    assert done.code == 1
    assert "unreadable: 1 picture: cannot be read" in done.out
    items = dataset.read(tmp_path / "index.csv")
    assert {item.label for item in items} == {label}
    assert len(items) == 4
