"""The sink `[command]`: a program for every event, with the event's JSON on its stdin; no shell."""

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
from bittern.errors import ConfigurationError
from bittern.events import Event

# An event on which the program fails this often is refused: it would fail for ever, and the others wait behind it.
TRIES = 5
# What the program sees of our environment.
_ENVIRONMENT = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")
_STDERR_BYTES = 4096
# For the end of a process that was killed; one that waits inside a driver does not end.
_KILL_S = 1.0


class CommandSink(Sink):
    """Runs a program in a process group of its own; exit code 0 means taken.

    After `timeout_s` the whole group is killed. Otherwise what the program left in the background runs on. Of its
    environment it gets a few basic variables, `BITTERN_EVENT_TYPE` and `BITTERN_LABEL` (empty without a label). Its
    stdout is discarded; the first line of its stderr is the reason of a failure.
    """

    name = "command"
    durable = True

    def __init__(self, config: CommandConfig) -> None:
        """Nothing is run yet.

        Raises:
            ConfigurationError: there is no such program.
        """
        self._run = config.run
        self._timeout_s = config.timeout_s
        self._failed: tuple[str, int] = ("", 0)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        if shutil.which(config.run[0]) is None:
            raise ConfigurationError(f"command.run: {config.run[0]!r} is not a program that can be run")

    def deliver(self, event: Event, body: bytes) -> str:
        """Run the program once; see `Sink.deliver`."""
        if self._closed:
            raise Undelivered("closed")
        # A file in memory, not a pipe: writing to it cannot block, however little of it the program reads.
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
            except OSError as error:  # removed meanwhile, no memory, no file descriptors: nothing the event can mend
                raise Undelivered(f"{self._run[0]}: {error.strerror}") from None
        self._process = process
        try:
            in_time, said = self._wait(process)
        except BaseException:  # no file descriptors: nobody watches it
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
        line = said.decode(errors="replace").strip().split("\n", 1)[0][:200]
        how = _how(process.returncode or 0) if in_time else f"killed after {self._timeout_s:g} s"
        raise Undelivered(f"{self._run[0]}: {how}{': ' if line else ''}{line}", final=tries >= TRIES)

    def close(self) -> None:
        """Kill the program if it is running."""
        self._closed = True
        if (process := self._process) is not None:
            _kill_group(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> tuple[bool, bytes]:
        """Whether the program ended by itself, in time, and the first bytes of its stderr."""
        end = time.monotonic() + self._timeout_s
        assert process.stderr is not None
        stderr = process.stderr.fileno()
        said = b""
        # The end of stderr is not the end of the program, nor the other way round: what it left in the background may
        # hold it open.
        ended = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.register(stderr, select.POLLIN)
            if self._closed:
                _kill_group(process)
            in_time = False
            while not in_time and (left := end - time.monotonic()) > 0:
                ready = dict(poll.poll(left * 1000))
                if stderr in ready:
                    data = os.read(stderr, 65536)
                    if not data:
                        poll.unregister(stderr)
                    said = (said + data)[:_STDERR_BYTES]
                in_time = ended in ready
        finally:
            os.close(ended)
        if not in_time:
            _kill_group(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_S)
        return in_time, said


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is not None:  # its number may be another one's by now
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _how(code: int) -> str:
    """What became of a process, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
