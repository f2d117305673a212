"""The page of `bittern serve` in a real Chromium."""

from __future__ import annotations

import base64
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.browser import browser, has_count, needs_chromium, opened, serious
from tests.doubles.served import Site, served
from tests.doubles.waiting import until

from bittern.evaluation import dataset
from bittern.page import access, app

pytestmark = needs_chromium

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as chromium:
        yield chromium


@pytest.fixture(autouse=True)
def empty(site: Site) -> Iterator[None]:
    """Each test begins with an empty history."""
    yield
    for picture in site.ask("/api/history").json["pictures"]:
        site.ask(f"/api/history/{picture['id']}", method="DELETE")


def give(page: Any, event: str, files: dict[str, bytes]) -> None:
    """Drop files on the page, or paste them."""
    encoded = [[name, base64.b64encode(data).decode()] for name, data in files.items()]
    page.evaluate(
        """([event, files]) => {
            const transfer = new DataTransfer();
            for (const [name, data] of files)
                transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name));
            const options = {bubbles: true, cancelable: true};
            dispatchEvent(event === "paste" ? new ClipboardEvent(event, {...options, clipboardData: transfer})
                                            : new DragEvent(event, {...options, dataTransfer: transfer}));
        }""",
        [event, encoded],
    )


def test_all_files_of_the_pages_are_small() -> None:
    # Of all pages together, but for the description of the interfaces, which none of them loads.
    assert sum(file.stat().st_size for file in app.STATIC.iterdir() if file.suffix != ".json") < 100_000


def test_drop_paste_choose_correct_and_export(site: Site, chromium: Any, data: Path, pictures: Path) -> None:
    red = (pictures / "red.png").read_bytes()
    with opened(chromium, site.url) as page:
        give(page, "drop", {"red.png": red, "<img src=x onerror=alert(1)>.txt": b"no picture"})
        page.locator("#notes p").wait_for()
        assert "<img src=x onerror=alert(1)>.txt: not a picture" in page.inner_text("#notes")
        page.get_by_role("heading", name="red.png").wait_for()
        give(page, "paste", {"<b>blue</b>.png": (pictures / "blue.png").read_bytes()})
        page.get_by_role("heading", name="<b>blue</b>.png").wait_for()
        page.set_input_files("#files", [str(pictures / "street.jpg"), str(pictures / "red.png")])
        page.locator("article").nth(3).wait_for()
        street = page.locator("article", has_text="street.jpg")
        answer = street.locator(".answer").last
        assert answer.locator("strong").inner_text() == "stop"
        assert answer.locator(".badge").inner_text() == "alarm"
        assert [bar.get_attribute("aria-label") for bar in answer.locator(".bars button").all()] == [
            "not_stop, 1 %: choose this label",
            "stop, 99 %: choose this label",
        ]
        # One tap corrects, another takes it back, a third gives a label that the model does not know.
        answer.locator(".bars button").first.click()
        answer.get_by_text("corrected: not_stop").wait_for()
        assert [item.label for item in dataset.read(data / "sets/stop_sign")] == ["not_stop"]
        answer.locator(".bars button").first.click()
        answer.get_by_text("corrected: not_stop").wait_for(state="detached")
        answer.locator(".other input").fill("a <sign>")
        answer.locator(".other input").press("Enter")
        answer.get_by_text("corrected: a <sign>").wait_for()
        # By the keyboard: the first label of the first answer.
        page.locator("article", has_text="<b>blue").focus()
        page.keyboard.press("2")
        page.get_by_text("corrected: green").wait_for()
        with page.expect_download() as download:
            page.get_by_role("link", name="Export stop_sign as zip").click()
        archive = zipfile.ZipFile(download.value.path())
        assert [archive.read(name) for name in archive.namelist()] == [(pictures / "street.jpg").read_bytes()]
        # The filter.
        page.select_option("[name=state]", "corrected")
        has_count(page.locator("article"), 2)
        page.fill("[name=q]", "street")
        has_count(page.locator("article"), 1)
        page.reload()
        page.locator("article").nth(3).wait_for()
        page.get_by_text("corrected: a <sign>").wait_for()
        assert serious(page) == []
        page.locator("article").first.focus()
        page.keyboard.press("Delete")
        has_count(page.locator("article"), 3)


def test_squares_and_heat_on_a_phone(site: Site, chromium: Any, pictures: Path) -> None:
    with opened(chromium, site.url, color_scheme="dark", locale="de-DE", **PHONE) as page:
        page.set_input_files("#camera input", str(pictures / "street.jpg"))
        article = page.locator("article")
        article.wait_for()
        article.locator("summary").click()
        article.locator(".squares figure").nth(5).wait_for()
        captions = article.locator(".squares figcaption").all_inner_texts()
        assert captions[4] == "Mitte, die genauen 224 x 224 Pixel: stop 99 %"
        article.locator(".heat-of").last.click()
        article.locator(".heat img").wait_for()
        assert article.locator(".heat img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 224
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("document.documentElement.lang") == "de"
        assert serious(page) == []


def test_both_languages_have_the_same_texts(site: Site, chromium: Any) -> None:
    with opened(chromium, site.url) as page:
        texts = page.evaluate("TEXTS")
        holes = {
            language: {key: sorted(part[0] for part in text.split("{")[1:]) for key, text in keys.items()}
            for language, keys in texts.items()
        }
        assert holes["en"] == holes["de"]
        page.select_option("#language", "de")
        page.get_by_text("Bilder hier ablegen").wait_for()
        page.reload()
        page.get_by_text("Bilder hier ablegen").wait_for()


def with_header(route: Any, name: str, value: str) -> None:
    """Answer as the server does, but with another header."""
    answer = route.fetch()
    route.fulfill(response=answer, headers=answer.headers | {name: value})


def test_a_token_is_asked_for_once(chromium: Any, tmp_path: Path, means: Path, pictures: Path) -> None:
    token = access.new_token(tmp_path)
    words = ("--data", tmp_path, "--model", means, "--name", "bittern.example.org")
    with served(*words) as site, opened(chromium, site.url) as page:
        # As Home Assistant's ingress does; a form would be sent with the origin "null" then.
        page.route(site.url, lambda route: with_header(route, "referrer-policy", "no-referrer"))
        page.reload()
        page.fill("[name=token]", "wrong")
        page.keyboard.press("Enter")
        page.get_by_text("Wrong token.").wait_for()
        assert serious(page) == []
        page.fill("[name=token]", token)
        page.keyboard.press("Enter")
        page.get_by_text("Drop pictures here").wait_for()
        page.set_input_files("#files", str(pictures / "red.png"))
        page.locator("article").wait_for()
        assert page.evaluate("document.cookie") == "", "HttpOnly"
        access.new_token(tmp_path)
        page.reload()
        page.locator("[name=token]").wait_for()


def test_while_the_server_is_away_the_page_opens_and_says_so(chromium: Any, tmp_path: Path, means: Path) -> None:
    with served("--data", tmp_path, "--model", means) as site:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(site.url)
        page.get_by_text("No pictures yet.").wait_for()
        kept = "caches.open('bittern').then((cache) => cache.keys()).then((keys) => keys.length)"
        until(lambda: page.evaluate(kept) >= 5)
    try:
        page.reload()
        page.get_by_text("The server does not answer.").wait_for()
        assert page.get_by_text("Drop pictures here").is_visible()
        words = ("--data", tmp_path, "--model", means, "--port", str(site.port))
        with served(*words):
            page.get_by_text("No pictures yet.").wait_for()
            assert page.get_by_text("The server does not answer.").is_hidden()
    finally:
        context.close()
