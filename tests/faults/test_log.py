"""Faults 35 and 38: nobody reads the log; names and files that are to break a line, a terminal or a parser."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.doubles.command import bittern
from tests.doubles.http_peer import Peer, status
from tests.doubles.repetitions import FULL, pass_mark, times
from tests.faults.test_daemon import Daemon

Record = Callable[..., None]


def full_pipe() -> tuple[int, int]:
    """Both ends of a pipe into which nothing more goes."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    return reader, writer


def unread_pipe() -> tuple[int, int]:
    """Both ends of a pipe that has room for a few lines."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    return reader, writer


def broken_pipe() -> tuple[int, int]:
    """A pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    return -1, writer


@pytest.mark.parametrize(
    "kind",
    ["unread", "closed", pytest.param("full", marks=pytest.mark.slow), pytest.param("broken", marks=pytest.mark.slow)],
)
def test_35_nobody_reads_stderr(tmp_path: Path, peer: Peer, record: Record, kind: str) -> None:
    n = times(10, 1)
    longest = 0.0
    peer.answer = lambda _: status(422)  # which refuses an event, and that is a line of the log
    for i in range(n):
        reader, writer = {"full": full_pipe, "unread": unread_pipe}.get(kind, broken_pipe)()
        # With a closed stderr: only the shell can start it like that.
        before = ("sh", "-c", 'exec "$0" "$@" 2>&-') if kind == "closed" else ()
        daemon = Daemon(tmp_path / str(i), peer, before=before, stderr=writer)
        os.close(writer)
        try:
            daemon.read(lambda daemon=daemon: len(daemon.alarms()) >= 70)  # type: ignore[misc]
            longest = max(longest, daemon.end(signal.SIGTERM))
            assert daemon.process.returncode == 0
        finally:
            daemon.close()
            if reader >= 0:
                os.close(reader)
    assert longest < pass_mark(2.0)
    figure = f"frames go on; ended within {longest:.2f} s, exit 0"
    record(35, f"stderr {kind}", n, figure, "frames go on; SIGTERM ends it within 2 s, exit 0")


# What a name may hold that Linux lets a file have.
NASTY = (
    "a\nbittern: all is well", "\x1b[2J\x1b]0;title\x07", "r\rl", "\udcff\udcfe", "\u202efdp.exe", "\u2028", "\x7f",
    "t\tv\v",
)  # fmt: skip
NESTED = (
    "x = " + "[" * 900 + "]" * 900,
    "x = " + "{a=" * 900 + "1" + "}" * 900,
    ".".join("a" * 900) + " = 1",
    "[" + ".".join("a" * 900) + "]\nb = 1",
    ".".join("a" * 20_000) + " = 1",
    '"a\\nb\\u001b[31m" = 1',
    "\x1b = 1",
)


def commands(folder: Path, name: str) -> list[tuple[str, ...]]:
    """Commands that name something that is not what it should be."""
    text, model = folder / f"{name}.toml", folder / name
    text.write_text(f"'{name.encode(errors='replace').decode()}' = 1" if name.isprintable() else "\x1b = \n")
    model.mkdir()
    (model / "manifest.json").write_text("{}")
    return [
        ("classify", str(folder / f"{name}.jpg")),
        ("classify", str(text)),
        ("watch", "--config", str(text)),
        ("config", "--check", str(text)),
        ("watch", "--model", str(model), "--source", "demo:"),
        ("watch", "--source", f"{folder}/{name}.mp4"),
        ("evaluate", name, "--data", str(folder)),
        ("evaluate", "stop_sign", "--data", str(folder / name)),
        (name,),
    ]


def is_clean(text: str) -> bool:
    return text.endswith("\n") and text.count("\n") == 1 and text[:-1].isprintable()


def test_38_names_that_break_lines(tmp_path: Path, record: Record) -> None:
    n = 0
    for i, name in enumerate(NASTY if FULL else NASTY[:1]):
        (tmp_path / str(i)).mkdir()
        for words in commands(tmp_path / str(i), name):
            done = bittern(*words)
            assert done.code in (1, 2), words
            assert is_clean(done.out + done.err), (words, done.out, done.err)
            n += 1
    for i, text in enumerate(NESTED if FULL else NESTED[:2]):
        file = tmp_path / f"nested{i}.toml"
        file.write_text(text)
        for words in (("watch", "--config", str(file)), ("config", "--check", str(file))):
            done = bittern(*words)
            assert done.code == 2, words
            assert is_clean(done.out + done.err), (words, done.out, done.err)
            n += 1
    record(38, "names and keys that break lines, nested TOML", n, "one line each, escaped", "one line each, escaped")
