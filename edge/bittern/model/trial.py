"""Opens and runs a model of unknown origin in a child process first: what crashes the runtime ends the child only."""

from __future__ import annotations

import hashlib
import math
import signal
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from bittern.errors import ModelRefused, one_line
from bittern.model import runtime
from bittern.model.runtime import ExecutionPath, LoadedModel
from bittern.system import limits

# For opening the model and one inference. No model of at most 64 MiB that suits a camera comes near them.
_PROCESSOR_S = 3.5
_MEMORY = 450 * 2**20
# For a child that does not even compute.
_TIMEOUT_S = 30.0
_REFUSED = 3
# sha256 of the models that passed in this process.
_passed: set[bytes] = set()


def run(model: bytes, path: ExecutionPath | None, threads: int, size: tuple[int, int] | None = None) -> None:
    """Open a model and run it once, in a child process; a model that passed before is not tried again.

    Args:
        model: contents of a .tflite file.
        path: see `runtime.open_model`.
        threads: see there.
        size: see there.

    Raises:
        ModelRefused: the model crashes the runtime, does not come to an end, needs too much memory, or cannot be loaded
            or run.
    """
    digest = hashlib.sha256(f"{path} {size} ".encode() + model).digest()
    if digest in _passed:
        return
    # -P: nothing is imported from the working directory.
    command = [sys.executable, "-P", "-m", "bittern.model.trial", path or "", str(threads), *map(str, size or ())]
    try:
        done = subprocess.run(command, input=model, capture_output=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ModelRefused(f"hangs the runtime: no answer within {_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise ModelRefused(f"no process to try it in: {error.strerror}") from None
    if done.returncode == _REFUSED:
        raise ModelRefused(done.stdout.decode(errors="replace"))
    if done.returncode == -signal.SIGPROF:
        raise ModelRefused(f"hangs the runtime: no answer after {_PROCESSOR_S:g} s of computing")
    if done.returncode < 0:
        raise ModelRefused(f"crashes the runtime ({signal.Signals(-done.returncode).name}): export the model again")
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise ModelRefused(f"the process to try it in ended with exit code {done.returncode}: {last[:200]}")
    _passed.add(digest)


# --- the child --------------------------------------------------------------------------------------------------------


def judge(model: bytes, path: ExecutionPath | None, threads: int, size: tuple[int, int] | None = None) -> str | None:
    """Open a model and run it once on noise; the limits that it sets first stay on this process.

    Returns:
        Why the model cannot be used, in one line; None if it can.
    """
    limits.limit_private_memory(limits.private_memory() + _MEMORY)
    limits.limit_processor_time(_PROCESSOR_S)
    try:
        _run_once(runtime.open_model(model, path, threads, size))
    except ModelRefused as error:
        return str(error)
    except MemoryError:
        return f"needs more than {_MEMORY >> 20} MiB of memory"
    except (ValueError, RuntimeError, TypeError) as error:
        return f"the runtime cannot run it: {one_line(error)[:200]}"
    return None


def _run_once(loaded: LoadedModel) -> None:
    rng = np.random.default_rng(0)
    for tensor in loaded.inputs:
        if math.prod(tensor.shape) > _MEMORY:
            raise MemoryError
        noise = rng.integers(0, 128, tensor.shape, np.uint8)  # in the range of every type
        loaded.interpreter.set_tensor(tensor.handle, noise.astype(tensor.dtype, copy=False))
    loaded.interpreter.invoke()
    for tensor in loaded.outputs:
        loaded.interpreter.get_tensor(tensor.handle)


def _main(arguments: Sequence[str]) -> None:
    name, threads, *size = arguments
    path = next((p for p in runtime.PATHS if p == name), None)
    given = (int(size[0]), int(size[1])) if size else None
    reason = judge(sys.stdin.buffer.read(), path, int(threads), given)
    if reason is not None:
        sys.stdout.write(reason)
        sys.exit(_REFUSED)


if __name__ == "__main__":
    _main(sys.argv[1:])
