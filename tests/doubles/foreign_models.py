"""Classifiers as other tools export them: the first label where red outweighs blue, of a grey one where it is bright.

Built with the schema's own classes, one small graph for every kind: [dequantize] mean, fully connected, softmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

LABELS = ("warm", "cold")
_TYPES = {
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
}
# What real values a byte from 0 to 255 stands for, and the quantization that leaves the byte as it is.
RANGES = {"raw": (0.0, 255.0), "0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0)}


class Kind(NamedTuple):
    """What a tool exported.

    Attributes:
        takes: dtype of the input.
        gives: dtype of the output.
        pixels: what the network was trained with, a key of `RANGES`.
        shape: of the input.
        free: axes of the input that the signature leaves free.
        nchw: the channels come first.
        weights: how they are stored: float32, float16 (dequantized), or int8 (dynamic range).
        inside: a float input is quantized first, as after training with quantization.
        ending: "softmax", "logits", or "sigmoid" of a single value, the score of the first label.
        output: shape of the output, if it is not (1, 2).
        argmax: a second output, the number of the label, in front of the scores.
        metadata: mean and std that the file states.
        odd: quantize the input by a wider range than the pixels have.
    """

    takes: str = "float32"
    gives: str = "float32"
    pixels: str = "-1..1"
    shape: tuple[int, int, int, int] = (1, 16, 16, 3)
    free: tuple[int, ...] = ()
    nchw: bool = False
    weights: str = "float32"
    inside: bool = False
    ending: str = "softmax"
    output: tuple[int, ...] | None = None
    argmax: bool = False
    metadata: tuple[Sequence[float], Sequence[float]] | None = None
    odd: float = 1.0


class _Graph:
    """A graph that grows by one operation after the other."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers, self.model.operatorCodes, self.model.metadata = [schema.BufferT()], [], []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def buffer(self, data: bytes) -> int:
        made = schema.BufferT()
        made.data = np.frombuffer(data, np.uint8)
        self.model.buffers.append(made)
        return len(self.model.buffers) - 1

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        data: bytes | None = None,
        scale: float = 0.0,
        zero_point: int = 0,
        signature: Sequence[int] | None = None,
    ) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name, list(shape), _TYPES[dtype]
        made.buffer = 0 if data is None else self.buffer(data)
        if signature is not None:
            made.shapeSignature = list(signature)
        if scale:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale], [zero_point]
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operation(self, name: str, inputs: Sequence[int], output: int, version: int = 1, **options: Any) -> int:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = version
        self.model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = len(self.model.operatorCodes) - 1
        made.inputs, made.outputs = list(inputs), [output]
        kind = {
            "MEAN": "ReducerOptions",
            "FULLY_CONNECTED": "FullyConnectedOptions",
            "SOFTMAX": "SoftmaxOptions",
            "RESHAPE": "ReshapeOptions",
            "ARG_MAX": "ArgMaxOptions",
        }.get(name)
        if kind is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(schema, f"{kind}T")()
            for key, value in options.items():
                setattr(made.builtinOptions, key, value)
        self.graph.operators.append(made)
        return output

    def packed(self) -> bytes:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def quantization(pixels: str, dtype: str, wider: float = 1.0) -> tuple[float, int]:
    """Scale and zero point with which a byte (of int8 less 128) stands for its pixel value; 0 for float32."""
    if dtype == "float32":
        return 0.0, 0
    low, high = (bound * wider for bound in RANGES[pixels])
    scale = (high - low) / 255
    return scale, int(np.floor(-low / scale)) - (128 if dtype == "int8" else 0)


