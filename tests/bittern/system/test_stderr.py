"""Keeping native libraries quiet."""

from __future__ import annotations

import os
import threading

import pytest

from bittern.system import stderr


def test_it_comes_back_and_is_away_inside(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before ")
    with stderr.silenced(), stderr.silenced():
        os.write(2, b"inside ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_threads_that_overlap_leave_it_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    def often() -> None:
        for _ in range(300):
            with stderr.silenced():
                os.write(2, b"x")

    threads = [threading.Thread(target=often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"here again")
    assert capfd.readouterr().err == "here again"
