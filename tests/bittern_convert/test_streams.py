"""Streams of a moving camera, and the daemon's decision over their scores."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bittern.evaluation import tuning
from bittern.frames import Pixels
from bittern.model import operating
from bittern.model.manifest import Threshold
from bittern.scene import street
from bittern_convert import streams
from bittern_convert.streams import FRAME_S, STEPS, Outline, Stream


def photograph(seed: int = 1, size: tuple[int, int] = (400, 300)) -> Pixels:
    return np.ascontiguousarray(street.random_picture(np.random.default_rng(seed), stop=True, size=size)[:, :, ::-1])


def test_a_stream_depends_on_seed_name_and_number_alone() -> None:
    picture = photograph()

    def panned(name: str, seed: int, number: int) -> Stream:
        return streams.panned(picture, name, seed, seconds=2, number=number)

    def passing(name: str, seed: int, number: int) -> Stream:
        return streams.passing(picture, name, seed, number=number)

    for made in (panned, passing):
        first = made("a.jpg", 1, 0)
        np.testing.assert_array_equal(first.frames, made("a.jpg", 1, 0).frames)
        for other in (made("b.jpg", 1, 0), made("a.jpg", 2, 0), made("a.jpg", 1, 1)):
            assert (first.frames != other.frames).mean() > 0.5
        assert first.frames.dtype == np.uint8
        assert first.frames.shape[1:] == (224, 224, 3)


def test_a_panned_stream_moves_over_the_photograph_and_changes_from_frame_to_frame() -> None:
    made = [streams.panned(photograph(), f"{i}", 1, seconds=3) for i in range(8)]
    for stream in made:
        assert len(stream.frames) == 15
        assert (stream.interval, stream.size) == (None, None)
        steps = np.abs(np.diff(stream.frames.astype(int), axis=0)).mean((1, 2, 3))
        assert steps.min() > 0.1, "noise, if nothing else, is another in every frame"
    assert len({stream.night for stream in made}) == 2
    dark = [s.frames.mean() for s in made if s.night]
    assert max(dark) < max(s.frames.mean() for s in made if not s.night)


def test_a_thing_comes_is_in_view_and_goes() -> None:
    """The photograph is pink as no street is: the share of pink grows and shrinks, and is largest in the interval."""
    pink = np.full((200, 260, 3), (255, 0, 255), np.uint8)
    sizes, seen = set(), 0
    for i in range(16):
        made = streams.passing(pink, f"{i}", 1)
        assert len(made.frames) == 25
        assert made.interval is not None
        start, end = made.interval
        assert 1.5 <= end - start <= 3
        frames = made.frames.astype(int)
        redder = frames[..., 0] + frames[..., 2] - 2 * frames[..., 1]
        share = (redder > 0.5 * np.quantile(redder, 0.999)).mean((1, 2))
        inside = (np.arange(25) * FRAME_S >= start) & (np.arange(25) * FRAME_S <= end)
        if share[0] < 0.5:  # else a blur of the photograph is around it, not a street
            seen += 1
            assert share[inside].min() > share[0]
            assert share[inside].min() > share[-1]
        sizes.add(made.size)
    assert seen >= 5
    assert sizes == {"small", "medium", "full"}


def test_a_drawn_street_is_the_same_with_and_without_its_sign() -> None:
    with_sign, without = (streams.driven(3, 1, stop=stop) for stop in (True, False))
    assert without.interval is None
    assert with_sign.interval is not None
    start, end = with_sign.interval
    assert 0.4 < end - start < 8
    changed = np.abs(with_sign.frames.astype(int) - without.frames).max((1, 2, 3)) > 40
    times = np.flatnonzero(changed) * FRAME_S
    assert times.size
    assert times.min() <= start
    assert not changed[:10].any(), "while the sign is out of sight"


@pytest.mark.parametrize("make", ["panned", "passing"])
def test_a_frame_is_cheap(make: str) -> None:
    picture = photograph(size=(900, 700))
    start = time.process_time()
    made = [
        streams.panned(picture, f"{i}", 1, seconds=4) if make == "panned" else streams.passing(picture, f"{i}", 1)
        for i in range(4)
    ]
    assert (time.process_time() - start) / sum(len(m.frames) for m in made) < 0.02


def outline(scores: list[float], interval: tuple[float, float] | None = None) -> Outline:
    frames = np.zeros((len(scores), 1, 1, 3), np.uint8)
    return streams.outline(Stream("x", frames, interval, "full" if interval else None, False))


def test_the_sweep_counts_as_the_daemon_would_decide() -> None:
    """At every threshold the same as the daemon's own decision over each stream."""
    rng = np.random.default_rng(1)
    rows = [np.clip(rng.random(20) + np.linspace(-0.3, 0.3, 20), 0, 1).tolist() for _ in range(12)]
    held = [outline(row, (2.0, 3.0) if i % 3 == 0 else None) for i, row in enumerate(rows)]
    swept = streams.sweep(held, np.concatenate(rows).astype(np.float32))
    assert swept.passings == 4
    assert swept.hours == pytest.approx(8 * 20 * FRAME_S / 3600)
    for column in (10, 128, 220):
        on = float(STEPS[column])
        made = streams.settings(Threshold(on=on, off=operating.off_of(on), chosen_for="a test"))
        for row, (scores, stream) in enumerate(zip(rows, held, strict=True)):
            decision = made.decision()
            changes = [decision.update(float(np.float32(s)), round(i * FRAME_S * 1e9)) for i, s in enumerate(scores)]
            if stream.interval is None:
                assert swept.false[row, column] == changes.count("on")
            else:
                assert not swept.false[row, column]
    assert swept.false_an_hour[0] >= swept.false_an_hour[-1]
    assert swept.found_share[0] == 1


def test_an_alarm_finds_a_passing_within_half_a_second() -> None:
    assert tuning.meets((3.4, 5.0), (2.0, 3.0))
    assert tuning.meets((0.0, 1.6), (2.0, 3.0))
    assert not tuning.meets((3.6, 5.0), (2.0, 3.0))
    assert not tuning.meets((0.0, 1.4), (2.0, 3.0))
