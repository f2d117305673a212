"""Thresholds by what they promise: a name, or "at most N false alarms an hour" from what streams showed."""

from __future__ import annotations

import itertools
import math
import re
from typing import NamedTuple

from bittern.errors import ConfigurationError
from bittern.model.manifest import Head, Streams, Tail, Threshold

# The highest threshold that an int8 score can reach, and a score's step.
_STEP = 1 / 256
_HIGHEST = 255 / 256
# An alarm may end below this part of the score that starts it.
OFF_SHARE = 0.6


class Bound(NamedTuple):
    """The most false alarms in a number of hours, and the text that states it."""

    false_alarms: int
    hours: float
    text: str

    @property
    def an_hour(self) -> float:
        """False alarms an hour."""
        return self.false_alarms / self.hours


def parse_bound(text: str) -> Bound | None:
    """Read "at most 1 false alarm an hour", or "at most 3 false alarms a day"; None for anything else."""
    match = re.fullmatch(r"at most ([0-9]{1,6}) false alarms? (an hour|a day)", text)
    if match is None:
        return None
    return Bound(int(match[1]), 1.0 if match[2] == "an hour" else 24.0, text)


def threshold_for(head: Head, text: str) -> Threshold:
    """The threshold that a configuration asks for.

    Args:
        head: of the model.
        text: the name of one of its thresholds, or a bound that `parse_bound` reads.

    Raises:
        ConfigurationError: no such name, or no threshold can promise the bound. The message goes on from the model's
            name: "has no threshold ...".
    """
    if text in head.thresholds:
        return head.thresholds[text]
    bound, names = parse_bound(text), ", ".join(head.thresholds)
    if bound is None:
        raise ConfigurationError(
            f"has no threshold {text!r}; it has {names}, or give 'at most N false alarms an hour' (or 'a day'), "
            "or a score from 0 to 1"
        )
    if head.streams is None:
        raise ConfigurationError(
            f"was not measured on streams, so no threshold can promise {text!r}; it has {names}, or give a score from "
            "0 to 1"
        )
    promised = promise(head.streams, bound)
    if promised is None:
        raise ConfigurationError(
            f"has no threshold that promises {text!r}: not even {_HIGHEST:.3f} would keep to it; it has {names}"
        )
    return promised


def promise(streams: Streams, bound: Bound) -> Threshold | None:
    """The lowest threshold that keeps to a bound on false alarms, by what streams showed; None if there is none.

    Where the streams are long enough (`is_counted`), their alarms are counted. Else the rate falls
    exponentially with the log-odds of the threshold, as over the highest peaks of the streams: peaks over threshold
    with a generalized Pareto tail of shape 0 (Pickands 1975; Davison and Smith 1990).
    """
    hours = f"{streams.hours * 60:.0f} min of streams"
    if is_counted(streams, bound):
        # One from which on all keep to it: at a lower threshold, two alarms may be one long one.
        kept = list(itertools.takewhile(lambda point: point.false_an_hour <= bound.an_hour, reversed(streams.points)))
        if not kept:
            return None
        on, how = kept[-1].on, f"counted in {hours}"
    elif streams.tail is not None and bound.false_alarms:
        tail = streams.tail
        odds = log_odds(tail.on) + tail.scale * math.log(tail.false_an_hour / bound.an_hour)
        on = math.ceil(max(1 / (1 + math.exp(-odds)), tail.on) / _STEP - 1e-9) * _STEP
        how = f"extrapolated from the {tail.peaks} highest peaks of {hours}"
    else:
        return None
    if on > _HIGHEST:
        return None
    above = [point for point in streams.points if point.on >= on - 1e-9]
    detected = above[0].found if above else 0.0
    share = f", {detected:.1%} of {streams.passings} passings found" if streams.passings else ""
    return Threshold(on=on, off=off_of(on), chosen_for=f"{bound.text}, {how}{share}")


def is_counted(streams: Streams, bound: Bound) -> bool:
    """Whether streams are long enough to count what a bound allows: at least half of the time to one false alarm."""
    return bound.an_hour * streams.hours >= 0.5


def off_of(on: float) -> float:
    """The score below which an alarm may end, in whole steps of an int8 score."""
    return round(on * OFF_SHARE / _STEP) * _STEP


def rate(tail: Tail, on: float) -> float:
    """False alarms an hour that a tail expects at a threshold within it."""
    return tail.false_an_hour * math.exp(-(log_odds(on) - log_odds(tail.on)) / tail.scale)


def log_odds(score: float) -> float:
    """The logarithm of score / (1 - score), for a score from 0 to 1; at most 5.54 either way, as far as int8 goes."""
    score = min(_HIGHEST, max(_STEP, score))
    return math.log(score / (1 - score))
