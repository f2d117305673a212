"""Scores over time as one PNG, with thresholds, labelled intervals and alarms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from bittern.evaluation.tuning import Judged, LabelledInterval, Track
from bittern.frames import Pixels
from bittern.system import fileio

_WIDTH, _PANEL, _BAR = 1200, 220, 10
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 132, 34, 58
_INK, _GREY, _FAINT = (40, 40, 40), (130, 130, 130), (228, 228, 228)
_SCORE, _INSIDE, _OUTSIDE = (160, 90, 30), (205, 235, 205), (215, 215, 250)
_CORRECT, _FALSE, _UNKNOWN = (70, 150, 40), (40, 40, 215), (120, 120, 120)
_MOST_S = 1e9


def write(
    file: Path, panels: Sequence[tuple[Track, Judged]], intervals: Sequence[LabelledInterval] | None, name: str = ""
) -> None:
    """Draw a panel for each label, one below the other.

    Args:
        file: the PNG.
        panels: at least one.
        intervals: those of the panel's label are shaded; None if it is not known what happens in the clip.
        name: of the clip, for the title.
    """
    last_s = max(track.clip_s for track, _ in panels)
    last_s = min(max([last_s, *(i.end_s for i in intervals or ())], default=1.0), _MOST_S) or 1.0
    height = _TOP + _PANEL + _BOTTOM
    picture = np.full((height * len(panels), _WIDTH, 3), 255, np.uint8)
    for i, (track, judged) in enumerate(panels):
        of_label = None if intervals is None else [i for i in intervals if i.label == track.label]
        _panel(picture[i * height : (i + 1) * height], track, judged, of_label, last_s, name)
    _, png = cv2.imencode(".png", picture)
    fileio.write(file, png.tobytes())


def _panel(
    picture: Pixels,
    track: Track,
    judged: Judged,
    intervals: Sequence[LabelledInterval] | None,
    last_s: float,
    name: str,
) -> None:
    wide = _WIDTH - _LEFT - _RIGHT
    foot = _TOP + _PANEL

    def x(time_s: float) -> int:
        return _LEFT + round(wide * min(time_s, last_s) / last_s)

    def y(score: float) -> int:
        return foot - round(_PANEL * score)

    for interval in intervals or ():
        cv2.rectangle(picture, (x(interval.start_s), _TOP), (x(interval.end_s), foot), _INSIDE, -1)
    # Two pixels at least: an alarm may go on with the last frame.
    alarms = [(min(x(on_s), _LEFT + wide - 2), max(x(off_s), x(on_s) + 2)) for on_s, off_s in judged.alarms]
    colours = [_UNKNOWN if intervals is None else _CORRECT if right else _FALSE for right in judged.correct]
    for (left, right), colour in zip(alarms, colours, strict=True):
        if colour == _FALSE:
            cv2.rectangle(picture, (left, _TOP), (right, foot), _OUTSIDE, -1)
    for i in range(5):
        cv2.line(picture, (_LEFT, y(i / 4)), (_LEFT + wide, y(i / 4)), _FAINT, 1)
        _text(picture, f"{i / 4:.2f}", (_LEFT - 42, y(i / 4) + 4), _GREY)
    step = _round_step(last_s / 10)
    for i in range(math.floor(last_s / step + 1e-9) + 1):
        cv2.line(picture, (x(i * step), foot), (x(i * step), foot + 4), _GREY, 1)
        _text(picture, f"{i * step:g} s", (x(i * step) - 10, foot + _BAR + 24), _GREY)
    settings = judged.settings
    for threshold, level in (("on", settings.on), ("off", settings.off)):
        _dashes(picture, _LEFT, _LEFT + wide, y(level))
        # The two texts never overlap.
        down = 12 if threshold == "off" and y(settings.off) - y(settings.on) < 12 else 4
        _text(picture, f"{threshold} {level:.3f}", (_LEFT + wide + 8, y(level) + down), _INK)
    spots = np.array([[x(t / 1e9), y(s)] for t, s in zip(track.times_ns, track.scores, strict=True)], np.int32)
    if len(spots):
        cv2.polylines(picture, [spots], False, _SCORE, 1, cv2.LINE_AA)
    if len(spots) < wide / 6:
        for spot in spots:
            cv2.circle(picture, spot.tolist(), 2, _SCORE, -1, cv2.LINE_AA)
    for (left, right), colour in zip(alarms, colours, strict=True):
        cv2.rectangle(picture, (left, foot + 6), (right, foot + 6 + _BAR), colour, -1)
    _text(picture, "alarm", (_LEFT + wide + 8, foot + 6 + _BAR), _INK)
    # The font has ASCII only; names may have other characters.
    _text(picture, _title(track, judged, intervals, name), (_LEFT, _TOP - 12), _INK, 0.5)


def _title(track: Track, judged: Judged, intervals: Sequence[LabelledInterval] | None, name: str) -> str:
    settings = judged.settings
    n = len(judged.alarms)
    title = f"{name}: " if name else ""
    title += f"{track.model}, {track.label}: {n} alarm{'s' * (n != 1)} with {settings.rule}"
    if intervals:
        title += f", {judged.detected} of {judged.intervals} intervals detected (green)"
    elif intervals is not None:
        title += ", nothing to detect"
    if judged.false_alarms and intervals is not None:
        title += f", {judged.false_alarms} false (red)"
    return title.encode("ascii", "replace").decode()


def _round_step(least: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next((power * k for k in (1, 2, 5) if power * k >= least), power * 10)


def _text(picture: Pixels, text: str, origin: tuple[int, int], ink: tuple[int, int, int], size: float = 0.42) -> None:
    cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)


def _dashes(picture: Pixels, left: int, right: int, y: int) -> None:
    for x in range(left, right, 8):
        cv2.line(picture, (x, y), (min(x + 4, right), y), _INK, 1)
