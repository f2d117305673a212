"""A real Chromium, headless, for the tests of pages: what a page asks of others than its own server is an error."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian package)")
# No sandbox: root may not have one. Nothing that the browser does by itself reaches for a network.
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def browser(*flags: str) -> Iterator[Any]:
    """A `playwright.sync_api.Browser`, with further command line flags."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS, *flags])
        yield chromium
        chromium.close()


@contextmanager
def opened(chromium: Any, url: str, **options: Any) -> Iterator[Any]:
    """A `playwright.sync_api.Page` that shows `url`, in a context of its own (`options`: viewport, color_scheme, ...).

    When the block ends, errors of scripts, refusals of the content security policy and requests to others than the host
    of `url` fail the test.
    """
    context = chromium.new_context(**options)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if "Content Security Policy" in line.text else None)

    def note_outside(request: Any) -> None:
        scheme, host = urlsplit(request.url)[:2]
        if scheme not in ("data", "blob", "about") and (scheme, host) != tuple(urlsplit(url)[:2]):
            errors.append(f"asks {request.url}")

    page.on("request", note_outside)
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert not errors, errors


def has_count(locator: Any, count: int) -> None:
    """Wait until a `playwright.sync_api.Locator` has so many elements."""
    from playwright.sync_api import expect

    expect(locator).to_have_count(count, timeout=30_000)


def serious(page: Any) -> list[str]:
    """What axe-core finds serious or critical on the page as it is now: rule and element."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        f"{finding['id']}: {node['html'][:120]}"
        for finding in Axe().run(page).response["violations"]
        if finding["impact"] in ("serious", "critical")
        for node in finding["nodes"]
    ]
