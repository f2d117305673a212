"""One start of the camera's process, as its parent has it: pipes, ring, and the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import msgspec

from bittern.camera import ring
from bittern.camera.messages import Message, Opened, Request

_DECODER = msgspec.json.Decoder(Message)
_READ_BYTES = 65536


class Process:
    """A child that opens the source and puts its frames into a ring. Nothing here waits.

    It ends with the thread that made it (PR_SET_PDEATHSIG): make it in one that lives as long as the camera.

    Attributes:
        wake: file descriptor that becomes readable when a frame came.
        said: file descriptor that becomes readable when a message came, or all writers ended.
        reader: of the ring, once `messages` gave `Opened`.

    Raises:
        OSError: no process or file descriptor could be had.
    """

    def __init__(self, request: Request) -> None:
        self.reader: ring.Reader | None = None
        self._text = b""
        self._open: list[int] = []
        theirs = -1
        try:
            self._ring = self._keep(ring.create())
            self.wake = self._keep(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            self.said, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._keep(self.said)
            descriptors = (self._ring, self.wake, theirs)
            self._child = subprocess.Popen(
                # -P: a file of the working directory is no module.
                [sys.executable, "-P", "-m", "bittern.camera.child", *map(str, descriptors), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # events go there
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except BaseException:
            self._close()
            raise
        finally:
            if theirs >= 0:
                os.close(theirs)
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once; that is seen soon
            os.write(self._child.stdin.fileno(), msgspec.json.encode(request) + b"\n")

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def messages(self) -> tuple[list[Message], bool]:
        """What it said since the last call, and whether it can say no more."""
        over = False
        try:
            while data := os.read(self.said, _READ_BYTES):
                self._text += data
            over = True
        except BlockingIOError:
            pass
        *lines, self._text = self._text.split(b"\n")
        messages = [_DECODER.decode(line) for line in lines]
        if any(isinstance(message, Opened) for message in messages):
            self.reader = ring.Reader(self._ring)
        return messages, over

    def take(self) -> ring.Shared | None:
        """The newest frame that was not taken before; see `ring.Reader.take`."""
        if self.reader is None:
            return None
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake)
        return self.reader.take()

    def ask(self) -> None:
        """Ask it to end: it gives the camera back first."""
        if self._child.stdin is not None:
            self._child.stdin.close()

    def kill(self) -> None:
        """SIGKILL."""
        self._child.kill()

    def ended(self) -> str | None:
        """How it ended, such as "SIGSEGV" or "exit code 1"; None while it has not. It is reaped then."""
        code = self._child.poll()
        if code is None:
            return None
        self._close()
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def _close(self) -> None:
        """Close all that is open here; frames that were taken stay valid as long as somebody has them."""
        self.reader = None
        for fd in self._open:
            os.close(fd)
        self._open.clear()
        if getattr(self, "_child", None) is not None:
            self.ask()
