"""Streams of a moving camera, made of one photograph each or drawn: what thresholds and choices are judged on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from bittern.config.schema import DecisionConfig
from bittern.decision.decision import Settings, settings_of
from bittern.evaluation import tuning
from bittern.frames import Pixels
from bittern.model import operating, preprocess
from bittern.model.manifest import Head, Threshold
from bittern.scene import street
from bittern_convert.augment import SIDE
from bittern_convert.task import Task

# Time between two frames in seconds: what the daemon looks at, 5 a second.
FRAME_S = 0.2
# Length of a passing, and a lap of the drawn street, in seconds.
PASSING_S = 5.0
LAP_S = 12.0
# Scores that a threshold can have: the steps of an int8 score, without 0.
STEPS = np.arange(1, 256) / 256
# How large a thing comes, as a share of the frame's side: below the first it is small, from the second on full.
_MEDIUM, _FULL = 0.5, 0.8
_NEAREST = ((0.3, _MEDIUM), (_MEDIUM, _FULL), (_FULL, 1.1))
# A drawn sign is in view from this share of the frame's side.
_SIGN_IN_VIEW = 0.08
# Beside a seed, what makes a generator of its own (`bittern_convert.copies` and `bittern_train.pool` have 0 to 4).
_STREAM, _STREET = 8, 9

Numbers = npt.NDArray[np.floating[Any]]
Size = Literal["small", "medium", "full"]
SIZES: tuple[Size, ...] = ("small", "medium", "full")


class Stream(NamedTuple):
    """Frames as a camera gives them, FRAME_S apart.

    Hours and passings of such streams are not those of a real camera: they show more things, more quickly.

    Attributes:
        name: of the photograph, or of the drawn street.
        frames: (n, size, size, 3) uint8 RGB: preprocessed.
        interval: from when until when a thing that should raise an alarm is in view, in seconds from the first frame;
            None: every alarm is false.
        size: of that thing while it is in view; None without one.
        night: whether it is drawn dark.
        drawn: whether it is a drawn street, not a photograph.
    """

    name: str
    frames: npt.NDArray[np.uint8]
    interval: tuple[float, float] | None
    size: Size | None
    night: bool
    drawn: bool = False


class Outline(NamedTuple):
    """What is kept of a stream when its frames are not; see there. `frames` is their number."""

    name: str
    frames: int
    interval: tuple[float, float] | None
    size: Size | None
    night: bool
    drawn: bool


def frames_of(seconds: float) -> int:
    """Number of frames of a stream of some length."""
    return max(2, round(seconds / FRAME_S))


def outline(stream: Stream) -> Outline:
    """A stream without its pixels."""
    return Outline(stream.name, len(stream.frames), stream.interval, stream.size, stream.night, stream.drawn)


class _Look(NamedTuple):
    """Light and lens of one stream.

    Attributes:
        table: (1, 256, 3) uint8: light.
        noise: (h, w, 3) int16, larger than a frame: each frame gets another part of it.
        focus: sigma in px of a frame, 0 if in focus.
        shutter: share of the time between frames for which it is open.
    """

    table: Pixels
    noise: npt.NDArray[np.int16]
    focus: float
    shutter: float
    night: bool


class _Path(NamedTuple):
    """Where the camera looks: centres (n, 2) and sides (n,) of the window in px of the picture, turns (n,) in rad."""

    centres: Numbers
    sides: Numbers
    turns: Numbers


def panned(frame: Pixels, name: str, seed: int, *, seconds: float, number: int = 0, size: int = 224) -> Stream:
    """A camera that moves over a photograph: pans, zooms and drift over any part of it, from a quarter to all of it.

    Args:
        frame: the photograph, (H, W, 3) uint8 BGR, without a thing that should raise an alarm.
        name: of the photograph: a stream depends on the seed, this name and the number, on nothing else.
        seed: of everything random.
        seconds: length.
        number: of the stream among those of the photograph.
        size: side of the network's input, in pixels.
    """
    rng = _generator(seed, name, number)
    look = _draw_look(rng)
    n = frames_of(seconds)
    times = np.arange(n) * FRAME_S
    whole = np.array(frame.shape[1::-1], float)
    short = whole.min()
    knots = int(rng.integers(2, 5))
    spread = 0.15 if rng.random() < 0.35 else 1.0  # a third hardly moves
    zooms, wheres = rng.uniform(math.log(0.25), 0, knots), rng.uniform(0, 1, (knots, 2))
    sides = short * np.exp(_smooth(times, zooms[0] + spread * (zooms - zooms[0])))
    centres = sides[:, None] / 2 + _smooth(times, wheres[0] + spread * (wheres - wheres[0])) * (whole - sides[:, None])
    path = _shaken(rng, times, _Path(centres, sides, np.zeros(n)))
    views = _Views(frame)
    frames = [look_at(views.window(path, i)) for i, look_at in enumerate(_lenses(rng, look, path, size))]
    return Stream(name, np.concatenate(frames), None, None, look.night)


def passing(frame: Pixels, name: str, seed: int, *, number: int = 0, size: int = 224) -> Stream:
    """A thing that comes from afar, is in view for 1.5 to 3 s, and goes: the photograph amid other surroundings.

    Args:
        frame: the photograph, (H, W, 3) uint8 BGR; the thing fills its centred square.
        name: see `panned`.
        seed: see `panned`.
        number: see `panned`.
        size: see `panned`.
    """
    rng = _generator(seed, name, number)
    look = _draw_look(rng)
    low, high = _NEAREST[int(rng.choice(3, p=[0.2, 0.3, 0.5]))]
    far, near = rng.uniform(0.18, 0.28), rng.uniform(low, high)
    stay = rng.uniform(1.5, 3)
    come = rng.uniform(0.5, 0.65) * (PASSING_S - stay)
    times = np.arange(round(PASSING_S / FRAME_S)) * FRAME_S
    # Share of the frame's side that the square fills; it goes as it came, or out at a side.
    marks = [0, come, come + stay, PASSING_S]
    out = rng.random() < 0.5
    phase = _eased(np.interp(times, marks, [0, 1, 1, 1 if out else 0]))
    shares = np.exp(math.log(far) + phase * (math.log(near) - math.log(far)))
    shares *= np.exp(np.interp(times, marks, [0, -0.03, 0.03, 0.03]))
    # Where the middle of the square is in the frame: far away anywhere in it, then in the middle as far as it fits.
    where = rng.uniform(-0.5, 0.5, 2) * (1 - shares[:, None])
    leaving = _eased(np.interp(times, marks, [0, 0, 0, 1]))[:, None] * out
    where = where + leaving * np.array([rng.choice([-1.0, 1.0]), rng.uniform(-0.3, 0.3)]) * (0.5 + shares[:, None] / 2)
    whole = np.array(frame.shape[1::-1], float)
    sides = whole.min() / shares
    path = _shaken(rng, times, _Path(whole / 2 - where * sides[:, None], sides, np.zeros(len(times))))
    views, around = _Views(frame), _surroundings(rng, frame)
    frames = [
        look_at(views.amid(path, i, _zoomed(around, (shares[i] / far) ** 0.25)))
        for i, look_at in enumerate(_lenses(rng, look, path, size))
    ]
    size_of = SIZES[(near >= _MEDIUM) + (near >= _FULL)]
    return Stream(name, np.concatenate(frames), (float(come), float(come + stay)), size_of, look.night)


def passes(task: Task, label: str) -> bool:
    """Whether a photograph of a label is made into a passing, as a thing that comes and goes, or else panned over.

    Any part of a photograph of nothing is nothing. Of one that shows a thing that raises no alarm (a masked face, a
    whole car), a part may not show what its label says.
    """
    return label in task.alarm or (bool(task.nothing) and label not in task.nothing)


def of_no_alarm(passed: Stream) -> Stream:
    """A passing of a thing that should raise no alarm: any is false."""
    return passed._replace(interval=None, size=None)


def driven(number: int, seed: int, *, stop: bool, size: int = 224) -> Stream:
    """A lap of the drawn street of `bittern.scene`, with or without a stop sign.

    Args:
        number: of the street.
        seed: of everything random.
        stop: whether there is a stop sign; other signs are there in any case.
        size: see `panned`.
    """
    rng = np.random.default_rng([seed, _STREET, number])
    world = street.Street(int(rng.integers(1 << 30)), (SIDE, SIDE), LAP_S, stop=stop)
    times = np.arange(round(LAP_S / FRAME_S)) * FRAME_S
    pictures = [world.render(float(t)) for t in times]
    high = np.array([p.sign is not None and p.sign[3] >= _SIGN_IN_VIEW * SIDE for p in pictures])
    interval = (float(times[high.argmax()]), float(times[len(high) - 1 - high[::-1].argmax()])) if high.any() else None
    largest = max((p.sign[3] for p in pictures if p.sign is not None), default=0) / SIDE
    size_of = SIZES[(largest >= _MEDIUM) + (largest >= _FULL)] if interval else None
    frames = np.concatenate([preprocess.preprocess(p.pixels, "RGB", size=size) for p in pictures])
    kind = "with" if stop else "without"
    return Stream(f"drawn/{kind}-{number}", frames, interval, size_of, world.night, True)


class Swept(NamedTuple):
    """How a decision did on streams, at every threshold of STEPS.

    Attributes:
        found: (streams, thresholds) bool: an alarm met the interval; all False without one.
        false: (streams, thresholds) number of alarms in streams without an interval.
        hours: of these.
        passings: number of streams with an interval.
    """

    found: npt.NDArray[np.bool_]
    false: npt.NDArray[np.int64]
    hours: float
    passings: int

    @property
    def found_share(self) -> Numbers:
        """(thresholds,) share of the passings found; 0 without any."""
        return np.asarray(self.found.sum(0) / max(1, self.passings), np.float64)

    @property
    def false_an_hour(self) -> Numbers:
        """(thresholds,)."""
        return np.asarray(self.false.sum(0) / max(self.hours, 1e-9), np.float64)


def settings(threshold: Threshold) -> Settings:
    """The daemon's decision as it is without a configuration, at a threshold."""
    head = Head(
        task="x",
        output="x",
        labels=("x", "y"),
        alarm=("x",),
        scale=1.0,
        zero_point=0,
        thresholds={"default": threshold},
    )
    return next(iter(settings_of({"x": [head]}, DecisionConfig(), []).values()))


