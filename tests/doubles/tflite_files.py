"""Small TFLite files made without TensorFlow: each output is the mean of the input's channels, so a red picture is red.

Built with the schema's own classes (`ai_edge_litert.schema_py_generated`) and flatbuffers.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from bittern.model import golden, runtime
from bittern.model.preprocess import preprocess

# What the outputs of `channel_means` stand for.
COLOURS = ("red", "green", "blue")
_TYPES = {"uint8": schema.TensorType.UINT8, "int8": schema.TensorType.INT8, "float32": schema.TensorType.FLOAT32}


def channel_means(
    shape: tuple[int, ...] = (1, 8, 8, 3),
    dtype: str = "uint8",
    *,
    inputs: int = 1,
    heads: int = 1,
    constants: Sequence[tuple[int, ...]] = (),
    scale: float | None = 1 / 255,
) -> bytes:
    """A .tflite file.

    Args:
        shape: of every input; the network reduces axes 1 and 2.
        dtype: of everything, "uint8", "int8" or "float32".
        inputs: how many; the outputs depend on the first only.
        heads: how many outputs, each the channel means.
        constants: shapes of further outputs that do not depend on the input, as a detector's.
        scale: of input and output; None leaves them without quantization.
    """
    model = schema.ModelT()
    model.version = 3
    model.description = "channel means"
    model.buffers = [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    model.subgraphs = [graph]

    def tensor(name: str, dims: Sequence[int], kind: int, data: bytes | None = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name, list(dims), kind
        made.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        elif dtype != "float32" and scale is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale], [0]
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    graph.inputs = [tensor(f"image_{i}" if i else "image", shape, _TYPES[dtype]) for i in range(inputs)]
    axes = tensor("axes", (2,), schema.TensorType.INT32, np.array([1, 2], np.int32).tobytes())
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MEAN
    code.version = 2
    model.operatorCodes = [code]
    graph.outputs = []
    for head in range(heads):
        made = schema.OperatorT()
        made.opcodeIndex = 0
        made.inputs = [graph.inputs[0], axes]
        made.outputs = [tensor(f"means_{head}", (shape[0], shape[3]), _TYPES[dtype])]
        made.builtinOptionsType = schema.BuiltinOptions.ReducerOptions
        made.builtinOptions = schema.ReducerOptionsT()
        graph.operators.append(made)
        graph.outputs += made.outputs
    for i, dims in enumerate(constants):
        graph.outputs.append(tensor(f"constant_{i}", dims, schema.TensorType.FLOAT32, bytes(4 * int(np.prod(dims)))))
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def crashing() -> bytes:
    """A .tflite file that ends the process which opens it with SIGSEGV: its one branch leads to itself, for ever."""
    model = schema.ModelT.InitFromPackedBuf(channel_means(), 0)
    (code,), (graph,) = model.operatorCodes, model.subgraphs
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.IF
    code.version = 1
    (branch,) = graph.operators
    branch.builtinOptionsType, branch.builtinOptions = schema.BuiltinOptions.IfOptions, schema.IfOptionsT()
    branch.builtinOptions.thenSubgraphIndex = branch.builtinOptions.elseSubgraphIndex = 0
    branch.inputs, graph.inputs = [0], []
    condition = graph.tensors[0]
    condition.type, condition.shape, condition.quantization = schema.TensorType.BOOL, [1], None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def endless() -> bytes:
    """A .tflite file whose one operator repeats its empty body for as long as a constant is true."""
    model = schema.ModelT.InitFromPackedBuf(channel_means(), 0)
    (code,), (graph,) = model.operatorCodes, model.subgraphs
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.WHILE
    code.version = 1
    (loop,) = graph.operators
    loop.builtinOptionsType, loop.builtinOptions = schema.BuiltinOptions.WhileOptions, schema.WhileOptionsT()
    loop.builtinOptions.condSubgraphIndex, loop.builtinOptions.bodySubgraphIndex = 1, 2
    loop.inputs, loop.outputs = [0], [2]
    graph.tensors[2].shape = graph.tensors[0].shape
    true = schema.BufferT()
    true.data = np.ones(1, np.uint8)
    model.buffers.append(true)
    constant = schema.TensorT()
    constant.name, constant.shape, constant.type = "true", [1], schema.TensorType.BOOL
    constant.buffer = len(model.buffers) - 1
    for outputs in ([1], [0]):
        part = schema.SubGraphT()
        part.tensors, part.operators, part.inputs, part.outputs = [graph.tensors[0], constant], [], [0], outputs
        model.subgraphs.append(part)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def with_files(model: bytes, **files: bytes) -> bytes:
    """The model with files packed behind it, as TFLite metadata does it; `labels_txt` becomes `labels.txt`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("_", "."), data)
    return model + packed.getvalue()


