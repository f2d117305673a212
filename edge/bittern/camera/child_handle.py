"""The parent's handle of the child process that runs a camera: its pipes, its ring, and how it ended."""

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


class ChildHandle:
    """A child that opens the source and puts its frames into a ring. Nothing here waits.

    The child ends with the thread that made it (PR_SET_PDEATHSIG): make it in one that lives as long as the camera.

    Attributes:
        wake: file descriptor that becomes readable when a frame came.
        inbox: file descriptor that becomes readable when a message came, or the child ended.
        reader: of the ring, once `messages` gave `Opened`.

    Raises:
        OSError: the system gives no process or no file descriptor.
    """

    def __init__(self, request: Request) -> None:
        self.reader: ring.Reader | None = None
        self._text = b""
        self._open: list[int] = []
        outbox = -1  # the child's end of the pipe
        try:
            self._ring = self._keep(ring.create())
            self.wake = self._keep(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            self.inbox, outbox = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._keep(self.inbox)
            descriptors = (self._ring, self.wake, outbox)
            self._child = subprocess.Popen(
                # -P: no module is imported from the working directory.
                [sys.executable, "-P", "-m", "bittern.camera.child", *map(str, descriptors), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # stdout is for events
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except BaseException:
            self._close()
            raise
        finally:
            if outbox >= 0:
                os.close(outbox)
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once, which is noticed soon
            os.write(self._child.stdin.fileno(), msgspec.json.encode(request) + b"\n")

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def messages(self) -> tuple[list[Message], bool]:
        """The messages since the last call, and whether the pipe is closed, so that no more can come."""
        closed = False
        try:
            while data := os.read(self.inbox, _READ_BYTES):
                self._text += data
            closed = True
        except BlockingIOError:
            pass
        *lines, self._text = self._text.split(b"\n")
        messages = [_DECODER.decode(line) for line in lines]
        if any(isinstance(message, Opened) for message in messages):
            self.reader = ring.Reader(self._ring)
        return messages, closed

    def take(self) -> ring.Shared | None:
        """The newest frame that was not taken before; see `ring.Reader.take`."""
        if self.reader is None:
            return None
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake)
        return self.reader.take()

    def ask(self) -> None:
        """Ask the child to end: it gives the camera back first."""
        if self._child.stdin is not None:
            self._child.stdin.close()

    def kill(self) -> None:
        """SIGKILL."""
        self._child.kill()

    def ended(self) -> str | None:
        """How the child ended, such as "SIGSEGV" or "exit code 1"; None while it runs. An ended child is reaped."""
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
        """Close all that is open here; frames that were taken stay valid as long as they are referenced."""
        self.reader = None
        for fd in self._open:
            os.close(fd)
        self._open.clear()
        if getattr(self, "_child", None) is not None:
            self.ask()
