"""The loop's own parts: how it is stopped, what it counts, which thresholds it takes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.doubles.camera_process import children
from tests.doubles.loops import Watched, feed_of, loop_of
from tests.doubles.tflite_files import model_folder_of_means
from tests.doubles.waiting import within

from bittern import Classifier
from bittern.config.schema import DecisionConfig, WatchConfig
from bittern.daemon.health import Health, model_infos
from bittern.daemon.loop import Loop
from bittern.daemon.reloader import Reloader
from bittern.decision.pipeline import Pipeline
from bittern.delivery.outlet import Outlet
from bittern.delivery.sinks.base import Controls, Sink
from bittern.errors import ConfigurationError
from bittern.events import AlarmKey, Event
from bittern.frames import Frame, Source
from bittern.system.stop import Stop

MS = 1_000_000
EAGER = DecisionConfig(votes=1, of=1, cooldown_s=0.0, min_off_s=0.0)


class Film(Source):
    """A source outside: frames of one colour, and what happens while one is waited for."""

    name = "film"

    def __init__(
        self,
        reds: list[int],
        *,
        live: bool = False,
        step: int = 1,
        first_ns: int = 0,
        before: Callable[[int], None] | None = None,
    ):
        self.live, self._first_ns = live, first_ns
        self._reds, self._step, self._before = reds, step, before
        self._next = 0

    @classmethod
    def check(cls, address: str, options: object) -> str:
        return cls.name

    def read(self) -> Frame | None:
        if self._next >= len(self._reds):
            return None
        if self._before is not None:
            self._before(self._next)
        number = self._next * self._step
        pixels = np.full((20, 30, 3), (self._reds[self._next], 9, 9), np.uint8)
        self._next += 1
        at_ns = self._first_ns + number * 100 * MS
        return Frame(pixels, "RGB", at_ns, 1_700_000_000_000 * MS + number * 100 * MS, number, self.name)

    def close(self) -> None:
        self._next = len(self._reds)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return Classifier(model_folder_of_means(tmp_path_factory.mktemp("m") / "means"))


def test_events_come_in_order_with_the_frames_own_clock(classifier: Classifier) -> None:
    events: list[Event] = []
    watched = Watched(Film([0, 255, 255, 0]), [classifier], WatchConfig(decision=EAGER), sink=events.append)
    steps = list(watched.steps())
    summary = watched.summary
    assert (summary.frames, summary.dropped, summary.events, summary.unreadable) == (4, 0, 4, 0)
    assert [event for step in steps for event in step.events] == events
    assert [(e.type, e.task, e.frame, e.monotonic_ns) for e in events] == [
        ("alarm.on", "colour_0", 1, 100 * MS),
        ("alarm.on", "colour_1", 1, 100 * MS),
        ("alarm.off", "colour_0", 3, 300 * MS),
        ("alarm.off", "colour_1", 3, 300 * MS),
    ]
    assert events[0].time == "2023-11-14T22:13:20.100Z"
    assert [e.id for e in events] == sorted(e.id for e in events)
    assert events[0].source == "film"
    assert [answer.alarm for step in steps for answer in step.answers] == [False, True, True, False]
    assert all(step.frame.number == i for i, step in enumerate(steps))


@pytest.mark.parametrize("live", [True, False])
def test_all_events_of_a_run_have_one_clock(classifier: Classifier, live: bool) -> None:
    """That of a recording counts from its first frame, that of a camera is the machine's."""
    begin = time.monotonic_ns()
    first_ns = begin if live else 700 * MS
    film = Film([0, 255, 0], live=live, first_ns=first_ns)
    events: list[Event] = []
    outlet, stop = Outlet([events.append], "test"), Stop()
    for _ in loop_of(feed_of(film, stop), [classifier], WatchConfig(decision=EAGER), outlet, stop).run():
        pass
    assert [e.state or e.type for e in events] == ["started", *["alarm.on"] * 2, *["alarm.off"] * 2]
    if live:
        assert begin <= events[0].monotonic_ns <= time.monotonic_ns()
    else:
        assert [e.monotonic_ns for e in events] == [first_ns, *[first_ns + 100 * MS] * 2, *[first_ns + 200 * MS] * 2]


