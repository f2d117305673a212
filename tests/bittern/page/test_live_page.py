"""The page of a daemon in a real Chromium: it moves, a threshold is dragged, a wrong alarm is labelled by keyboard."""

from __future__ import annotations

import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.browser import browser, needs_chromium, opened, serious
from tests.doubles.films import frames_of
from tests.doubles.waiting import until
from tests.doubles.watched import Daemon, watched

from bittern.evaluation import dataset
from bittern.events import uuid7
from bittern.page import app

pytestmark = needs_chromium

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
# The mean of red of the street is about the half, so that the model of means raises alarms again and again.
EASY = "[decision]\nthreshold = 0.3\nevidence = 0.0\ncooldown_s = 0.0\nmin_off_s = 0.0\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture(scope="module")
def daemon(folder: Path, means: Path) -> Iterator[Daemon]:
    config = f'source = "demo:?seed=1"\nname = "the gate"\nfps = 10\nmodels = ["{means}"]\n{EASY}'
    with watched(folder, config) as daemon:
        until(lambda: daemon.ask("/api/review").json["n"] >= 1)
        yield daemon


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as chromium:
        yield chromium


def test_every_text_is_there_in_every_language() -> None:
    texts = (app.STATIC / "text.js").read_text()
    english, german = texts.partition("\n  de: {")[::2]
    for key in set(re.findall(r'\bt\("(\w+)"', (app.STATIC / "live.js").read_text())):
        assert f"{key}: " in english, key
        assert f"{key}: " in german, key


def test_a_wrong_alarm_is_seen_marked_and_exported(daemon: Daemon, folder: Path, chromium: Any, tmp_path: Path) -> None:
    """The walk: watch the drawn street, see a wrong alarm, mark it in the review, export: it is in the set."""
    with opened(chromium, daemon.url, color_scheme="dark") as page:
        until(lambda: page.evaluate("document.querySelector('#picture img')?.naturalWidth") == 640)
        first = page.locator("#picture").screenshot()
        until(lambda: page.locator("#picture").screenshot() != first)  # it moves
        page.wait_for_selector("#events .badge")
        page.wait_for_selector("#grid button img")
        assert serious(page) == []
        # By keyboard: the newest alarm, selected with Space, is not "red".
        page.focus("#grid button")
        page.keyboard.press("Space")
        assert page.get_attribute("#grid button", "aria-pressed") == "true"
        labels = [button.inner_text().split()[1] for button in page.query_selector_all("#labels > button.first")]
        label = next(label for label in labels if label != "red")
        page.keyboard.press(str(labels.index(label) + 1))
        page.wait_for_selector(f"#grid button >> text=✓ {label}")
        with page.expect_download() as download:
            page.click("#labels a.button")
        download.value.save_as(tmp_path / "set.zip")
    sets = folder / "state/page/sets"
    (task,) = [path.name for path in sets.iterdir()]
    (item,) = dataset.read(sets / task)
    assert item.label == label
    assert item.path.read_bytes() == (folder / f"snapshots/{item.path.name}").read_bytes()
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert archive.namelist() == [f"{label}/{item.path.name}"]


def test_a_threshold_is_dragged_tried_and_used(daemon: Daemon, chromium: Any) -> None:
    with opened(chromium, daemon.url) as page:
        drawing = page.locator(".alarm-row svg").first
        drawing.hover(position={"x": 50, "y": 90})
        page.mouse.down()
        drawing.hover(position={"x": 60, "y": 4})
        page.mouse.up()
        page.wait_for_selector(".alarm-row output:has-text('would have raised')")
        button = page.locator(".alarm-row button.first").first
        value = float(button.inner_text().split()[-1])
        assert value > 0.9
        button.click()
        until(lambda: daemon.ask("/api/thresholds").json["alarms"][0]["threshold"] == pytest.approx(value, abs=1e-4))
        page.locator(".alarm-row button:has-text('Back')").first.click()
        until(lambda: daemon.ask("/api/thresholds").json["alarms"][0]["set"] is False)


