"""From scores to alarms: hysteresis, N of the last M, cooldown and a minimum time off; pure, on the frames' clock."""

from __future__ import annotations

from collections import deque
from typing import Literal

Change = Literal["on", "off"]


class Decision:
    """The state of one alarm label.

    The alarm goes on with a score that reaches `on`, when at least `votes` of the last `of` did, and the last alarm
    ended at least `cooldown_s` ago. It goes off when no score has reached `off` for `min_off_s`, and at least that long
    passed.
    """

    def __init__(self, *, on: float, off: float, votes: int, of: int, cooldown_s: float, min_off_s: float) -> None:
        """See the class.

        Args:
            on: score, 0 to 1.
            off: score, 0 to 1, at most `on`.
            votes: at least 1, at most `of`.
            of: frames that are looked back on.
            cooldown_s: seconds.
            min_off_s: seconds.

        Raises:
            ValueError: values out of these ranges.
        """
        if not 0 <= off <= on <= 1:
            raise ValueError(f"thresholds must be 0 <= off <= on <= 1, got off {off}, on {on}")
        if not 1 <= votes <= of:
            raise ValueError(f"expected 1 <= votes <= of, got votes {votes} of {of}")
        if cooldown_s < 0 or min_off_s < 0:
            raise ValueError("times must not be negative")
        self._on, self._off, self._votes = on, off, votes
        self._cooldown_ns, self._min_off_ns = int(cooldown_s * 1e9), int(min_off_s * 1e9)
        self._last: deque[bool] = deque(maxlen=of)
        self._high_ns = 0  # the last time the score reached `off` while the alarm was on
        self._ended_ns: int | None = None
        self.alarm = False

    def update(self, score: float, now_ns: int) -> Change | None:
        """Take the score of one frame.

        Args:
            score: 0 to 1.
            now_ns: the frame's monotonic time in ns; never earlier than the one before.

        Returns:
            "on" or "off" if the alarm changed, else None.
        """
        self._last.append(score >= self._on)
        if self.alarm:
            if score >= self._off:
                self._high_ns = now_ns
            elif now_ns - self._high_ns >= self._min_off_ns:
                self.alarm = False
                self._ended_ns = now_ns
                self._last.clear()
                return "off"
            return None
        if score < self._on or sum(self._last) < self._votes:
            return None
        if self._ended_ns is not None and now_ns - self._ended_ns < self._cooldown_ns:
            return None
        self.alarm = True
        self._high_ns = now_ns
        return "on"
