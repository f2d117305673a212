"""Writes files as `torch.save(model.state_dict(), file)` does, in both of its forms, without PyTorch."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {"float32": "FloatStorage", "int64": "LongStorage"}


def archive(file: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """The form of PyTorch 1.6 and later."""
    pickled, storages = _pickled(tensors)
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("weights/data.pkl", pickled)
        for key, storage in storages.items():
            written.writestr(f"weights/data/{key}", storage.tobytes())


def stream(file: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """The form before."""
    pickled, storages = _pickled(tensors)
    parts = [pickle.dumps(value, 2) for value in (_MAGIC, 1001, {"little_endian": True})]
    parts += [pickled, pickle.dumps(list(storages), 2)]
    for storage in storages.values():
        parts += [struct.pack("<q", storage.size), storage.tobytes()]
    file.write_bytes(b"".join(parts))


def nested(file: Path) -> None:
    """No file of PyTorch's: a tensor of 1000 numbers, built on one that repeats the only number there is."""
    pickled = io.BytesIO()
    number = np.zeros(1, np.float32)
    with _torch() as (kinds, rebuild):
        inner = _Tensor(_Storage("0", number, kinds["float32"]), (10**6,), rebuild, (0,))
        _Pickler(pickled, 2).dump(OrderedDict(a=_Tensor(inner, (1000,), rebuild)))
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("weights/data.pkl", pickled.getvalue())
        written.writestr("weights/data/0", number.tobytes())


class _Storage:
    def __init__(self, key: str, values: npt.NDArray[Any], kind: Any) -> None:
        self.key, self.values, self.kind = key, values, kind


class _Tensor:
    def __init__(self, storage: Any, shape: tuple[int, ...], rebuild: Any, strides: tuple[int, ...] = ()) -> None:
        self._storage, self._shape, self._rebuild = storage, shape, rebuild
        self._strides = strides or tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))

    def __reduce__(self) -> tuple[Any, ...]:
        return self._rebuild, (self._storage, 0, self._shape, self._strides, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, _Storage):
            return "storage", obj.kind, obj.key, "cpu", obj.values.size
        return None


def _pickled(tensors: Mapping[str, npt.NDArray[Any]]) -> tuple[bytes, dict[str, npt.NDArray[Any]]]:
    file = io.BytesIO()
    with _torch() as (kinds, rebuild):
        content, storages = OrderedDict(), {}
        for number, (name, values) in enumerate(tensors.items()):
            storage = _Storage(str(number), values, kinds[values.dtype.name])
            storages[storage.key] = values
            content[name] = _Tensor(storage, values.shape, rebuild)
        _Pickler(file, 2).dump(content)
    return file.getvalue(), storages


@contextmanager
def _torch() -> Iterator[tuple[dict[str, type], Any]]:
    """Modules of PyTorch's names, for as long as a pickle is written that names them."""

    def _rebuild_tensor_v2() -> None:
        pass

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    kinds = {dtype: type(name, (), {"__module__": "torch"}) for dtype, name in _STORAGES.items()}
    for kind in kinds.values():
        setattr(torch, kind.__name__, kind)
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield kinds, _rebuild_tensor_v2
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
