"""Programs that the bench starts: cold commands, the runtime's own benchmark tool, and `bittern watch`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bittern.bench.timing import Pairs, interleave
from bittern.errors import BitternError
from bittern.model import runtime

TIMEOUT_S = 120.0
# Added per frame; by estimate three models on one core of a Pi 2 take one second.
FRAME_TIMEOUT_S = 3.0
# The shortest script that classifies a picture: the reference of `bittern classify`.
SHORTEST = f"""
import sys
import cv2
import numpy as np
from {runtime.Interpreter.__module__} import Interpreter

frame = cv2.imread(sys.argv[1])
side = min(frame.shape[:2])
top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
interpreter = Interpreter(sys.argv[2], num_threads=1)
interpreter.allocate_tensors()
height, width = interpreter.get_input_details()[0]["shape"][1:3]
square = cv2.resize(frame[top : top + side, left : left + side], (width, height), interpolation=cv2.INTER_AREA)
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], square[np.newaxis, :, :, ::-1])
interpreter.invoke()
scores = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
best = int(np.argmax(scores))
print(open(sys.argv[3]).read().split()[best], scores[best] / 256)
"""
_TOOL = "ai_edge_litert.tools.benchmark_litert_model"


def bittern() -> list[str]:
    """The command `bittern` of this Python environment."""
    script = Path(sys.executable).with_name("bittern")
    return [str(script)] if script.exists() else [sys.executable, "-c", "from bittern.cli.main import main; main()"]


def cold(ours: Sequence[str], reference: Sequence[str], n: int) -> Pairs:
    """Whole processes in turn, from start to exit.

    Both find their modules compiled, as pip leaves them, whether or not this environment lets Python write bytecode.

    Raises:
        BitternError: one failed, or did not end in time.
    """
    with tempfile.TemporaryDirectory(prefix="bittern-bench-") as cache:
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = cache

        def start(command: Sequence[str]) -> None:
            done = _run(command, TIMEOUT_S, env)
            if done.returncode != 0:
                raise _failed(Path(command[0]).name, done.returncode, done.stderr)

        return interleave(lambda: start(ours), lambda: start(reference), n, warm_up=2)


def _failed(program: str, exit_code: int, error_output: bytes) -> BitternError:
    """With the last line of what it wrote on stderr."""
    lines = error_output.decode(errors="replace").strip().splitlines()
    return BitternError(f"{program} ended with exit code {exit_code}: {lines[-1] if lines else 'no message'}")


def _run(
    command: Sequence[str], timeout_s: float, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise BitternError(f"{Path(command[0]).name} did not end within {timeout_s:g} s") from None


def has_benchmark_tool() -> bool:
    """Whether the runtime's wheel brings its own benchmark tool."""
    return find_spec("ai_edge_litert") is not None and find_spec(_TOOL) is not None


def benchmark_tool_ms(model: Path, runs: int) -> float:
    """The median time of one inference on one thread, measured by the runtime's own benchmark tool, in ms.

    Raises:
        BitternError: the tool failed, or did not end in time.
    """
    with tempfile.TemporaryDirectory(prefix="bittern-bench-") as folder:
        file = Path(folder) / "result.json"
        words = ["--model", str(model), "--num_threads", "1", "--warmup_runs", "10", "--num_runs", str(runs)]
        command = [sys.executable, "-m", _TOOL, *words, "--result_json", str(file)]
        done = _run(command, TIMEOUT_S + runs * FRAME_TIMEOUT_S)
        if done.returncode != 0 or not file.exists():
            raise _failed("the runtime's benchmark tool", done.returncode, done.stderr)
        return float(json.loads(file.read_bytes())["latency"]["median_ms"])


def peak_of_watching(models: Sequence[Path], frames: int) -> tuple[float, float]:
    """Peak memory of a `bittern watch` on the drawn street, in MB of 10**6 bytes.

    Returns:
        The resident memory of the loop's own process (VmHWM of /proc: shared libraries count in full), and the
        proportional memory (PSS: they count in part) of the loop's and the camera's process together.

    Raises:
        BitternError: it failed, or did not classify its frames in time.
    """
    words = [word for model in models for word in ("--model", str(model))]
    command = [*bittern(), "watch", "--source", "demo:?fps=30", "--fps", "30", "--frames", str(frames), *words]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    own_kb, both_kb, end = 0, 0, time.monotonic() + TIMEOUT_S + frames * FRAME_TIMEOUT_S
    try:
        # Not `ru_maxrss`, which includes the memory of the process that started it.
        while process.poll() is None and time.monotonic() < end:
            own_kb = max(own_kb, _kb(process.pid, "status", "VmHWM"))
            both_kb = max(both_kb, sum(_kb(pid, "smaps_rollup", "Pss") for pid in with_children(process.pid)))
            time.sleep(0.02)
        late = process.poll() is None
    finally:
        if process.poll() is None:
            process.kill()
        _, error = process.communicate()
    if late:
        raise BitternError(f"bittern watch did not read {frames} frames in time")
    if process.returncode != 0:
        raise _failed("bittern watch", process.returncode, error)
    return own_kb * 1024 / 1e6, both_kb * 1024 / 1e6


def idle_share(model: Path, seconds: int) -> tuple[float, int]:
    """Processor time of `bittern watch --fps 1` and its camera process, as a share of one core.

    Returns:
        The share, and the seconds over which it was measured.

    Raises:
        BitternError: it failed.
    """
    command = [*bittern(), "watch", "--source", "demo:?fps=1", "--fps", "1", "--model", str(model)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # the first event: it has started
        time.sleep(1.0)
        used_before, start = processor_s(process.pid), time.monotonic()
        time.sleep(seconds)
        used, elapsed = processor_s(process.pid) - used_before, time.monotonic() - start
    finally:
        process.terminate()
        process.communicate()
    if process.returncode != 0:
        raise BitternError(f"bittern watch ended with exit code {process.returncode}")
    return used / elapsed, seconds


def stop_ms(model: Path, n: int) -> list[float]:
    """Times from SIGTERM to the end of a `bittern watch` that classifies frames, in ms.

    Raises:
        BitternError: it failed, or did not end in time.
    """
    command = [*bittern(), "watch", "--source", "demo:", "--model", str(model)]
    times = []
    for _ in range(n):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.stdout is not None
            for _ in range(2):
                process.stdout.readline()  # it has started, and the camera gives frames
            start = time.monotonic()
            process.terminate()
            _, error = process.communicate(timeout=TIMEOUT_S)
            times.append((time.monotonic() - start) * 1e3)
        except subprocess.TimeoutExpired:
            raise BitternError(f"bittern watch did not end within {TIMEOUT_S:g} s of SIGTERM") from None
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise _failed("bittern watch", process.returncode, error)
    return times


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process and its children have used: utime and stime of proc(5)."""
    ticks = 0
    for process in with_children(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def with_children(pid: int) -> list[int]:
    """A process and the children of all its threads."""
    try:
        tasks = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")]
        return [pid, *map(int, " ".join(tasks).split())]
    except OSError:  # it has just ended
        return []


def memory_kb(pid: int) -> int:
    """The proportional memory of a process (PSS), in units of 1024 bytes; 0 if it has just ended."""
    return _kb(pid, "smaps_rollup", "Pss")


def _kb(pid: int, file: str, key: str) -> int:
    try:
        status = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:  # it has just ended
        return 0
    match = re.search(rf"^{key}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(match[1]) if match else 0
