"""The rows of the whole daemon: camera process, motion gate, decision, outbox and metrics, all switched on."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from bittern import events
from bittern.bench import processes
from bittern.bench.result import Row
from bittern.bench.rows import BareInvoke, FrameToEvent, PeerMissing, Size, Subject, row_of
from bittern.bench.timing import Pairs, collector_off, milliseconds, percentile
from bittern.camera.supervisor import Camera
from bittern.config.schema import GateConfig, HealthConfig, OutboxConfig, RecoveryConfig, WatchConfig, WebhookConfig
from bittern.daemon.health import Health, model_infos
from bittern.daemon.loop import Loop
from bittern.daemon.reloader import Reloader
from bittern.decision.pipeline import Pipeline
from bittern.delivery.dispatch import Delivery
from bittern.delivery.outlet import Outlet
from bittern.delivery.sinks.base import SinkContext
from bittern.delivery.sinks.registry import open_sinks
from bittern.frames import Frame
from bittern.model.classifier import Classifier
from bittern.system.stop import Stop

# No peer listens there: every event goes to the outbox and stays in it.
_NO_PEER = "http://127.0.0.1:9/"
_WARM_UP = 10


class _Stamped(Camera):
    """The camera, with the moment at which a frame was ready to be taken."""

    ready = 0.0

    def _take(self) -> Frame | None:
        # The frame is in shared memory: to get it, and to examine it for a covered camera, is the daemon's own work.
        start = perf_counter()
        frame = super()._take()
        if frame is not None:
            self.ready = start
        return frame


class _Running(NamedTuple):
    """The loop with everything on.

    Attributes:
        loop: to be run.
        camera: that feeds it.
        moments: when the JSON of every alarm event was in the sink's buffer (`perf_counter`).
        health: its metrics.
    """

    loop: Loop
    camera: _Stamped
    moments: list[float]
    health: Health


@contextmanager
def _quiet_delivery() -> Iterator[None]:
    """Keeps it out of the log that no peer takes the events."""
    logger = logging.getLogger("bittern.delivery")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _daemon(classifier: Classifier, frame_to_event: FrameToEvent, fps: float, stop: Stop) -> Iterator[_Running]:
    """The whole daemon, on a camera that shows the two frames of `frame_to_event` in turn."""
    try:
        from bittern.daemon.prometheus import MetricsServer
    except ImportError:
        raise PeerMissing("prometheus-client is not installed: pip install 'bittern[metrics]'") from None
    with tempfile.TemporaryDirectory(prefix="bittern-bench-") as folder, ExitStack() as stack:
        stack.enter_context(_quiet_delivery())
        file = Path(folder) / "frames.npy"
        np.save(file, np.stack(frame_to_event.pictures))
        health_config = HealthConfig(port=0)
        config = WatchConfig(
            source=f"bench:{file}?fps={min(fps, 10_000.0):g}",
            fps=240.0,
            decision=frame_to_event.decision,
            gate=GateConfig(),
            recovery=RecoveryConfig(warm_up_frames=0),
            outbox=OutboxConfig(folder=folder),
            webhook=WebhookConfig(url=_NO_PEER),
            health=health_config,
        )
        pipeline = Pipeline([classifier], config)
        health = Health(model_infos([classifier]))
        stack.callback(MetricsServer(health, health_config).close)
        sinks = open_sinks(config, SinkContext("bench"), health.diagnostics)
        delivery = Delivery(config.outbox, sinks, "bench")
        stack.callback(delivery.close)
        buffer, moments = BytesIO(), []

        def out(event: events.Event) -> None:
            buffer.write(events.to_line(event))
            if event.type != "state":
                moments.append(perf_counter())

        outlet = Outlet([out, delivery.send], "bench")
        stack.callback(outlet.close)
        camera = _Stamped(config.source, config.camera, timeout_s=5.0, recovery=config.recovery, stop=stop, once=True)
        stack.callback(camera.close)
        reloader = stack.enter_context(closing(Reloader(config, sinks=sinks)))
        loop = Loop(camera, pipeline, config, outlet, reloader, health, stop)
        yield _Running(loop, camera, moments, health)


def event_row(name: str, size: Size, at_most: float) -> Callable[[Subject, int], Row]:
    """Makes a row: frame to event of the whole daemon, beside a bare inference."""

    def measure(subject: Subject, n: int) -> Row:
        bare = BareInvoke(subject, lent=True)
        pairs = _pairs(subject, size, n, lambda: milliseconds(bare))
        what = f"whole daemon, {size[0]} x {size[1]}"
        return row_of(name, what, "bare set, invoke, get", at_most, pairs)

    return measure


def more_row(subject: Subject, n: int) -> Row:
    """What the daemon adds to the pipeline alone; the limit is 0.5 ms."""
    alone = FrameToEvent(subject.classifier, subject.folder, (640, 480))

    def reference() -> float:
        alone.deliver()
        return milliseconds(alone)

    pairs = _pairs(subject, (640, 480), n, reference)
    median = statistics.median(pairs.reference)
    limit = round((median + 0.5) / median, 3)
    return row_of("daemon_more", "whole daemon, 640 x 480 (0.5 ms more)", "the pipeline alone", limit, pairs)


def _pairs(subject: Subject, size: Size, n: int, reference: Callable[[], float]) -> Pairs:
    """Times of n frames in the daemon and, between two of them, the times that `reference` returns, in ms."""
    frame_to_event = FrameToEvent(subject.classifier, subject.folder, size)
    ours: list[float] = []
    theirs: list[float] = []
    # Fast enough that the next frame comes soon, slow enough that none is dropped: each one is an event.
    pause_s = 3 * statistics.median(reference() for _ in range(_WARM_UP)) / 1e3
    with _daemon(subject.classifier, frame_to_event, 1 / (2 * pause_s + 0.005), Stop()) as running, collector_off():
        for _ in running.loop.run():
            if running.moments:
                ours.append((running.moments[-1] - running.camera.ready) * 1e3)
                running.moments.clear()
                theirs.append(reference())
            if len(ours) >= n + _WARM_UP:
                break
    ours, theirs = ours[_WARM_UP:], theirs[_WARM_UP:]
    return Pairs(ours, theirs, len(ours))


def age_row(subject: Subject, n: int) -> Row:
    """p95 of a frame's age when it was classified, where an inference takes three frame periods."""
    classifier = Classifier(subject.folder, path="builtin")
    tensor = np.zeros((1, *classifier.shape, 3), np.uint8)
    invoke_s = statistics.median(milliseconds(lambda: classifier.invoke(tensor)) for _ in range(20)) / 1e3
    period_s = invoke_s / 3
    frame_to_event = FrameToEvent(classifier, subject.folder, (640, 480))
    ages: list[float] = []
    with _daemon(classifier, frame_to_event, 1 / period_s, Stop()) as running:
        for result in running.loop.run():
            if result is not None and not result.skipped:
                ages.append(running.health.last_age_s)
            if len(ages) >= n + _WARM_UP:
                break
    ages = ages[_WARM_UP:]
    p95, bound = percentile(ages, 0.95), invoke_s + period_s
    return Row(
        name="daemon_age",
        what="p95 age of a classified frame, camera 3 times too fast",
        against="inference + frame period",
        ratio=round(p95 / bound, 4),
        at_most=1.25,
        median_ms=round(p95 * 1e3, 3),
        reference_ms=round(bound * 1e3, 3),
        n=len(ages),
    )


