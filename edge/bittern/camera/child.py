"""The camera's own process: opens the source, and puts its frames into the ring.

    python -P -m bittern.camera.child RING WAKE MESSAGES PARENT

The first three are file descriptors, the last one is the parent's process id. The request comes as one line of JSON on
stdin. The end of stdin ends this process, and so does the end of the parent process.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from bittern.camera.messages import Ended, Failed, Message, Opened, Request
from bittern.camera.ring import Writer
from bittern.errors import BitternError, ConfigurationError, SourceError, one_line
from bittern.frames import Source
from bittern.sources.registry import open_source
from bittern.system import log, stderr

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PERIOD_WEIGHT = 0.2  # of the newest interval in the mean
_TEXT = 2000  # characters of an error at most


def main() -> int:
    """Run until the source or the parent ends."""
    ring, wake, messages, parent = map(int, sys.argv[1:])
    # The parent decides when this process ends, by closing stdin: systemd sends SIGTERM to both.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        return 1
    stderr.never_wait()
    log.begin(logging.INFO)
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    opened: list[Source] = []
    threading.Thread(target=_close_at_the_end_of_stdin, args=(opened,), daemon=True).start()

    def send(message: Message) -> None:
        os.write(messages, msgspec.json.encode(message) + b"\n")  # fits into the pipe: never waits

    try:
        source = open_source(request.uri, request.options)
    except ConfigurationError as error:
        return _fail(send, Failed("configuration", str(error)))
    except Exception as error:  # whatever a driver's library raises: report it to the parent
        return _fail(send, Failed("busy" if getattr(error, "busy", False) else "absent", _line(error)))
    opened.append(source)
    source.timeout_s = request.timeout_s
    try:
        with source:
            _feed(source, request, ring, wake, send)
    except Exception as error:
        return _fail(send, Failed("lost", _line(error)))
    send(Ended())
    return 0


def _feed(source: Source, request: Request, ring: int, wake: int, send: Callable[[Message], None]) -> None:
    """Put every frame into the ring, which is laid out for the first one, until the source ends."""
    writer: Writer | None = None
    warm_up = request.warm_up_frames
    shape: tuple[int, ...] = ()
    last_number = -1
    last_ns, period_ns = 0, 0.0
    while (frame := source.read()) is not None:
        if frame.number <= last_number:
            continue  # the same frame again does not show that the camera works
        last_number = frame.number
        now = time.monotonic_ns()
        if last_ns:
            period_ns += (_PERIOD_WEIGHT if period_ns else 1.0) * (now - last_ns - period_ns)
        last_ns = now
        if writer is None:
            shape = frame.pixels.shape
            writer = Writer(ring, shape[0], shape[1])
            writer.note(now, 0)  # before the parent reads it
            send(Opened(frame.source, shape[0], shape[1]))
        elif frame.pixels.shape != shape:
            height, width = frame.pixels.shape[:2]
            raise SourceError(f"{source.name}: frames of {shape[1]}x{shape[0]} became {width}x{height}")
        writer.note(now, round(period_ns))
        if warm_up > 0:
            warm_up -= 1
            continue
        writer.write(
            frame.pixels,
            frame.order,
            number=frame.number,
            monotonic_ns=frame.monotonic_ns,
            time_ns=frame.time_ns,
        )
        with contextlib.suppress(BlockingIOError):  # full: the parent has been woken already
            os.eventfd_write(wake, 1)


def _close_at_the_end_of_stdin(opened: list[Source]) -> None:
    """Wait for the parent to close stdin, in a thread; a source that hangs then is killed by the parent."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    if not opened:
        os._exit(0)  # still opening: the kernel gives the device back
    opened[0].close()


def _fail(send: Callable[[Message], None], failed: Failed) -> int:
    send(failed)
    return 1


def _line(error: Exception) -> str:
    text = one_line(error)
    return (text if isinstance(error, BitternError) else f"{type(error).__name__}: {text}")[:_TEXT]


if __name__ == "__main__":
    sys.exit(main())
