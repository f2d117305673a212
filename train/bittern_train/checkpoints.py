"""Checkpoints: the finished fits of a training that has not ended, in `NAME.partial` beside its run.

An interrupted training goes on from them, to the same bytes: a fit depends on its seed and the start weights, not on
the fits before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin

import msgspec
import numpy as np

from bittern.errors import BitternError, ConfigurationError, one_line
from bittern.system import fileio

# What the fits depend on; see `checkpoints`.
CONDITIONS = "conditions.json"
_SUFFIX = ".msgpack"
# Temporary files of `fileio`, of a process that was killed while it wrote.
_LEFTOVERS = (f".*{_SUFFIX}.*", f".{CONDITIONS}.*")
_ANEW = "resume it as it was started, or remove that folder to start anew"

_T = TypeVar("_T")


def folder_of(out: Path) -> Path:
    """Where the checkpoints of a run are."""
    return out.with_name(f"{out.name}.partial")


def interrupted(out: Path) -> bool:
    """Whether a run has finished fits of a training that has not ended."""
    return len(Checkpoints(folder_of(out))) > 0


def check(out: Path, *, resume: bool, replace: bool) -> None:
    """Raises ConfigurationError if an interrupted training would be lost, or the folder is somebody else's."""
    folder = folder_of(out)
    if folder.exists():
        _check_own(folder)
    if not (resume or replace) and interrupted(out):
        raise ConfigurationError(f"{folder}: an interrupted run is there: --resume goes on, --force starts anew")


class DamagedCheckpoint(BitternError):
    """A checkpoint that cannot be read; the others are good."""


class Diverged(ConfigurationError):
    """The loss is no number any more: the same training comes to the same end, however often it is resumed."""


class Checkpoints:
    """Values of named tuples, numbers, texts and arrays, by name; each is a file that is whole or not there."""

    def __init__(self, folder: Path | None) -> None:
        """Those in a folder, which exists; None keeps nothing."""
        self._folder = folder

    def __contains__(self, name: str) -> bool:
        return self._folder is not None and (self._folder / f"{name}{_SUFFIX}").exists()

    def __len__(self) -> int:
        return sum(1 for _ in self._folder.glob(f"*{_SUFFIX}")) if self._folder is not None else 0

    def load(self, name: str, kind: type[_T]) -> _T | None:
        """A value that was saved before an interruption; None if there is none.

        Args:
            name: see `save`.
            kind: its type.

        Raises:
            DamagedCheckpoint: it cannot be read.
        """
        if self._folder is None:
            return None
        file = self._folder / f"{name}{_SUFFIX}"
        try:
            return decode(file.read_bytes(), kind)
        except FileNotFoundError:
            return None
        except Exception as error:  # msgspec and numpy raise several kinds
            raise DamagedCheckpoint(
                f"{file}: cannot be read ({one_line(error)}): remove it, and --resume makes it again"
            ) from None

    def save(self, name: str, value: object) -> None:
        """Keep a value."""
        self.save_encoded(name, encode(value))

    def save_encoded(self, name: str, data: bytes) -> None:
        """Keep a value that `encode` has encoded."""
        if self._folder is not None:
            fileio.write(self._folder / f"{name}{_SUFFIX}", data)

    def drop(self, *names: str) -> None:
        """Forget values that have served."""
        if self._folder is not None:
            for name in names:
                (self._folder / f"{name}{_SUFFIX}").unlink(missing_ok=True)


# For a training that nobody resumes.
NOTHING_KEPT = Checkpoints(None)


@contextlib.contextmanager
def checkpoints(out: Path, conditions: Mapping[str, str], *, resume: bool, replace: bool) -> Iterator[Checkpoints]:
    """The checkpoints of a run: removed when the block ends without an error, or with `Diverged`.

    Args:
        out: folder of the run.
        conditions: all that the fits depend on.
        resume: go on from those that are there, if there are any.
        replace: remove them.

    Raises:
        ConfigurationError: an interrupted training is there and neither was asked for, it was made under other
            conditions, the folder holds something else, or another training is writing there.
    """
    check(out, resume=resume, replace=replace)
    folder = folder_of(out)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        made = Checkpoints(folder)
        if resume and len(made):
            _compare(folder, conditions)
        else:
            _empty(folder)
            fileio.write(folder / CONDITIONS, msgspec.json.encode(dict(conditions)))
        try:
            yield made
        except BaseException as error:
            if isinstance(error, Diverged) or not len(made):
                _remove(folder)
            raise
        _remove(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"{folder}: another training is writing there: give another --out") from None
        yield
    finally:
        os.close(handle)


def _check_own(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: expected a folder, got a file: move it, or give another --out")
    others = sorted({file.name for file in folder.iterdir()} - {file.name for file in _files(folder, *_LEFTOVERS)})
    if others and CONDITIONS not in others:
        raise ConfigurationError(
            f"{folder}: expected an interrupted run, got {others[0]} without {CONDITIONS}: move that folder, or give "
            "another --out"
        )


def _files(folder: Path, *patterns: str) -> list[Path]:
    return [file for pattern in patterns for file in folder.glob(pattern) if not file.is_dir()]


def _empty(folder: Path) -> None:
    # The conditions last: without them, an interrupted removal would leave what could not be told from other files.
    for file in _files(folder, *_LEFTOVERS, f"*{_SUFFIX}", CONDITIONS):
        file.unlink()


def _remove(folder: Path) -> None:
    _empty(folder)
    with contextlib.suppress(OSError):  # it holds something else
        folder.rmdir()


def _compare(folder: Path, conditions: Mapping[str, str]) -> None:
    file = folder / CONDITIONS
    try:
        before = msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"{file}: cannot be read ({one_line(error)}): {_ANEW}") from None
    if other := differing(before, conditions):
        raise ConfigurationError(f"{folder}: the interrupted run differs in {', '.join(other)}: {_ANEW}")


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The conditions that are not the same."""
    return [key for key in {**before, **now} if before.get(key) != now.get(key)]


def encode(value: object) -> bytes:
    """A value of named tuples, numbers, texts and arrays."""
    return msgspec.msgpack.encode(value, enc_hook=_plain)


def decode(data: bytes, kind: type[_T]) -> _T:
    """What `encode` has encoded; msgspec and numpy raise errors of several kinds if it is not of that type."""
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_array)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(type(value))


def _array(kind: Any, value: Any) -> Any:
    if get_origin(kind) is not np.ndarray:
        raise NotImplementedError(kind)
    dtype, shape, data = value
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