def red_or_blue(kind: Kind) -> bytes:
    """A .tflite file of a kind."""
    g = _Graph()
    axis = 1 if kind.nchw else 3
    channels = kind.shape[axis]
    signature = [-1 if i in kind.free else n for i, n in enumerate(kind.shape)] if kind.free else None
    shape = [1 if i in kind.free else n for i, n in enumerate(kind.shape)]
    batch = shape[0]
    scale, zero = quantization(kind.pixels, kind.takes, kind.odd)
    image = x = g.tensor("image", shape, kind.takes, scale=scale, zero_point=zero, signature=signature)
    if kind.inside:
        scale, zero = quantization(kind.pixels, "int8")
        x = g.operation("QUANTIZE", [x], g.tensor("inner", shape, "int8", None, scale, zero, signature))
    if kind.inside or kind.takes != "float32":
        x = g.operation("DEQUANTIZE", [x], g.tensor("real", shape, "float32", signature=signature), version=2)
    axes = g.tensor("axes", (2,), "int32", np.array([2, 3] if kind.nchw else [1, 2], np.int32).tobytes())
    x = g.operation("MEAN", [x, axes], g.tensor("means", (batch, channels), "float32"), keepDims=False)
    low, high = RANGES[kind.pixels]
    gain = 5.0 / (high - low)
    if channels == 1:
        rows, offset = np.array([[gain], [-gain]]), gain * (low + high) / 2
        bias = np.array([-offset, offset])
    else:
        rows, bias = np.array([[gain, 0, -gain], [-gain, 0, gain]]), np.zeros(2)
    if kind.ending == "sigmoid":
        rows, bias = 2 * rows[:1], 2 * bias[:1]
    n = len(rows)
    x = g.operation(
        "FULLY_CONNECTED",
        [x, _weights(g, rows, kind.weights), g.tensor("bias", (n,), "float32", bias.astype(np.float32).tobytes())],
        g.tensor("logits", (batch, n), "float32"),
        version=3 if kind.weights == "int8" else 1,
    )
    outputs = []
    if kind.argmax:
        one = g.tensor("axis", (), "int32", np.array(1, np.int32).tobytes())
        outputs.append(
            g.operation("ARG_MAX", [x, one], g.tensor("best", (batch,), "int64"), outputType=_TYPES["int64"])
        )
    if kind.ending == "softmax":
        x = g.operation("SOFTMAX", [x], g.tensor("softmax", (batch, n), "float32"), beta=1.0)
    elif kind.ending == "sigmoid":
        x = g.operation("LOGISTIC", [x], g.tensor("sigmoid", (batch, n), "float32"))
    if kind.output is not None:
        new_shape = g.tensor("shape", (len(kind.output),), "int32", np.array(kind.output, np.int32).tobytes())
        x = g.operation(
            "RESHAPE", [x, new_shape], g.tensor("reshaped", kind.output, "float32"), newShape=list(kind.output)
        )
    if kind.gives != "float32":
        last = g.graph.tensors[x].shape
        of_scores = (1 / 256, -128 if kind.gives == "int8" else 0)
        of_logits = (12 / 255, -1 if kind.gives == "int8" else 127)
        by = of_logits if kind.ending == "logits" else of_scores
        x = g.operation("QUANTIZE", [x], g.tensor("scores", last, kind.gives, None, *by))
    g.graph.inputs, g.graph.outputs = [image], [*outputs, x]
    if kind.metadata is not None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = "TFLITE_METADATA", g.buffer(_metadata(*kind.metadata))
        g.model.metadata.append(entry)
    return g.packed()


def _weights(g: _Graph, rows: Any, stored: str) -> int:
    if stored == "float32":
        return g.tensor("weights", rows.shape, "float32", rows.astype(np.float32).tobytes())
    if stored == "float16":
        half = g.tensor("half", rows.shape, "float16", rows.astype(np.float16).tobytes())
        return g.operation("DEQUANTIZE", [half], g.tensor("weights", rows.shape, "float32"), version=3)
    scale = float(np.abs(rows).max() / 127)
    q = np.rint(rows / scale).astype(np.int8)
    return g.tensor("weights", rows.shape, "int8", q.tobytes(), scale)


def _metadata(mean: Sequence[float], std: Sequence[float]) -> bytes:
    """ModelMetadata of metadata_schema.fbs with one thing in it: the normalization of the first input."""
    b = flatbuffers.Builder(256)

    def floats(values: Sequence[float]) -> int:
        b.StartVector(4, len(values), 4)
        for value in reversed(values):
            b.PrependFloat32(value)
        return int(b.EndVector())

    def table(fields: int, *slots: tuple[int, int]) -> int:
        b.StartObject(fields)
        for number, offset in slots:
            b.PrependUOffsetTRelativeSlot(number, offset, 0)
        return int(b.EndObject())

    def vector(item: int) -> int:
        b.StartVector(4, 1, 4)
        b.PrependUOffsetTRelative(item)
        return int(b.EndVector())

    means, stds = floats(mean), floats(std)
    options = table(2, (0, means), (1, stds))
    b.StartObject(2)
    b.PrependUint8Slot(0, 1, 0)  # NormalizationOptions
    b.PrependUOffsetTRelativeSlot(1, options, 0)
    unit = b.EndObject()
    tensor = table(7, (4, vector(unit)))
    graph = table(10, (2, vector(tensor)))
    model = table(8, (3, vector(graph)))
    b.Finish(model, b"M001")
    return bytes(b.Output())


