"""A network in two parts: a frozen body whose output is cached, and a tail that is fine-tuned with its head."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError
from bittern_convert.task import Backbone
from bittern_train import backbones

_BATCH = 64
# Cached features above this many bytes are kept in a temporary file, of which the kernel holds what fits the memory.
_IN_MEMORY = 1_000_000_000

# What the shipped models for stop signs, masks and cars are.
OURS = Backbone()

Floats = npt.NDArray[np.float32]


class Network:
    """A backbone that can be trained several times from the same start.

    Attributes:
        base: the whole of it, (n, size, size, 3) float32 in [-1, 1] to features.
        body: from the picture to the output of the layer `cut`; never trained. With mode "head" it is all of the
            backbone, with "scratch" nothing of it.
        tail: from there to the features, (n, channels); unless everything is trained, batch norms stay in inference
            mode.
    """

    def __init__(self, weights: str, cut: str, noise: float, backbone: Backbone = OURS) -> None:
        """Build it.

        Args:
            weights: "imagenet", "none", or the path of an .h5 file without the top.
            cut: name of MobileNetV2's last frozen layer; other networks are cut in the middle.
            noise: standard deviation of the noise after every linear bottleneck of the tail, in training only.
            backbone: which one, and how much of it is trained.

        Raises:
            ConfigurationError: no such backbone, weights that cannot be had or do not fit, or no such layer.
        """
        self.backbone = backbone
        self.base = backbones.build(backbone, weights)
        if backbone.mode == "scratch":
            self.body, self.tail = _unchanged(self.base.input.shape[1:]), self.base
        elif backbone.mode == "head":
            self.body, self.tail = self.base, _unchanged(self.base.output.shape[1:])
        else:
            if backbone.name != backbones.MOBILENET:
                cut = backbones.middle(self.base)
            if cut not in [layer.name for layer in self.base.layers[1:-1]]:
                raise ConfigurationError(
                    f"recipe.cut: MobileNetV2 has no layer {cut!r}, for example block_6_project_BN"
                )
            self.body = keras.Model(self.base.input, self.base.get_layer(cut).output)
            self.tail = _tail(self.base, cut, noise)
            for layer in self.tail.layers:
                # A frozen batch norm uses its stored statistics in training too, so what the cache holds stays true.
                layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        random = (keras.layers.GaussianNoise, keras.layers.Dropout)
        self._random = [layer for layer in self.tail.layers if isinstance(layer, random)]
        self._start = self.tail.get_weights()
        self.body_features = self.body.output.shape[1:]

    def settle(self, tensors: npt.NDArray[np.uint8]) -> None:
        """Give random weights batch norm statistics of real pictures, (n, size, size, 3) uint8 RGB.

        Batch norms are frozen in training, and with the statistics 0 and 1 of new ones a random network gives the same
        for every picture. Where everything is trained, they are too.
        """
        if self.backbone.mode == "scratch":
            return
        norms = [x for x in self.base.layers if isinstance(x, keras.layers.BatchNormalization)]
        for layer in norms:
            layer.trainable, layer.momentum = True, 0.5
        for start in range(0, len(tensors), _BATCH):
            self.base(scale(tensors[start : start + _BATCH]), training=True)
        for layer in norms:
            layer.trainable = False
        self._start = self.tail.get_weights()

    def reset(self, seed: int) -> None:
        """Put the tail back to the weights it was built with, and its noise to the beginning of a seed's."""
        self.tail.set_weights(self._start)
        for number, layer in enumerate(self._random):
            # Keras seeds a layer when it is built, by chance: two processes would never train alike.
            layer.seed_generator.state.assign(np.array([seed, number << 20], np.uint32))

    def classifier(self, head: keras.layers.Dense) -> keras.Model:
        """The whole network, (1, size, size, 3) float32 in [-1, 1] to scores; conversion wants the batch of one."""
        picture = keras.Input(self.base.input.shape[1:], batch_size=1, name="image")
        return keras.Model(picture, head(self.base(picture)), name="bittern")


def scale(tensors: npt.NDArray[np.uint8]) -> Floats:
    """What backbones take: x / 127.5 - 1 (keras.applications, mode "tf"); folded into the int8 model's input."""
    return tensors.astype(np.float32) / np.float32(127.5) - np.float32(1)


def features(
    model: keras.Model, tensors: Iterable[npt.NDArray[np.uint8]], shape: tuple[int, ...]
) -> npt.NDArray[np.float16]:
    """Run pictures through a model and keep its output, as float16 to halve the memory.

    Args:
        model: the frozen body.
        tensors: pictures (copies, size, size, 3) uint8 RGB, one array a sample.
        shape: (samples, copies).

    Returns:
        (samples, copies, ...) float16; in a temporary file where it is large.
    """
    forward = compiled(model)
    kept = _array((shape[0] * shape[1], *model.output.shape[1:]))
    done = 0
    for batch in _batches(tensors):
        outputs = forward(scale(batch)).numpy()
        kept[done : done + len(outputs)] = outputs
        done += len(outputs)
    return kept.reshape(*shape, *kept.shape[1:])


@functools.lru_cache(maxsize=4)
def compiled(model: keras.Model) -> Any:
    """A model's forward pass as a graph: (n, ...) float32 in, a tensor out."""
    import tensorflow as tf

    # Any number of pictures at once: the last batch, which is smaller, needs no second trace.
    batches = tf.TensorSpec((None, *model.input.shape[1:]), tf.float32)

    @tf.function(input_signature=[batches])  # type: ignore[untyped-decorator]
    def forward(batch: Any) -> Any:
        return model(batch, training=False)

    return forward


def _batches(tensors: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.uint8]]:
    held: list[npt.NDArray[np.uint8]] = []
    count = 0
    for part in tensors:
        held.append(part)
        count += len(part)
        while count >= _BATCH:
            joined = np.concatenate(held)
            yield joined[:_BATCH]
            held = [joined[_BATCH:]]
            count -= _BATCH
    if count:
        yield np.concatenate(held)


def _array(shape: tuple[int, ...]) -> npt.NDArray[np.float16]:
    if 2 * int(np.prod(shape)) <= _IN_MEMORY:
        return np.empty(shape, np.float16)
    with tempfile.TemporaryFile() as file:  # without a name: it is gone with the array
        return np.memmap(file, np.float16, "w+", shape=shape)


def _unchanged(shape: tuple[int, ...]) -> keras.Model:
    """A model that gives what it is given."""
    start = keras.Input(shape)
    return keras.Model(start, keras.layers.Identity()(start))


def _tail(base: keras.Model, cut: str, noise: float) -> keras.Model:
    # The tail calls the layers of the base themselves: training the one trains the other. Bottlenecks are where int8
    # is coarsest (a step is 0.2 to 0.4 there, elsewhere 0.02): noise of that size makes the tail indifferent to it.
    start = keras.Input(base.get_layer(cut).output.shape[1:])
    outputs = {cut: keras.layers.GaussianNoise(noise)(start) if noise else start}
    for layer in base.layers[[x.name for x in base.layers].index(cut) + 1 :]:
        parents = [outputs[node.operation.name] for node in layer._inbound_nodes[0].parent_nodes]
        output = layer(parents[0] if len(parents) == 1 else parents)
        if noise and layer.name.endswith("_project_BN"):
            output = keras.layers.GaussianNoise(noise)(output)
        outputs[layer.name] = output
    return keras.Model(start, outputs[base.layers[-1].name])
