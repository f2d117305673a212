"""The rows of the pages: what a viewer costs the daemon, what nobody costs, memory, and `bittern serve` under load."""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import os
import queue
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from bittern.bench import processes
from bittern.bench.result import Row
from bittern.bench.rows import FrameToEvent, PeerMissing, Subject, megabytes_row, row_of
from bittern.bench.timing import Pairs, percentile
from bittern.errors import BitternError
from bittern.model import pictures
from bittern.model.classifier import Classifier
from bittern.page import workers
from bittern.scene import street

_CLIENTS = 50
_MB = 60.0


class _Watch(NamedTuple):
    """A `bittern watch` that classifies every frame of a camera that is never late."""

    process: subprocess.Popen[str]
    port: int

    def classified(self) -> tuple[int, float]:
        """How many frames were classified, and when the daemon said so."""
        health = _get(self.port, "/api/health")
        return health["classified"], health["uptime_s"]

    def per_frame_ms(self, seconds: float) -> float:
        """Time from one classified frame to the next."""
        frames, start = self.classified()
        time.sleep(seconds)
        more, end = self.classified()
        if more == frames:
            raise BitternError("bittern watch classified no frame")
        return 1e3 * (end - start) / (more - frames)


@contextlib.contextmanager
def _watch(subject: Subject, fps: float, *, page: bool = True) -> Iterator[_Watch]:
    if find_spec("uvicorn") is None:
        raise PeerMissing("uvicorn is not installed: pip install 'bittern[page]'")
    with tempfile.TemporaryDirectory(prefix="bittern-bench-") as folder:
        frames, config, log = Path(folder, "frames.npy"), Path(folder, "watch.toml"), Path(folder, "log")
        np.save(frames, np.stack(FrameToEvent(subject.classifier, subject.folder, (640, 480)).pictures))
        lines = [
            f"source = {json.dumps(f'bench:{frames}?fps={fps:g}')}",
            f"models = [{json.dumps(str(subject.folder.absolute()))}]",
            "fps = 240.0",
            f"[outbox]\nfolder = {json.dumps(folder)}",
            "[gate]\nenabled = false",
        ]
        config.write_text("\n".join([*lines, "[page]\nport = 0" if page else "", ""]))
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [*processes.bittern(), "watch", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
            )
            try:
                end = time.monotonic() + processes.TIMEOUT_S
                while "camera ok" not in log.read_text():
                    if process.poll() is not None or time.monotonic() > end:
                        raise BitternError(f"bittern watch did not start: {log.read_text().strip()[-300:]}")
                    time.sleep(0.05)
                match = re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text())
                watch = _Watch(process, int(match[1]) if match else 0)
                if page:
                    watch.classified()
                yield watch
            finally:
                process.terminate()
                process.wait()


