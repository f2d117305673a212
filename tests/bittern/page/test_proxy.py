"""Both pages behind a real nginx and a real Caddy that encrypt, set up as docs/page.md says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
import pytest
from tests.doubles.browser import browser, needs_chromium, opened
from tests.doubles.proxies import NAME, PROXIES, Front, is_installed, proxied
from tests.doubles.served import served
from tests.doubles.waiting import until

from bittern import Classifier
from bittern.config.schema import PageConfig, WatchConfig
from bittern.daemon.health import Health
from bittern.delivery.sinks.base import SinkContext
from bittern.events import AlarmKey, Event, new_id, rfc3339
from bittern.frames import Frame
from bittern.page import access
from bittern.page.live_sink import PageSink

WEB, GARDEN = "", "garden"


class Pages(NamedTuple):
    """`bittern serve` at / and the page of a daemon at /garden/, behind a proxy, and their tokens."""

    front: Front
    tokens: dict[str, str]
    sink: PageSink

    def bearer(self, which: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[which]}"}


@pytest.fixture(scope="module", params=PROXIES)
def pages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, means: Path) -> Iterator[Pages]:
    if not is_installed(request.param):
        pytest.skip(f"no {request.param} (Debian package)")
    folder = tmp_path_factory.mktemp(request.param)
    tokens = {WEB: access.new_token(folder / "web"), GARDEN: access.new_token(folder / "daemon/page")}
    config = WatchConfig(page=PageConfig(port=0, names=(NAME,)))
    classifier = Classifier(means)
    with served("--data", folder / "web", "--model", means, "--name", NAME) as site:
        context = SinkContext("the garden", memory=folder / "daemon", snapshots=folder / "snapshots")
        sink = PageSink(config, context, lambda: [classifier], Health().reading)
        try:
            addresses = {"127.0.0.1:8766": f"127.0.0.1:{site.port}", "127.0.0.1:8770": sink.url.split("/")[2]}
            with proxied(request.param, folder, addresses) as front, seen(sink):
                yield Pages(front, tokens, sink)
        finally:
            sink.close()


@contextmanager
def seen(sink: PageSink) -> Iterator[None]:
    """Frames that change come at 20 a second."""
    end = threading.Event()

    def show() -> None:
        number = 0
        while not end.wait(0.05):
            number += 1
            pixels = np.full((48, 64, 3), number * 8 % 256, np.uint8)
            scores = {AlarmKey("means", f"colour_{i}", "red"): 0.5 for i in range(2)}
            sink.see(Frame(pixels, "BGR", time.monotonic_ns(), time.time_ns(), number, "film"), scores)

    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_a_token_and_the_own_name_are_asked_for(pages: Pages) -> None:
    front = pages.front
    for which, path in ((WEB, "/api/models"), (GARDEN, "/garden/api/models")):
        assert front.ask(path).status == 401
        assert front.ask(path, headers=pages.bearer(which)).status == 200
        other = front.ask(path, headers=pages.bearer(which) | {"host": "evil.example"})
        # Caddy answers nothing at all for a name that is not its own.
        assert other.status == 421 or other.body == b""
        for origin, status in ((f"http://{NAME}.evil.example", 403), (f"https://{NAME}:{front.port}", 200)):
            assert front.ask(path, headers=pages.bearer(which) | {"origin": origin}).status == status
    assert front.ask("/garden").headers["location"].endswith("/garden/")


def test_a_large_picture_is_uploaded(pages: Pages, pictures: Path) -> None:
    picture = (pictures / "red.png").read_bytes() + bytes(5 * 2**20)
    reply = pages.front.ask("/api/classify", picture, pages.bearer(WEB))
    assert reply.status == 200
    assert reply.json[0]["label"] == "red"


@pytest.mark.parametrize("path", ["/garden/api/stream", "/garden/api/live.mjpg"])
def test_streams_are_not_held_back(pages: Pages, path: str) -> None:
    """A proxy that fills a buffer first would show the first line of events after an hour."""
    words = f"GET {path} HTTP/1.1\r\nHost: {NAME}:{pages.front.port}\r\n"
    with pages.front.connect() as connection:
        connection.sendall(f"{words}Authorization: {pages.bearer(GARDEN)['authorization']}\r\n\r\n".encode())
        came = b""
        mark = b": here\n\n" if path.endswith("stream") else b"\xff\xd8\xff"
        while mark not in came:
            part = connection.recv(4096)
            assert part, came
            came += part
        assert came.startswith(b"HTTP/1.1 200")
        if path.endswith("stream"):
            now = time.time_ns()
            event = Event(id=new_id(now), type="state", time=rfc3339(now), monotonic_ns=0, source="x", state="blind")
            pages.sink.follow(event)
            while event.id.encode() not in came:
                came += connection.recv(4096)
        else:
            while came.count(b"Content-Length:") < 5:
                came += connection.recv(65536)


def test_wrong_tokens_of_one_address_do_not_lock_out_another(pages: Pages) -> None:
    """And a client cannot say that it is another one."""
    wrong = {"authorization": "Bearer wrong"}
    statuses = [
        pages.front.ask("/api/models", headers=wrong | {"x-forwarded-for": f"192.0.2.{i}"}, sender="127.0.0.2").status
        for i in range(12)
    ]
    assert statuses == [401] * 10 + [429] * 2
    assert pages.front.ask("/api/models", headers=pages.bearer(WEB), sender="127.0.0.3").status == 200


def test_the_cookie_is_for_this_page_over_tls(pages: Pages) -> None:
    body = urlencode({"token": pages.tokens[GARDEN]}).encode()
    headers = {"origin": f"https://{NAME}:{pages.front.port}", "content-type": "application/x-www-form-urlencoded"}
    reply = pages.front.ask("/garden/login", body, headers)
    assert reply.status == 303
    cookie = reply.headers["set-cookie"]
    assert {"Secure", "HttpOnly", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
    value = {"cookie": cookie.partition(";")[0]}
    assert pages.front.ask("/garden/api/models", headers=value).status == 200
    assert pages.front.ask("/api/models", headers=value).status == 401, "of another page"
    body = json.dumps({"on": False}).encode()
    headers = value | headers | {"content-type": "application/json"}
    assert pages.front.ask("/garden/api/detection", body, headers).json["detection"] is False


@needs_chromium
def test_a_browser_uses_both_pages(pages: Pages, pictures: Path) -> None:
    front = pages.front
    with (
        browser(f"--host-resolver-rules=MAP {NAME} 127.0.0.1") as chromium,
        opened(chromium, front.url, ignore_https_errors=True) as page,
    ):
        log_in(page, pages.tokens[WEB])
        page.set_input_files("#files", str(pictures / "red.png"))
        page.get_by_role("heading", name="red.png").wait_for()
        page.goto(f"{front.url}garden/")
        log_in(page, pages.tokens[GARDEN])
        assert page.url == f"{front.url}garden/"
        until(lambda: page.evaluate("document.querySelector('#picture img')?.naturalWidth") == 64)
        first = page.locator("#picture").screenshot()
        until(lambda: page.locator("#picture").screenshot() != first)  # it moves
        page.wait_for_selector(".alarm-row")
        page.goto(front.url)
        page.get_by_role("heading", name="red.png").wait_for()  # still let in
        cookies = page.context.cookies()
        assert len(cookies) == 2
        assert all(cookie["secure"] and cookie["httpOnly"] for cookie in cookies)


def log_in(page: Any, token: str) -> None:
    page.fill("input[name=token]", token)
    page.click("button")
    page.wait_for_selector("h1 img")
