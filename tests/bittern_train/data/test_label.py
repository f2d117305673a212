"""`bittern data label` in a real Chromium: by keys, by grid, a box, undo, two tabs, a reload in the middle."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.doubles.browser import browser, has_count, needs_chromium, opened, serious
from tests.doubles.served import BITTERN, Site, served
from tests.doubles.tflite_files import model_folder_of_means
from tests.doubles.waiting import until

from bittern.evaluation import dataset
from bittern.model.pictures import decode


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures: each third one red, green, blue."""
    folder = tmp_path_factory.mktemp("drawn")
    for i in range(40):
        picture = np.full((60, 80, 3), 20, np.uint8)
        picture[:, :, 2 - i % 3] = 150 + 2 * i
        cv2.imwrite(str(folder / f"{i:02d}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as chromium:
        yield chromium


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "pictures"))


@pytest.fixture
def site(folder: Path, tmp_path: Path) -> Iterator[Site]:
    with served(folder, "--label", "red", "--label", "green", "--data", tmp_path, command="data label") as site:
        yield site


def at(page: Any, position: int | str) -> None:
    """Wait until a picture is shown."""
    page.locator(f"#one[data-position='{position}']").wait_for()


def labels(folder: Path) -> dict[str, str | None]:
    try:
        return {item.name: item.label for item in dataset.read(folder / "index.csv")}
    except Exception:  # not there yet
        return {}


def order(page: Any) -> list[int]:
    """The positions of the pictures in the grid, in order."""
    return [int(cell.get_attribute("data-position")) for cell in page.locator(".cell").all()]


def changes_of_colour(page: Any) -> int:
    return sum(one % 3 != other % 3 for one, other in itertools.pairwise(order(page)))


@needs_chromium
def test_by_keys_and_with_a_box(folder: Path, site: Site, chromium: Any) -> None:
    with opened(chromium, site.url) as page:
        at(page, 0)
        for position, key in enumerate(("1", "2", "x", "s", "1")):
            at(page, position)
            page.keyboard.press(key)
        at(page, 5)
        page.get_by_text("4 of 40 decided").wait_for()
        page.keyboard.press("u")
        at(page, 4)
        page.get_by_text("3 of 40 decided").wait_for()
        page.keyboard.press("ArrowLeft")
        at(page, 3)
        page.keyboard.press("a")
        at(page, 2)
        page.locator("#state", has_text="Rejected").wait_for()
        page.keyboard.press("n")
        page.keyboard.type("dark, 'blue' 😀")
        page.keyboard.press("Enter")
        page.keyboard.press("3")
        at(page, 4)  # on to the next one without a decision
        # Only the lower right quarter.
        photo = page.locator("#photo").bounding_box()
        x, y, width, height = (photo[key] for key in ("x", "y", "width", "height"))
        page.mouse.move(x + width / 2, y + height / 2)
        page.mouse.down()
        page.mouse.move(x + width + 20, y + height - 1, steps=3)
        page.mouse.up()
        page.locator("#box").wait_for()
        page.keyboard.press("1")
        at(page, 5)
        page.reload()
        at(page, 5)
        page.get_by_text("4 of 40 decided").wait_for()
        page.keyboard.press("a")
        at(page, 5)
        page.select_option("#show", "")
        at(page, 0)
        assert page.inner_text("#state") == "red"
        assert serious(page) == []
    until(lambda: len(labels(folder)) == 4)
    rows = {item.columns.get("original") or item.name: item for item in dataset.read(folder)}
    assert {name: row.label for name, row in rows.items()} == {
        "00.png": "red",
        "01.png": "green",
        "02.png": "dark, 'blue' 😀",
        "04.png": "red",
    }
    part, whole = decode(rows["04.png"].path), decode(folder / "04.png")
    assert abs(part.shape[0] - 30) <= 1
    assert abs(part.shape[1] - 40) <= 1
    assert np.array_equal(part, whole[-part.shape[0] :, -part.shape[1] :])


@needs_chromium
def test_a_picture_that_cannot_be_read_is_said_and_rejected(folder: Path, tmp_path: Path, chromium: Any) -> None:
    (folder / "00.png").write_bytes(b"no picture")
    words = (folder, "--label", "<b>", "--data", tmp_path)
    with served(*words, command="data label") as site, opened(chromium, site.url) as page:
        page.get_by_text("00.png cannot be read").wait_for()
        page.keyboard.press("x")
        at(page, 1)
        page.keyboard.press("1")
        at(page, 2)
    assert labels(folder) == {"01.png": "<b>"}
    assert [item.name for item in dataset.read(folder / "rejected.csv")] == ["00.png"]