@contextlib.contextmanager
def _viewer(port: int) -> Iterator[None]:
    """Somebody looks at the live picture while the block runs."""
    with socket.create_connection(("127.0.0.1", port), timeout=processes.TIMEOUT_S) as stream:
        stream.sendall(b"GET /api/live.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        if b" 200 " not in stream.recv(4096):
            raise BitternError("the page shows no live picture")
        while b"image/jpeg" not in stream.recv(1 << 16):
            pass

        def take() -> None:
            with contextlib.suppress(OSError):
                while stream.recv(1 << 16):
                    pass

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stream.shutdown(socket.SHUT_RDWR)
            thread.join()


def viewer_row(subject: Subject, n: int) -> Row:
    """Time from one classified frame to the next with a viewer, beside the same without one, block by block."""
    fps = min(200.0, 2e3 / _invoke_ms(subject))  # more than can be classified
    seconds = max(0.4, n / 100)
    ours, theirs = [], []
    with _watch(subject, fps) as watch:
        watch.per_frame_ms(seconds)
        for i in range(6):
            for looks in (i % 2 == 0, i % 2 == 1):
                if looks:
                    with _viewer(watch.port):
                        ours.append(watch.per_frame_ms(seconds))
                else:
                    theirs.append(watch.per_frame_ms(seconds))
    return row_of("page_viewer", "classify with a live viewer", "without one", 1.10, Pairs(ours, theirs, len(ours)))


def idle_row(subject: Subject, n: int) -> Row:
    """Processor time of all processes with a page that nobody looks at, beside the same without a page."""
    fps = 10.0
    seconds = max(0.5, n / 40)
    ours, theirs = [], []
    with _watch(subject, fps) as with_page, _watch(subject, fps, page=False) as without:
        for _ in range(6):
            used = [processes.processor_s(watch.process.pid) for watch in (with_page, without)]
            time.sleep(seconds)
            used = [
                processes.processor_s(watch.process.pid) - before
                for watch, before in zip((with_page, without), used, strict=True)
            ]
            ours.append(1e3 * used[0] / seconds)
            theirs.append(max(1e3 * used[1] / seconds, 0.01))
    what = "processor time a second, page without a viewer"
    return row_of("page_idle", what, "without a page", 1.05, Pairs(ours, theirs, len(ours)))


def memory_row(subject: Subject, n: int) -> Row:
    """Memory (PSS) of the page's process after somebody has looked."""
    with _watch(subject, 10.0) as watch, _viewer(watch.port):
        time.sleep(max(0.2, n / 100))
        (page,) = [pid for pid in processes.with_children(watch.process.pid) if _is_page(pid)]
        used = processes.memory_kb(page) * 1024 / 1e6
    return megabytes_row("page_memory", "memory of the page's process with a viewer (PSS)", used, _MB, 1)


def _is_page(pid: int) -> bool:
    return b"bittern.page.live" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _invoke_ms(subject: Subject) -> float:
    tensor = np.zeros((1, *subject.classifier.shape, 3), np.uint8)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        subject.classifier.invoke(tensor)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def _get(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=processes.TIMEOUT_S)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


# --- bittern serve ----------------------------------------------------------------------------------------------------


def serve_row(subject: Subject, n: int) -> Row:
    """Fifty clients that post 1080p JPEGs at once, beside bare decoding and classifying on the same cores.

    Raises:
        BitternError: a picture was not answered.
    """
    if find_spec("uvicorn") is None or find_spec("python_multipart") is None:
        raise PeerMissing("uvicorn or python-multipart is not installed: pip install 'bittern[page]'")
    view = street.random_picture(np.random.default_rng(2), stop=True, size=(1920, 1080))
    data: bytes = cv2.imencode(".jpg", cv2.cvtColor(view, cv2.COLOR_RGB2BGR))[1].tobytes()
    seconds = max(0.5, 0.075 * n)  # twice, so that 200 give 30 s
    ours, theirs, latencies = [], [], []
    with _serve(subject) as port:
        _post(port, data, max(2.0, seconds / 3))  # until it has all its workers
        for i in range(2):
            for served in (i == 0, i == 1):
                if served:
                    took = _post(port, data, seconds)
                    latencies += took
                    ours.append(1e3 * seconds / len(took))
                else:
                    theirs.append(1e3 * seconds / _bare(subject, data, seconds))
    median = statistics.median(ours), statistics.median(theirs)
    return Row(
        name="serve_load",
        what=f"serve, {_CLIENTS} clients post 1080p JPEGs (p95 {1e3 * percentile(latencies, 0.95):.0f} ms, no error)",
        against="bare decode and classify on all cores",
        ratio=round(median[0] / median[1], 4),
        at_most=1.25,
        median_ms=round(median[0], 4),
        reference_ms=round(median[1], 4),
        n=len(latencies),
    )


@contextlib.contextmanager
def _serve(subject: Subject) -> Iterator[int]:
    with tempfile.TemporaryDirectory(prefix="bittern-bench-") as folder:
        command = [*processes.bittern(), "serve", "--port", "0", "--data", folder, "--model", str(subject.folder)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            match = re.search(r":(\d+)/", process.stdout.readline())
            if match is None:
                raise BitternError(f"bittern serve ended with exit code {process.wait()}")
            yield int(match[1])
        finally:
            process.terminate()
            process.communicate()


def _post(port: int, data: bytes, seconds: float) -> list[float]:
    """Post a picture again and again from all clients; how long each answer took, in s."""
    end = time.monotonic() + seconds
    took: list[float] = []
    failed: list[str] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=processes.TIMEOUT_S)
        try:
            while time.monotonic() < end:
                start = time.monotonic()
                connection.request("POST", "/api/classify", data)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    failed.append(f"status {answer.status}: {text[:100]!r}")
                elif time.monotonic() <= end:
                    took.append(time.monotonic() - start)
        except (OSError, http.client.HTTPException) as error:
            failed.append(repr(error))
        finally:
            connection.close()

    clients = [threading.Thread(target=client) for _ in range(_CLIENTS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    if failed:
        raise BitternError(f"{len(failed)} of {len(failed) + len(took)} pictures were not answered: {failed[0]}")
    if not took:
        raise BitternError(f"no picture was answered within {seconds:g} s")
    return took


def _bare(subject: Subject, data: bytes, seconds: float) -> int:
    """How many pictures are decoded and classified by as many processes as `bittern serve` has workers."""
    count = min(workers.MOST, len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(count), context.Queue()
    work = (str(subject.folder.absolute()), data, seconds, barrier, counts)
    bare = [context.Process(target=_work, args=work, daemon=True) for _ in range(count)]
    for process in bare:
        process.start()
    try:
        return sum(counts.get(timeout=seconds + processes.TIMEOUT_S) for _ in bare)
    except queue.Empty:
        raise BitternError("a process that decodes and classifies ended") from None
    finally:
        for process in bare:
            process.terminate()
            process.join()


def _work(folder: str, data: bytes, seconds: float, barrier: Any, counts: Any) -> None:
    cv2.setNumThreads(1)
    classifier = Classifier(folder)
    classifier.classify(pictures.decode_bytes(data, "bench"))
    barrier.wait(processes.TIMEOUT_S)
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        classifier.classify(pictures.decode_bytes(data, "bench"))
        count += 1
    counts.put(count)
