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
_SCORE, _INSIDE, _CORRECT, _FALSE = (160, 90, 30), (205, 235, 205), (70, 150, 40), (40, 40, 215)
_MOST_S = 1e9


def write(file: Path, panels: Sequence[tuple[Track, Judged]], intervals: Sequence[LabelledInterval]) -> None:
    """Draw a panel for each label, one below the other.

    Args:
        file: the PNG.
        panels: at least one.
        intervals: those of the panel's label are shaded.
    """
    last_s = max(track.clip_s for track, _ in panels)
    last_s = min(max([last_s, *(i.end_s for i in intervals)], default=1.0), _MOST_S) or 1.0
    height = _TOP + _PANEL + _BOTTOM
    picture = np.full((height * len(panels), _WIDTH, 3), 255, np.uint8)
    for i, (track, judged) in enumerate(panels):
        of_label = [interval for interval in intervals if interval.label == track.label]
        _panel(picture[i * height : (i + 1) * height], track, judged, of_label, last_s)
    _, png = cv2.imencode(".png", picture)
    fileio.write(file, png.tobytes())


def _panel(picture: Pixels, track: Track, judged: Judged, intervals: Sequence[LabelledInterval], last_s: float) -> None:
    wide = _WIDTH - _LEFT - _RIGHT
    foot = _TOP + _PANEL

    def x(time_s: float) -> int:
        return _LEFT + round(wide * min(time_s, last_s) / last_s)

    def y(score: float) -> int:
        return foot - round(_PANEL * score)

    for interval in intervals:
        cv2.rectangle(picture, (x(interval.start_s), _TOP), (x(interval.end_s), foot), _INSIDE, -1)
    for i in range(5):
        cv2.line(picture, (_LEFT, y(i / 4)), (_LEFT + wide, y(i / 4)), _FAINT, 1)
        _text(picture, f"{i / 4:.2f}", (_LEFT - 42, y(i / 4) + 4), _GREY)
    step = _round_step(last_s / 10)
    for i in range(math.floor(last_s / step + 1e-9) + 1):
        cv2.line(picture, (x(i * step), foot), (x(i * step), foot + 4), _GREY, 1)
        _text(picture, f"{i * step:g} s", (x(i * step) - 10, foot + _BAR + 24), _GREY)
    settings = judged.settings
    for name, level in (("on", settings.on), ("off", settings.off)):
        _dashes(picture, _LEFT, _LEFT + wide, y(level))
        # The two texts never overlap.
        down = 12 if name == "off" and y(settings.off) - y(settings.on) < 12 else 4
        _text(picture, f"{name} {level:.3f}", (_LEFT + wide + 8, y(level) + down), _INK)
    spots = np.array([[x(t / 1e9), y(s)] for t, s in zip(track.times_ns, track.scores, strict=True)], np.int32)
    cv2.polylines(picture, [spots], False, _SCORE, 1, cv2.LINE_AA)
    if len(spots) < wide / 6:
        for spot in spots:
            cv2.circle(picture, spot.tolist(), 2, _SCORE, -1, cv2.LINE_AA)
    for on_s, off_s in judged.alarms:
        in_interval = any(i.start_s <= on_s <= i.end_s for i in intervals) or not intervals
        colour = _CORRECT if in_interval else _FALSE
        cv2.rectangle(picture, (x(on_s), foot + 6), (max(x(off_s), x(on_s) + 2), foot + 6 + _BAR), colour, -1)
    _text(picture, "alarm", (_LEFT + wide + 8, foot + 6 + _BAR), _INK)
    title = f"{track.model}, {track.label}: {len(judged.alarms)} alarms with {settings.rule}"
    if intervals:
        title += (
            f", {judged.detected} of {judged.intervals} intervals detected (green), {judged.false_alarms} false (red)"
        )
    # The font has ASCII only; labels may have other characters.
    _text(picture, title.encode("ascii", "replace").decode(), (_LEFT, _TOP - 12), _INK, 0.5)


def _round_step(least: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next((power * k for k in (1, 2, 5) if power * k >= least), power * 10)


def _text(picture: Pixels, text: str, origin: tuple[int, int], ink: tuple[int, int, int], size: float = 0.42) -> None:
    cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)


def _dashes(picture: Pixels, left: int, right: int, y: int) -> None:
    for x in range(left, right, 8):
        cv2.line(picture, (x, y), (min(x + 4, right), y), _INK, 1)
