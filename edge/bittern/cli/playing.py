"""Plays a clip through the pipelines of `bittern watch`, in the clip's own time; for `bittern replay`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from time import perf_counter
from typing import NamedTuple

import msgspec
import numpy as np

from bittern import events
from bittern.camera.scene_watch import SceneWatch
from bittern.cli.bare_models import warn_unverified
from bittern.config.schema import WatchConfig
from bittern.daemon import opening
from bittern.decision.pipeline import Pipeline, Step
from bittern.evaluation import tuning
from bittern.evaluation.tuning import Track
from bittern.events import AlarmKey
from bittern.frames import Source
from bittern.model.classifier import Classifier
from bittern.sources.clip import ClipSource, is_clip
from bittern.sources.registry import open_source


class Clip(NamedTuple):
    """What is replayed.

    Attributes:
        source: of its frames.
        length: number of frames; None if it is not known before the end.
        dated: whether its frames have the wall-clock time at which they were taken.
    """

    source: Source
    length: int | None
    dated: bool


def open_models(settings: WatchConfig) -> list[Classifier]:
    """The models of a configuration, each opened once."""
    classifiers = opening.open_models(settings)
    warn_unverified(classifiers)
    return classifiers


def open_clip(clip: str, fps: float | None) -> Clip:
    """Open a clip.

    Args:
        clip: a recording's folder, or the URI of a recorded source.
        fps: how many frames of each second are looked at; None looks at all.

    Raises:
        ConfigurationError: there is none.
    """
    if is_clip(Path(clip)):
        recorded = ClipSource(Path(clip))
        opened = Clip(recorded, recorded.length, dated=True)
    else:
        opened = Clip(open_source(clip), None, dated=False)
    if fps is not None:
        opened.source.thin(fps)
    return opened


class Player:
    """A clip on its way through pipelines, which are made for it alone: nothing is left of an earlier clip.

    Attributes:
        frames: how many were looked at so far.
        clip_s: seconds from the first frame to the last one that was looked at.
        took_s: seconds that it took.
        skipped: frames that were still and not classified, over all pipelines.
        events: number of events, over all pipelines.
        alarms: the periods in which each alarm was on, in s since the first frame; one that has not ended is infinite.
    """

    def __init__(self, clip: Clip, groups: Sequence[tuple[Sequence[Classifier], WatchConfig]]) -> None:
        """Nothing is read yet.

        Args:
            clip: is not closed here.
            groups: models with their configuration, one pipeline each, all of which get every frame; at least one.

        Raises:
            ConfigurationError: the decisions do not fit the models.
        """
        self._clip, self._random = clip, Random()
        new_id = events.EventIds(self._random)
        self._pipelines = [Pipeline(models, config, new_id=new_id) for models, config in groups]
        self._scene = SceneWatch(groups[0][1].recovery.blind_after_s)
        self._times: list[list[int]] = [[] for _ in groups]
        self._scores: list[list[list[float]]] = [[] for _ in groups]
        self.alarms: dict[AlarmKey, list[tuple[float, float]]] = {
            key: [] for pipeline in self._pipelines for key in pipeline.alarms
        }
        self.frames = self.skipped = self.events = 0
        self.clip_s = self.took_s = 0.0

    @property
    def left_out(self) -> int:
        """How many frames were not looked at, to keep to a rate."""
        return self._clip.source.left_out

    @property
    def passed(self) -> int:
        """How many frames are behind: looked at, left out, or not to be read."""
        return self.frames + self.left_out + self._clip.source.unreadable

    def steps(self) -> Iterator[Step]:
        """Take all frames; yields the step of each frame in each pipeline."""
        first_ns: int | None = None
        start = perf_counter()
        for frame in self._clip.source:
            if not self._clip.dated:
                frame = msgspec.structs.replace(frame, time_ns=frame.monotonic_ns)
            if first_ns is None:
                first_ns = frame.monotonic_ns
                # Seeded by the clip, so that it gives the same ids every time, and another clip others.
                self._random.seed(f"{self._clip.source.name} {frame.time_ns}")
            elapsed_ns = frame.monotonic_ns - first_ns
            self._scene.look(frame.pixels, frame.monotonic_ns)
            self.frames += 1
            self.clip_s, self.took_s = elapsed_ns / 1e9, perf_counter() - start
            for pipeline, times, scores in zip(self._pipelines, self._times, self._scores, strict=True):
                step = pipeline.step(frame, blind=self._scene.blind)
                self.skipped += step.skipped
                self.events += len(step.events)
                for event in step.events:
                    assert event.alarm is not None, "a pipeline raises alarms only"
                    tuning.note(self.alarms[event.alarm], "on" if event.type == "alarm.on" else "off", self.clip_s)
                if step.scores:
                    times.append(elapsed_ns)
                    scores.append([step.scores[key] for key in pipeline.alarms])
                yield step
        self.took_s = perf_counter() - start

    @property
    def tracks(self) -> list[Track]:
        """The scores of each alarm; a track of no frames if none decided anything."""
        tracks = []
        for pipeline, times, scores in zip(self._pipelines, self._times, self._scores, strict=True):
            columns = np.array(scores, np.float64).reshape(len(times), len(pipeline.alarms))
            tracks += [
                Track(key.model, key.task, key.label, np.array(times, np.int64), columns[:, i], self.clip_s)
                for i, key in enumerate(pipeline.alarms)
            ]
        return tracks