@needs_chromium
def test_many_at_once(folder: Path, site: Site, chromium: Any) -> None:
    with opened(chromium, site.url, viewport={"width": 1200, "height": 1600}) as page:
        at(page, 0)
        page.keyboard.press("g")
        has_count(page.locator(".cell"), 40)
        page.get_by_text(re.compile("sorting")).wait_for(state="hidden")
        page.select_option("#order", "likeness")
        until(lambda: changes_of_colour(page) == 2)  # like beside like
        cells = page.locator(".cell")
        shown = order(page)
        cells.nth(1).click()
        cells.nth(9).click(modifiers=["Shift"])
        cells.nth(20).click()
        page.get_by_text("10 selected").wait_for()
        assert serious(page) == []
        page.keyboard.press("2")
        page.get_by_text("10 of 40 decided").wait_for()
        has_count(page.locator(".cell"), 30)
        expected = {f"{position:02d}.png": "green" for position in [*shown[1:10], shown[20]]}
        until(lambda: labels(folder) == expected)
        page.keyboard.press("u")
        page.get_by_text("0 of 40 decided").wait_for()
        page.get_by_text("10 selected").wait_for()
        # By the keyboard alone.
        page.keyboard.press("Escape")
        page.keyboard.press("Home")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        page.get_by_text("3 selected").wait_for()
        page.keyboard.press("x")
        page.get_by_text("3 of 40 decided").wait_for()


@needs_chromium
def test_two_tabs_and_a_phone(site: Site, chromium: Any) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "locale": "de-DE"}
    with opened(chromium, site.url) as one, opened(chromium, site.url, color_scheme="dark", **phone) as other:
        at(one, 0)
        at(other, 0)
        other.evaluate("inTurn(() => { follow = async () => {}; })")  # it does not hear of what the first one does
        one.keyboard.press("1")
        at(one, 1)
        other.get_by_role("button", name="green 0").tap()
        other.get_by_text("Ein anderer Tab hat das entschieden").wait_for()
        assert other.inner_text("#state") == "red"
        other.get_by_role("button", name="Weiter").tap()
        at(other, 1)
        other.get_by_role("button", name="green 0").tap()
        at(other, 2)
        one.locator("#labels").get_by_role("button", name="green 1").wait_for()  # it hears of it by itself
        assert other.evaluate("document.documentElement.scrollWidth") <= 390
        assert serious(other) == []


@needs_chromium
def test_suggestions_doubtful_ones_first(folder: Path, tmp_path: Path, chromium: Any) -> None:
    model = model_folder_of_means(tmp_path / "means")
    words = (folder, "--model", model, "--data", tmp_path)
    with served(*words, command="data label") as site, opened(chromium, site.url) as page:
        page.locator("#one[data-position]").wait_for()
        page.get_by_text(re.compile("scoring")).wait_for(state="hidden")
        page.select_option("#order", "name")
        page.select_option("#order", "doubt")
        at(page, 0)  # the darkest
        page.get_by_text("The model says red").wait_for()
        page.locator("#frame").focus()
        page.keyboard.press("Enter")
        at(page, 1)
        until(lambda: labels(folder) == {"00.png": "red"})


def test_it_ends_with_everything_in_the_index(folder: Path, tmp_path: Path) -> None:
    with served(folder, "--data", tmp_path, command="data label") as site:
        n = len(site.ask("/api/labels").json["names"])
        versions = [[i, 0] for i in range(n)]
        body = {"tab": "t", "since": 0, "seen": versions, "state": "labelled", "label": "x"}
        assert site.ask("/api/labels/decide", json.dumps(body).encode()).json["conflicts"] == []
        for wrong in (
            body | {"seen": [[n, 0]]},
            body | {"label": "a\nb"},
            body | {"state": "?"},
            body | {"box": [1, 2]},
        ):
            assert site.ask("/api/labels/decide", json.dumps(wrong).encode()).status == 400
    assert labels(folder) == {f"{i:02d}.png": "x" for i in range(40)}


@pytest.mark.parametrize("words", [["absent"], [".", "--label", " "], [".", "--model", "no_such_model"]])
def test_wrong_usage_is_one_line(words: list[str], folder: Path) -> None:
    done = subprocess.run([str(BITTERN), "data", "label", *words], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
