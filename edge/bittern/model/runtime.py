"""The only module that imports LiteRT: makes interpreters and reports the execution path that they run on."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple, get_args

from bittern.errors import ConfigurationError, ModelRefused
from bittern.system import stderr

ExecutionPath = Literal["xnnpack", "builtin"]
__all__ = [
    "DISTRIBUTION",
    "PATHS",
    "ExecutionPath",
    "Interpreter",
    "LoadedModel",
    "Tensor",
    "open_model",
    "size_axes",
    "version",
]
PATHS: tuple[ExecutionPath, ...] = get_args(ExecutionPath)

try:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    DISTRIBUTION = "ai-edge-litert"
except ImportError:
    try:
        from tflite_runtime.interpreter import Interpreter, OpResolverType

        DISTRIBUTION = "tflite-runtime"
    except ImportError:
        raise ConfigurationError(
            "no runtime for TFLite models: pip install ai-edge-litert (or tflite-runtime on a 32-bit Raspberry Pi OS)"
        ) from None


class Tensor(NamedTuple):
    """An input or output of a model, as described in its file."""

    handle: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    def __str__(self) -> str:
        return f"{self.name[:60]} {self.shape} {self.dtype}"


class LoadedModel(NamedTuple):
    """An interpreter with its tensors allocated, the path that it actually runs on, and its inputs and outputs."""

    interpreter: Any
    path: ExecutionPath
    inputs: list[Tensor]
    outputs: list[Tensor]


def version() -> str:
    """Version of the runtime's distribution."""
    from importlib import metadata  # as slow as all other imports together, and seldom needed

    return metadata.version(DISTRIBUTION)


def open_model(
    model: bytes, path: ExecutionPath | None, threads: int, size: tuple[int, int] | None = None
) -> LoadedModel:
    """Make an interpreter. It holds its own copy of the model: the file may change afterwards.

    Args:
        model: contents of a .tflite file.
        path: "xnnpack", "builtin", or None for the first of the two that the runtime has for this model.
        threads: number of threads for one inference.
        size: height and width of the input, for a model that leaves them free; any other model keeps its own.

    Raises:
        ModelRefused: not a TFLite model, or it has operations that the runtime does not have, or XNNPACK was requested
            and did not take the graph.
    """
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if path == "builtin" else OpResolverType.AUTO
    try:
        # "INFO: Created TensorFlow Lite XNNPACK delegate" cannot be switched off; errors are in the exception as well.
        with stderr.silenced():
            interpreter = Interpreter(model_content=model, num_threads=threads, experimental_op_resolver_type=resolver)
            resized = size is not None and _resize(interpreter, size)
            interpreter.allocate_tensors()
            if resized:  # some shapes of what follows are known only afterwards
                interpreter.invoke()
        # XNNPACK silently declines some graphs and machines; only the list of operations shows it.
        # Names only: `_get_ops_details` makes arrays for every operation, which takes half as long as an inference.
        nodes = interpreter._interpreter
        operations = {nodes.NodeName(i) for i in range(nodes.NumNodes())}
        inputs = [_tensor(d) for d in interpreter.get_input_details()]
        outputs = [_tensor(d) for d in interpreter.get_output_details()]
    except (ValueError, RuntimeError) as error:  # get_*_details raise for names that are not UTF-8
        raise ModelRefused(_remedy(str(error))) from None
    actual: ExecutionPath = "xnnpack" if "DELEGATE" in operations else "builtin"
    if path == "xnnpack" and actual != "xnnpack":
        raise ModelRefused("XNNPACK was requested, but cannot run this model's graph on this machine")
    return LoadedModel(interpreter, actual, inputs, outputs)


def _resize(interpreter: Any, size: tuple[int, int]) -> bool:
    """Set height and width of the input where the model leaves them free, and then also its batch; whether it did."""
    inputs = interpreter.get_input_details()
    signature = tuple(int(n) for n in inputs[0]["shape_signature"]) if len(inputs) == 1 else ()
    axes = size_axes(signature)
    if axes is None or all(signature[axis] > 0 for axis in axes):
        return False
    shape = [max(n, 1) for n in signature]
    for axis, length in zip(axes, size, strict=True):
        shape[axis] = signature[axis] if signature[axis] > 0 else length
    interpreter.resize_tensor_input(inputs[0]["index"], shape)
    return True


def size_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The axes of height and width in the shape of a picture, by where its channels are; None if it is none.

    Args:
        shape: (batch, height, width, one or three channels) or (batch, channels, height, width), -1 for what is free.
    """
    if len(shape) != 4:
        return None
    return (1, 2) if shape[3] in (1, 3) else (2, 3) if shape[1] in (1, 3) else None


def _remedy(message: str) -> str:
    """Why the runtime cannot load a model, in one line, with what to do where it is known."""
    if "edgetpu" in message:
        return "compiled for the Edge TPU: take the file without _edgetpu in its name"
    if "Select TensorFlow op" in message or "Flex" in message:
        return "has operations of TensorFlow itself (Flex): convert it again without SELECT_TF_OPS"
    if match := re.search(r"opcode '(\w+)' version '(\d+)'", message):
        return (
            f"needs {match[1]} version {match[2]}, which {DISTRIBUTION} {version()} does not have: install a newer "
            "ai-edge-litert, or convert it with an older TensorFlow"
        )
    if match := re.search(r"custom op: ?([\w:-]+)", message):
        return (
            f"has the operation {match[1][:60]}, which the runtime does not have: convert it without custom operations"
        )
    lines = message.strip().splitlines()
    return f"the runtime cannot load this model: {lines[0] if lines else 'no reason given'}"


def _tensor(detail: dict[str, Any]) -> Tensor:
    scale, zero_point = detail["quantization"]
    return Tensor(
        handle=detail["index"],
        name=detail["name"],
        shape=tuple(int(n) for n in detail["shape"]),
        dtype=detail["dtype"].__name__,
        scale=float(scale),
        zero_point=int(zero_point),
    )
