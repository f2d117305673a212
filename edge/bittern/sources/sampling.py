"""Which frames of a recording are looked at: as many a second as a daemon takes from a camera, on a regular grid."""

from __future__ import annotations


class Sampler:
    """Chooses frames by their times: for each tick of 1 / fps since the first frame, the first one that is due.

    Ticks are counted from the first frame, so the choice does not drift: of 25 frames a second every fifth is taken at
    5 a second, of 29.97 now and then one sooner. A tick without a frame is not made up for.

    A frame is due for a tick if it comes at most a tolerance before it. For a clip with more than `fps` frames a
    second, that is half the interval of its frames: the nearest frame to the tick is taken, and the rounding of time
    stamps cannot move the choice. A clip with fewer is taken whole: its tolerance is one period, 1 / fps. That is the
    jitter of a recording at the same `fps`: at each turn the recorder takes the newest frame, which may be as old as
    the interval of the camera's frames, and that is shorter than the period, or no frame would be left out live.
    """

    def __init__(self, fps: float, interval_ns: float) -> None:
        """Nothing is chosen yet.

        Args:
            fps: frames a second to take at most, on average.
            interval_ns: mean time from one frame of the clip to the next.
        """
        self._period_ns = 1e9 / fps
        # Rates are rounded too: 5 frames a second are not faster than 5.
        whole = interval_ns >= self._period_ns * (1 - 1e-6)
        self._tolerance_ns = self._period_ns if whole else interval_ns / 2
        self._first_ns: int | None = None
        self._tick = 0

    def due(self, time_ns: int) -> bool:
        """Whether the frame of this time is taken; asked once for each frame, in order.

        Args:
            time_ns: never earlier than the time before.
        """
        if self._first_ns is None:
            self._first_ns = time_ns
        elapsed_ns = time_ns - self._first_ns
        if elapsed_ns < self._tick * self._period_ns - self._tolerance_ns:
            return False
        self._tick = max(self._tick, int(elapsed_ns // self._period_ns)) + 1
        return True
