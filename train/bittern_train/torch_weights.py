"""Weights of PyTorch's networks, read without PyTorch: files of `torch.save(model.state_dict(), file)`.

Two forms are read: the archive that PyTorch writes since 1.6, and the stream of pickles before it
(`torch/serialization.py` has both). A pickle can run any code; this one may name nothing but what a dictionary of
tensors needs.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from bittern.errors import ConfigurationError, one_line

Array = npt.NDArray[Any]

# The first pickle of the older form.
_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read(file: Path) -> dict[str, Array]:
    """The tensors of a file by their names.

    Raises:
        ConfigurationError: no such file, or one that holds something else.
        OSError: it cannot be read.
    """
    data = file.read_bytes()
    try:
        content = _archive(data) if zipfile.is_zipfile(io.BytesIO(data)) else _stream(data)
    except (pickle.UnpicklingError, zipfile.BadZipFile, struct.error) as error:
        raise ConfigurationError(f"{file}: expected weights of PyTorch: {one_line(error)}") from None
    except Exception as error:  # a damaged pickle raises whatever its instructions come to
        raise ConfigurationError(f"{file}: damaged, or no weights of PyTorch ({type(error).__name__})") from None
    if not isinstance(content, Mapping) or not all(isinstance(value, np.ndarray) for value in content.values()):
        raise ConfigurationError(
            f"{file}: expected a dictionary of tensors, as torch.save(model.state_dict(), ...) writes"
        )
    return {str(name): value for name, value in content.items()}


def assign(model: keras.Model, tensors: Mapping[str, Array], torch_name: Callable[[str], str]) -> None:
    """Set the weights of a model's convolutions, which have no bias, and batch norms.

    Args:
        model: built of Conv2D, DepthwiseConv2D and BatchNormalization; other layers have no weights.
        tensors: of `read`; kernels are (out, in, height, width).
        torch_name: from the name of a layer to that of PyTorch's module.

    Raises:
        KeyError: a tensor is missing.
        ValueError: one has another shape.
    """
    for layer in model.layers:
        if not layer.weights:
            continue
        module = torch_name(layer.name)
        if isinstance(layer, layers.BatchNormalization):
            values = [tensors[f"{module}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
        else:
            # A depthwise kernel is (channels, 1, height, width) there and (height, width, channels, 1) here.
            order = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
            values = [tensors[f"{module}.weight"].transpose(order)]
        layer.set_weights(values)


class _Unpickler(pickle.Unpickler):
    """Gives arrays for tensors; `storages` are their memory by key, to be filled in afterwards."""

    def __init__(self, stream: io.BytesIO, most_bytes: int) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storages: dict[str, Array] = {}
        self._left = most_bytes

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle may name."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        raise pickle.UnpicklingError(f"it holds {module}.{name}: save model.state_dict() alone")

    def persistent_load(self, pid: Any) -> Array:
        """The memory of one or several tensors."""
        kind, dtype, key, _device, length = pid[:5]
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown part {kind!r}")
        if key not in self.storages:
            self._left -= length * np.dtype(dtype).itemsize
            if length < 0 or self._left < 0:
                raise pickle.UnpicklingError("its tensors are larger than the file")
            self.storages[key] = np.zeros(length, dtype)
        return self.storages[key]


def _tensor(storage: Array, offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any) -> Array:
    # A pickle may build a tensor on another one, whose length says nothing of the memory behind it.
    if not isinstance(storage, np.ndarray) or storage.base is not None:
        raise pickle.UnpicklingError("a tensor is built on what is no memory")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or math.prod(shape) > len(storage) or last >= max(1, len(storage)):
        raise pickle.UnpicklingError("a tensor reaches beyond its memory")
    byte_strides = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, byte_strides)


def _parameter(tensor: Array, *_: Any) -> Array:
    return tensor


def _archive(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if pickled is None:
            raise pickle.UnpicklingError("the archive has no data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise pickle.UnpicklingError("the archive is compressed, PyTorch's are not")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickled)), len(data))
        content = unpickler.load()
        folder = pickled.removesuffix("data.pkl")
        for key, storage in unpickler.storages.items():
            storage[:] = np.frombuffer(archive.read(f"{folder}data/{key}"), storage.dtype, len(storage))
    return content


def _stream(data: bytes) -> Any:
    stream = io.BytesIO(data)

    def plain() -> Any:
        return _Unpickler(stream, 0).load()

    if plain() != _MAGIC:
        raise pickle.UnpicklingError("it begins otherwise")
    plain()  # version of the form
    plain()  # the machine that wrote it: PyTorch writes little-endian everywhere but on big-endian ones
    unpickler = _Unpickler(stream, len(data))
    content = unpickler.load()
    for key in plain():
        storage = unpickler.storages[key]
        (length,) = struct.unpack("<q", stream.read(8))
        storage[:] = np.frombuffer(stream.read(length * storage.itemsize), storage.dtype, len(storage))
    return content