def test_gaps_are_counted_and_frames_are_a_limit(classifier: Classifier) -> None:
    summary = Watched(Film([0] * 9, step=4, live=True), [classifier], WatchConfig(fps=100)).run(frames=3)
    assert (summary.frames, summary.dropped) == (3, 6)
    summary = Watched(Film([0] * 9, step=4), [classifier], WatchConfig()).run(frames=3)
    assert (summary.frames, summary.dropped) == (3, 0), "a gap in a recording is as old as the recording"


def test_the_cap_holds_for_a_camera(classifier: Classifier) -> None:
    summary = Watched(Film([0] * 6, live=True), [classifier], WatchConfig(fps=10.0)).run()
    assert summary.seconds >= 0.45


def test_a_recording_has_no_cap(classifier: Classifier) -> None:
    with within():
        assert Watched(Film([0] * 6), [classifier], WatchConfig(fps=0.1)).run().frames == 6


@pytest.mark.parametrize(("live", "states"), [(False, ["started"]), (True, [])])
def test_a_source_that_ends_without_a_frame(classifier: Classifier, live: bool, states: list[str]) -> None:
    events: list[Event] = []
    outlet, stop = Outlet([events.append], "test"), Stop()
    for _ in loop_of(feed_of(Film([], live=live), stop), [classifier], WatchConfig(), outlet, stop).run():
        pass
    assert [event.state for event in events] == states


