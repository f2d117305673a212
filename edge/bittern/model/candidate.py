"""Checks a model in a process of its own before a running daemon opens it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from bittern.errors import BitternError, ConfigurationError, ModelRefused
from bittern.model import catalog, runtime
from bittern.model.bare import MAX_LABELS_BYTES, Bare, Unstated
from bittern.model.classifier import Classifier
from bittern.system import fileio, limits

# Number of inferences of the old model and the candidate in turn: at least, at most, and for how many seconds.
_MIN_PAIRS, _MAX_PAIRS, _TIMING_S = 5, 50, 2.0
_MAX_OUTPUT = 4000
# What the child may take, beside its modules: the candidate, the old models, the golden vectors.
_MEMORY = 450 * 2**20


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The child's verdict on a candidate.

    Attributes:
        refused: the reason in one line; None if the candidate is good.
        folder: of the candidate.
        name: of the model.
        version: of the model.
        sha256: of the manifest and the .tflite file together.
        old_ms: median of one inference of the old model, in ms of processor time; None without an old model.
        new_ms: the same for the candidate, whose inferences take turns with those of the old one.
    """

    refused: str | None = None
    folder: str = ""
    name: str = ""
    version: str = ""
    sha256: str = ""
    old_ms: float | None = None
    new_ms: float | None = None


class _Question(msgspec.Struct):
    """What the child is told: the running models by name, and what is stated about the candidate."""

    old: dict[str, bytes]
    bare: Bare


def check_candidate(
    model: str,
    old: Sequence[Classifier],
    *,
    bare: Bare | None = None,
    threads: int,
    max_slowdown: float,
    timeout_s: float,
    running: Running | None = None,
) -> Classifier:
    """Check a model in a child process, then open it here.

    The child may crash, hang or run out of memory; this process does not, and opens no file of the candidate before the
    child has read them all. The models that run are not affected: the runtime holds the bytes of their files, not the
    files.

    Args:
        model: a name or a folder.
        old: the models that run now; the candidate is compared with the one of the same name.
        bare: what is stated about it, if it is a bare .tflite file.
        threads: for one inference.
        max_slowdown: how many times as long as the old model's median inference the candidate's may take.
        timeout_s: for the child, from its start to its end.
        running: gets the child, so that another thread can end it.

    Raises:
        ConfigurationError: there is no such model, or it is refused; nothing was changed.
    """
    verdict = _ask_child(model, old, bare, threads, timeout_s, running)
    if verdict.refused is not None:
        raise ModelRefused(verdict.refused)
    folder = Path(verdict.folder)
    before = next((c for c in old if c.name == verdict.name), None)
    if verdict.old_ms is not None and verdict.new_ms is not None:
        slowdown = verdict.new_ms / verdict.old_ms
        if slowdown > max_slowdown:
            raise ModelRefused(
                f"{folder}: one inference takes {verdict.new_ms:.2f} ms of processor time, {slowdown:.2f} times the "
                f"{verdict.old_ms:.2f} ms of the running model: expected at most {max_slowdown:g} (reload.max_slowdown)"
            )
    classifier = Classifier(folder, bare=bare, threads=threads)
    if before is not None:
        _check_successor(folder, before, classifier)
    if _digest(classifier) != verdict.sha256:
        raise ModelRefused(f"{folder}: changed during its check: reload again when the copy is complete")
    return classifier


class Running:
    """The child process of a check, which another thread may end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def take(self, process: subprocess.Popen[bytes] | None) -> None:
        """Remember the process, or end it at once if `end` was called before."""
        with self._lock:
            self._process = process
            if self._ended and process is not None:
                process.kill()

    def end(self) -> None:
        """Kill the child, now or as soon as it starts."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()


def is_older(version: str, than: str) -> bool | None:
    """Whether a version is older than another one: numbers compared one by one, "1.2rc1" before "1.2".

    Returns:
        None if one of them is not of that form (a release of PEP 440, with an optional a, b or rc).
    """
    first, second = _numbers(version), _numbers(than)
    if first is None or second is None:
        return None
    return first < second


def _numbers(version: str) -> tuple[tuple[int, ...], str, int] | None:
    match = re.fullmatch(r"v?([0-9]{1,18}(?:\.[0-9]{1,18})*)(?:[.-]?(a|b|rc)([0-9]{1,18}))?", version)
    if match is None:
        return None
    release = [int(number) for number in match[1].split(".")]
    while release and release[-1] == 0:
        release.pop()
    return tuple(release), match[2] or "z", int(match[3] or 0)


def _check_successor(folder: Path, before: Classifier, classifier: Classifier) -> None:
    if before.version == classifier.version:
        if before.manifest != classifier.manifest:
            raise ModelRefused(
                f"{folder}: differs from the running model, but has the same version {before.version}: "
                "a changed model needs a higher version"
            )
        return
    older = is_older(classifier.version, before.version)
    if older is None:
        raise ModelRefused(
            f"{folder}: version {classifier.version!r} cannot be compared with the running {before.version!r}: "
            "expected numbers such as 1.2; to run it anyway, restart"
        )
    if older:
        raise ModelRefused(
            f"{folder}: version {classifier.version} is older than the running {before.version}: "
            "to go back to it, restart"
        )


def _digest(classifier: Classifier) -> str:
    # Of a bare file what was read and stated.
    described = classifier.manifest or (classifier.input, classifier.heads)
    manifest = msgspec.json.encode(described, order="sorted")
    return hashlib.sha256(manifest + classifier.data).hexdigest()


