"""The loop: frame, classify, decide, event. The only place that knows sources, classifiers, decisions and sinks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from bittern import notify
from bittern.classifier import Classifier, Result, preprocess_all
from bittern.config import DecisionConfig, WatchConfig
from bittern.contract import Pixels, Region
from bittern.decision import Decision
from bittern.errors import ConfigurationError
from bittern.events import Event, rfc3339, uuid7
from bittern.frames import Frame, Source
from bittern.manifest import Head
from bittern.stop import Stop

Sink = Callable[[Event], None]


class Seen(NamedTuple):
    """What the loop made of one frame with one model; the tensor is valid until the next frame."""

    frame: Frame
    classifier: Classifier
    tensor: Pixels
    results: list[Result]
    alarm: bool


class Summary(NamedTuple):
    """What a loop did."""

    frames: int
    dropped: int
    events: int
    seconds: float


class Watcher:
    """What is done with one frame: classify, decide, event; `watch` calls it for every frame of a source."""

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        config: WatchConfig,
        sink: Sink,
        observe: Callable[[Seen], None] | None = None,
    ) -> None:
        """See `watch` for the arguments.

        Raises:
            ConfigurationError: the decision does not fit the model.
        """
        self._classifiers = classifiers
        self._config = config
        self._sink = sink
        self._observe = observe
        self._region = Region(*config.region) if config.region is not None else None
        self._decisions = [_decisions(classifier, config.decision) for classifier in classifiers]

    def step(self, frame: Frame) -> int:
        """Take one frame: every model sees it, and the sink has got every event when this returns.

        Returns:
            The number of events.
        """
        events = 0
        tensors = preprocess_all(self._classifiers, frame.pixels, frame.order, self._region)
        for classifier, tensor, decisions in zip(self._classifiers, tensors, self._decisions, strict=True):
            results = classifier.answer(classifier.invoke(tensor))
            for (head, label), decision in decisions.items():
                score = results[head].scores[label]
                change = decision.update(score, frame.monotonic_ns)
                if change is not None:
                    task = results[head].task
                    self._sink(_event(f"alarm.{change}", frame, self._config, classifier, task, label, score))
                    events += 1
            if self._observe is not None:
                self._observe(Seen(frame, classifier, tensor, results, any(d.alarm for d in decisions.values())))
        return events


def watch(
    source: Source,
    classifiers: Sequence[Classifier],
    config: WatchConfig,
    sink: Sink,
    stop: Stop,
    *,
    frames: int | None = None,
    observe: Callable[[Seen], None] | None = None,
) -> Summary:
    """Watch until the source ends, `stop` is asked, or enough frames were classified.

    Args:
        source: where frames come from. It is not closed here.
        classifiers: all of them see every frame.
        config: frame-rate cap and decision.
        sink: takes every event, in order.
        stop: see `Stop`.
        frames: how many to classify at most.
        observe: called once a frame and model.

    Raises:
        ConfigurationError: the decision does not fit the model.
        SourceError: the source was lost.
    """
    watcher = Watcher(classifiers, config, sink, observe)
    start = time.monotonic()
    done = dropped = events = 0
    last_number: int | None = None
    while not stop.asked and (frames is None or done < frames):
        due = time.monotonic() + 1 / config.fps
        frame = stop.wait(source.read)
        if frame is None or stop.asked:
            break
        if last_number is not None:
            dropped += frame.number - last_number - 1
        last_number = frame.number
        events += watcher.step(frame)
        done += 1
        if done == 1:
            notify.notify(READY=1, STATUS=f"watching {config.name or frame.source}")
        # Fed by progress, a frame and its inference, not by a timer.
        notify.notify(WATCHDOG=1)
        if source.live and done != frames and (rest := due - time.monotonic()) > 0:
            stop.wait(partial(time.sleep, rest))
    notify.notify(STOPPING=1)
    return Summary(done, dropped, events, time.monotonic() - start)


def _decisions(classifier: Classifier, config: DecisionConfig) -> dict[tuple[int, str], Decision]:
    made = {}
    for number, head in enumerate(classifier.heads):
        on, off = _thresholds(classifier, head, config)
        for label in head.alarm:
            made[number, label] = Decision(
                on=on,
                off=off,
                votes=config.votes,
                of=config.of,
                cooldown_s=config.cooldown_s,
                min_off_s=config.min_off_s,
            )
    if not made:
        raise ConfigurationError(f"model {classifier.name!r} has no label that raises an alarm: nothing to watch for")
    return made


def _thresholds(classifier: Classifier, head: Head, config: DecisionConfig) -> tuple[float, float]:
    if isinstance(config.threshold, str):
        named = head.thresholds.get(config.threshold)
        if named is None:
            raise ConfigurationError(
                f"decision.threshold: model {classifier.name!r} has no threshold {config.threshold!r}; "
                f"it has {', '.join(head.thresholds)}, or give a score from 0 to 1"
            )
        on, off = named.on, named.off if config.off is None else config.off
    else:
        on = config.threshold
        off = on / 2 if config.off is None else config.off
    if off > on:
        raise ConfigurationError(f"decision.off {off:g} is above the threshold {on:g} of model {classifier.name!r}")
    return on, off


def _event(
    kind: str, frame: Frame, config: WatchConfig, classifier: Classifier, task: str, label: str, score: float
) -> Event:
    return Event(
        id=uuid7(frame.time_ns),
        type=kind,  # type: ignore[arg-type]
        time=rfc3339(frame.time_ns),
        monotonic_ns=frame.monotonic_ns,
        source=config.name or frame.source,
        model=classifier.name,
        model_version=classifier.version,
        task=task,
        label=label,
        score=round(score, 6),
        frame=frame.number,
    )