def gate_row(subject: Subject, n: int) -> Row:
    """A frame of a still scene with the motion gate, beside one without the motion gate."""
    frame_to_event = FrameToEvent(subject.classifier, subject.folder, (640, 480))
    gated, ungated = (
        Pipeline((subject.classifier,), WatchConfig(gate=GateConfig(enabled=on, heartbeat_s=5.0)))
        for on in (True, False)
    )
    number = 0

    def frame() -> Frame:
        # 30 frames per second: one in 150 is a heartbeat, and is timed too.
        nonlocal number
        number += 1
        return Frame(frame_to_event.pixels, "RGB", number * 33_333_333, time.time_ns(), number, "bench")

    def block(pipeline: Pipeline, frames: int) -> float:
        return sum(milliseconds(lambda: pipeline.step(frame())) for _ in range(frames)) / frames

    for _ in range(100):
        gated.step(frame())  # until the motion gate closes after the first frame
    blocks = max(6, n // 100)  # fewer give no 95 % interval
    with collector_off():
        pairs = [(block(gated, 150), block(ungated, 30)) for _ in range(blocks)]
    ours, theirs = zip(*pairs, strict=True)
    return row_of(
        "gate",
        "still scene with the motion gate",
        "without the motion gate",
        0.10,
        Pairs([*ours], [*theirs], 150 * blocks),
    )


def idle_cpu_row(subject: Subject, n: int) -> Row:
    """Processor time of the loop's and the camera's process at one frame per second, as a share of one core."""
    share, seconds = processes.idle_share(subject.folder.absolute(), max(5, n // 10))
    return Row(
        name="idle_cpu",
        what="processor time at 1 frame per second",
        against="one core",
        ratio=round(share, 4),
        at_most=1.0,
        median_ms=round(share * 1e3, 3),
        reference_ms=1000.0,
        n=seconds,
    )


def stop_row(subject: Subject, n: int) -> Row:
    """From SIGTERM to the end of the daemon, beside the 2 s that its page promises."""
    times = processes.stop_ms(subject.folder.absolute(), max(2, n // 20))
    median = statistics.median(times)
    return Row(
        name="stop",
        what="SIGTERM to the end of watch",
        against="the promised 2 s",
        ratio=round(median / 2000, 4),
        at_most=1.0,
        median_ms=round(median, 3),
        reference_ms=2000.0,
        n=len(times),
    )