@pytest.mark.parametrize("error", [MemoryError(), BrokenPipeError("gone")], ids=["no memory", "no stdout"])
def test_an_event_that_cannot_be_passed_on_does_not_hold_up_the_others(
    classifier: Classifier, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []

    def sink(event: Event) -> None:
        events.append(event)
        if event.task == "colour_0":
            raise error

    watched = Watched(Film([255, 255]), [classifier], WatchConfig(decision=EAGER), sink=sink)
    if isinstance(error, OSError):
        with pytest.raises(BrokenPipeError, match=r"^gone$"):
            watched.run()
    else:
        assert watched.run().frames == 2
        assert f"event {events[0].id} (alarm.on) could not be passed on: MemoryError" in caplog.text
    assert [(event.type, event.task) for event in events] == [("alarm.on", "colour_0"), ("alarm.on", "colour_1")]
    assert watched.summary.events == 2


def test_a_reload_that_is_requested_during_another_comes_after_it(tmp_path: Path) -> None:
    folder = model_folder_of_means(tmp_path / "means")
    classifier = Classifier(folder)
    stop, events, checks = Stop(), list[Event](), list[int]()
    config = WatchConfig(models=(str(folder),), fps=50.0)
    requests = 0

    def before(number: int) -> None:
        nonlocal requests
        checks.append(len(children()))
        if requests == 0 or (requests == 1 and reloader.busy):
            stop.reload, requests = True, requests + 1
        stop.asked = [event.state for event in events].count("models_loaded") == 2

    feed = feed_of(Film([0] * 10_000, live=True, before=before), stop)
    health, reloader = Health(model_infos([classifier])), Reloader(config)
    outlet = Outlet([events.append], "test")
    for _ in Loop(feed, Pipeline([classifier], config), config, outlet, reloader, health, stop).run():
        pass
    assert [event.state for event in events] == ["started", "models_loaded", "models_loaded"]
    assert health.reloads == 2
    assert max(checks) == 1, "one check at a time"


def test_thresholds(classifier: Classifier) -> None:
    def events_of(decision: DecisionConfig, *reds: int) -> list[str]:
        events: list[Event] = []
        Watched(Film(list(reds)), [classifier], WatchConfig(decision=decision), sink=events.append).run()
        return [e.type.removeprefix("alarm.") + str(e.frame) for e in events if e.task == "colour_0"]

    def eager(**more: float | str) -> DecisionConfig:
        return DecisionConfig(votes=1, of=1, cooldown_s=0.0, min_off_s=0.0, **more)  # type: ignore[arg-type]

    # The model's own: on from 0.5, off below 0.4.
    assert events_of(eager(), 127, 128, 110, 90) == ["on1", "off3"]
    assert events_of(eager(off=0.2), 128, 90, 52, 50) == ["on0", "off3"]
    assert events_of(eager(threshold=0.8), 200, 204, 103, 101) == ["on1", "off3"], "off is half of it"
    assert events_of(eager(threshold=0.8, off=0.7), 204, 180, 178) == ["on0", "off2"]
    for wrong, says in (
        (eager(threshold="loud"), "has no threshold 'loud'; it has default"),
        (eager(off=0.6), "above"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            events_of(wrong, 0)


# --- stop ------------------------------------------------------------------------------------------------------------


def test_a_signal_ends_a_wait_for_a_frame(classifier: Classifier) -> None:
    def hang(number: int) -> None:
        if number == 2:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            time.sleep(30)

    stop = Stop()
    old = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with within(), stop.signals():
            summary = Watched(Film([0] * 9, before=hang), [classifier], WatchConfig(), stop).run()
    finally:
        signal.signal(signal.SIGALRM, old)
    assert summary.frames == 2


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_waits_ends_the_loop(classifier: Classifier, number: signal.Signals, live: bool) -> None:
    """While a frame is classified or an event printed: the next wait must not begin, and nothing may break."""
    stop = Stop()
    watched = Watched(Film([0] * 9, live=live), [classifier], WatchConfig(fps=240.0), stop)
    with stop.signals():
        for step in watched.steps():
            if step.frame.number == 1:
                os.kill(os.getpid(), number)
    assert stop.asked
    assert watched.summary.frames == 2


def test_an_event_that_is_being_printed_is_printed_whole(classifier: Classifier) -> None:
    stop, printed = Stop(), []

    def sink(event: Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        printed.append(event)

    with stop.signals():
        summary = Watched(Film([255] * 9), [classifier], WatchConfig(decision=EAGER), stop, sink).run()
    assert len(printed) == summary.events == 2
    assert summary.frames == 1


def test_a_stop_before_the_loop(classifier: Classifier) -> None:
    stop = Stop()
    stop.asked = True
    assert Watched(Film([0] * 9), [classifier], WatchConfig(), stop).run().frames == 0


def test_signals_at_random_moments_never_escape(classifier: Classifier) -> None:
    """A thousand SIGALRM that pass on a SIGTERM, after 0 to 3 ms, against a loop that waits and works in turn."""
    rng = np.random.default_rng(3)
    old = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        for delay in rng.uniform(1e-5, 3e-3, 1000):
            stop = Stop()
            with stop.signals():
                signal.setitimer(signal.ITIMER_REAL, delay)
                Watched(Film([0] * 100_000, live=True), [classifier], WatchConfig(fps=240.0), stop).run()
                assert stop.asked
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_the_old_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError), Stop().signals():
        raise ValueError
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_model_without_alarms_is_refused(tmp_path: Path) -> None:
    folder = model_folder_of_means(tmp_path / "m")
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"alarm": ["red"]', '"alarm": []'))
    with pytest.raises(ConfigurationError, match="no label that raises an alarm"):
        Watched(Film([0]), [Classifier(folder)], WatchConfig())


class Owner(Sink):
    """A sink outside: it is told what happens, and wants something after so many frames."""

    name, durable = "owner", False

    def __init__(self, wants: dict[int, Controls]) -> None:
        self.controls = Controls()
        self._wants = wants
        self.frames: list[tuple[int, bool]] = []

    def see(self, frame: Frame, scores: Mapping[AlarmKey, float]) -> None:
        self.frames.append((frame.number, bool(scores)))
        self.controls = self._wants.get(frame.number, self.controls)

    def deliver(self, event: Event, body: bytes) -> str:
        return ""

    def close(self) -> None:
        pass


def test_what_the_owner_wants_is_done_between_two_frames(classifier: Classifier) -> None:
    red = AlarmKey("means", "colour_0", "red")
    owner = Owner({0: Controls(detection=False), 2: Controls(thresholds={red: 0.99}), 5: Controls(restart=True)})
    events: list[Event] = []
    outlet, stop = Outlet([events.append], "test", sinks=[owner]), Stop()
    film = Film([255, 255, 255, 250, 250, 250, 250, 250])
    for _ in loop_of(feed_of(film, stop), [classifier], WatchConfig(decision=EAGER), outlet, stop).run():
        pass
    assert [event.state or f"{event.type} {event.task}" for event in events] == [
        "started", "alarm.on colour_0", "alarm.on colour_1", "alarm.off colour_0", "alarm.off colour_1", "paused",
        "resumed", "alarm.on colour_1",
    ]  # fmt: skip
    assert [scored for _, scored in owner.frames] == [True, False, False, True, True, True]
    assert stop.asked
    assert stop.restart
