"""The view `moving`: where the square lies, how it moves, and what is found in it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.passings import FPS, Passing, anywhere
from tests.doubles.scripted_clips import frames

from bittern import Classifier
from bittern.config.schema import GateConfig, WatchConfig
from bittern.decision.motion import Cells, MotionGate, grid_of
from bittern.decision.moving import MovingView
from bittern.decision.pipeline import Pipeline
from bittern.events import Event
from bittern.frames import Pixels
from bittern.model.preprocess import Region, View

S = 1_000_000_000
HOLD_S = 2.0
LEAST = 224
SIZES = st.tuples(st.integers(1, 1200), st.integers(1, 2000))


def moving() -> MovingView:
    return MovingView(least=LEAST, hold_s=HOLD_S)


def still(height: int, width: int) -> Cells:
    grid = grid_of(height, width)
    return np.zeros((grid.down, grid.across), bool)


def centred(height: int, width: int) -> Region:
    side = min(height, width)
    return Region((width - side) // 2, (height - side) // 2, side, side)


def blob(height: int, width: int, box: tuple[float, float, float, float]) -> Cells:
    """Cells of a rectangle that is given in shares of the picture: left, top, width, height."""
    changed = still(height, width)
    down, across = changed.shape
    left, top = int(box[0] * across), int(box[1] * down)
    changed[top : top + max(1, int(box[3] * down)), left : left + max(1, int(box[2] * across))] = True
    return changed


SHARES = st.floats(0.0, 0.999)
SMALL = st.tuples(SHARES, SHARES, st.floats(0.0, 0.4), st.floats(0.0, 0.4))
STEPS = st.lists(st.tuples(st.one_of(st.none(), SMALL), st.integers(0, S)), min_size=1, max_size=12)


@given(SIZES, STEPS, st.integers(0, 3))
def test_it_is_a_square_inside_the_picture_and_moves_steadily(
    size: tuple[int, int], steps: list[tuple[tuple[float, float, float, float] | None, int]], noise: int
) -> None:
    height, width = size
    short = min(size)
    view, now, last = moving(), 0, centred(*size)
    rng = np.random.default_rng(noise)
    for box, gap in steps:
        now += gap
        changed = still(*size) if box is None else blob(*size, box)
        changed |= rng.random(changed.shape) < noise / 100
        square = view.follow(changed, height, width, now) or centred(*size)
        assert min(LEAST, short) <= square.width == square.height <= short
        assert 0 <= square.x <= width - square.width
        assert 0 <= square.y <= height - square.height
        # No further than the way across the picture, times the share that the smoothing lets through.
        share = 1 - math.exp(-gap / S / 0.2)
        if gap:
            assert abs(square.width - last.width) <= share * short + 1
            for new, old, length in ((square.x, last.x, width), (square.y, last.y, height)):
                assert abs(new + square.width / 2 - old - last.width / 2) <= share * length + 2
        last = square


@given(SIZES, SMALL)
def test_it_holds_what_moves_and_goes_back_to_the_centre(
    size: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    height, width = size
    view, changed = moving(), blob(*size, box)
    square = None
    for number in range(20):
        square = view.follow(changed, height, width, number * S // FPS)
    square = square or centred(*size)
    grid, (rows, columns) = grid_of(height, width), np.nonzero(changed)
    left, right = grid.left + columns.min() * grid.cell, grid.left + (columns.max() + 1) * grid.cell
    top, bottom = grid.top + rows.min() * grid.cell, grid.top + (rows.max() + 1) * grid.cell
    if (right - left) * (bottom - top) < height * width / 2:
        assert square.x - 1 <= max(left, (left + right - min(size)) // 2)
        assert square.x + square.width + 1 >= min(right, (left + right + min(size)) // 2)
        assert square.y - 1 <= max(top, (top + bottom - min(size)) // 2)
        assert square.y + square.height + 1 >= min(bottom, (top + bottom + min(size)) // 2)
    else:
        assert square == centred(*size), "motion is everywhere"
    for number in range(20, 20 + round(HOLD_S * FPS)):
        kept = view.follow(still(*size), height, width, number * S // FPS) or centred(*size)
        assert max(abs(a - b) for a, b in zip(kept, square, strict=True)) <= 1, "it may have stopped only"
    for number in range(30, 50):
        back = view.follow(still(*size), height, width, number * S // FPS)
    assert back is None


def test_motion_everywhere_is_the_centre() -> None:
    view = moving()
    for number in range(10):
        assert view.follow(blob(720, 1280, (0.0, 0.2, 1.0, 0.7)), 720, 1280, number * S // FPS) is None


def test_it_stays_with_what_it_follows() -> None:
    """Two things of much the same size, far from each other: it does not hang between them, nor changes over."""
    view, one = moving(), blob(720, 1280, (0.05, 0.4, 0.1, 0.2))
    both = one | blob(720, 1280, (0.8, 0.4, 0.12, 0.24))
    for number in range(10):
        followed = view.follow(one, 720, 1280, number * S // FPS)
    for number in range(10, 30):
        assert view.follow(both, 720, 1280, number * S // FPS) == followed
    for number in range(30, 50):
        other = view.follow(one | blob(720, 1280, (0.6, 0.2, 0.3, 0.6)), 720, 1280, number * S // FPS)
    assert other is not None
    assert other.x > 600, "until something else is much larger"


def test_both_edges_of_one_colour_are_one_group() -> None:
    view = moving()
    edges = blob(720, 1280, (0.1, 0.4, 0.03, 0.15)) | blob(720, 1280, (0.16, 0.4, 0.03, 0.15))
    for number in range(20):
        square = view.follow(edges, 720, 1280, number * S // FPS)
    assert square is not None
    assert square.x <= 0.1 * 1280
    assert square.x + square.width >= 0.19 * 1280


def test_a_clock_that_is_set_back_and_another_size_start_anew() -> None:
    view, corner = moving(), (0.0, 0.0, 0.1, 0.1)
    for number in range(10):
        assert (view.follow(blob(720, 1280, corner), 720, 1280, 100 * S + number * S) is None) == (number == 0)
    assert view.follow(blob(720, 1280, corner), 720, 1280, S) is None
    assert view.follow(blob(720, 1280, corner), 720, 1280, 2 * S) is not None
    assert view.follow(blob(480, 640, corner), 480, 640, 3 * S) is None


def test_the_gate_says_where_it_moved() -> None:
    gate = MotionGate(threshold=10.0, heartbeat_s=5.0, linger_s=2.0)
    frame = np.full((720, 1280, 3), 90, np.uint8)
    assert gate.passes(frame, 0)
    assert not gate.changed().any(), "nothing is known yet"
    frame[360:396, 900:936, 1] = 250
    assert gate.passes(frame, S)
    changed, grid = gate.changed(), grid_of(720, 1280)
    rows, columns = np.nonzero(changed)
    assert changed.shape == (grid.down, grid.across)
    assert (grid.top + rows.min() * grid.cell, grid.top + (rows.max() + 1) * grid.cell) == (360, 396)
    assert abs(grid.left + columns.min() * grid.cell - 900) < grid.cell
    assert gate.passes(frame, 2 * S)
    assert not gate.changed().any()
    assert gate.passes(frame[:, :1000], 3 * S)
    assert not gate.changed().any(), "another size"
    dimmer = (frame[:, :1000] * 0.5).astype(np.uint8)
    assert gate.passes(dimmer, 4 * S)
    assert gate.changed().all()


# --- in the pipeline -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Classifier:
    return Classifier("stop_sign")


def alarms(model: Classifier, pictures: list[Pixels], *views: View, **config: Any) -> list[Event]:
    pipeline = Pipeline([model], WatchConfig(views=views, **config))
    return [event for frame in frames(iter(pictures)) for event in pipeline.step(frame).events]


FAR = Passing(seed=5, kind="stop", px=120, start=(80.0, 200.0), end=(210.0, 480.0))


@pytest.fixture(scope="module")
def far() -> list[Pixels]:
    """A sign of a sixth of the frame's height passes at the left end of a wide frame, outside of the centred square."""
    return list(FAR.pictures())