def alarms(scores: Sequence[float], made: Settings) -> list[tuple[float, float]]:
    """Start and end (infinite if it had none) of every alarm of the scores of one stream, in seconds."""
    times_ns = [round(i * FRAME_S * 1e9) for i in range(len(scores))]
    return tuning.periods(made.decision().update, times_ns, scores)


def sweep(streams: Sequence[Outline], scores: npt.NDArray[np.float32]) -> Swept:
    """Run the daemon's own `Decision` over streams at every threshold.

    Args:
        streams: in the order of their frames.
        scores: (frames,) of the alarm, of all streams one after the other.
    """
    detected = np.zeros((len(streams), len(STEPS)), bool)
    false = np.zeros((len(streams), len(STEPS)), np.int64)
    made = [settings(Threshold(on=float(on), off=operating.off_of(float(on)), chosen_for="a step")) for on in STEPS]
    first = 0
    for row, stream in enumerate(streams):
        own = scores[first : first + stream.frames].tolist()
        first += stream.frames
        for column in range(int(np.searchsorted(STEPS, max(own), "right"))):  # above its highest score, nothing is on
            on = alarms(own, made[column])
            if stream.interval is None:
                false[row, column] = len(on)
            else:
                detected[row, column] = any(tuning.meets(alarm, stream.interval) for alarm in on)
    empty = [stream for stream in streams if stream.interval is None]
    hours = sum(stream.frames for stream in empty) * FRAME_S / 3600
    return Swept(detected, false, hours, len(streams) - len(empty))