# The kinds that run, each with what its owner has to state. A test runs every one of them.
KINDS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "float32, 0..1": (Kind(pixels="0..1"), {"pixels": "0..1"}),
    "float32, -1..1": (Kind(), {"pixels": "-1..1"}),
    "float32, raw": (Kind(pixels="raw"), {"pixels": "raw"}),
    "float32, -1..1 by its metadata": (Kind(metadata=((127.5,), (127.5,))), {}),
    "float32, 0..1 by its metadata, three channels": (Kind(pixels="0..1", metadata=((0.0,) * 3, (255.0,) * 3)), {}),
    "float32, quantized inside": (Kind(inside=True), {}),
    "float32, dynamic range": (Kind(weights="int8"), {"pixels": "-1..1"}),
    "float32, float16 weights": (Kind(weights="float16"), {"pixels": "-1..1"}),
    "float32, logits": (Kind(ending="logits"), {"pixels": "-1..1"}),
    "float32, free batch": (Kind(free=(0,)), {"pixels": "-1..1"}),
    "float32, a batch of four": (Kind(shape=(4, 16, 16, 3)), {"pixels": "-1..1"}),
    "float32, the label's number beside the scores": (Kind(argmax=True), {"pixels": "-1..1"}),
    "float32 in, uint8 out": (Kind(gives="uint8", inside=True), {}),
    "int8 in and out": (Kind("int8", "int8"), {}),
    "int8 in and out, logits": (Kind("int8", "int8", ending="logits"), {}),
    "uint8 in and out": (Kind("uint8", "uint8"), {}),
    "uint8 in and out, 0..1": (Kind("uint8", "uint8", "0..1"), {}),
    "uint8 in and out, raw": (Kind("uint8", "uint8", "raw"), {}),
    "uint8 in and out, a wide quantization": (
        Kind("uint8", "uint8", odd=1.7, metadata=((127.5,), (127.5,))),
        {},
    ),
    "uint8 in and out, logits": (Kind("uint8", "uint8", ending="logits"), {}),
    "uint8 in, float32 out": (Kind("uint8", "float32"), {}),
    "uint8, free batch": (Kind("uint8", "uint8", free=(0,)), {}),
    "uint8, free size": (Kind("uint8", "uint8", free=(0, 1, 2)), {"size": (16, 24)}),
    "uint8, grey": (Kind("uint8", "uint8", shape=(1, 16, 16, 1)), {}),
    "float32, grey": (Kind(pixels="0..1", shape=(1, 16, 16, 1)), {"pixels": "0..1"}),
    "uint8, wide": (Kind("uint8", "uint8", shape=(1, 16, 24, 3)), {}),
    "uint8, high": (Kind("uint8", "uint8", shape=(1, 24, 16, 3)), {}),
    "uint8, channels first": (Kind("uint8", "uint8", shape=(1, 3, 16, 16), nchw=True), {}),
    "float32, channels first, wide": (Kind(shape=(1, 3, 16, 24), nchw=True), {"pixels": "-1..1"}),
    "int8, grey, channels first": (Kind("int8", "int8", shape=(1, 1, 16, 16), nchw=True), {}),
    "uint8, output (1, 1, 1, 2)": (Kind("uint8", "uint8", output=(1, 1, 1, 2)), {}),
    "uint8, output (2,)": (Kind("uint8", "uint8", output=(2,)), {}),
    "uint8, output (1, 1) of a sigmoid": (Kind("uint8", "uint8", ending="sigmoid"), {"score_of": "warm"}),
    "float32, output (1, 1) of a sigmoid": (Kind(ending="sigmoid"), {"pixels": "-1..1", "score_of": "warm"}),
}
