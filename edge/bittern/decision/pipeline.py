"""From a frame to events: motion gate, classify, decide; the same code for `watch`, `replay` and the bench."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import NamedTuple

from bittern.config.schema import WatchConfig
from bittern.decision.decision import Change, Decision, check_label, settings_of
from bittern.decision.motion import MotionGate
from bittern.decision.moving import MovingView
from bittern.errors import ConfigurationError
from bittern.events import AlarmKey, Event, new_id, rfc3339
from bittern.frames import Frame, Pixels
from bittern.model.classifier import Classifier, Result
from bittern.model.preprocess import Region, View, region_of, strip_of, views_of
from bittern.model.views import Prediction, predict

_log = logging.getLogger("bittern")


class Answer(NamedTuple):
    """What one model made of one frame.

    Attributes:
        classifier: the model.
        results: the answer of each head.
        tensor: (1, size, size, 3) uint8 RGB, the view that decided; valid until the next step.
        alarm: whether an alarm of the model is on after this frame.
    """

    classifier: Classifier
    results: list[Result]
    tensor: Pixels
    alarm: bool


class Times(NamedTuple):
    """How long the stages of one frame took, in ns; 0 for a stage that was left out."""

    gate: int
    preprocess: int
    invoke: int
    decide: int


class Step(NamedTuple):
    """What came of one frame.

    Attributes:
        frame: the frame. Its pixels are valid for as long as its source says.
        events: in order.
        answers: one for each model; none if the motion gate skipped the frame.
        scores: of each alarm, of several views the highest; empty if the frame decided nothing (skipped or blind).
        times: of the stages.
    """

    frame: Frame
    events: list[Event]
    answers: list[Answer]
    scores: dict[AlarmKey, float]
    times: Times

    @property
    def skipped(self) -> bool:
        """Whether the frame was not classified, because nothing moved."""
        return not self.answers


class Pipeline:
    """Takes one frame after another, and keeps what has to be known from one to the next.

    Attributes:
        classifiers: the models, in the order of `Step.answers`.
    """

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        config: WatchConfig,
        new_id: Callable[[int], str] = new_id,
    ) -> None:
        """Make a decision for every alarm.

        Args:
            classifiers: all of them get every frame; their names differ.
            config: region, views, motion gate and decisions.
            new_id: makes the id of an event from its wall-clock time (ns since 1970).

        Raises:
            ConfigurationError: the decisions do not fit the models.
        """
        self._config = config
        self._new_id = new_id
        self._region = Region(*config.region) if config.region is not None else None
        self._views: tuple[View, ...] = config.views
        self._thresholds: dict[AlarmKey, float] = {}
        self.classifiers, self._models = tuple(classifiers), self._models_of(classifiers)
        self._gate, self._moving = self._new_gate(), self._new_moving()
        self._last = _Moment(0, 0, 0, "")
        self._warned = False
        self._still_ns: int | None = None  # time of the last frame, if the motion gate skipped it

    @property
    def alarms(self) -> dict[AlarmKey, float]:
        """Every alarm that can go on, with its threshold."""
        return {alarm.key: alarm.decision.on for model in self._models for alarm in model.alarms}

    def step(self, frame: Frame, *, blind: bool = False) -> Step:
        """Take one frame.

        Args:
            frame: never earlier, by its monotonic clock, than the one before.
            blind: the frame shows nothing (covered, black). It is classified as any other, which shows that the model
                still runs, but decides nothing: no alarm goes on or off, and earlier votes do not count afterwards
                (`Decision.blind`).

        Raises:
            ConfigurationError: the frame does not contain the configured region.
        """
        now_ns = frame.monotonic_ns
        self._last = _Moment(now_ns, frame.time_ns, frame.number, frame.source)
        gate_ns = 0
        square: Region | None = None
        if self._gate is not None:
            start = perf_counter_ns()
            force = not self._config.gate.enabled or any(
                alarm.decision.unsettled for model in self._models for alarm in model.alarms
            )
            if self._moving is None:
                # A network that is wider than high sees more than the squares.
                square_only = all(height == width for height, width in (c.shape for c in self.classifiers))
                watched = (
                    strip_of(frame.pixels, self._region, self._views)
                    if square_only
                    else region_of(frame.pixels, self._region)
                )
                passed = self._gate.passes(watched, now_ns, force=force)
            else:
                whole = region_of(frame.pixels, self._region)
                passed = self._gate.passes(whole, now_ns, force=force)
                if passed:
                    square = self._moving.follow(self._gate.changed(), whole.shape[0], whole.shape[1], now_ns)
            if square is not None and self._region is not None:
                square = square._replace(x=square.x + self._region.x, y=square.y + self._region.y)
            gate_ns = perf_counter_ns() - start
            if not passed:
                self._still_ns = now_ns
                return Step(frame, [], [], {}, Times(gate_ns, 0, 0, 0))
            if self._still_ns is not None:
                for model in self._models:
                    for alarm in model.alarms:
                        alarm.decision.hold(self._still_ns)
                self._still_ns = None
        predictions, preprocess_ns = predict(
            self.classifiers, frame.pixels, frame.order, self._region, self._views, square
        )
        start = perf_counter_ns()
        events: list[Event] = []
        answers: list[Answer] = []
        scores: dict[AlarmKey, float] = {}
        invoke_ns = answer_ns = 0
        for model, prediction in zip(self._models, predictions, strict=True):
            if blind:
                for alarm in model.alarms:
                    alarm.decision.blind(now_ns)
            else:
                events += self._decide(model, prediction, scores, square)
            alarm_on = any(alarm.decision.alarm for alarm in model.alarms)
            answers.append(Answer(model.classifier, prediction.results, prediction.tensor, alarm_on))
            invoke_ns += prediction.invoke_ns
            answer_ns += prediction.answer_ns
        times = Times(gate_ns, preprocess_ns, invoke_ns, perf_counter_ns() - start + answer_ns)
        if len(self._views) > 1 and not self._warned:
            self._warn(frame)
        return Step(frame, events, answers, scores, times)

    def replace(self, classifiers: Sequence[Classifier]) -> list[Event]:
        """Exchange the models between two frames.

        The decision of an alarm that still exists continues, with the thresholds of the new model. An alarm that is on
        and exists no longer ends now, at the time of the last frame and without a score.

        Returns:
            The events of the alarms that ended.

        Raises:
            ConfigurationError: the decisions do not fit the new models; the old ones stay.
        """
        models = self._models_of(classifiers)
        old = {alarm.key: (alarm, model.classifier) for model in self._models for alarm in model.alarms}
        for model in models:
            for alarm in model.alarms:
                if alarm.key in old:
                    alarm.decision.take_over(old.pop(alarm.key)[0].decision)
        self.classifiers, self._models = tuple(classifiers), models
        # The new models have not been given the scene that stands still.
        self._gate, self._moving = self._new_gate(), self._new_moving()
        return [
            self._event("off", key, classifier.version)
            for key, (alarm, classifier) in old.items()
            if alarm.decision.alarm
        ]

    def set_thresholds(self, thresholds: Mapping[AlarmKey, float]) -> None:
        """Use these thresholds instead of those of the configuration, from the next frame on.

        An alarm's lower threshold stays, unless the new one is below it: then it is half of that. Alarms that do not
        exist (yet) are noted for `replace`.

        Args:
            thresholds: scores above 0, at most 1; the other alarms have those of the configuration.
        """
        self._thresholds = dict(thresholds)
        before = {alarm.key: alarm.decision for model in self._models for alarm in model.alarms}
        self._models = self._models_of(self.classifiers)
        for model in self._models:
            for alarm in model.alarms:
                alarm.decision.take_over(before[alarm.key])

    def end_alarms(self) -> list[Event]:
        """End every alarm that is on, at the time of the last frame and without a score, and forget votes and evidence.

        Returns:
            Their events.
        """
        ended = [
            self._event("off", alarm.key, model.classifier.version)
            for model in self._models
            for alarm in model.alarms
            if alarm.decision.alarm
        ]
        self._models = self._models_of(self.classifiers)
        return ended

    def _new_gate(self) -> MotionGate | None:
        gate = self._config.gate
        if not gate.enabled and "moving" not in self._views:
            return None
        return MotionGate(threshold=gate.threshold, heartbeat_s=gate.heartbeat_s, linger_s=gate.linger_s)

    def _new_moving(self) -> MovingView | None:
        if "moving" not in self._views:
            return None
        least = max(classifier.size for classifier in self.classifiers)
        return MovingView(least=least, hold_s=self._config.gate.linger_s)

    def _models_of(self, classifiers: Sequence[Classifier]) -> list[_Model]:
        heads = {classifier.name: classifier.heads for classifier in classifiers}
        if len(heads) < len(classifiers):
            names = ", ".join(classifier.name for classifier in classifiers)
            raise ConfigurationError(f"models: expected different names, to tell their events apart, got {names}")
        if self._config.gpio is not None and self._config.gpio.label is not None:
            check_label("gpio.label", self._config.gpio.label, heads)
        models = [_Model(classifier, []) for classifier in classifiers]
        by_name = {model.classifier.name: model for model in models}
        for key, settings in settings_of(heads, self._config.decision, self._config.alarm).items():
            head = next(i for i, h in enumerate(heads[key.model]) if h.task == key.task and key.label in h.alarm)
            if (on := self._thresholds.get(key)) is not None:
                settings = settings.with_threshold(on)
            by_name[key.model].alarms.append(_Alarm(key, head, settings.decision()))
        return models

    def _decide(
        self, model: _Model, prediction: Prediction, scores: dict[AlarmKey, float], moving: Region | None
    ) -> list[Event]:
        """Give every alarm of a model its score, which is added to `scores`; the events of alarms that change."""
        events = []
        for key, head, decision in model.alarms:
            if len(prediction.by_view) == 1:
                result = prediction.results[head]
            else:
                result = max([results[head] for results in prediction.by_view], key=lambda r: r.scores[key.label])
            scores[key] = score = result.scores[key.label]
            change = decision.update(score, self._last.monotonic_ns)
            if change is not None:
                events.append(self._event(change, key, model.classifier.version, score, result.view, moving))
        return events

    def _event(
        self,
        change: Change,
        key: AlarmKey,
        version: str,
        score: float | None = None,
        view: View = "center",
        moving: Region | None = None,
    ) -> Event:
        last = self._last
        return Event(
            id=self._new_id(last.time_ns),
            type="alarm.on" if change == "on" else "alarm.off",
            time=rfc3339(last.time_ns),
            monotonic_ns=last.monotonic_ns,
            source=self._config.name or last.source,
            model=key.model,
            model_version=version,
            task=key.task,
            label=key.label,
            score=None if score is None else round(score, 6),
            frame=last.number,
            view=None if view == "center" else view,
            square=(moving.x, moving.y, moving.width) if moving is not None and view == "moving" else None,
        )

    def _warn(self, frame: Frame) -> None:
        self._warned = True
        if views_of(frame.pixels, self._region, self._views) != self._views:
            height, width = region_of(frame.pixels, self._region).shape[:2]
            _log.warning(
                "views %s: the frame or region has %d x %d pixels, not wider than high: left and right are its centre",
                ", ".join(self._views),
                width,
                height,
            )


class _Moment(NamedTuple):
    """When and where the last frame was taken; not the frame itself, whose memory may be the source's."""

    monotonic_ns: int
    time_ns: int
    number: int
    source: str


class _Alarm(NamedTuple):
    """One alarm of a model: its name, the number of its head, and its state."""

    key: AlarmKey
    head: int
    decision: Decision


class _Model(NamedTuple):
    """A model, and its alarms in the order of heads and labels."""

    classifier: Classifier
    alarms: list[_Alarm]
