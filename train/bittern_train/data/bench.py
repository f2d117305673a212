"""Rows of `bittern bench` for the data tools: import, check and dedupe of many JPEGs, and the label page's keys.

`bittern bench --row import` measures one; without `--row` only the rows of the device are measured.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bittern.bench import processes
from bittern.bench.result import Row
from bittern.bench.rows import PeerMissing, Subject, megabytes_row, row_of
from bittern.bench.suite import Measure
from bittern.bench.timing import interleave, percentile
from bittern.errors import BitternError
from bittern.scene import street

# For one that is asked for: with the default of 200 they are 10,000.
PICTURES = 50
# Each takes most of a minute with 10,000 pictures.
_PAIRS = 3
_SIZE = (640, 480)
# From a key to the next picture; a picture at 25 frames a second takes 40 ms.
_KEY_MS = 50.0
_DEDUPE_S = 180.0
_DEDUPE_MB = 600.0


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Distinct JPEGs of 640 x 480 in a folder for each of two labels, about 90 kB each: drawn streets in soft light."""
    rng = np.random.default_rng(1)
    streets = [street.random_picture(rng, stop=i % 2 == 0, size=_SIZE) for i in range(40)]
    files = []
    for i in range(count):
        light = cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), _SIZE, interpolation=cv2.INTER_CUBIC)
        scene = np.roll(streets[i % len(streets)], int(rng.integers(_SIZE[0])), axis=1)
        picture = cv2.addWeighted(scene, 0.5, light, 0.5, 0)
        grain = rng.integers(0, 12, (_SIZE[1] // 2, _SIZE[0] // 2, 3), np.uint8)
        picture = cv2.add(picture, cv2.resize(grain, _SIZE, interpolation=cv2.INTER_NEAREST))
        file = folder / ("with" if i % 2 == 0 else "without") / f"{i:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        files.append(file)
    return files


def _against_decoding(name: str, what: str, words: Callable[[Path, Path], Sequence[str | Path]]) -> Measure:
    """Makes a row: a command on many JPEGs, beside OpenCV's bare decoding of them by a thread for each core.

    Args:
        name: of the row.
        what: it does.
        words: of the command, for the folder of the pictures and one for its results.
    """

    def measure(_subject: Subject, n: int) -> Row:
        count = PICTURES * n
        with tempfile.TemporaryDirectory(prefix="bittern-bench-") as scratch:
            source, out = Path(scratch, "pictures"), Path(scratch, "out")
            files = write_pictures(source, count)

            def command() -> None:
                shutil.rmtree(out, ignore_errors=True)
                _run([*processes.bittern(), *map(str, words(source, out))])

            def decode() -> None:
                with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                    for picture in pool.map(lambda file: cv2.imread(str(file)) is not None, files):
                        assert picture

            pairs = interleave(command, decode, _PAIRS, warm_up=0)
        return row_of(name, f"{what} {count:,} JPEGs of 640 x 480", "bare decoding on all cores", 1.25, pairs)

    return measure


def _run(command: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak memory (RSS, MB) of a command.

    Raises:
        BitternError: it failed.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            last = (errors.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise BitternError(f"{' '.join(command[1:3])} ended with exit code {process.returncode}: {last}")
    return time.monotonic() - start, usage.ru_maxrss * 1024 / 1e6


@functools.lru_cache(1)
def _deduped(count: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="bittern-bench-") as scratch:
        write_pictures(Path(scratch), count)
        return _run([*processes.bittern(), "data", "dedupe", scratch, "--dry-run"])


def dedupe_row(_subject: Subject, n: int) -> Row:
    """`bittern data dedupe`, beside the time that it may take."""
    count = PICTURES * n
    allowed_s = _DEDUPE_S * count / 10_000
    seconds, _ = _deduped(count)
    return Row(
        name="dedupe",
        what=f"dedupe of {count:,} JPEGs of 640 x 480",
        against="3 minutes for 10,000",
        ratio=round(seconds / allowed_s, 4),
        at_most=1.0,
        median_ms=round(1e3 * seconds, 1),
        reference_ms=1e3 * allowed_s,
        n=1,
    )


def dedupe_memory_row(_subject: Subject, n: int) -> Row:
    """Peak memory of the same: what is kept of each picture, and no matrix of all pairs."""
    count = PICTURES * n
    return megabytes_row(
        "dedupe_memory", f"memory of dedupe of {count:,} JPEGs (RSS, peak)", _deduped(count)[1], _DEDUPE_MB, 1
    )


# Notes when a key was pressed and when the next picture is there to be painted.
_WATCH_KEYS = """() => {
  window.took = [];
  const one = document.getElementById("one");
  addEventListener("keydown", (event) => {
    const before = one.dataset.position;
    const look = () => {
      const shown = document.getElementById("photo");
      if (one.dataset.position !== before && shown.complete) window.took.push(performance.now() - event.timeStamp);
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }, true);
}"""


def label_key_row(_subject: Subject, n: int) -> Row:
    """p95 of the time from a key that labels a picture to the frame that shows the next one, in Chromium.

    Raises:
        PeerMissing: no Chromium, no playwright, or no extra for pages.
    """
    with tempfile.TemporaryDirectory(prefix="bittern-bench-") as scratch, _chromium() as chromium:
        source = Path(scratch, "pictures")
        write_pictures(source, n + 5)
        labels = ("--label", "with", "--label", "without", "--unlabelled")
        words = ["data", "label", str(source), *labels, "--port", "0", "--data", scratch]
        server = subprocess.Popen(
            [*processes.bittern(), *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1:]
            if not url:
                raise BitternError(f"bittern data label ended with exit code {server.wait()}")
            page = chromium.new_page(bypass_csp=True)  # for the function that waits
            page.goto(url[0])
            page.wait_for_function("document.getElementById('photo')?.naturalWidth > 0")
            page.evaluate(_WATCH_KEYS)
            for i in range(n):
                page.keyboard.press("12"[i % 2])
                page.wait_for_function("count => window.took.length === count", arg=i + 1)
                page.wait_for_timeout(100)  # nobody decides sooner
            took = page.evaluate("window.took")
        finally:
            server.terminate()
            server.communicate()
    p95 = percentile(took, 0.95)
    return Row(
        name="label_key",
        what="p95 from a key of the label page to the next picture, Chromium",
        against="50 ms",
        ratio=round(p95 / _KEY_MS, 4),
        at_most=1.0,
        median_ms=round(p95, 2),
        reference_ms=_KEY_MS,
        n=len(took),
    )


@contextmanager
def _chromium() -> Iterator[Any]:
    program = shutil.which("chromium")
    if find_spec("uvicorn") is None:
        raise PeerMissing("uvicorn is not installed: pip install 'bittern[page]'")
    if find_spec("playwright") is None or program is None:
        raise PeerMissing("it needs Debian's chromium, and pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root, as in a container, has no sandbox.
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        try:
            yield browser
        finally:
            browser.close()


ROWS: Mapping[str, Measure] = {
    "import": _against_decoding("import", "import of", lambda source, out: ("data", "import", source, "--out", out)),
    "check": _against_decoding("check", "check of", lambda source, _out: ("data", "check", source)),
    "dedupe": dedupe_row,
    "dedupe_memory": dedupe_memory_row,
    "label_key": label_key_row,
}
