"""How slowly a body may come, by a clock that the body itself moves on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from bittern.page import uploads
from bittern.page.uploads import Bodies


class Sender:
    """Sends a body of parts of the same size, one a second, by a clock of its own."""

    def __init__(self, part: int, count: int) -> None:
        self.now = 1000.0
        self.sent = 0
        self._part, self._count = part, count

    async def receive(self) -> Message:
        self.now += 1
        self.sent += 1
        return {"type": "http.request", "body": bytes(self._part), "more_body": self.sent < self._count}


def sent(monkeypatch: pytest.MonkeyPatch, part: int, count: int) -> tuple[int, int]:
    """The status and how many parts were taken."""
    sender, bodies = Sender(part, count), Bodies()
    monkeypatch.setattr(uploads, "time", SimpleNamespace(monotonic=lambda: sender.now))

    async def ask() -> int:
        request = Request({"type": "http", "headers": [], "query_string": b""}, sender.receive)
        try:
            async with bodies.files(request) as files:
                assert [len(file.data) for file in files] == [part * count]
                assert bodies.held == part * count
        except HTTPException as error:
            return error.status_code
        return 200

    status = asyncio.run(ask())
    assert bodies.held == 0
    return status, sender.sent


@pytest.mark.parametrize("count", [9, 600])
def test_a_body_may_take_long_at_16_kb_a_second(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    assert sent(monkeypatch, 17 * 1024, count) == (200, count)


@pytest.mark.parametrize(("part", "seconds"), [(1, 10), (8 * 1024, 20), (12 * 1024, 40)])
def test_a_slower_one_is_refused_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, part: int, seconds: int
) -> None:
    """After t seconds it has had 10 s + t * part / 16 KB/s."""
    status, taken = sent(monkeypatch, part, 600)
    assert status == 408
    assert taken == pytest.approx(seconds, abs=1)


def test_a_slow_one_that_is_short_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sent(monkeypatch, 1, 9) == (200, 9)
