"""The drawn street as a live source."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.waiting import within

from bittern.errors import ConfigurationError
from bittern.scene.street import Street
from bittern.sources.demo import DemoSource
from bittern.sources.registry import open_source
from bittern.sources.uri import parse_size


def source(**options: object) -> DemoSource:
    return DemoSource("", DemoSource.Options(**{"size": "64x48", **options}))  # type: ignore[arg-type]


def test_frames_say_what_they_are() -> None:
    with source(fps=100, seed=4) as frames:
        assert frames.live
        assert frames.name == "demo"
        earliest = time.monotonic_ns()
        first, second = next(frames), next(frames)
    assert first.number == 0
    assert first.pixels.shape == (48, 64, 3)
    assert first.order == "RGB"
    assert first.source == "demo"
    assert earliest <= first.monotonic_ns <= time.monotonic_ns()
    assert abs(first.time_ns - time.time_ns()) < 60e9
    assert second.monotonic_ns - first.monotonic_ns == pytest.approx((second.number - first.number) * 1e7, abs=2)


def test_the_picture_is_the_street_at_that_frame() -> None:
    street = Street(4, (64, 48))
    with source(fps=50, seed=4) as frames:
        for frame in (next(frames), next(frames), next(frames)):
            assert np.array_equal(frame.pixels, street.render(frame.number / 50).pixels)


def test_a_fast_consumer_waits_for_the_next_frame() -> None:
    with source(fps=20) as frames:
        numbers, given_at = [], []
        for _ in range(4):
            frame = next(frames)
            numbers.append(frame.number)
            given_at.append(time.monotonic_ns() - frame.monotonic_ns)
    assert numbers == sorted(set(numbers))
    assert min(given_at) >= 0, "no frame before it is due"


class Clock:
    """The source's clock and its sleep, at our command: not the process's, in which other threads may sleep too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 5_000_000_000
        clock = SimpleNamespace(monotonic_ns=lambda: self.now, sleep=self.sleep)
        monkeypatch.setattr("bittern.sources.demo.time", clock)

    def sleep(self, seconds: float) -> None:
        self.now += max(round(seconds * 1e9), 1)


def test_a_slow_consumer_sees_gaps_and_the_newest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with source(fps=10) as frames:
        numbers = []
        for pause in (0.0, 0.0, 0.55, 0.0, 3.0, 0.01):
            clock.sleep(pause)
            requested = clock.now
            frame = next(frames)
            numbers.append(frame.number)
            assert frame.monotonic_ns > requested - 1e8, "not older than a frame period when it was asked for"
            assert frame.monotonic_ns <= clock.now, "not before it was due"
    assert numbers == [0, 1, 6, 7, 37, 38]


def test_it_ends_after_its_laps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with source(fps=2, laps=2) as frames:
        assert [frame.number for frame in frames] == list(range(48)), "two laps of 12 s"
        assert frames.read() is None
    with source(fps=2, laps=1) as frames:
        next(frames)
        clock.sleep(13)
        assert frames.read() is None, "a slow consumer's lap ends too"


def test_without_laps_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with source(fps=10) as frames:
        next(frames)
        clock.sleep(3600)
        assert next(frames).number == 36000


def test_close_ends_it_and_wakes_a_reader() -> None:
    frames = source(fps=0.01)
    next(frames)
    threading.Timer(0.1, frames.close).start()
    with within():
        assert list(frames) == []
    frames.close()
    assert frames.read() is None


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("demo:?fps=0", "fps: expected a number above 0, got 0"),
        ("demo:?fps=-3", "got -3"),
        ("demo:?fps=inf", "got inf"),
        ("demo:?fps=nan", "got nan"),
        ("demo:?fps=fast", "fps"),
        ("demo:?laps=-1", "laps: expected 0 .* or more, got -1"),
        ("demo:?laps=1.5", "laps"),
        ("demo:?size=640", "size '640': expected WIDTHxHEIGHT"),
        ("demo:?size=640x9", "each 32 to 8192"),
        ("demo:?sede=1", "did you mean 'seed'"),
        ("demo:here", "takes no address, got 'here'"),
    ],
)
def test_wrong_options_are_one_line(uri: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        open_source(uri)
    assert "\n" not in str(caught.value)


def test_open_source_passes_options_on() -> None:
    with open_source("demo:?size=80x60&fps=50&seed=9&laps=2") as frames:
        assert isinstance(frames, DemoSource)
        assert np.array_equal(next(frames).pixels, Street(9, (80, 60)).render(0).pixels)


@given(width=st.integers(32, 8192), height=st.integers(32, 8192))
def test_sizes(width: int, height: int) -> None:
    assert parse_size(f"{width}x{height}") == (width, height)


@given(st.one_of(st.text(max_size=12), st.from_regex(r"[0-9]{1,6}x(31|8193|0|-5|)", fullmatch=True)))
def test_no_sizes(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected WIDTHxHEIGHT"):
        parse_size(text)