def _ask_child(
    model: str,
    old: Sequence[Classifier],
    bare: Bare | None,
    threads: int,
    timeout_s: float,
    running: Running | None,
) -> Verdict:
    # -P: nothing is imported from the working directory.
    command = [
        sys.executable,
        "-P",
        "-m",
        "bittern.model.candidate",
        model,
        str(threads),
        f"{timeout_s:g}",
    ]
    # Files in memory instead of pipes: neither a child that stops reading nor a full disk must block this thread.
    with _file("stdin") as stdin, _file("stdout") as stdout, _file("stderr") as stderr:
        stdin.write(msgspec.msgpack.encode(_Question({c.name: c.data for c in old}, bare or Bare())))
        stdin.seek(0)  # also flushes the buffer
        start = time.monotonic()
        try:
            process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
        except OSError as error:
            raise ConfigurationError(f"{model}: no process to check it in: {error.strerror}") from None
        except ValueError:  # a NUL in the name
            raise ConfigurationError(f"unknown model {model!r}") from None
        try:
            if running is not None:
                running.take(process)
            try:
                code: int | None = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                code = None
        finally:
            if running is not None:
                running.take(None)
            if process.poll() is None:
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5.0)
        stdout.seek(0)
        stderr.seek(0)
        output, complaint = stdout.read(_MAX_OUTPUT), stderr.read(_MAX_OUTPUT)
    if code is None or code == -signal.SIGALRM:
        raise ModelRefused(
            f"{model}: its check took longer than {timeout_s:g} s (reload.timeout_s) and was ended after "
            f"{time.monotonic() - start:.0f} s"
        )
    if code < 0:
        with contextlib.suppress(ValueError):
            raise ModelRefused(f"{model}: its check crashed with {signal.Signals(-code).name}")
    if code != 0:
        last = " ".join((complaint.decode(errors="replace").strip().splitlines() or ["no message"])[-1].split())
        raise ModelRefused(f"{model}: its check ended with exit code {code}: {last[:300]}")
    try:
        return msgspec.json.decode(output, type=Verdict)
    except (msgspec.MsgspecError, ValueError):
        raise ModelRefused(f"{model}: its check gave no verdict") from None


def _file(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(f"bittern-{name}"), "w+b")


# --- the child --------------------------------------------------------------------------------------------------------


def judge(model: str, threads: int, old: Mapping[str, bytes], bare: Bare | None = None) -> Verdict:
    """Open a candidate with all checks, and time it beside the old model, one inference of each in turn.

    Args:
        model: a name or a folder.
        threads: for one inference.
        old: contents of the running models' .tflite files, by the model's name; the one of the same name is compared.
        bare: see `check_candidate`.
    """
    try:
        folder = catalog.find(model).absolute()
        classifier = Classifier(folder, bare=bare, threads=threads, tried=True)
        _check_labels_file(folder, classifier)
    except Unstated as error:
        return Verdict(refused=error.in_configuration())
    except BitternError as error:
        return Verdict(refused=str(error))
    old_ms = new_ms = None
    if (before := old.get(classifier.name)) is not None:
        # Both by the bare runtime, so that they are treated alike.
        both = [runtime.open_model(model, None, threads, classifier.shape) for model in (before, classifier.data)]
        for opened in both:
            tensor = opened.inputs[0]
            opened.interpreter.set_tensor(tensor.handle, np.zeros(tensor.shape, tensor.dtype))
            opened.interpreter.invoke()  # the first one takes longer
        old_ms, new_ms = _time_in_turn([opened.interpreter for opened in both])
    return Verdict(
        folder=str(folder),
        name=classifier.name,
        version=classifier.version,
        sha256=_digest(classifier),
        old_ms=old_ms,
        new_ms=new_ms,
    )


def _time_in_turn(interpreters: Sequence[Any]) -> list[float]:
    """Median of one inference of each interpreter, in ms of processor time.

    Not wall-clock time: other processes, such as the daemon itself, must not make a model look slow.
    """
    rounds: list[list[float]] = []
    end = time.monotonic() + _TIMING_S
    while len(rounds) < _MIN_PAIRS or (len(rounds) < _MAX_PAIRS and time.monotonic() < end):
        times_ms = []
        for interpreter in interpreters:
            start = time.process_time()
            interpreter.invoke()
            times_ms.append(1000 * (time.process_time() - start))
        rounds.append(times_ms)
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def _check_labels_file(folder: Path, classifier: Classifier) -> None:
    """Refuse a folder whose `labels.txt`, which is for other tools, differs from the manifest: it is damaged."""
    file = folder / "labels.txt"
    if classifier.manifest is None or not file.exists():
        return
    expected = [label for head in classifier.heads for label in head.labels]
    try:
        labels = fileio.read_regular(file, MAX_LABELS_BYTES).decode("utf-8").splitlines()
    except OSError as error:
        raise ModelRefused(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ModelRefused(f"{file}: cannot be read ({error})") from None
    if labels != expected:
        raise ModelRefused(f"{file}: has other labels than the manifest: copy the folder again")


def _main(arguments: Sequence[str]) -> None:
    model, threads, timeout_s = arguments
    # This ends even a child that hangs in native code and has lost its parent.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, float(timeout_s))
    with contextlib.suppress(OSError):
        os.nice(10)  # frames go first; old and new model are slowed down alike
    limits.limit_private_memory(limits.private_memory() + _MEMORY)
    question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Question)
    try:
        verdict = judge(model, int(threads), question.old, question.bare)
    except MemoryError:
        verdict = Verdict(refused=f"{model}: its check needs more than {_MEMORY >> 20} MiB of memory")
    sys.stdout.buffer.write(msgspec.json.encode(verdict))


if __name__ == "__main__":
    _main(sys.argv[1:])
