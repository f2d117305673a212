"""Reads from a .tflite file what the runtime does not report: operations, metadata and the files packed into it.

The file may be damaged or hostile: every position and length is checked, nothing is followed for ever, and what cannot
be read counts as not stated. Field numbers are those of TensorFlow's `schema.fbs` and of TFLite Support's
`metadata_schema.fbs`.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

# Metadata is one of the model's buffers.
_METADATA = b"TFLITE_METADATA"
# BuiltinOperator of schema.fbs.
_OPERATIONS = {
    0: "ADD",
    3: "CONV_2D",
    6: "DEQUANTIZE",
    9: "FULLY_CONNECTED",
    14: "LOGISTIC",
    22: "RESHAPE",
    25: "SOFTMAX",
    40: "MEAN",
    43: "SQUEEZE",
    53: "CAST",
    114: "QUANTIZE",
}
# TensorType of schema.fbs, of quantized values.
_DTYPES = {3: "uint8", 9: "int8"}
# These change how numbers are stored or arranged, not what they mean.
_TRANSPARENT = {"DEQUANTIZE", "RESHAPE", "SQUEEZE", "CAST", "QUANTIZE"}
_MOST_HOPS = 8
# Of what is read one by one: operations, the numbers of one of them, the bytes of a name and of the metadata.
_MOST_TABLES, _MOST_NUMBERS, _MOST_TEXT, _MOST_METADATA = 20_000, 256, 4096, 2**22
# Of NormalizationOptions, in the union ProcessUnitOptions; of TENSOR_AXIS_LABELS, in AssociatedFileType.
_NORMALIZATION, _AXIS_LABELS = 1, 2


class Quantization(NamedTuple):
    """real = scale * (q - zero_point)."""

    scale: float
    zero_point: int
    dtype: str


class Normalization(NamedTuple):
    """What the metadata says of the pixels: value = (byte - mean) / std, one of each, or one per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class TfliteFile:
    """A .tflite file, read as far as it can be."""

    def __init__(self, data: bytes) -> None:
        """Nothing is read yet; `data` is the contents of the file."""
        self._data = data

    def input_signature(self) -> tuple[int, ...] | None:
        """The shape of the first input as it was exported, -1 for what is free; None if the file does not say."""
        try:
            graph = self._graph()
            tensor = graph.table_of(0, graph.numbers(1)[0])
            return tensor.numbers(7) or tensor.numbers(0)
        except (ValueError, LookupError, struct.error):
            return None

    def input_quantization(self, tensor: int) -> Quantization | None:
        """How the network quantizes a float input, if that is the first thing that it does with it.

        Args:
            tensor: number of the input tensor.
        """
        try:
            graph = self._graph()
            for operation in graph.tables(3):
                if tensor in operation.numbers(1) and self._name(operation) == "QUANTIZE":
                    (made,) = operation.numbers(2)
                    return _quantization(graph.table_of(0, made))
        except (ValueError, LookupError, struct.error):
            pass
        return None

    def last_operation(self, tensor: int) -> str | None:
        """The operation that makes the values of an output, such as "SOFTMAX"; "" for one that has no name here.

        Args:
            tensor: number of the output tensor.
        """
        try:
            makers = {out: operation for operation in self._graph().tables(3) for out in operation.numbers(2)}
            for _ in range(_MOST_HOPS):
                operation = makers[tensor]
                name = self._name(operation)
                if name not in _TRANSPARENT:
                    return name
                tensor = operation.numbers(1)[0]
        except (ValueError, LookupError, struct.error):
            pass
        return None

    def normalization(self) -> Normalization | None:
        """What the metadata says of the pixels of the first input; None if it says nothing that can be used."""
        try:
            for unit in self._described(2).tables(4):
                if unit.number(0, "B") == _NORMALIZATION:
                    options = unit.table(1)
                    mean, std = options.floats(0), options.floats(1)
                    if len(mean) in (1, 3) and len(std) == len(mean) and all(s > 0 for s in std):
                        return Normalization(mean, std)
        except (ValueError, LookupError, struct.error):
            pass
        return None

    def label_files(self) -> list[str]:
        """Names of the packed files with the labels of the first output, those for one language left out."""
        try:
            files = list(self._described(3).tables(6))
            return [file.text(0) for file in files if file.number(2, "b") == _AXIS_LABELS and not file.text(3)]
        except (ValueError, LookupError, struct.error):
            return []

    def packed(self) -> zipfile.ZipFile | None:
        """The files behind the model, which TFLite metadata appends as a zip archive; None if there are none."""
        try:
            return zipfile.ZipFile(io.BytesIO(self._data))
        except Exception:  # zipfile raises half a dozen kinds on a broken archive
            return None

    def _model(self) -> _Table:
        return _Table(self._data, _unsigned(self._data, 0))

    def _graph(self) -> _Table:
        return self._model().table_of(2, 0)

    def _name(self, operation: _Table) -> str:
        code = self._model().table_of(1, operation.number(0, "I"))
        return _OPERATIONS.get(max(code.number(0, "b"), code.number(3, "i")), "")

    def _described(self, field: int) -> _Table:
        """The metadata of the first input (field 2) or output (field 3).

        Raises:
            LookupError: there is none.
        """
        model = self._model()
        for entry in model.tables(6):
            if entry.bytes(0) == _METADATA:
                data = model.table_of(4, entry.number(1, "I")).bytes(0, _MOST_METADATA)
                return _Table(data, _unsigned(data, 0)).table_of(3, 0).table_of(field, 0)
        raise LookupError("no metadata")


