"""What ran when: a line of JSON for each start and each exchange of models, in a small file of the state folder."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bittern.events import rfc3339
from bittern.model.classifier import Classifier
from bittern.system import fileio

_log = logging.getLogger("bittern")

FILE = "models.jsonl"
# The newest lines that are kept, and what they may take together.
_LINES, _MAX_BYTES = 500, 2**20


class RanModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model that ran.

    Attributes:
        name: of the model.
        version: of the model.
        sha256: of its .tflite file, in hex; empty for a bare model.
        path: the execution path.
        figures: of each split that was reported on, by name: `n`, `correct`, and `auc` if there is one.
    """

    name: str
    version: str
    path: str
    sha256: str = ""
    figures: dict[str, dict[str, float]] = {}


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the history.

    Attributes:
        time: wall clock, RFC 3339, UTC.
        source: name of the source.
        state: "started", "models_loaded" or "models_refused".
        models: that run from now on.
        reason: why new ones were refused.
    """

    time: str
    source: str
    state: str
    models: tuple[RanModel, ...]
    reason: str = ""


class ModelHistory:
    """Writes the history of one daemon, in threads of their own: the loop does not wait for the disk."""

    def __init__(self, folder: Path | None, source: str) -> None:
        """Nothing is read or written yet.

        Args:
            folder: the state folder; None writes nothing.
            source: what events call the source.
        """
        self._folder, self._source = folder, source
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def note(self, state: str, classifiers: Sequence[Classifier], reason: str = "") -> None:
        """Add a line; see `Entry`."""
        if self._folder is None:
            return
        models = tuple(_ran(classifier) for classifier in classifiers)
        entry = Entry(rfc3339(time.time_ns()), self._source, state, models, reason)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=self._add, args=(self._folder / FILE, entry), name="history", daemon=True)
        with contextlib.suppress(RuntimeError):  # the system gives no thread: then without this line
            thread.start()
            self._threads.append(thread)

    def close(self, timeout_s: float = 0.5) -> None:
        """Wait for lines that are being written."""
        for thread in self._threads:
            thread.join(timeout_s)

    def _add(self, file: Path, entry: Entry) -> None:
        with self._lock:
            try:
                try:
                    lines = fileio.read_regular(file, 2 * _MAX_BYTES).splitlines()
                except FileNotFoundError:
                    lines = []
                lines = [*lines[1 - _LINES :], msgspec.json.encode(entry)]
                while len(lines) > 1 and sum(map(len, lines)) > _MAX_BYTES:
                    lines = lines[len(lines) // 2 :]
                fileio.write(file, b"\n".join(lines) + b"\n")
            except OSError as error:
                _log.warning("%s: %s: which models ran is not written down", file, error.strerror)


def read(file: Path) -> list[Entry]:
    """The lines of a history, oldest first; lines that cannot be read are left out.

    Raises:
        OSError: the file cannot be read.
    """
    entries = []
    for line in fileio.read_regular(file, 2 * _MAX_BYTES).splitlines():
        with contextlib.suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            entries.append(msgspec.json.decode(line, type=Entry))
    return entries


def files() -> list[Path]:
    """The histories on this machine: of the daemons that systemd runs, and of this user's own."""
    states = [Path("/var/lib/bittern"), Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "bittern"]
    with contextlib.suppress(RuntimeError):  # no home folder
        states[1] = states[1].expanduser()
    if own := os.environ.get("STATE_DIRECTORY", ""):
        states.append(Path(own.split(":")[0]).parent)
    return sorted({file for state in states for file in state.glob(f"*/{FILE}")})


def _ran(classifier: Classifier) -> RanModel:
    manifest = classifier.manifest
    reports: Any = manifest.provenance.get("reports") if manifest is not None else None
    figures: dict[str, dict[str, float]] = {}
    if isinstance(reports, dict):
        for split, report in reports.items():
            kept = {key: report.get(key) for key in ("n", "correct", "auc")} if isinstance(report, dict) else {}
            figures[split] = {key: value for key, value in kept.items() if isinstance(value, int | float)}
    sha256 = manifest.sha256 if manifest is not None else ""
    return RanModel(classifier.name, classifier.version, classifier.path, sha256, figures)
