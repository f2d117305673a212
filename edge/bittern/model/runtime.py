"""The only module that imports LiteRT: makes interpreters and reports the execution path that they run on."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

from bittern.errors import ConfigurationError, ModelRefused
from bittern.system import stderr

ExecutionPath = Literal["xnnpack", "builtin"]
__all__ = ["DISTRIBUTION", "PATHS", "ExecutionPath", "Interpreter", "LoadedModel", "Tensor", "open_model", "version"]
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


def open_model(model: bytes, path: ExecutionPath | None, threads: int) -> LoadedModel:
    """Make an interpreter. It holds its own copy of the model: the file may change afterwards.

    Args:
        model: contents of a .tflite file.
        path: "xnnpack", "builtin", or None for the first of the two that the runtime has for this model.
        threads: number of threads for one inference.

    Raises:
        ModelRefused: not a TFLite model, or it has operations that the runtime does not have, or XNNPACK was requested
            and did not take the graph.
    """
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if path == "builtin" else OpResolverType.AUTO
    try:
        # "INFO: Created TensorFlow Lite XNNPACK delegate" cannot be switched off; errors are in the exception as well.
        with stderr.silenced():
            interpreter = Interpreter(model_content=model, num_threads=threads, experimental_op_resolver_type=resolver)
            interpreter.allocate_tensors()
        # XNNPACK silently declines some graphs and machines; only the list of operations shows it.
        # Names only: `_get_ops_details` makes arrays for every operation, which takes half as long as an inference.
        nodes = interpreter._interpreter
        operations = {nodes.NodeName(i) for i in range(nodes.NumNodes())}
        inputs = [_tensor(d) for d in interpreter.get_input_details()]
        outputs = [_tensor(d) for d in interpreter.get_output_details()]
    except (ValueError, RuntimeError) as error:  # get_*_details raise for names that are not UTF-8
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelRefused(f"the runtime cannot load this model: {reason}") from None
    actual: ExecutionPath = "xnnpack" if "DELEGATE" in operations else "builtin"
    if path == "xnnpack" and actual != "xnnpack":
        raise ModelRefused("XNNPACK was requested, but cannot run this model's graph on this machine")
    return LoadedModel(interpreter, actual, inputs, outputs)


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
