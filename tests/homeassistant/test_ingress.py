"""Both pages behind Home Assistant's ingress: real Core and frontend; the Supervisor between is a stand-in.

`make test-homeassistant` makes Home Assistant's root file system and sets BITTERN_HOMEASSISTANT.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from tests.doubles.browser import browser, needs_chromium, opened
from tests.doubles.films import frames_of
from tests.doubles.served import Reply, Site, ask_over, served
from tests.doubles.tflite_files import model_folder_of_means
from tests.doubles.waiting import until
from tests.doubles.watched import watched
from tests.homeassistant.home import Home, cache, supervisor

from bittern.page import access

pytestmark = pytest.mark.skipif("BITTERN_HOMEASSISTANT" not in os.environ, reason="make test-homeassistant runs it")
NAME = "homeassistant.local"
# Alarms again and again: see tests/bittern/page/test_live_page.py.
EASY = "[decision]\nthreshold = 0.3\nevidence = 0.0\ncooldown_s = 0.0\nmin_off_s = 0.0\n"


class Ingress(NamedTuple):
    """Home Assistant with two add-ons, `bittern serve` (pictures) and the page of a daemon (garden); their tokens."""

    home: Home
    tokens: dict[str, str]
    daemon: Site

    @property
    def address(self) -> str:
        """Of Home Assistant, by its name."""
        return self.home.address.replace("127.0.0.1", NAME)

    def ask(self, addon: str, session: str, **headers: str) -> Reply:
        """Ask an add-on for its models, by ingress."""
        netloc = self.home.address.removeprefix("http://")
        every = {"host": self.address.removeprefix("http://"), "cookie": f"ingress_session={session}"} | headers
        url = self.supervisor("get", f"/addons/{addon}/info")["ingress_url"]
        return ask_over(http.client.HTTPConnection(netloc, timeout=60), f"{url}api/models", None, every, None)

    def supervisor(self, method: str, endpoint: str) -> Any:
        """What the frontend asks of the Supervisor, through Core."""
        return self.home.ask({"type": "supervisor/api", "endpoint": endpoint, "method": method})


@pytest.fixture(scope="module")
def ingress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    folder = tmp_path_factory.mktemp("ingress")
    means = model_folder_of_means(folder / "means")
    tokens = {"pictures": access.new_token(folder / "data"), "garden": access.new_token(folder / "garden/state/page")}
    config = f'source = "demo:?seed=1"\nname = "the gate"\nfps = 10\nmodels = ["{means}"]\n{EASY}'
    with (
        served("--data", folder / "data", "--model", means, "--name", NAME) as site,
        watched(folder / "garden", config, f'names = ["{NAME}"]\n', tokens["garden"]) as daemon,
    ):
        addons = {
            "pictures": {"port": site.port, "ingress_stream": True},
            "garden": {"port": daemon.port, "ingress_stream": False},
        }
        with supervisor(folder, addons) as environment, Home(cache(), folder / "home", environment) as home:
            home.start().onboard()
            yield Ingress(home, tokens, daemon)


@needs_chromium
def test_both_pages_are_used_from_the_sidebar(ingress: Ingress, tmp_path: Path) -> None:
    with browser(f"--host-resolver-rules=MAP {NAME} 127.0.0.1") as chromium, opened(chromium, ingress.address) as page:
        page.set_default_timeout(120_000)
        page.fill("input[name=username]", "owner")
        page.fill("input[name=password]", ingress.home.password)
        page.keyboard.press("Enter")
        page.get_by_text("pictures", exact=True).wait_for()
        # By its address: a click is lost if it comes before the first panel is shown.
        page.goto(f"{ingress.address}/pictures")
        use_pictures(log_in(page, ingress.tokens["pictures"]), tmp_path)
        page.get_by_text("garden", exact=True).click()
        use_garden(page, log_in(page, ingress.tokens["garden"]), tmp_path)
        cookies = [cookie for cookie in page.context.cookies() if cookie["name"].startswith("bittern_")]
        assert len(cookies) == 2
        assert all(cookie["httpOnly"] and cookie["sameSite"] == "Strict" for cookie in cookies)
        page.reload()
        page.frame_locator("iframe").locator("#grid button").first.wait_for()  # still let in
    labels = ingress.daemon.ask("/api/review", headers={"authorization": f"Bearer {ingress.tokens['garden']}"}).json
    assert "grass" in [label for item in labels["items"] for label in item["labels"].values()]


def log_in(page: Any, token: str) -> Any:
    """Give the token of an add-on that was opened; its frame."""
    page.frame_locator("iframe").locator("input[name=token]").fill(token)
    frame = page.query_selector("iframe").content_frame()
    frame.click("button")
    frame.wait_for_selector("h1 img")
    return frame


def use_pictures(frame: Any, folder: Path) -> None:
    """Give two pictures, one of them larger than the Supervisor takes at once, and correct an answer."""
    red = cv2.imencode(".png", np.full((60, 80, 3), (0, 0, 255), np.uint8))[1].tobytes()
    for name, data in (("red.png", red), ("large.png", red + bytes(17 * 2**20))):
        (folder / name).write_bytes(data)
        frame.set_input_files("#files", str(folder / name))
        frame.get_by_role("heading", name=name).wait_for()
    frame.locator("article .bars button").last.click()
    frame.get_by_text("corrected:").wait_for()


def use_garden(page: Any, frame: Any, folder: Path) -> None:
    """Look, pause and resume, label an alarm by keyboard, and save its clip."""
    until(lambda: frame.evaluate("document.querySelector('#picture img')?.naturalWidth") == 640)
    first = frame.locator("#picture").screenshot()
    until(lambda: frame.locator("#picture").screenshot() != first)  # it moves
    for event in ("paused", "resumed"):
        frame.click("#pause")
        frame.locator("#events li", has_text=event).first.wait_for()  # by the stream
    frame.locator("#grid .clip:visible").first.wait_for()
    frame.locator("#grid div:has(.clip:visible) button").first.focus()
    page.keyboard.press("Space")
    with page.expect_download() as download:
        page.keyboard.press("c")
    download.value.save_as(folder / "clip.avi")
    assert len(frames_of(folder / "clip.avi")) > 10
    labels = [button.inner_text().split()[1] for button in frame.query_selector_all("#labels > button.first")]
    page.keyboard.press(str(labels.index("grass") + 1))
    frame.wait_for_selector("#grid button >> text=✓ grass")


def test_a_session_a_token_and_the_own_name_are_asked_for(ingress: Ingress) -> None:
    session = ingress.supervisor("post", "/ingress/session")["session"]
    for addon, token in ingress.tokens.items():
        bearer = {"authorization": f"Bearer {token}"}
        assert ingress.ask(addon, "", **bearer).status == 401, "no session"
        assert ingress.ask(addon, session).body == b"a token is needed\n"
        assert ingress.ask(addon, session, **bearer).status == 200
        assert ingress.ask(addon, session, host="evil.example", **bearer).status == 421
        for origin, status in (("http://evil.example", 403), ("null", 403), (ingress.address, 200)):
            assert ingress.ask(addon, session, origin=origin, **bearer).status == status
