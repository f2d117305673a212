"""Commands with a time-out."""

from __future__ import annotations

import sys

from tests.doubles.waiting import within

from bittern.system.commands import run


def test_what_a_command_printed() -> None:
    done = run((sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"))
    assert done == (3, "out\n", "err\n")


def test_a_command_gets_no_stdin_and_speaks_english() -> None:
    program = "import os, sys; print(sys.stdin.read() == '', os.environ['LC_ALL'])"
    assert run((sys.executable, "-c", program)).out == "True C.UTF-8\n"


def test_an_absent_command_is_no_exception() -> None:
    done = run(("no-such-command-of-ours", "x"))
    assert done.code is None
    assert done.err == "no-such-command-of-ours: No such file or directory"


def test_a_command_that_hangs_is_given_up() -> None:
    with within():
        done = run((sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"), timeout_s=0.5)
    assert done.code is None
    assert "no answer within 0.5 s" in done.err


def test_what_it_printed_before_it_hung_is_kept() -> None:
    program = "import time; print('begun', flush=True); time.sleep(60)"
    assert run((sys.executable, "-c", program), timeout_s=2.0).out == "begun\n"


def test_a_signal_is_a_negative_code() -> None:
    assert run((sys.executable, "-c", "import os; os.kill(os.getpid(), 4)")).code == -4
