"""The process that decodes what its header does not bound: it may die, and is one for all threads of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.doubles.camera_process import children
from tests.doubles.picture_files import FOUR, animated_webp, corners, drawn, encode
from tests.doubles.waiting import until

from bittern.errors import PictureError
from bittern.model import decoder, pictures

ANIMATED = animated_webp([drawn(), np.zeros_like(drawn())])


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    decoder._decoder.close()
    yield
    decoder._decoder.close()


def started() -> int:
    """The decoder's process."""
    before = children()
    assert corners(pictures.decode_bytes(ANIMATED, "animated")) == FOUR
    (pid,) = children() - before
    return pid


def test_ordinary_pictures_start_no_process(model_folder: Path) -> None:
    before = children()
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff"):
        data = encode(suffix, drawn(640, 480))
        pictures.decode_bytes(data, suffix)
    assert children() == before


def test_one_process_takes_one_picture_after_another() -> None:
    started()
    before = children()
    with ThreadPoolExecutor(4) as threads:
        for picture in threads.map(lambda _: pictures.decode_bytes(ANIMATED, "animated"), range(40)):
            assert corners(picture) == FOUR
    assert children() == before


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_gone_is_started_again(end: signal.Signals) -> None:
    pid = started()
    os.kill(pid, end)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert started() != pid


def test_a_process_that_dies_at_its_work_is_named() -> None:
    pid = started()
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(pictures.decode_bytes, ANIMATED, "x")
        until(decoder._decoder.lock.locked)  # it has begun to ask
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(PictureError, match=r"x: broken picture, it crashes its decoder \(SIGKILL\)"):
            answer.result()
    assert corners(pictures.decode_bytes(ANIMATED, "animated")) == FOUR


def test_it_ends_with_its_parent_and_leaves_no_word() -> None:
    program = (
        "import sys\n"
        "from bittern.model import decoder, pictures\n"
        "pictures.decode_bytes(sys.stdin.buffer.read(), 'x')\n"
        "print(decoder._decoder._process.pid)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], input=ANIMATED, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not Path(f"/proc/{int(done.stdout)}").exists()


def test_a_forked_process_has_a_decoder_of_its_own() -> None:
    program = (
        "import os, sys\n"
        "from bittern.model import pictures\n"
        "data = sys.stdin.buffer.read()\n"
        "first = pictures.decode_bytes(data, 'x')\n"
        "if os.fork() == 0:\n"
        "    assert (pictures.decode_bytes(data, 'x') == first).all()\n"
        "    print('child', flush=True)\n"
        "    os._exit(0)\n"
        "assert (pictures.decode_bytes(data, 'x') == first).all()\n"
        "os.wait()\n"
        "print('parent')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=ANIMATED, capture_output=True, text=False)
    assert (done.stdout.split(), done.stderr) == ([b"child", b"parent"], b"")
