"""Keeping native libraries quiet."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import sys
import threading

import pytest

from bittern.system import stderr


def test_it_comes_back_and_is_away_inside(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before ")
    with stderr.silenced(), stderr.silenced():
        os.write(2, b"inside ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_threads_that_overlap_leave_it_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    def often() -> None:
        for _ in range(300):
            with stderr.silenced():
                os.write(2, b"x")

    threads = [threading.Thread(target=often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"here again")
    assert capfd.readouterr().err == "here again"


def run(program: str, stderr: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=stderr, timeout=60)


def test_a_line_that_nobody_reads_is_dropped_and_counted() -> None:
    """And a reader that comes back hears of it."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    program = (
        "import os, sys\nfrom bittern.system import stderr\nstderr.never_wait()\n"
        "for i in range(100): stderr.write_line(f'{i} ' + 'x' * 200)\n"
        f"os.read({reader}, 4096)\nstderr.write_line('again')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=writer, pass_fds=(reader,), timeout=60)
    os.close(writer)
    assert done.returncode == 0
    with os.fdopen(reader) as opened:
        (line,) = opened.read().splitlines()
    assert re.fullmatch(r"again \(lines before this one that were not read: \d\d\)", line)


def test_the_flag_is_not_set_for_others_that_have_the_pipe() -> None:
    reader, writer = os.pipe()
    run("from bittern.system import stderr; stderr.never_wait(); stderr.write_line('a' * 9000)", writer)
    assert os.get_blocking(writer)
    os.close(writer)
    with os.fdopen(reader) as opened:
        assert opened.read() == "a" * 4095 + "\n"


def test_a_broken_pipe_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for wait in ("", "stderr.never_wait(); "):
        done = run(f"from bittern.system import stderr; {wait}stderr.write_line('a'); stderr.write_line('b')", writer)
        assert done.returncode == 0
    os.close(writer)


def test_a_closed_stderr_is_not_what_is_opened_next() -> None:
    """Else a native library would write into it."""
    program = "from bittern.system import stderr; stderr.open_standard_descriptors(); print(open('/dev/null').fileno())"
    command = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", program]
    assert int(subprocess.run(command, stdout=subprocess.PIPE, timeout=60).stdout) > 2


def test_lines_for_the_journal_are_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        program = (
            "from bittern.system import stderr\nstderr.never_wait()\n"
            "for i in range(3000): stderr.write_line(f'{i} ' + 'x' * 200)"
        )
        assert run(program, theirs.fileno()).returncode == 0
        assert ours.recv(10) == b"0 xxxxxxxx"


def test_a_line_is_not_lost_in_the_silence_of_another_thread() -> None:
    code = (
        "import os\nfrom bittern.system import stderr\n"
        "with stderr.silenced():\n    os.write(2, b'noise')\n    stderr.write_line('heard')\nstderr.write_line('too')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "heard\ntoo\n"
