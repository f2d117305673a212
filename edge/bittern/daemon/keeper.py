"""Chooses the frames that are worth a person's look: those of which the models were least sure, and those of alarms."""

from __future__ import annotations

import contextlib

import msgspec

from bittern.config.schema import KeepConfig
from bittern.decision.pipeline import Step
from bittern.delivery.kept import KeptFrame, KeptWriter
from bittern.model.classifier import Result


class Keeper:
    """Looks at every step of the loop. For one thread."""

    def __init__(self, config: KeepConfig, writer: KeptWriter, source: str) -> None:
        """Nothing is kept yet.

        Args:
            config: how many frames, and which.
            writer: takes the frames; it is closed by whoever made it.
            source: what events call the source.
        """
        self._config, self._writer, self._source = config, writer, source
        self._least: KeptFrame | None = None  # of the last frames
        self._count = 0

    def look(self, step: Step) -> None:
        """Look at a step, whose frame is copied if it may be kept.

        A frame with which an alarm begins or ends is kept at once. Of `every` frames that decided something, the one
        with the lowest score of an answer is kept (least confidence: Settles, Active Learning Literature Survey, 2009,
        section 3.1), unless that score is `sure`.
        """
        if not step.scores:
            return
        self._count += 1
        reason = next((event.type for event in step.events if event.type.startswith("alarm.")), "unsure")
        answer = min((result for answer in step.answers for result in answer.results), key=lambda r: r.score)
        with contextlib.suppress(MemoryError):  # then without this frame
            if reason != "unsure":
                if not self._writer.full:
                    self._writer.put(self._kept(step, answer, reason))
            elif answer.score < (self._config.sure if self._least is None else self._least.score):
                self._least = self._kept(step, answer, reason)
        if self._count >= self._config.every:
            self.flush()

    def flush(self) -> None:
        """Keep the least sure of the last frames now, instead of after `every`: there may be no more."""
        if self._least is not None:
            self._writer.put(self._least)
        self._least, self._count = None, 0

    def _kept(self, step: Step, answer: Result, reason: str) -> KeptFrame:
        frame = step.frame
        scores = {a.classifier.name: {r.task: r.scores for r in a.results} for a in step.answers}
        return KeptFrame(
            pixels=frame.pixels.copy(),
            order=frame.order,
            time_ns=frame.time_ns,
            source=self._source,
            reason=reason,
            model="; ".join(f"{a.classifier.name} {a.classifier.version}" for a in step.answers),
            answer=answer.label,
            score=answer.score,
            scores=msgspec.json.encode(scores).decode(),
        )
