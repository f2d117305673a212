"""Keras model to full-int8 TFLite, uint8 in and out, with TFLite metadata and labels packed in."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from bittern.errors import BitternError
from bittern.frames import Pixels

LABELS = "labels.txt"
# The value of a pixel q is (q - 127) / 127.5 or (q - 128) / 127.5, the scaling that the weights expect.
INPUT_SCALE = 1 / 127.5


def quantize(model: Any, calibration: Sequence[Pixels]) -> bytes:
    """Convert to full int8.

    Args:
        model: Keras model, (1, S, S, 3) float32 in [-1, 1] to (1, labels).
        calibration: the representative data set, (1, S, S, 3) uint8 RGB, preprocessed.

    Raises:
        BitternError: the input quantization came out other than 1/127.5 with zero point 127 or 128.
    """
    import tensorflow as tf

    size = model.input_shape[1]
    # Without these two frames the input range shrinks to the range of the pictures, and every pixel is misread.
    ends = [np.full((1, size, size, 3), v, np.uint8) for v in (0, 255)]

    def representative() -> Any:
        for tensor in [*ends, *calibration]:
            yield [tensor.astype(np.float32) / np.float32(127.5) - np.float32(1)]

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8
    data = bytes(converter.convert())
    scale, zero_point = _input_quantization(data)
    if not math.isclose(scale, INPUT_SCALE, rel_tol=1e-4) or zero_point not in (127, 128):
        raise BitternError(
            f"conversion gave the input quantization ({scale:.6f}, {zero_point}), expected ({INPUT_SCALE:.6f}, 127 or "
            "128): the calibration pictures do not span 0 to 255"
        )
    return data


def with_bias(data: bytes, change: npt.NDArray[np.float64]) -> bytes:
    """A quantized model, the biases of whose last dense layer are changed, and the range of its output with them.

    Args:
        data: what `quantize` gave.
        change: (labels,) in units of a logit.

    Returns:
        The model; as it was if its last layer is not dense.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    graph = model.subgraphs[0]
    kinds = [model.operatorCodes[operator.opcodeIndex].builtinCode for operator in graph.operators]
    behind = (schema.BuiltinOperator.SOFTMAX, schema.BuiltinOperator.LOGISTIC, schema.BuiltinOperator.QUANTIZE)
    last = max((i for i, kind in enumerate(kinds) if kind not in behind), default=0)
    head = graph.operators[last]
    is_dense = kinds[last] == schema.BuiltinOperator.FULLY_CONNECTED
    if not is_dense or not change.any() or graph.tensors[head.inputs[1]].shape[0] != len(change):
        return data
    picture, kernel = (graph.tensors[i].quantization.scale for i in head.inputs[:2])
    step = float(picture[0]) * np.broadcast_to(np.asarray(kernel, np.float64), change.shape)
    inputs = list(head.inputs)
    if len(inputs) < 3 or inputs[2] < 0:  # conversion leaves biases of 0 out
        bias, values = schema.TensorT(), np.zeros(len(change), np.int32)
        bias.shape, bias.type, bias.name = [len(change)], schema.TensorType.INT32, b"bias"
        bias.quantization = schema.QuantizationParametersT()
        bias.quantization.scale = list(step) if len(kernel) > 1 else [step[0]]
        bias.quantization.zeroPoint = [0] * len(bias.quantization.scale)
        graph.tensors.append(bias)
        head.inputs = [*inputs[:2], len(graph.tensors) - 1]
    else:
        bias = graph.tensors[inputs[2]]
        values = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.int32)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer((values + np.rint(change / step)).astype(np.int32).tobytes(), np.uint8)
    model.buffers.append(buffer)  # a new one: equal buffers are shared
    bias.buffer = len(model.buffers) - 1
    logits = graph.tensors[head.outputs[0]].quantization
    scale, zero_point = float(logits.scale[0]), int(logits.zeroPoint[0])
    low, high = scale * (-128 - zero_point) + change.min(), scale * (127 - zero_point) + change.max()
    scale = (max(high, 0.0) - min(low, 0.0)) / 255
    logits.scale, logits.zeroPoint = [scale], [round(-128 - min(low, 0.0) / scale)]
    builder = flatbuffers.Builder(len(data) + 65536)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _input_quantization(data: bytes) -> tuple[float, int]:
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0)).subgraphs[0]
    quantization = graph.tensors[graph.inputs[0]].quantization
    return float(quantization.scale[0]), int(quantization.zeroPoint[0])


