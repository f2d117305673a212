"""The sink `[command]`: runs a program for every event, with the event's JSON on its stdin; no shell."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time

from bittern.config.schema import CommandConfig
from bittern.delivery.sinks.base import Sink, Undelivered
from bittern.errors import HIDDEN, ConfigurationError, redacted
from bittern.events import Event

# An event counts as refused when the program has failed on it this often: the others are waiting behind it.
TRIES = 5
# The environment variables that the program inherits.
_ENVIRONMENT = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")
_STDERR_BYTES = 4096
# An argument that is longer is taken for a value, which may be secret, not for an option such as "-s".
_LONGEST_OPTION = 3
# Time limit for a killed process to end; one that is stuck in a driver does not.
_KILL_S = 1.0


class CommandSink(Sink):
    """Runs a program in a process group of its own; exit code 0 means accepted.

    After `timeout_s` the whole group is killed; otherwise processes that the program left in the background keep
    running. Its environment has a few basic variables, `BITTERN_EVENT_TYPE` and `BITTERN_LABEL` (empty without a
    label). Its stdout is discarded; the first line of its stderr is the reason for a failure.
    """

    name = "command"
    durable = True

    def __init__(self, config: CommandConfig) -> None:
        """Check that the program exists.

        Raises:
            ConfigurationError: there is no such program.
        """
        self._run = config.run
        self._timeout_s = config.timeout_s
        self._failed: tuple[str, int] = ("", 0)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        if shutil.which(config.run[0]) is None:
            raise ConfigurationError(f"command.run: {redacted(config.run[0])!r} is not an executable program")

    def deliver(self, event: Event, body: bytes) -> str:
        """Run the program once; see `Sink.deliver`."""
        if self._closed:
            raise Undelivered("closed")
        # A file in memory, not a pipe: writing cannot block, however little the program reads.
        with os.fdopen(os.memfd_create("event"), "wb+") as stdin:
            stdin.write(body + b"\n")
            stdin.seek(0)
            environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            label = (event.label or "").replace("\0", "")
            try:
                process = subprocess.Popen(
                    self._run,
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=environment | {"BITTERN_EVENT_TYPE": event.type, "BITTERN_LABEL": label},
                    start_new_session=True,
                )
            except OSError as error:  # removed meanwhile, no memory, no file descriptors: not the event's fault
                raise Undelivered(f"{redacted(self._run[0])}: {error.strerror}") from None
        self._process = process
        try:
            in_time, stderr = self._wait(process)
        except BaseException:  # no file descriptors: the time limit cannot be watched
            _kill_group(process)
            raise
        finally:
            self._process = None
            assert process.stderr is not None
            process.stderr.close()
        if in_time and process.returncode == 0:
            self._failed = ("", 0)
            return "exit code 0"
        tries = self._failed[1] + 1 if self._failed[0] == event.id else 1
        self._failed = (event.id, tries)
        line = stderr.decode(errors="replace").strip().split("\n", 1)[0]
        for argument in self._run[1:]:  # which programs like to repeat, and which may be secret
            line = line.replace(argument, HIDDEN) if len(argument) > _LONGEST_OPTION else line
        line = line[:200]
        outcome = _outcome(process.returncode or 0) if in_time else f"killed after {self._timeout_s:g} s"
        raise Undelivered(f"{redacted(self._run[0])}: {outcome}{': ' if line else ''}{line}", final=tries >= TRIES)

    def close(self) -> None:
        """Kill the program if it is running."""
        self._closed = True
        if (process := self._process) is not None:
            _kill_group(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> tuple[bool, bytes]:
        """Whether the program ended by itself, in time, and the first bytes of its stderr."""
        deadline = time.monotonic() + self._timeout_s
        assert process.stderr is not None
        stderr_fd = process.stderr.fileno()
        stderr = b""
        # The end of stderr and the end of the program are separate events: a process left in the background may hold
        # stderr open, and a program may close it.
        exit_fd = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(exit_fd, select.POLLIN)
            poll.register(stderr_fd, select.POLLIN)
            if self._closed:
                _kill_group(process)
            in_time = False
            while not in_time and (left_s := deadline - time.monotonic()) > 0:
                ready = dict(poll.poll(left_s * 1000))
                if stderr_fd in ready:
                    data = os.read(stderr_fd, 65536)
                    if not data:
                        poll.unregister(stderr_fd)
                    stderr = (stderr + data)[:_STDERR_BYTES]
                in_time = exit_fd in ready
        finally:
            os.close(exit_fd)
        if not in_time:
            _kill_group(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_S)
        return in_time, stderr


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is not None:  # its process id may have been reused
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _outcome(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
