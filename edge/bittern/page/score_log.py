"""The scores of the last day, in bounded memory: for the picture of scores, and to try thresholds on."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bittern.decision.decision import Settings

DAY_NS = 86_400 * 10**9
# Bytes for all rows; at five frames a second and one alarm a day of motion without a pause takes 4.3 MB.
MAX_BYTES = 8 * 2**20
_BLOCK = 2048
# A score is kept in steps of 1/65535; these two stand for frames without one.
_STEPS = 65533
_STILL, _BLIND = 65535, 65534


class Trial(NamedTuple):
    """What a threshold would have done.

    Attributes:
        alarms: how many would have gone on.
        seconds: over which time.
    """

    alarms: int
    seconds: float


class _Block:
    def __init__(self, alarms: int) -> None:
        self.times = np.zeros(_BLOCK, np.int64)
        self.scores = np.zeros((_BLOCK, alarms), np.uint16)
        self.count = 0


class ScoreLog:
    """Rows of a frame's time and the score of every alarm, oldest first.

    Of frames that decided nothing, one after the other, only the last is kept, which is all that a decision needs to
    know of them.

    Args:
        alarms: how many alarms there are.
    """

    def __init__(self, alarms: int) -> None:
        self._alarms = alarms
        self._blocks: deque[_Block] = deque()
        self._most = max(2, MAX_BYTES // (_BLOCK * (8 + 2 * alarms)))

    def add(self, time_ns: int, scores: Sequence[float], *, blind: bool = False) -> None:
        """Take the scores of a frame.

        Args:
            time_ns: monotonic; if it is before the last one, the clock is another one and the log begins anew.
            scores: of every alarm, 0 to 1; none if the frame decided nothing.
            blind: the camera shows nothing, which is why.
        """
        last = self._blocks[-1] if self._blocks else None
        if last is not None and last.count and time_ns < last.times[last.count - 1]:
            self._blocks.clear()
            last = None
        mark = _BLIND if blind else _STILL
        if not scores and last is not None and last.count and last.scores[last.count - 1, :1] == mark:
            last.times[last.count - 1] = time_ns
            return
        if last is None or last.count == _BLOCK:
            last = _Block(self._alarms)
            self._blocks.append(last)
            while len(self._blocks) > self._most:
                self._blocks.popleft()
        last.times[last.count] = time_ns
        last.scores[last.count] = [round(score * _STEPS) for score in scores] if scores else mark
        last.count += 1
        while self._blocks[0].times[self._blocks[0].count - 1] < time_ns - DAY_NS:
            self._blocks.popleft()

    def series(self, seconds: float, most: int = 1200) -> list[list[float]]:
        """The newest rows, for a picture: the time in ms, and each alarm's score; of many rows the highest scores.

        Args:
            seconds: how far back.
            most: rows at most.
        """
        times, scores = self._arrays()
        if not len(times):
            return []
        recent = (times > times[-1] - seconds * 1e9) & (scores[:, 0] <= _STEPS)
        times, scores = times[recent], scores[recent]
        step = -(-len(times) // most) or 1
        rows = []
        for start in range(0, len(times), step):
            highest = scores[start : start + step].max(axis=0) / _STEPS
            rows.append([int(times[start]) // 1_000_000, *(round(float(score), 4) for score in highest)])
        return rows

    def trial(self, alarm: int, settings: Settings) -> Trial:
        """Run the daemon's own decision over all rows, with other settings; takes a fraction of a second.

        What cannot change a decision that is settled is left out: scores below the threshold.

        Args:
            alarm: the number of the alarm.
            settings: to try.
        """
        times, scores = self._arrays()
        if not len(times):
            return Trial(0, 0.0)
        column = scores[:, alarm]
        # A score counts as the step that it was kept as, so that one equal to the threshold stays so.
        reached = np.flatnonzero((column >= round(settings.on * _STEPS)) & (column <= _STEPS))
        decision = settings.decision()
        count = i = 0
        while i < len(times):
            if not (decision.alarm or decision.unsettled):
                after = np.searchsorted(reached, i)
                if after == len(reached):
                    break
                i = max(i, int(reached[after]) - 1)  # the one before, whose time counts
            value, now = int(column[i]), int(times[i])
            if value == _STILL:
                decision.hold(now)
            elif value == _BLIND:
                decision.blind(now)
            else:
                score = settings.on if value == round(settings.on * _STEPS) else value / _STEPS
                count += decision.update(score, now) == "on"
            i += 1
        return Trial(count, float(times[-1] - times[0]) / 1e9)

    def _arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
        blocks = list(self._blocks)
        if not blocks:
            return np.zeros(0, np.int64), np.zeros((0, self._alarms), np.uint16)
        return (
            np.concatenate([block.times[: block.count] for block in blocks]),
            np.concatenate([block.scores[: block.count] for block in blocks]),
        )