def model_folder_of_means(
    folder: Path,
    *,
    name: str = "means",
    version: str = "7",
    size: int = 8,
    on: float = 0.5,
    off: float = 0.4,
    swap: bool = False,
) -> Path:
    """Write a whole model folder with two heads, `colour_0` and `colour_1`, both with the alarm label "red".

    Args:
        folder: is made.
        name: of the model.
        version: of the model.
        size: side of the input; the time of an inference grows with its square.
        on: threshold "default".
        off: threshold "default".
        swap: the manifest names the second output first.
    """
    data = channel_means((1, size, size, 3), heads=2)
    folder.mkdir()
    (folder / "model.tflite").write_bytes(data)
    opened = runtime.open_model(data, None, 1)
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    tensor = preprocess(frame, size=size)
    opened.interpreter.set_tensor(opened.inputs[0].handle, tensor)
    opened.interpreter.invoke()
    outputs = [opened.interpreter.get_tensor(o.handle)[0] for o in opened.outputs]
    golden.save(folder / "golden.npz", [frame], [tensor], {path: [outputs] for path in runtime.PATHS})
    head = {
        "alarm": ["red"],
        "scale": 1 / 255,
        "zero_point": 0,
        "thresholds": {"default": {"on": on, "off": off, "chosen_for": "a test"}},
    }
    heads = [
        head | {"task": f"colour_{i}", "output": f"means_{i}", "labels": labels}
        for i, labels in enumerate((COLOURS, ("red", "grass", "sky")))
    ]
    recorded = {"runtime": "ai-edge-litert", "version": "1", "machine": "any", "other_machine_steps": 1}
    fields = {
        "schema": 1,
        "name": name,
        "version": version,
        "file": "model.tflite",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "input": {"name": "image", "shape": [1, size, size, 3], "scale": 1 / 255, "zero_point": 0},
        "heads": heads[::-1] if swap else heads,
        "golden": dict.fromkeys(runtime.PATHS, recorded),
        "provenance": {},
    }
    (folder / "manifest.json").write_text(json.dumps(fields))
    return folder


_OPTIONS = [
    (number, getattr(schema, f"{name}T"))
    for name, number in vars(schema.BuiltinOptions).items()
    if name.endswith("Options") and hasattr(schema, f"{name}T")
]


def hostile(rng: random.Random, model: bytes) -> bytes:
    """A valid flatbuffer of the schema whose contents are changed at random, one to three times."""
    made = schema.ModelT.InitFromPackedBuf(model, 0)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(rng, made)
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _number(rng: random.Random, most: int) -> int:
    """An index or size: in range, just beside, or far away."""
    return rng.choice((*[rng.randrange(most) for _ in range(20)], -2, -1, 0, 1, most, most + 1, 65_536, 2**31 - 1))


def _numbers(rng: random.Random, most: int) -> list[int]:
    return [_number(rng, most) for _ in range(rng.choice((0, 1, 2, 3, 4, 4, 5, 8)))]


def _change(rng: random.Random, model: schema.ModelT) -> None:
    graph = rng.choice(model.subgraphs)
    tensor = rng.choice(graph.tensors)
    operator = rng.choice(graph.operators) if graph.operators else schema.OperatorT()
    many = len(graph.tensors)
    kind = rng.randrange(13)
    if kind == 0:
        tensor.shape = _numbers(rng, 64)
    elif kind == 1:
        tensor.type = rng.randrange(18)
    elif kind == 2:
        tensor.buffer = abs(_number(rng, len(model.buffers)))
    elif kind == 3:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [rng.choice((0.0, -1.0, math.nan, math.inf, 1e-30, 0.1))] * rng.choice(
            (0, 1, 3, 99)
        )
        tensor.quantization.zeroPoint = _numbers(rng, 255)
        tensor.quantization.quantizedDimension = _number(rng, 4)
    elif kind == 4:
        operator.inputs = _numbers(rng, many)
    elif kind == 5:
        operator.outputs = _numbers(rng, many)
    elif kind == 6:
        operator.opcodeIndex = abs(_number(rng, 2))
    elif kind == 7:
        code = rng.choice(model.operatorCodes)
        code.builtinCode = rng.randrange(208)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = rng.choice((1, 1, 2, 3, 9))
    elif kind == 8:
        operator.builtinOptionsType, options = rng.choice(_OPTIONS)
        operator.builtinOptions = options()
        for name, value in vars(operator.builtinOptions).items():
            if type(value) is int:
                setattr(operator.builtinOptions, name, rng.choice((0, 1, 2, 3, 5, 100, 127)))
    elif kind == 9:
        graph.inputs = _numbers(rng, many)
    elif kind == 10:
        graph.outputs = _numbers(rng, many)
    elif kind == 11:
        buffer = rng.choice(model.buffers)
        buffer.data = np.frombuffer(rng.randbytes(rng.choice((0, 1, 4, 7, 8, 64, 4096))), np.uint8)
    else:
        model.subgraphs.append(graph)
