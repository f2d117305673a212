"""A signal that comes where nothing can be raised from is kept, and leaves no traceback."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from bittern.system.stop import Stop


class Last:
    """A signal comes while it is destroyed, from where Python lets no exception out."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_from_which_nothing_can_be_raised_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    stop = Stop()
    hook = sys.unraisablehook
    with stop.signals():

        def call() -> str:
            last = Last()
            del last
            return "went on"

        assert stop.wait(call) in ("went on", None)
    assert stop.asked
    assert sys.unraisablehook is hook
    assert capfd.readouterr().err == ""


def test_what_else_cannot_be_raised_is_still_said(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("said")

    with Stop().signals():
        broken = Broken()
        del broken
    assert "ValueError: said" in capfd.readouterr().err
