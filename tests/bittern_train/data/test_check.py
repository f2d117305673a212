"""`bittern data check`: each fault is found, in good pictures none is, and the page shows them."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.bittern_train.data.test_dedupe import drawn
from tests.doubles.browser import browser, needs_chromium, opened, serious
from tests.doubles.command import one_line
from tests.doubles.data_command import data as command
from tests.doubles.picture_files import exif, jpeg_with_exif

from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern_train.data import measure, probe

# Too few for the probes, which take their time and are tested by themselves.
EACH = 8


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels, 8 pictures each, in train and test: nothing is wrong with them."""
    root = tmp_path_factory.mktemp("checked") / "set"
    root.mkdir()
    items = []
    for i in range(2 * EACH):
        name = f"{i:02d}.png"
        cv2.imwrite(str(root / name), drawn(i))
        items.append(Item(root / name, name, "ab"[i // EACH], "test" if i % 4 == 0 else "train", "", {}))
    index.write(root / "index.csv", items)
    return root


@pytest.fixture
def data(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "set"))


def found(data: Path, *options: str | Path, code: int = 0) -> dict[str, list[str]]:
    """Kinds of the findings, each with the names of its pictures; that of shortcuts is left out, as by chance."""
    done = command("check", data, "--json", *options)
    assert done.code == code, done.err
    (report,) = done.lines
    return {f["kind"]: [p["path"] for p in f["pictures"]] for f in report["findings"] if f["kind"] != "shortcut"}


def relabel(data: Path, **columns: dict[str, Any]) -> None:
    index.write(data / "index.csv", [i._replace(**columns.get(i.name[:2], {})) for i in dataset.read(data)], keep=False)


def test_nothing_is_found_in_good_pictures(data: Path) -> None:
    before = {f.name: f.read_bytes() for f in data.iterdir()}
    assert found(data) == {}
    assert {f.name: f.read_bytes() for f in data.iterdir()} == before


def rewritten(file: Path, alter: Callable[[Pixels], Pixels]) -> None:
    picture = cv2.imread(str(file))
    assert picture is not None
    cv2.imwrite(str(file), alter(np.asarray(picture, np.uint8)))


def blurred(picture: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 6), np.uint8)


ALTERED: dict[str, Callable[[Pixels], Pixels]] = {
    "tiny": lambda p: p[100:180, 100:200],
    "blurred": blurred,
    "dark": lambda p: p // 6,
    "plain": lambda p: np.full_like(p, 150),
    "turned": lambda p: np.ascontiguousarray(np.rot90(p)),
    "odd": lambda p: p[:130],
}


def test_what_may_be_wrong_with_a_picture(data: Path) -> None:
    names = [f"{5 + n:02d}.png" for n in range(len(ALTERED))]
    for name, alter in zip(names, ALTERED.values(), strict=True):
        rewritten(data / name, alter)
    for i in range(20):  # so that 5 % are few
        cv2.imwrite(str(data / f"more{i}.png"), drawn(100 + i))
    more = [Item(data, f"more{i}.png", "a", "extra", "", {}) for i in range(20)]
    index.write(data / "index.csv", [*dataset.read(data), *more], keep=False)
    findings = found(data)
    assert findings.pop("turned", []) == [], "of too many sizes"
    assert findings == {kind: [name] for kind, name in zip(ALTERED, names, strict=True) if kind != "turned"}


def test_turned_beside_others_of_its_camera(data: Path) -> None:
    rewritten(data / "05.png", ALTERED["turned"])
    more = []
    for i in range(8):
        cv2.imwrite(str(data / f"more{i}.png"), drawn(100 + i))
        more.append(Item(data, f"more{i}.png", "a", "extra", "", {}))
    index.write(data / "index.csv", [*dataset.read(data), *more], keep=False)
    assert found(data) == {"turned": ["05.png"]}


def test_odd_kinds(data: Path) -> None:
    (data / "03.png").write_bytes(cv2.imencode(".jpg", drawn(3))[1].tobytes())
    (data / "04.png").write_bytes(jpeg_with_exif(drawn(4), exif(6)))
    done = command("check", data)
    assert "  03.png: called .png, but JPEG\n" in done.out
    assert "  04.png: turned by EXIF (orientation 6)" in done.out


def test_labels_and_splits(data: Path) -> None:
    relabel(data, **{"01": {"label": "A "}, "02": {"label": ""}, "08": {"split": "val"}})
    done = command("check", data)
    assert done.code == 0, "nothing is broken"
    assert "'A ' (1), 'a' (6) differ only in how they are written" in done.out
    assert "no_label: 1 picture: no label\n  02.png" in done.out
    assert "imbalance: 'b' has 8 pictures, 'A ' only 1" in done.out
    assert "split 'test' has no picture of 'A '" in done.out
    assert "split 'val' has no picture of 'A ', 'a'" in done.out
    assert command("check", data, "--strict").code == 1


def test_one_picture_twice(data: Path) -> None:
    """Under two labels; and on two sides of a split, re-encoded."""
    shutil.copyfile(data / "01.png", data / "09.png")
    cv2.imwrite(str(data / "12.png"), cv2.resize(drawn(13), (300, 225), interpolation=cv2.INTER_AREA))
    findings = found(data)
    assert findings == {"two_labels": ["01.png", "09.png"], "crosses_splits": ["12.png", "13.png"]}


def test_what_cannot_be_read(data: Path) -> None:
    (data / "05.png").write_bytes(b"")
    (data / "06.png").write_bytes((data / "06.png").read_bytes()[:5000])
    (data / "07.png").unlink()
    (data / "07.png").mkdir()
    done = command("check", data)
    assert done.code == 1
    assert "unreadable: 3 pictures: cannot be read" in done.out
    assert f"bittern: {data}/05.png: the file is empty\n" in done.err
    assert "06.png: broken picture, the file is truncated" in done.err
    assert "07.png: Is a directory" in done.err


def test_a_shortcut_is_found(tmp_path: Path) -> None:
    """Pictures of one label are wider: nobody should learn that."""
    for label, width in (("a", 300), ("b", 320)):
        (tmp_path / label).mkdir()
        for i in range(12):
            cv2.imwrite(str(tmp_path / label / f"{i}.jpg"), drawn(i + width)[:240, :width])
    done = command("check", tmp_path, "--json")
    (report,) = done.lines
    (size,) = [s for s in report["shortcuts"] if s["what"] == "size"]
    assert size["auc"] == 1
    assert size["auc_ci95"] is None, "a bootstrap cannot tell"
    assert "size: AUC 1.00: this alone tells the labels apart" in [f["text"] for f in report["findings"]]
    assert not (tmp_path / "index.csv").exists()


def test_no_shortcut_in_chance() -> None:
    rng = np.random.default_rng(0)
    labels = ["a", "b"] * 100
    folds = probe.choose(labels, [str(i // 4) for i in range(200)])
    assert folds is not None
    shortcut = probe._shortcut("nothing", folds.scores(probe._Trees, rng.normal(size=(200, 3))), folds)
    assert shortcut.interval is not None
    assert shortcut.interval[0] < 0.55


def test_groups_stay_together_in_a_probe() -> None:
    """20 bursts of one scene: to know a scene is not to know its label."""
    rng = np.random.default_rng(0)
    scenes = rng.normal(size=(40, 5))
    features = scenes.repeat(6, 0) + rng.normal(scale=0.01, size=(240, 5))
    labels = [str(i % 2) for i in range(40) for _ in range(6)]
    grouped = probe.choose(labels, [str(i // 6) for i in range(240)])
    alone = probe.choose(labels, [str(i) for i in range(240)])
    assert grouped is not None
    assert alone is not None
    assert probe._shortcut("scene", alone.scores(probe._Trees, features), alone).auc > 0.95
    assert probe._shortcut("scene", grouped.scores(probe._Trees, features), grouped).auc < 0.75


def test_trees_leave_the_warning_filters_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They belong to the whole process, and several threads grow trees."""

    def touched(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(warnings, "resetwarnings", touched)
    features, labels = np.random.default_rng(1).normal(size=(60, 3)), np.arange(60) % 2
    assert probe._Trees().fit(features, labels).predict_proba(features).shape == (60, 2)


def test_gradients_say_in_which_direction() -> None:
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    across, down = probe.gradients(np.stack([ramp, ramp.T]))
    assert across.reshape(16, 8).argmax(1).tolist() == [0] * 16
    assert down.reshape(16, 8).argmax(1).tolist() == [2] * 16


def test_a_set_of_one_picture(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    cv2.imwrite(str(tmp_path / "a" / "x.png"), drawn(1))
    done = command("check", tmp_path)
    assert done.code == 0
    assert "not checked: shortcuts and doubtful labels" in done.out
    one_line(command("check", tmp_path / "absent"), 2, "no data at")


@needs_chromium
def test_the_page(data: Path, tmp_path: Path) -> None:
    rewritten(data / "05.png", blurred)
    shutil.copyfile(data / "00.png", data / '20 <b>"x"&.png')
    extra = Item(data, '20 <b>"x"&.png', "<script>alert(1)</script>", "train", "", {})
    index.write(data / "index.csv", [*dataset.read(data), extra], keep=False)
    page_file = tmp_path / "check.html"
    assert command("check", data, "--html", page_file).code == 0
    text = page_file.read_text("utf-8")
    assert "http" not in text.replace("http-equiv", "")
    with browser() as chromium:
        for options in ({"color_scheme": "light"}, {"color_scheme": "dark", "viewport": {"width": 360, "height": 640}}):
            with opened(chromium, page_file.as_uri(), **options) as page:
                assert page.locator("h1").inner_text() == f"Check of {data}"
                assert page.locator("#blurred li").count() == 1
                assert "05.png" in page.locator("#blurred li").inner_text()
                assert page.locator("#two_labels img").evaluate_all("i => i.every(x => x.naturalWidth > 50)")
                assert "<script>alert(1)</script>" in page.locator("#two_labels").inner_text()
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                assert serious(page) == []


def test_json_is_one_object(data: Path) -> None:
    report = json.loads(command("check", data, "--json").out)
    assert {*report} == {"data", "pictures", "labels", "splits", "findings", "shortcuts", "not_checked"}
    assert report["labels"] == {"a": EACH, "b": EACH}


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_picture_is_measured_as_what_it_is(tmp_path: Path, orientation: int) -> None:
    """Decoded at a half of its size, which nobody notices."""
    large = cv2.resize(drawn(1), (1280, 960), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "x.jpg").write_bytes(jpeg_with_exif(np.asarray(large, np.uint8), exif(orientation)))
    cv2.imwrite(str(tmp_path / "x.png"), large)
    jpeg, png = measure.measure(tmp_path / "x.jpg"), measure.measure(tmp_path / "x.png")
    assert (jpeg.width, jpeg.height) == ((1280, 960) if orientation == 1 else (960, 1280))
    assert jpeg.orientation == orientation
    if orientation == 1:
        assert jpeg.sharpness == pytest.approx(png.sharpness, rel=0.15)
        assert np.abs(jpeg.grey.astype(int) - png.grey).max() < 12
        assert np.count_nonzero(jpeg.likeness.hashes[0] != png.likeness.hashes[0]) <= 4
