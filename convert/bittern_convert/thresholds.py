"""Alarm thresholds, chosen on out-of-fold figures of pictures and streams."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from bittern.model import operating
from bittern.model.manifest import StillPoint, StreamPoint, Streams, Tail, Threshold
from bittern_convert.streams import STEPS, Swept

# Bounds on the false alarms of streams, an hour of which shows some 900 photographs. "default" keeps to the strictest
# of those from the third on at which the share FOUND of the passings is found, or to the last but one; "quiet" keeps
# to the bound before it, "sensitive" to the one after it. With 1 an hour the stop signs of real clips are found later
# than by 2 of 3 frames; with 10 they are found sooner, without a false alarm there.
BOUNDS = (
    "at most 1 false alarm a day",
    "at most 1 false alarm an hour",
    "at most 10 false alarms an hour",
    "at most 30 false alarms an hour",
    "at most 100 false alarms an hour",
)
FOUND = 0.5
# No threshold is shipped that more of the pictures without the alarm label reach; "default" is, if there is no other.
MOST_FALSE = 0.1
# Highest peaks of streams that a tail is fitted to, and the least for one.
PEAKS, LEAST_PEAKS = 20, 10
# Points that a manifest keeps.
POINTS = 40
# Without streams:
# What "quiet" allows among pictures without the alarm label.
QUIET_FALSE_ALARMS = 0.005
# What "default" allows among pictures of nothing at all: a camera sees little else, day and night.
NOTHING_FALSE_ALARMS = 0.005
# What "sensitive" finds of the pictures with the alarm label.
SENSITIVE_RECALL = 0.99


class Stills(NamedTuple):
    """At every threshold of STEPS, the shares (thresholds,) of n and m pictures that reach it.

    Attributes:
        found: of those with the alarm label.
        false: of those without.
        n: how many have the alarm label.
        m: how many do not.
    """

    found: npt.NDArray[np.float64]
    false: npt.NDArray[np.float64]
    n: int
    m: int

    @property
    def balanced(self) -> npt.NDArray[np.float64]:
        """Balanced accuracies (thresholds,)."""
        return (self.found + 1 - self.false) / 2

    def text(self, i: int) -> str:
        """What the threshold of a number gives, in words."""
        return f"out of fold: {self.found[i]:.1%} of {self.n} found, {self.false[i]:.1%} false alarms of {self.m}"


def of_stills(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_]) -> Stills:
    """The ROC of out-of-fold scores (n,) of the alarm; `positive` (n,) says which pictures have its label."""
    found, false = ((scores[which, None] >= STEPS).mean(0) for which in (positive, ~positive))
    return Stills(found, false, int(positive.sum()), int((~positive).sum()))


def still_points(stills: Stills) -> tuple[StillPoint, ...]:
    """The ROC as a run keeps it, at every threshold of STEPS."""
    return tuple(
        StillPoint(on=float(on), found=round(float(found), 4), false=round(float(false), 4))
        for on, found, false in zip(STEPS, stills.found, stills.false, strict=True)
    )


def of_streams(swept: Swept) -> Streams:
    """What streams gave, at every threshold, and the tail of their peaks.

    The peak of a stream is the highest threshold at which it raises an alarm. Over the PEAKS highest of them, one from
    each stream, an exponential in log-odds is fitted: its scale is their mean excess, the most likely one.
    """
    points = tuple(
        StreamPoint(on=float(on), found=round(float(found), 4), false_an_hour=round(float(false), 4))
        for on, found, false in zip(STEPS, swept.found_share, swept.false_an_hour, strict=True)
    )
    return Streams(hours=round(swept.hours, 4), passings=swept.passings, points=points, tail=_tail(swept))


_Point = TypeVar("_Point", StillPoint, StreamPoint)


def compact(points: Sequence[_Point], kept: Set[float]) -> tuple[_Point, ...]:
    """At most POINTS points as a manifest keeps them, about evenly in log-odds, and those of the thresholds `kept`."""
    if not points:
        return ()
    odds = np.array([operating.log_odds(point.on) for point in points])
    even = np.linspace(odds[0], odds[-1], POINTS)
    chosen = {int(i) for i in np.abs(odds[None] - even[:, None]).argmin(1)}
    chosen |= {i for i, point in enumerate(points) if point.on in kept}
    return tuple(points[i] for i in sorted(chosen))


def _tail(swept: Swept) -> Tail | None:
    alarmed = swept.false > 0
    highest = np.where(alarmed.any(1), alarmed.shape[1] - 1 - alarmed[:, ::-1].argmax(1), -1)
    columns = np.sort(highest[highest >= 0])[::-1]
    count = min(PEAKS, len(columns) // 2)
    if count < LEAST_PEAKS or not swept.hours:
        return None
    odds = np.log(STEPS / (1 - STEPS))
    base = int(columns[count])
    return Tail(
        on=float(STEPS[base]),
        false_an_hour=count / swept.hours,
        # Peaks are known to a step only: no scale below a twentieth, which no data of this size would show.
        scale=max(0.05, float((odds[columns[:count]] - odds[base]).mean())),
        peaks=count,
    )


def found_within_bound(swept: Swept) -> float:
    """Share of the passings found at the lowest threshold with at most 1 false alarm an hour; 0 if none has so few.

    It is what candidates are compared by.
    """
    lowest = _lowest(of_streams(swept), BOUNDS[1])
    return 0.0 if lowest is None else float(swept.found_share[round(lowest * 256) - 1])


def choose_on_streams(
    stills: Sequence[StillPoint], streams: Streams, *, positive: int, negative: int
) -> dict[str, Threshold]:
    """The thresholds that keep to BOUNDS on streams.

    Args:
        stills: the ROC of pictures out of fold.
        streams: out of fold.
        positive: number of pictures with the alarm label.
        negative: number of pictures without it.

    Returns:
        Of the thresholds that keep to its bound (see BOUNDS), "default" has the highest sum of the share of passings
        found and the balanced accuracy on pictures. "quiet" and "sensitive" are the lowest that keep to theirs; they
        are left out where none does, where more than MOST_FALSE of the pictures without the alarm label reach it, and
        where they are not above, or below, "default".
    """
    # A run of an earlier version keeps only some of the points of each.
    both = {point.on for point in stills} & {point.on for point in streams.points}
    stills = [point for point in stills if point.on in both]
    streams = msgspec.structs.replace(streams, points=tuple(p for p in streams.points if p.on in both))
    steps = [point.on for point in streams.points]
    passings_found = np.array([point.found for point in streams.points])
    false = np.array([point.false for point in stills])
    balanced = (np.array([point.found for point in stills]) + 1 - false) / 2
    lowest = [_lowest(streams, bound) for bound in BOUNDS]
    rung = next(
        (i for i, on in enumerate(lowest[2:-1], 2) if on is not None and passings_found[steps.index(on)] >= FOUND),
        len(BOUNDS) - 2,
    )
    least = lowest[rung]
    usable = np.array([least is not None and on >= least for on in steps])
    kept = usable & (false <= MOST_FALSE) if (usable & (false <= MOST_FALSE)).any() else usable
    why, ranks = f"passings found and balanced accuracy, {_how(streams, BOUNDS[rung])}", passings_found + balanced
    if not kept.any():
        kept, ranks = np.ones(len(steps), bool), balanced
        why = f"balanced accuracy (no threshold promises {BOUNDS[rung]} on streams)"
    ranks = np.where(kept, ranks, -1)
    best = np.flatnonzero(ranks >= ranks.max() - 1e-9)
    default = int(best[len(best) // 2])
    chosen = {"default": (default, why)}
    for name, sign in (("quiet", 1), ("sensitive", -1)):
        on = lowest[rung - sign]
        if on is None or not usable.any():
            continue
        i = steps.index(on)
        if sign * (i - default) > 0 and false[i] <= MOST_FALSE:
            chosen[name] = i, _how(streams, BOUNDS[rung - sign])
    return {
        name: Threshold(
            on=steps[i],
            off=operating.off_of(steps[i]),
            chosen_for=f"{reason}: {_on_streams(streams, i)}; pictures out of fold: {stills[i].found:.1%} of "
            f"{positive} found, {false[i]:.1%} false alarms of {negative}",
        )
        for name, (i, reason) in chosen.items()
    }


def _lowest(streams: Streams, text: str) -> float | None:
    """The lowest threshold of the points that keeps to a bound; None if there is none."""
    bound = operating.parse_bound(text)
    promised = operating.promise(streams, bound) if bound is not None else None
    if promised is None:
        return None
    return min((point.on for point in streams.points if point.on >= promised.on - 1e-9), default=None)


def _how(streams: Streams, text: str) -> str:
    bound = operating.parse_bound(text)
    assert bound is not None
    counted = operating.is_counted(streams, bound)
    return f"{text} on streams ({'counted' if counted else 'extrapolated'})"


def _on_streams(streams: Streams, i: int) -> str:
    point, minutes = streams.points[i], 60 * streams.hours
    passings = f"{point.found:.1%} of {streams.passings} passings found, " if streams.passings else ""
    return f"{passings}{round(point.false_an_hour * streams.hours)} false alarms in {minutes:.0f} min"


def choose(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], nothing: npt.NDArray[np.bool_] | None = None
) -> dict[str, Threshold]:
    """Thresholds "default", "quiet" and "sensitive" for one score, of a task without streams.

    Args:
        scores: (n,) out-of-fold scores of the alarm, 0 to 1.
        positive: (n,) whether the picture has it.
        nothing: (n,) whether the picture shows nothing that the model knows; None where that is not a label of its own.

    Returns:
        "default" has the highest balanced accuracy (the middle of the best range) of those with at most
        NOTHING_FALSE_ALARMS alarms among the pictures of nothing, "quiet" is the lowest one from there on with at most
        QUIET_FALSE_ALARMS false alarms, "sensitive" the highest one up to there that finds SENSITIVE_RECALL of the
        positive. "quiet" and "sensitive" are left out where they are that of "default", and "sensitive" where more than
        MOST_FALSE of the pictures without the alarm label reach it.
    """
    stills = of_stills(scores, positive)
    balanced, false = stills.balanced, stills.false
    criterion = "balanced accuracy"
    if nothing is not None and nothing.any():
        empty = np.array([(scores[nothing] >= s).mean() for s in STEPS])
        balanced[:-1][empty[:-1] > NOTHING_FALSE_ALARMS] = -1  # one step has to stay
        criterion += f" with at most {NOTHING_FALSE_ALARMS:.1%} alarms from nothing"
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    silent, finding = np.flatnonzero(false <= QUIET_FALSE_ALARMS), np.flatnonzero(stills.found >= SENSITIVE_RECALL)
    middle = int(best[len(best) // 2])
    # Where no step is good enough, the last one comes nearest; `chosen_for` says what it really gives. A "quiet" that
    # raises more alarms than "default" would be a trap, even where both keep their promises.
    quiet = max(middle, int(silent[0]) if len(silent) else len(STEPS) - 1)
    sensitive = min(middle, int(finding[-1]) if len(finding) else 0)
    picks = {"default": (middle, criterion)}
    if quiet > middle:
        picks["quiet"] = quiet, f"at most {QUIET_FALSE_ALARMS:.1%} false alarms"
    if sensitive < middle and false[sensitive] <= MOST_FALSE:
        picks["sensitive"] = sensitive, f"{SENSITIVE_RECALL:.0%} of the alarms found"
    return {
        name: Threshold(
            on=float(STEPS[i]), off=operating.off_of(float(STEPS[i])), chosen_for=f"{why}, {stills.text(i)}"
        )
        for name, (i, why) in picks.items()
    }