def pack(
    data: bytes, *, name: str, version: str, question: str, output: str, labels: Sequence[str], licence: str = ""
) -> bytes:
    """Give the tensors plain names ("image" and `output`), and pack TFLite metadata and the labels in.

    The metadata follows TensorFlow's metadata_schema.fbs (identifier M001): MediaPipe and other tools read the
    input's normalization and the labels from it. The labels are in a zip archive behind the flatbuffer. An empty
    `licence` leaves that field out.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].name = b"image"
    graph.tensors[graph.outputs[0]].name = output.encode()
    for signature in model.signatureDefs or []:
        signature.inputs[0].name = b"image"
        signature.outputs[0].name = output.encode()
    model.description = question.encode()
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_metadata(name, version, question, output, licence), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = b"TFLITE_METADATA"
    entry.buffer = len(model.buffers) - 1
    model.metadata = [*(m for m in model.metadata or [] if m.name != b"TFLITE_METADATA"), entry]
    builder = flatbuffers.Builder(len(data) + 65536)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    packed = io.BytesIO(bytes(builder.Output()))
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        # A fixed date, so that the same model gives the same bytes.
        archive.writestr(zipfile.ZipInfo(LABELS, (1980, 1, 1, 0, 0, 0)), "".join(f"{x}\n" for x in labels))
    return packed.getvalue()


class _Tables:
    """Writes flatbuffer tables without generated code of their schema: slots by number, in the schema's order."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def table(self, slots: int, **fields: tuple[str, int, Any]) -> int:
        self.builder.StartObject(slots)
        for kind, slot, value in fields.values():
            if kind == "offset":
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            elif kind == "byte":
                self.builder.PrependInt8Slot(slot, value, 0)
            else:
                self.builder.PrependUint32Slot(slot, value, 0)
        return int(self.builder.EndObject())

    def text(self, value: str) -> int:
        return int(self.builder.CreateString(value))

    def offsets(self, values: Sequence[int]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependUOffsetTRelative(value)
        return int(self.builder.EndVector())

    def floats(self, values: npt.ArrayLike) -> int:
        return int(self.builder.CreateNumpyVector(np.asarray(values, np.float32)))


def _metadata(name: str, version: str, question: str, output: str, licence: str) -> bytes:
    # Slots and enum values: metadata_schema.fbs of tensorflow/tflite-support, version 1.5.0.
    t = _Tables()
    file = t.table(
        5,
        name=("offset", 0, t.text(LABELS)),
        description=("offset", 1, t.text("one label a line, in the order of the output")),
        type=("byte", 2, 2),  # TENSOR_AXIS_LABELS
    )
    mean, std = t.floats([127.5]), t.floats([127.5])
    normalization = t.table(2, mean=("offset", 0, mean), std=("offset", 1, std))
    unit = t.table(2, kind=("byte", 0, 1), options=("offset", 1, normalization))  # NormalizationOptions
    rgb = t.table(2, color_space=("byte", 0, 1))  # RGB
    image = t.table(3, kind=("byte", 0, 2), properties=("offset", 1, rgb))  # ImageProperties
    low, high = t.floats([0.0]), t.floats([255.0])
    stats = t.table(2, max=("offset", 0, high), min=("offset", 1, low))
    picture = t.table(
        7,
        name=("offset", 0, t.text("image")),
        description=("offset", 1, t.text("the centred square of the picture, RGB")),
        content=("offset", 3, image),
        units=("offset", 4, t.offsets([unit])),
        stats=("offset", 5, stats),
    )
    feature = t.table(3, kind=("byte", 0, 1), properties=("offset", 1, t.table(0)))  # FeatureProperties
    scores = t.table(
        7,
        name=("offset", 0, t.text(output)),
        description=("offset", 1, t.text("a score for every label")),
        content=("offset", 3, feature),
        files=("offset", 6, t.offsets([file])),
    )
    graph = t.table(
        6,
        name=("offset", 0, t.text(name)),
        inputs=("offset", 2, t.offsets([picture])),
        outputs=("offset", 3, t.offsets([scores])),
    )
    top = t.table(
        8,
        name=("offset", 0, t.text(name)),
        description=("offset", 1, t.text(question)),
        version=("offset", 2, t.text(version)),
        graphs=("offset", 3, t.offsets([graph])),
        **({"license": ("offset", 5, t.text(licence))} if licence else {}),
        parser=("offset", 7, t.text("1.0.0")),
    )
    t.builder.Finish(top, file_identifier=b"M001")
    return bytes(t.builder.Output())