@pytest.mark.parametrize("gate", [GateConfig(), GateConfig(enabled=False)], ids=["gate", "every frame"])
@pytest.mark.parametrize("views", [("center", "moving"), ("moving",)])
def test_a_small_sign_far_from_the_centre_is_found(
    model: Classifier, far: list[Pixels], gate: GateConfig, views: tuple[View, ...]
) -> None:
    assert alarms(model, far, "center", gate=gate) == []
    on, *off = alarms(model, far, *views, gate=gate)
    assert (on.type, on.view, [event.type for event in off]) == ("alarm.on", "moving", ["alarm.off"])
    assert on.frame is not None
    centre = FAR.at(on.frame / FPS)
    assert centre is not None
    assert on.square is not None
    left, top, side = on.square
    assert left < centre[0] < left + side
    assert top < centre[1] < top + side


def test_the_square_is_in_pixels_of_the_frame_with_a_region_too(model: Classifier, far: list[Pixels]) -> None:
    wider = [np.pad(picture, ((40, 0), (60, 0), (0, 0))) for picture in far]
    plain = alarms(model, far, "moving")
    shifted = alarms(model, wider, "moving", region=(60, 40, 1280, 720))
    assert [(e.type, e.frame, e.score) for e in shifted] == [(e.type, e.frame, e.score) for e in plain]
    assert plain[0].square is not None
    x, y, side = plain[0].square
    assert shifted[0].square == (x + 60, y + 40, side)


def test_the_square_is_classified_as_a_frame_of_its_own(model: Classifier, far: list[Pixels]) -> None:
    pipeline = Pipeline([model], WatchConfig(views=("moving",)))
    moved = 0
    for frame in frames(iter(far)):
        step = pipeline.step(frame)
        for event in step.events:
            if event.square is None:
                continue
            x, y, side = event.square
            alone = np.ascontiguousarray(frame.pixels[y : y + side, x : x + side])
            assert np.array_equal(step.answers[0].tensor, model.preprocess(alone, "RGB"))
            assert step.answers[0].results[0].scores == model.classify(alone, "RGB")[0].scores
            moved += 1
    assert moved


def test_the_centre_is_classified_once_while_nothing_moves(model: Classifier, far: list[Pixels]) -> None:
    for views in (("center", "moving"), ("moving",)):
        pipeline = Pipeline([model], WatchConfig(views=views, gate=GateConfig(enabled=False)))
        steps = [pipeline.step(frame) for frame in frames(iter([far[0]] * 5))]
        assert [step.answers[0].results[0].view for step in steps] == ["center"] * 5
        assert all(np.array_equal(s.answers[0].tensor, model.preprocess(far[0], "RGB")) for s in steps)


@pytest.mark.slow
def test_anywhere_is_as_good_as_the_centre(model: Classifier) -> None:
    def found(centred: bool, *views: View) -> int:
        return sum(bool(alarms(model, list(anywhere(s, centred=centred).pictures()), *views)) for s in range(12))

    anywhere_found = found(False, "center", "moving")
    assert anywhere_found >= found(True, "center")
    assert anywhere_found >= found(False, "center")
