"""What is done with one frame: gate, classify, decide, event; the same code for `watch`, `replay` and the bench."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import NamedTuple

from bittern.config.schema import WatchConfig
from bittern.decision.decision import Decision, check_label, settings_of
from bittern.decision.motion import Gate
from bittern.errors import ConfigurationError
from bittern.events import Event, rfc3339, uuid7
from bittern.frames import Frame, Pixels
from bittern.model.classifier import Classifier, Result
from bittern.model.preprocess import Region, View, region_of, strip_of, views_of
from bittern.model.views import Prediction, predict

_log = logging.getLogger("bittern")

Sink = Callable[[Event], None]


class Seen(NamedTuple):
    """What one model made of one frame; the tensor, of the view that decided, is valid until the next frame."""

    frame: Frame
    classifier: Classifier
    tensor: Pixels
    results: list[Result]
    alarm: bool


class Times(NamedTuple):
    """How long the stages of one frame took, in ns; what was left out took 0."""

    gate: int
    preprocess: int
    invoke: int
    decide: int


class Pipeline:
    """Takes frames one after the other, and keeps what has to be known from one to the next.

    Attributes:
        skipped: whether the gate let the last frame go by, unclassified.
        times: of the last frame.
        results: of the last frame that was classified: for each model the answer of each head.
        scores: what the decisions were given last, by model, number of the head, and label: of several views the
            highest.
    """

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        config: WatchConfig,
        sink: Sink,
        observe: Callable[[Seen], None] | None = None,
        new_id: Callable[[int], str] = uuid7,
    ) -> None:
        """Make a decision for every alarm label.

        Args:
            classifiers: all of them see every frame; no two of one name.
            config: region, views, gate and decisions.
            sink: takes every event, in order.
            observe: called once for every classified frame and model, after its events.
            new_id: makes the id of an event from its wall-clock time (ns since 1970).

        Raises:
            ConfigurationError: the decisions do not fit the models.
        """
        self._config = config
        self._sink = sink
        self._observe = observe
        self._new_id = new_id
        self._region = Region(*config.region) if config.region is not None else None
        self._views: tuple[View, ...] = config.views
        self._gate = self._new_gate()
        self._classifiers = tuple(classifiers)
        self._decisions = self._made(self._classifiers)
        self._last = _Moment(0, 0, 0, "")
        self._warned = False
        self._still_ns: int | None = None  # time of the last frame, if the gate let it go by
        self.skipped = False
        self.times = Times(0, 0, 0, 0)
        self.results: list[list[Result]] = []
        self.scores: dict[tuple[str, int, str], float] = {}

    def step(self, frame: Frame, *, blind: bool = False) -> int:
        """Take one frame: the sink has got every event when this returns.

        Args:
            frame: never earlier, by its monotonic clock, than the one before.
            blind: nothing can be seen on it (covered, black). It is classified as any other, which shows that the
                model still runs, but decides nothing: no alarm goes on or off, and votes from before do not count
                afterwards (`Decision.blind`).

        Returns:
            The number of events.
        """
        now_ns = frame.monotonic_ns
        self._last = _Moment(now_ns, frame.time_ns, frame.number, frame.source)
        gate_ns = 0
        if self._gate is not None:
            start = perf_counter_ns()
            wanted = any(d.unsettled for decisions in self._decisions for d in decisions.values())
            passed = self._gate.passes(strip_of(frame.pixels, self._region, self._views), now_ns, wanted=wanted)
            gate_ns = perf_counter_ns() - start
            if not passed:
                self.skipped, self.times, self._still_ns = True, Times(gate_ns, 0, 0, 0), now_ns
                return 0
            if self._still_ns is not None:
                for decisions in self._decisions:
                    for decision in decisions.values():
                        decision.hold(self._still_ns)
                self._still_ns = None
        self.skipped = False
        looks, preprocess_ns = predict(self._classifiers, frame.pixels, frame.order, self._region, self._views)
        start = perf_counter_ns()
        events = 0
        for classifier, decisions, seen in zip(self._classifiers, self._decisions, looks, strict=True):
            events += _forget(decisions, now_ns) if blind else self._decide(classifier, decisions, seen)
            if self._observe is not None:
                alarm = any(d.alarm for d in decisions.values())
                self._observe(Seen(frame, classifier, seen.tensor, seen.results, alarm))
        decide_ns = perf_counter_ns() - start + sum([seen.answer_ns for seen in looks])
        self.times = Times(gate_ns, preprocess_ns, sum([seen.invoke_ns for seen in looks]), decide_ns)
        self.results = [seen.results for seen in looks]
        if len(self._views) > 1 and not self._warned:
            self._warn(frame)
        return events

    def replace(self, classifiers: Sequence[Classifier]) -> int:
        """Exchange the models between two frames.

        The decision of a label that is still there (same model name, task and label) goes on where it stood, with the
        thresholds of the new model. An alarm that is on for a label that is gone ends now, with the moment of the last
        frame and without a score.

        Returns:
            The number of events.

        Raises:
            ConfigurationError: the decisions do not fit the new models; the old ones go on.
        """
        made = self._made(classifiers)
        old = {
            (classifier.name, classifier.heads[head].task, label): (classifier, decision)
            for classifier, decisions in zip(self._classifiers, self._decisions, strict=True)
            for (head, label), decision in decisions.items()
        }
        for classifier, decisions in zip(classifiers, made, strict=True):
            for (head, label), decision in decisions.items():
                if there := old.pop((classifier.name, classifier.heads[head].task, label), None):
                    decision.take_over(there[1])
        self._classifiers, self._decisions = tuple(classifiers), made
        self.results, self.scores = [], {}
        self._gate = self._new_gate()  # the new models have not seen the scene that stands still
        events = 0
        for (_, task, label), (classifier, decision) in old.items():
            if decision.alarm:
                self._sink(self._event("off", classifier, task, label, None, "center"))
                events += 1
        return events

    def _new_gate(self) -> Gate | None:
        said = self._config.gate
        if not said.enabled:
            return None
        return Gate(threshold=said.threshold, heartbeat_s=said.heartbeat_s, linger_s=said.linger_s)

    def _made(self, classifiers: Sequence[Classifier]) -> list[dict[tuple[int, str], Decision]]:
        heads = {classifier.name: classifier.heads for classifier in classifiers}
        if len(heads) < len(classifiers):
            names = ", ".join(classifier.name for classifier in classifiers)
            raise ConfigurationError(f"models: two have one name, and their events could not be told apart: {names}")
        if self._config.gpio is not None and self._config.gpio.label is not None:
            check_label("gpio.label", self._config.gpio.label, heads)
        settings = settings_of(heads, self._config.decision, self._config.alarm)
        return [
            {(head, label): s.decision() for (name, head, label), s in settings.items() if name == classifier.name}
            for classifier in classifiers
        ]

    def _decide(self, classifier: Classifier, decisions: dict[tuple[int, str], Decision], seen: Prediction) -> int:
        events = 0
        for (head, label), decision in decisions.items():
            if len(seen.by_view) == 1:
                result = seen.results[head]
            else:
                result = max([results[head] for results in seen.by_view], key=lambda r: r.scores[label])
            self.scores[classifier.name, head, label] = score = result.scores[label]
            change = decision.update(score, self._last.monotonic_ns)
            if change is not None:
                self._sink(self._event(change, classifier, result.task, label, score, result.view))
                events += 1
        return events

    def _event(
        self, change: str, classifier: Classifier, task: str, label: str, score: float | None, view: View
    ) -> Event:
        at = self._last
        return Event(
            id=self._new_id(at.time_ns),
            type=f"alarm.{change}",  # type: ignore[arg-type]
            time=rfc3339(at.time_ns),
            monotonic_ns=at.monotonic_ns,
            source=self._config.name or at.source,
            model=classifier.name,
            model_version=classifier.version,
            task=task,
            label=label,
            score=None if score is None else round(score, 6),
            frame=at.number,
            view=None if view == "center" else view,
        )

    def _warn(self, frame: Frame) -> None:
        self._warned = True
        if views_of(frame.pixels, self._region, self._views) != self._views:
            height, width = region_of(frame.pixels, self._region).shape[:2]
            _log.warning(
                "views %s: %d x %d pixels, which is what is looked at, have one square only: the centre",
                *(", ".join(self._views), width, height),
            )


class _Moment(NamedTuple):
    """When and where the last frame was taken; not the frame itself, whose memory may be the source's."""

    monotonic_ns: int
    time_ns: int
    number: int
    source: str


def _forget(decisions: dict[tuple[int, str], Decision], now_ns: int) -> int:
    for decision in decisions.values():
        decision.blind(now_ns)
    return 0