def _generator(seed: int, name: str, number: int) -> np.random.Generator:
    own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
    return np.random.default_rng([seed, _STREAM, own, number])


def _eased(x: Numbers) -> Numbers:
    return np.asarray(x * x * (3 - 2 * x), np.float64)


def _smooth(times: Numbers, knots: Numbers) -> Numbers:
    """Values (n, ...) that go from knot to knot, at rest in each."""
    positions = times / max(times[-1], FRAME_S) * (len(knots) - 1)
    before = np.minimum(positions.astype(int), len(knots) - 2)
    part = _eased(positions - before).reshape(-1, *[1] * (knots.ndim - 1))
    return np.asarray(knots[before] * (1 - part) + knots[before + 1] * part, np.float64)


def _shaken(rng: np.random.Generator, times: Numbers, path: _Path) -> _Path:
    """The path as a hand or a mast lets it be: slow swaying and a little trembling, in shares of the window."""
    strength = rng.uniform(0, 0.02)
    phases, rates = rng.uniform(0, 2 * np.pi, (2, 3)), rng.uniform(0.4, 2.2, (2, 3))
    sway = sum(np.sin(2 * np.pi * rates[k] * times[:, None] + phases[k]) for k in range(2))
    shake = strength * (np.asarray(sway) / 2 + 0.3 * rng.standard_normal((len(times), 3)))
    tilt = rng.normal(0, 0.04)
    return _Path(path.centres + shake[:, :2] * path.sides[:, None], path.sides, path.turns + tilt + shake[:, 2])