def _quantization(tensor: _Table) -> Quantization | None:
    described = tensor.table(4)
    scales, zeros = described.floats(2), described.numbers(3, "q")
    dtype = _DTYPES.get(tensor.number(1, "b"))
    usable = len(scales) == len(zeros) == 1 and scales[0] > 0
    return Quantization(scales[0], zeros[0], dtype) if usable and dtype else None


def _unsigned(data: bytes, start: int) -> int:
    return int(_read(data, start, "I"))


def _read(data: bytes, start: int, kind: str) -> float:
    if start < 0:  # `struct` would count from the end
        raise ValueError("outside of the file")
    return struct.unpack_from(f"<{kind}", data, start)[0]  # type: ignore[no-any-return]


class _Table:
    """A table of a flatbuffer. Everything raises ValueError, LookupError or struct.error if it is not in the file."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._start = data, start
        self._fields = start - int(_read(data, start, "i"))
        self._length = int(_read(data, self._fields, "H"))

    def _position(self, field: int) -> int | None:
        entry = 4 + 2 * field
        offset = int(_read(self._data, self._fields + entry, "H")) if entry + 2 <= self._length else 0
        return self._start + offset if offset else None

    def number(self, field: int, kind: str) -> int:
        """A number; 0 if it is left out."""
        position = self._position(field)
        return 0 if position is None else int(_read(self._data, position, kind))

    def table(self, field: int) -> _Table:
        position = self._position(field)
        if position is None:
            raise LookupError(f"no field {field}")
        return _Table(self._data, position + _unsigned(self._data, position))

    def _vector(self, field: int, width: int, most: int) -> tuple[int, int]:
        """Position and length of a vector, which lies in the file; (0, 0) if it is left out."""
        position = self._position(field)
        if position is None:
            return 0, 0
        position += _unsigned(self._data, position)
        length = _unsigned(self._data, position)
        if length > most or position + 4 + length * width > len(self._data):
            raise ValueError("too long")
        return position + 4, length

    def bytes(self, field: int, most: int = _MOST_TEXT) -> bytes:
        position, length = self._vector(field, 1, most)
        return self._data[position : position + length]

    def text(self, field: int) -> str:
        return self.bytes(field).decode("utf-8", "replace")

    def numbers(self, field: int, kind: str = "i") -> tuple[int, ...]:
        start, length = self._vector(field, struct.calcsize(f"<{kind}"), _MOST_NUMBERS)
        return struct.unpack_from(f"<{length}{kind}", self._data, start)

    def floats(self, field: int) -> tuple[float, ...]:
        start, length = self._vector(field, 4, _MOST_NUMBERS)
        return struct.unpack_from(f"<{length}f", self._data, start)

    def table_of(self, field: int, number: int) -> _Table:
        """One table of a vector of tables."""
        start, length = self._vector(field, 4, len(self._data))
        if not 0 <= number < length:
            raise LookupError(f"no table {number}")
        start += 4 * number
        return _Table(self._data, start + _unsigned(self._data, start))

    def tables(self, field: int) -> Iterator[_Table]:
        """All tables of a vector of tables."""
        for number in range(self._vector(field, 4, _MOST_TABLES)[1]):
            yield self.table_of(field, number)
