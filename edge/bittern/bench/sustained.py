"""Speed and heat over minutes: percentiles of inference and frame to event, for several numbers of threads in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from bittern.bench.rows import FrameToEvent, Subject
from bittern.bench.timing import collector_off, milliseconds, percentile
from bittern.model.classifier import Classifier
from bittern.system import machine

SIZE = (640, 480)
# Temperature follows load within seconds; a slice of this length has a few hundred inferences on a Pi 4.
SLICE_S = 5.0


class Spread(msgspec.Struct, frozen=True):
    """Percentiles of times in milliseconds."""

    p50: float
    p95: float
    p99: float


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of time with one number of threads.

    Attributes:
        at_s: end of the slice, seconds from the start.
        threads: number of threads of an inference.
        n: measurements of each of the two.
        invoke: one inference.
        event: a frame of 640 x 480 to its event.
        temperature_c: of the processor, at the end of the slice.
        frequency_mhz: clock of the processor, at the end of the slice.
        throttled: what the firmware reports at the end of the slice, "under-voltage" and so on.
        governor: the kernel's policy that chooses the clock.
    """

    at_s: float
    threads: int
    n: int
    invoke: Spread
    event: Spread
    temperature_c: float | None
    frequency_mhz: int | None
    throttled: tuple[str, ...]
    governor: str | None


class Sustained(msgspec.Struct, frozen=True, kw_only=True):
    """A result file of `bittern bench --sustained`."""

    schema: Literal[1] = 1
    time: str
    machine: machine.Machine
    model: str
    minutes: float
    points: tuple[Point, ...]


def measure(subject: Subject, minutes: float, threads: Sequence[int]) -> Iterator[Point]:
    """Keep the machine busy until the time is over, with each number of threads in turn, each for one slice at least.

    Args:
        subject: the model.
        minutes: for all numbers of threads together.
        threads: numbers of threads.

    Yields:
        a point when its slice is over.
    """
    frames_to_events = [
        FrameToEvent(Classifier(subject.folder, threads=count), subject.folder, SIZE) for count in threads
    ]
    slice_s = min(SLICE_S, minutes * 60 / len(threads))
    tensor = np.full((1, *subject.classifier.shape, 3), 128, np.uint8)
    start = time.monotonic()
    while True:
        for count, frame_to_event in zip(threads, frames_to_events, strict=True):
            yield _slice(count, frame_to_event, tensor, slice_s, start)
        if time.monotonic() - start >= minutes * 60:
            return


def table(points: Sequence[Point]) -> str:
    """The first and the last slice of each number of threads: what heat has changed."""
    lines = []
    for count in dict.fromkeys(point.threads for point in points):
        of_count = [point for point in points if point.threads == count]
        for point in dict.fromkeys((of_count[0], of_count[-1])):
            heat = "" if point.temperature_c is None else f", {point.temperature_c:.1f} °C"
            clock = "" if point.frequency_mhz is None else f", {point.frequency_mhz} MHz"
            slowed = f", {', '.join(point.throttled)}" if point.throttled else ""
            lines.append(
                f"{count} thread{'s' if count > 1 else ' '} at {point.at_s:6.1f} s: "
                f"invoke p50 {point.invoke.p50:.2f} p95 {point.invoke.p95:.2f} p99 {point.invoke.p99:.2f} ms, "
                f"frame to event p50 {point.event.p50:.2f} p95 {point.event.p95:.2f} p99 {point.event.p99:.2f} ms, "
                f"n {point.n}{heat}{clock}{slowed}"
            )
    return "\n".join(lines)


def _slice(
    count: int, frame_to_event: FrameToEvent, tensor: np.typing.NDArray[np.uint8], slice_s: float, start: float
) -> Point:
    (classifier,) = frame_to_event.classifiers
    invoke: list[float] = []
    event: list[float] = []
    end = time.monotonic() + slice_s
    with collector_off():
        while not invoke or time.monotonic() < end:
            invoke.append(milliseconds(lambda: classifier.invoke(tensor)))
            frame_to_event.deliver()
            event.append(milliseconds(frame_to_event))
    slowed = machine.throttled()
    return Point(
        at_s=round(time.monotonic() - start, 1),
        threads=count,
        n=len(invoke),
        invoke=_spread(invoke),
        event=_spread(event),
        temperature_c=machine.temperature_c(),
        frequency_mhz=machine.frequency_mhz(),
        throttled=slowed.now if slowed is not None else (),
        governor=machine.text(Path("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor")),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(*(round(percentile(values, share), 4) for share in (0.5, 0.95, 0.99)))
