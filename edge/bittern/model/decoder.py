"""Decodes pictures in a child process with limits on its time and memory: for those whose header bounds neither."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from typing import IO

import cv2
import numpy as np

from bittern.errors import PictureError, one_line
from bittern.frames import Pixels
from bittern.model.picture_header import check_pixels
from bittern.system import limits

MAX_S = 3.0
# Beside the decoded picture itself.
MAX_MEMORY = 450 * 2**20
# A process that keeps more than this after a picture, such as what a broken one left behind, ends itself.
_MAX_KEPT = 64 * 2**20
# For a process that does not even compute; the first answer comes after it has started.
_TIMEOUT_S = 20.0
# Bytes of the file, pixels allowed, pixels that the header states (0: all that are allowed), and which library.
_REQUEST = struct.Struct("<QQQB")
# Height and width, or 0 and the number of bytes of a message.
_ANSWER = struct.Struct("<II")


class _Decoder:
    """The child process, which takes one picture after another; started with the first one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes, pixels: int, max_pixels: int, pillow: bool) -> Pixels:
        """See the function `decode`."""
        picture = self._ask(data, pixels, max_pixels, pillow)
        if picture is None:  # the process had ended itself: a new one answers
            picture = self._ask(data, pixels, max_pixels, pillow)
        if picture is None:
            raise PictureError("no answer from the process that decodes it")
        return picture

    def _ask(self, data: bytes, pixels: int, max_pixels: int, pillow: bool) -> Pixels | None:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it crashed: its exit code says how
                process.stdin.write(_REQUEST.pack(len(data), max_pixels, pixels, pillow) + data)
                process.stdin.flush()
            if not select.select([process.stdout], [], [], _TIMEOUT_S)[0]:
                raise PictureError(f"no answer within {_TIMEOUT_S:.0f} s from the process that decodes it")
            head = process.stdout.read(_ANSWER.size)
            if len(head) < _ANSWER.size:
                code = process.wait()
                if code == 0:
                    return None
                raise PictureError(_last_words(code))
            height, width = _ANSWER.unpack(head)
            if height == 0:
                raise PictureError(process.stdout.read(width).decode(errors="replace"))
            picture = np.empty((height, width, 3), np.uint8)
            _read_into(process.stdout, picture.data.cast("B"))
            return picture
        except PictureError:
            if process.poll() is not None:
                self.close()
            raise
        except BaseException:  # interrupted halfway through an answer
            self.close()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: nothing is imported from the working directory. A signal from the terminal is for its parent.
        command = [sys.executable, "-P", "-m", "bittern.model.decoder"]
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise PictureError(f"no process to decode it in: {error.strerror}") from None

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):  # what was not yet sent
                    pipe.close()


def _last_words(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"decoding takes longer than {MAX_S:g} s: save it again with another program"
    reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"broken picture, it crashes its decoder ({reason})"


def _read_into(pipe: IO[bytes], memory: memoryview) -> None:
    while memory:
        count = pipe.readinto(memory)  # type: ignore[attr-defined]  # a BufferedReader
        if not count:
            raise PictureError("the process that decodes it has ended")
        memory = memory[count:]


_decoder = _Decoder()
atexit.register(_decoder.close)


def _forget() -> None:
    """A forked process must not talk to its parent's decoder."""
    global _decoder
    _decoder = _Decoder()


os.register_at_fork(after_in_child=_forget)


def decode(data: bytes, *, pixels: int, max_pixels: int, pillow: bool = False) -> Pixels:
    """Decode a picture in the child process: (H, W, 3) uint8 BGR, without regard to its orientation.

    Args:
        data: contents of the file.
        pixels: width x height by its header; 0 if that is not known.
        max_pixels: a picture with more is refused.
        pillow: decode with Pillow and pillow-heif instead of OpenCV.

    Raises:
        PictureError: the file is broken, takes longer than `MAX_S` seconds of processor time or more than `MAX_MEMORY`
            bytes, or has too many pixels; the message is one line without the picture's name.
    """
    with _decoder.lock:
        return _decoder.decode(data, pixels, max_pixels, pillow)


# --- the child --------------------------------------------------------------------------------------------------------


def _main() -> None:
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    cv2.setNumThreads(1)
    before = limits.private_memory()
    while head := requests.read(_REQUEST.size):
        length, max_pixels, pixels, pillow = _REQUEST.unpack(head)
        data = requests.read(length)
        limits.limit_private_memory(before + 3 * (pixels or max_pixels) + length + MAX_MEMORY)
        limits.limit_processor_time(MAX_S)
        picture: Pixels | None
        try:
            picture = _decode_with_pillow(data, max_pixels) if pillow else _decode_with_opencv(data)
            height, width = picture.shape[:2]
            check_pixels(width, height, max_pixels)
        except PictureError as error:
            message = str(error).encode()
            answers.write(_ANSWER.pack(0, len(message)) + message)
        else:
            limits.limit_processor_time(0)
            answers.write(_ANSWER.pack(height, width))
            answers.write(np.ascontiguousarray(picture).data)
        limits.limit_processor_time(0)
        answers.flush()
        data, picture = b"", None
        if limits.private_memory() > before + _MAX_KEPT:
            return


def _decode_with_opencv(data: bytes) -> Pixels:
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except (cv2.error, MemoryError) as error:
        reason = one_line(error)
        if isinstance(error, MemoryError) or "nsufficient memory" in reason or "bad_alloc" in reason:
            raise PictureError(f"decoding takes more than {MAX_MEMORY >> 20} MiB of memory") from None
        if "MAX_IMAGE" in reason:
            raise PictureError("has more pixels than the limit") from None
        raise PictureError(f"broken picture ({getattr(error, 'err', reason)})") from None
    if picture is None:
        raise PictureError("broken picture, or a kind that OpenCV does not decode (such as floating point)")
    return np.asarray(picture, np.uint8)


def _decode_with_pillow(data: bytes, max_pixels: int) -> Pixels:
    import io

    import pillow_heif
    from PIL import Image

    pillow_heif.register_heif_opener()
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            check_pixels(width, height, max_pixels)
            return np.asarray(opened.convert("RGB"), np.uint8)[:, :, ::-1]
    except PictureError:
        raise
    except MemoryError:
        raise PictureError(f"decoding takes more than {MAX_MEMORY >> 20} MiB of memory") from None
    except Exception as error:  # Pillow's plugins raise many kinds
        raise PictureError(f"broken picture ({one_line(error)[:200]})") from None


if __name__ == "__main__":
    _main()
