"""Rules for when an alarm goes on: the daemon's, and others that the study "decision" compares with them.

A rule says on which frames an alarm may go on. Everything else is the daemon's: that the score of that frame reaches
the threshold, hysteresis and cooldown.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from bittern.config.schema import EVIDENCE
from bittern.decision.decision import EVIDENCE_FRAME_NS, Change, Settings
from bittern.model.operating import log_odds

_S = 1e9


class Decider(Protocol):
    """What `bittern.decision.decision.Decision` is for a list of scores."""

    def update(self, score: float, now_ns: int) -> Change | None:
        """See `Decision`."""


class Rule(Protocol):
    """Says on which frames an alarm may go on."""

    def update(self, score: float, passed_s: float) -> bool:
        """Take the score of a frame, and the time since the one before; returns whether an alarm may go on."""

    def forget(self) -> None:
        """An alarm has ended: nothing that came before counts any more."""


class Ruled:
    """The daemon's decision with a rule in place of evidence and votes."""

    def __init__(self, settings: Settings, rule: Rule) -> None:
        self._decision = settings._replace(evidence=0.0, votes=1, of=1).decision()
        self._rule = rule
        self._below = math.nextafter(settings.on, 0.0)
        self._now_ns: int | None = None

    def update(self, score: float, now_ns: int) -> Change | None:
        """See `Decision`."""
        passed_ns = EVIDENCE_FRAME_NS if self._now_ns is None else now_ns - self._now_ns
        self._now_ns = now_ns
        may = self._rule.update(score, passed_ns / _S)
        # A score just below the threshold starts no alarm.
        change = self._decision.update(score if may or self._decision.alarm else min(score, self._below), now_ns)
        if change == "off":
            self._rule.forget()
        return change


class SpreadVotes:
    """Two scores that reach the threshold, a stated time apart."""

    def __init__(self, on: float, apart_s: float, within_s: float) -> None:
        self._on, self._apart_s, self._within_s = on, apart_s, within_s
        self._ages: list[float] = []  # of the votes, in s

    def update(self, score: float, passed_s: float) -> bool:
        """See `Rule`."""
        # Half a millisecond more or less: the clock of a video is rounded.
        self._ages = [age + passed_s for age in self._ages if age + passed_s <= self._within_s + 5e-4]
        if score < self._on:
            return False
        self._ages.append(0.0)
        return max(self._ages) >= self._apart_s - 5e-4

    def forget(self) -> None:
        """See `Rule`."""
        self._ages.clear()


class Average:
    """The exponential average of the log-odds reaches those of the threshold; it starts at 0, an even chance."""

    def __init__(self, on: float, time_constant_s: float) -> None:
        self._least, self._time_constant_s = log_odds(on), time_constant_s
        self._average = 0.0

    def update(self, score: float, passed_s: float) -> bool:
        """See `Rule`."""
        weight = 1 - math.exp(-passed_s / self._time_constant_s)
        self._average += weight * (log_odds(score) - self._average)
        return self._average >= self._least

    def forget(self) -> None:
        """An average needs no end: it forgets by itself."""


class SequentialTest:
    """A sum of log-odds less those of the threshold, which starts again at 0 when it falls to `lower`.

    With `lower` 0 it is the one-sided CUSUM of the daemon without its bound on a single frame; with bounds from two
    error rates it is Wald's sequential probability ratio test (1945), repeated. A frame counts in proportion to the
    time since the last one, as the daemon's evidence does.
    """

    def __init__(self, on: float, lower: float, upper: float) -> None:
        self._threshold, self._lower, self._upper = log_odds(on), lower, upper
        self._sum = 0.0

    def update(self, score: float, passed_s: float) -> bool:
        """See `Rule`."""
        weight = min(passed_s * _S / EVIDENCE_FRAME_NS, 1.0)
        self._sum = min(self._upper, self._sum + weight * (log_odds(score) - self._threshold))
        if self._sum <= self._lower:
            self._sum = 0.0
        return self._sum >= self._upper

    def forget(self) -> None:
        """See `Rule`."""
        self._sum = 0.0


def wald(error: float) -> tuple[float, float]:
    """Wald's bounds of a sequential test, lower and upper, for equal rates of both errors."""
    upper = math.log((1 - error) / error)
    return -upper, upper


def _daemon(evidence: float = 0.0, votes: int = 1, of: int = 1) -> Callable[[Settings], Decider]:
    return lambda settings: settings._replace(evidence=evidence, votes=votes, of=of).decision()


def _other(rule: Callable[[float], Rule]) -> Callable[[Settings], Decider]:
    return lambda settings: Ruled(settings, rule(settings.on))


def _unclipped(evidence: float) -> Callable[[Settings], Decider]:
    return _other(lambda on: SequentialTest(on, 0.0, evidence))


# Evidence that is tried.
_EVIDENCE = sorted({1.0, 2.0, 4.0, EVIDENCE})


def cusum(evidence: float) -> str:
    """The name of the daemon's rule with some evidence."""
    return f"CUSUM, evidence {evidence:g}"


# Every rule by its name: makes a decision of settings, of which the threshold, `off` and the times count.
RULES: dict[str, Callable[[Settings], Decider]] = {
    "1 frame": _daemon(),
    "2 of 3 frames": _daemon(votes=2, of=3),
    "3 of 5 frames": _daemon(votes=3, of=5),
    "2 frames 0.3 s apart, within 0.6 s": _other(lambda on: SpreadVotes(on, 0.3, 0.6)),
    "average over 0.4 s": _other(lambda on: Average(on, 0.4)),
    "average over 1 s": _other(lambda on: Average(on, 1.0)),
    **{cusum(evidence): _daemon(evidence) for evidence in _EVIDENCE},
    **{f"{cusum(evidence)}, unclipped": _unclipped(evidence) for evidence in _EVIDENCE},
    "SPRT, errors 5 %": _other(lambda on: SequentialTest(on, *wald(0.05))),
    "SPRT, errors 1 %": _other(lambda on: SequentialTest(on, *wald(0.01))),
}
# That of a daemon without a configuration.
SHIPPED = cusum(EVIDENCE)