def test_the_clip_of_an_alarm_is_downloaded(daemon: Daemon, chromium: Any, tmp_path: Path) -> None:
    """One that is raised while the page is open, by the link that appears some seconds later."""
    known = {event["id"] for event in daemon.ask("/api/events").json}
    with opened(chromium, daemon.url, locale="de") as page:
        for _ in range(2):  # pause and resume: an alarm that is on begins anew
            page.click("#pause")
            page.wait_for_timeout(300)
        until(lambda: {event["id"] for event in daemon.ask("/api/events").json if "label" in event} - known)
        link = page.locator("#events .clip:visible").first
        link.wait_for(timeout=60_000)
        assert link.inner_text() == "Clip sichern"
        assert serious(page) == []
        with page.expect_download() as download:
            link.click()
        download.value.save_as(tmp_path / "clip.avi")
        # In the review by keyboard: Tab reaches it, and C saves it. A grid with a selection stays as it is.
        page.locator("#grid div:has(.clip:visible) button").first.focus()
        for key, focused in (("Space", "Alarm"), ("Tab", "Clip sichern")):
            page.keyboard.press(key)
            assert focused in page.evaluate("document.activeElement.innerText")
        for key in ("Enter", "c"):
            with page.expect_download() as download:
                page.keyboard.press(key)
            assert download.value.path().stat().st_size > 1000
    shown = frames_of(tmp_path / "clip.avi")
    assert {pixels.shape for pixels in shown} == {(240, 320, 3)}
    assert len(shown) > 25
    assert len({pixels.tobytes() for pixels in shown}) > 5, "the street moves"


def test_a_selection_survives_an_alarm_that_comes_meanwhile(daemon: Daemon, chromium: Any) -> None:
    """The grid is asked for anew when an alarm comes, and the answer may come late."""
    with opened(chromium, daemon.url) as page:
        page.wait_for_selector("#grid button img")
        held: list[Any] = []
        page.route("**/api/review?*", lambda route: held.append(route))
        with page.expect_request("**/api/review?*", timeout=60_000):
            for _ in range(2):
                page.click("#pause")
                page.wait_for_timeout(300)
        page.locator("#grid button").first.click()
        with page.expect_response("**/api/review?*"):
            held[0].continue_()
        page.evaluate("new Promise(requestAnimationFrame)")
        assert page.locator("#grid button[aria-pressed=true]").count() == 1


def test_a_stream_without_its_boundary_is_shown_as_snapshots(daemon: Daemon, chromium: Any) -> None:
    """As a proxy leaves it that passes on the type without its parameters."""
    with opened(chromium, f"{daemon.url}static/icon.svg") as page:
        cut = {"status": 200, "content_type": "multipart/x-mixed-replace", "body": "--bittern-frame"}
        page.route("**/api/live.mjpg*", lambda route: route.fulfill(**cut))
        page.goto(daemon.url)
        until(lambda: page.evaluate("document.querySelector('#picture img')?.naturalWidth") == 640)
        first = page.locator("#picture").screenshot()
        until(lambda: page.locator("#picture").screenshot() != first)


def test_shift_click_selects_a_range_and_a_phone_has_room(daemon: Daemon, folder: Path, chromium: Any) -> None:
    until(lambda: list((folder / "snapshots").glob("*.jpg")))
    picture = next((folder / "snapshots").glob("*.jpg")).read_bytes()
    for second in range(1, 30):
        (folder / f"snapshots/{uuid7(time.time_ns() - (1000 + second) * 10**9)}.jpg").write_bytes(picture)
    with opened(chromium, daemon.url, **PHONE) as page:
        page.wait_for_selector("#grid button >> nth=19")
        assert page.locator("#grid button").count() == 20, "twenty at a time"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert serious(page) == []
        page.locator("#grid button").nth(2).click()
        page.locator("#grid button").nth(6).click(modifiers=["Shift"])
        assert page.locator("#grid button[aria-pressed=true]").count() == 5
        page.click("#next")
        page.wait_for_selector("#newest:not([disabled])")
        assert page.locator("#grid button").count() >= 5