class _Views:
    """What windows of a photograph show, (SIDE, SIDE, 3); smaller versions are kept, so that nothing aliases."""

    def __init__(self, frame: Pixels) -> None:
        self._levels: dict[int, tuple[Pixels, npt.NDArray[np.float32]]] = {}
        self._frame = frame

    def window(self, path: _Path, i: int) -> Pixels:
        """Of a window that may look a little over the edge: the photograph is mirrored there."""
        picture, back, _ = self._back(path, i)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(
            cv2.warpAffine(picture, back, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REFLECT_101), np.uint8
        )

    def amid(self, path: _Path, i: int, around: Pixels) -> Pixels:
        """Of a window that is larger than the photograph, with something else around it."""
        picture, back, mask = self._back(path, i)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(picture, back, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        share = cv2.warpAffine(mask, back, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(cv2.blendLinear(warped, around, share, 1 - share), np.uint8)

    def _back(self, path: _Path, i: int) -> tuple[Pixels, Numbers, npt.NDArray[np.float32]]:
        scale = path.sides[i] / SIDE
        factor = max(1, round(scale))
        if factor not in self._levels:
            small = [max(2, n // factor) for n in self._frame.shape[1::-1]]
            picture = np.asarray(cv2.resize(self._frame, small, interpolation=cv2.INTER_AREA), np.uint8)
            self._levels[factor] = picture, _soft_edged(*picture.shape[:2])
        picture, mask = self._levels[factor]
        ratio = np.array(self._frame.shape[1::-1]) / picture.shape[1::-1]
        cos, sin = np.cos(path.turns[i]) * scale, np.sin(path.turns[i]) * scale
        back = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
        back[:, 2] = path.centres[i] - back[:, :2] @ np.array([SIDE / 2, SIDE / 2])
        return picture, back / ratio[:, None], mask


def _soft_edged(height: int, width: int) -> npt.NDArray[np.float32]:
    """1 within, falling to 0 at the edges."""
    soft = max(2.0, 0.06 * min(height, width))
    y, x = (np.minimum(np.arange(n), np.arange(n)[::-1]) / soft for n in (height, width))
    return np.asarray(np.minimum(1, np.minimum(y[:, None], x[None, :])), np.float32)


def _surroundings(rng: np.random.Generator, frame: Pixels) -> Pixels:
    """(SIDE, SIDE, 3) uint8 BGR: a drawn street without a stop sign, or the photograph beyond recognition."""
    if rng.random() < 0.6:
        return np.ascontiguousarray(street.random_picture(rng, stop=False, size=(SIDE, SIDE))[:, :, ::-1])
    blurred = cv2.GaussianBlur(cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA), (0, 0), 28)
    return np.asarray(blurred[:, ::-1], np.uint8)


def _zoomed(picture: Pixels, zoom: float) -> Pixels:
    half = SIDE / 2 * (1 - 1 / zoom)
    back = np.array([[1 / zoom, 0, half], [0, 1 / zoom, half]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(picture, back, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REFLECT_101), np.uint8
    )


@lru_cache(maxsize=1)
def _grain() -> npt.NDArray[np.float32]:
    """Noise of standard deviation 1, larger than a frame; partly common to the channels."""
    noise = np.random.default_rng(_STREAM).standard_normal((SIDE + 96, SIDE + 96, 4), np.float32)
    return np.asarray(0.8 * noise[..., :3] + 0.6 * noise[..., 3:], np.float32)


def _draw_look(rng: np.random.Generator) -> _Look:
    night = bool(rng.random() < 0.25)
    gain = np.exp(rng.uniform(*np.log((0.15, 0.45) if night else (0.65, 1.25))))
    gamma = np.exp(rng.uniform(-0.2, 0.2))
    # At night the lamps are warm, or the white balance is off.
    cast = np.array([0.75, 0.95, 1.15]) ** rng.uniform(-0.3, 1.2) if night else 1 + rng.uniform(-0.07, 0.07, 3)
    ramp = np.linspace(0, 1, 256)[:, None] ** gamma * gain * cast
    noise = rng.uniform(4, 14) if night else rng.uniform(0, 6)
    blurred, open_long = rng.random() < 0.15, rng.random() < 0.5
    return _Look(
        table=np.clip(np.rint(ramp * 255), 0, 255).astype(np.uint8)[None],
        noise=np.rint(_grain() * noise).astype(np.int16),
        focus=float(rng.uniform(1.5, 4)) if blurred else float(rng.uniform(0, 0.7)),
        shutter=float(rng.uniform(0.1, 0.5)) if open_long else 0.05,
        night=night,
    )


def _lenses(rng: np.random.Generator, look: _Look, path: _Path, size: int) -> list[Callable[[Pixels], Pixels]]:
    """For each frame, from what is in the window to the tensor (1, size, size, 3) that the network sees."""
    moved = np.gradient(path.centres, axis=0) / path.sides[:, None] * SIDE * look.shutter
    corners = rng.integers(0, 96, (len(path.sides), 2))

    def lens_of(i: int) -> Callable[[Pixels], Pixels]:
        def lens(picture: Pixels) -> Pixels:
            if look.focus > 0.3:
                picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), look.focus), np.uint8)
            picture = _moved(picture, moved[i])
            lit = cv2.LUT(picture, look.table)
            top, left = corners[i]
            noisy = lit + look.noise[top : top + SIDE, left : left + SIDE]
            return preprocess.preprocess(np.clip(noisy, 0, 255).astype(np.uint8), size=size)

        return lens

    return [lens_of(i) for i in range(len(path.sides))]


def _moved(picture: Pixels, way: Numbers) -> Pixels:
    """Blurred along the way in px that the picture moved while the shutter was open."""
    length = min(int(np.abs(way).max()), 24) | 1
    if length < 3:
        return picture
    kernel = np.zeros((length, length), np.float32)
    half = (length - 1) / 2
    for t in np.linspace(-1, 1, 4 * length):
        x, y = way / np.abs(way).max() * half * t + half
        kernel[round(y), round(x)] = 1
    return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum()), np.uint8)
