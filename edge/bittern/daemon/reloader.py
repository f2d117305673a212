"""Exchanging the models of a running daemon: read their names again, check them beside the loop, put them in place."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bittern.config import schema
from bittern.config.schema import ModelConfig, WatchConfig
from bittern.daemon.history import ModelHistory
from bittern.daemon.opening import stated
from bittern.decision.pipeline import Pipeline
from bittern.delivery.sinks.base import Sink
from bittern.errors import BitternError, ConfigurationError, one_line
from bittern.events import Event, State
from bittern.model.candidate import Running, check_candidate
from bittern.model.classifier import Classifier


class Exchange(NamedTuple):
    """How a reload ended.

    Attributes:
        done: whether the new models are in place; else the old ones stay.
        events: of alarms that were on and that no new model has.
        state: "models_loaded" or "models_refused", with the reason.
    """

    done: bool
    events: list[Event]
    state: State


class Reloader:
    """Owns the configuration file, and exchanges the models that it names. For the loop's thread.

    Models are checked and opened in a thread, one set at a time; the loop asks for the outcome between two frames.
    """

    def __init__(
        self,
        config: WatchConfig,
        file: Path | None = None,
        sinks: Sequence[Sink] = (),
        history: ModelHistory | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            config: as it was read at the start.
            file: where a reload reads the names of the models; None takes those of `config`.
            sinks: are given the alarms of new models (`Sink.expect`).
            history: gets a line for each exchange, and for each that was refused.
        """
        self._config, self._file, self._sinks = config, file, sinks
        self._history = history or ModelHistory(None, "")
        self._thread: threading.Thread | None = None
        self._child = Running()
        self._outcome: list[Classifier] | str | None = None

    @property
    def busy(self) -> bool:
        """Whether a check runs."""
        return self._thread is not None

    def start(self, current: Sequence[Classifier]) -> None:
        """Read the names of the models and begin to check them; not while `busy`.

        Args:
            current: the models that run now. They are only read.
        """
        assert not self.busy, "one check at a time"
        try:
            config = schema.load(self._file) if self._file is not None else self._config
        except ConfigurationError as error:
            self._outcome = str(error)
            return
        self._child = Running()
        self._thread = threading.Thread(
            target=self._check, args=(config.all_models, tuple(current)), name="reload", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives no thread
            self._thread, self._outcome = None, f"the models cannot be checked: {error}"

    def finish(self, pipeline: Pipeline) -> Exchange | None:
        """Put the models into the pipeline, if a check has ended since the last call.

        Returns:
            None if there is nothing to do.
        """
        outcome = self._poll()
        if outcome is None:
            return None
        events: list[Event] = []
        if not isinstance(outcome, str):
            try:
                events = pipeline.replace(outcome)
            except ConfigurationError as error:
                outcome = str(error)
        if isinstance(outcome, str):
            self._history.note("models_refused", pipeline.classifiers, outcome)
            return Exchange(False, [], State("models_refused", f"the old ones stay in use: {outcome}"))
        for sink in self._sinks:
            sink.expect(pipeline.alarms)
        self._history.note("models_loaded", outcome)
        names = ", ".join(f"{c.name} {c.version} on {c.path}" for c in outcome)
        return Exchange(True, events, State("models_loaded", names))

    def close(self) -> None:
        """End a check that runs; its outcome is lost."""
        self._child.end()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def _poll(self) -> list[Classifier] | str | None:
        """None while nothing was begun or a check runs; then, once, the models, or why they are refused."""
        if self._thread is not None:
            if self._thread.is_alive():
                return None
            self._thread.join()
        self._thread, outcome, self._outcome = None, self._outcome, None
        return outcome

    def _check(self, models: Sequence[ModelConfig], current: Sequence[Classifier]) -> None:
        limits = self._config.reload
        try:
            self._outcome = [
                check_candidate(
                    model.path,
                    current,
                    bare=stated(model),
                    threads=self._config.threads,
                    max_slowdown=limits.max_slowdown,
                    timeout_s=limits.timeout_s,
                    running=self._child,
                )
                for model in models
            ]
        except BitternError as error:
            self._outcome = str(error)
        except OSError as error:  # no file descriptors, no memory
            self._outcome = f"the models cannot be checked: {error.strerror or error}"
        except Exception as error:  # a thread that dies would be a reload that never ends
            self._outcome = f"internal error: {type(error).__name__}: {one_line(error)[:300]}"
