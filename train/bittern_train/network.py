"""A network in two parts: a frozen body whose output is cached, and a tail that is fine-tuned with its head."""

from __future__ import annotations

import functools
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from bittern.errors import ConfigurationError
from bittern_convert.task import Backbone
from bittern_train import architectures, backbones

_BATCH = 64
# The share of a fit's steps over which trained batch norms average their statistics, at most.
_NORM_SHARE = 0.1
# Cached features above this many bytes are kept in a temporary file.
IN_MEMORY = 500_000_000
# Rows that are copied from one file to another at once, and that a network answers at once.
_COPIED, _ANSWERED = 1024, 128

# What the shipped models for stop signs, masks and cars are.
OURS = Backbone()

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


class FeatureStore:
    """What a frozen body makes of pictures: (samples, copies, ...), read row by row.

    In memory, or above IN_MEMORY bytes in a file without a name in TMPDIR, which is gone with this. The file is read
    and not mapped: what is mapped counts as memory of this process.

    Attributes:
        shape: (samples, copies, ...).
        dtype: float16, or uint8 for the pictures themselves, where nothing of a network is frozen; what is read of both
            is float32 as it would be from float16.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float16) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._size = self.dtype.itemsize * int(np.prod(shape[2:]))
        self._rows: npt.NDArray[Any] | None = None
        self._file: Any = None
        self._filled = 0
        if shape[0] * shape[1] * self._size <= IN_MEMORY:
            self._rows = np.empty((shape[0] * shape[1], *shape[2:]), dtype)
        else:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> FeatureStore:
        """Those of an array (samples, copies, ...)."""
        made = cls(values.shape, values.dtype)
        made.append(values.reshape(-1, *values.shape[2:]))
        return made

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Fill in the next rows (n, ...), in the order of the samples, all copies of one after the other.

        Raises:
            ConfigurationError: the disk is full.
        """
        values = np.ascontiguousarray(rows, self.dtype)
        if self._rows is not None:
            self._rows[self._filled : self._filled + len(values)] = values
        else:
            left = values.reshape(-1).view(np.uint8).data
            try:
                while left:
                    left = left[self._file.write(left) :]
            except OSError as error:
                needed = self.shape[0] * self.shape[1] * self._size
                raise ConfigurationError(
                    f"{tempfile.gettempdir()}: {error.strerror}: features take {needed / 1e9:.1f} GB: set TMPDIR to a "
                    "folder with more room"
                ) from None
        self._filled += len(values)

    def raw(self, numbers: Indices) -> npt.NDArray[Any]:
        """Rows (n, ...) as they are kept, by their numbers: sample * copies + copy."""
        if self._rows is not None:
            return np.asarray(self._rows[numbers])
        file = self._file.fileno()
        data = b"".join(os.pread(file, self._size, int(number) * self._size) for number in numbers)
        return np.frombuffer(data, self.dtype).reshape(len(numbers), *self.shape[2:])

    def rows(self, numbers: Indices) -> Floats:
        """Rows (n, ...) by their numbers."""
        kept = self.raw(numbers)
        return (scale(kept).astype(np.float16) if self.dtype == np.uint8 else kept).astype(np.float32)

    def of_copy(self, samples: Indices, copy: int) -> Floats:
        """One copy of some samples (n, ...)."""
        return self.rows(samples * self.shape[1] + copy)

    def numbers(self, samples: Indices, copies: int | None = None) -> Indices:
        """Numbers of all rows of some samples, or of the first copies of each, in order."""
        count = self.shape[1] if copies is None else copies
        return np.asarray((samples[:, None] * self.shape[1] + np.arange(count)).reshape(-1), np.intp)


def side_by_side(parts: Sequence[tuple[FeatureStore, Indices, int]]) -> FeatureStore:
    """The first copies of some samples of each, beside each other: features, samples (n,), how many copies of each."""
    first, samples, _ = parts[0]
    joined = FeatureStore((len(samples), sum(count for *_, count in parts), *first.shape[2:]), first.dtype)
    for start in range(0, len(samples), _COPIED):
        some = [
            kept.raw(kept.numbers(own[start : start + _COPIED], count)).reshape(-1, count, *first.shape[2:])
            for kept, own, count in parts
        ]
        joined.append(np.concatenate(some, axis=1).reshape(-1, *first.shape[2:]))
    return joined


class _Parts(keras.utils.PyDataset):  # type: ignore[misc]
    """Rows of features in order, a part at a time."""

    def __init__(self, features: FeatureStore, numbers: Indices) -> None:
        super().__init__()
        self._features, self._numbers = features, numbers

    def __len__(self) -> int:
        return -(-len(self._numbers) // _ANSWERED)

    def __getitem__(self, part: int) -> tuple[Floats]:
        return (self._features.rows(self._numbers[part * _ANSWERED : (part + 1) * _ANSWERED]),)


def answers(model: keras.Model, features: FeatureStore, numbers: Indices) -> Floats:
    """What a network answers (n, ...) to rows of features, without holding all of them."""
    return np.asarray(model.predict(_Parts(features, numbers), verbose=0))


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
        self.base = architectures.build(backbone, weights)
        if backbone.mode == "scratch":
            self.body, self.tail = _unchanged(self.base.input.shape[1:]), self.base
        elif backbone.mode == "head":
            self.body, self.tail = self.base, _unchanged(self.base.output.shape[1:])
        else:
            if backbone.name != backbones.MOBILENET:
                cut = architectures.middle(self.base)
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
        norms = self._norms()
        for layer in norms:
            layer.trainable, layer.momentum = True, 0.5
        for start in range(0, len(tensors), _BATCH):
            self.base(scale(tensors[start : start + _BATCH]), training=True)
        for layer in norms:
            layer.trainable = False
        self._start = self.tail.get_weights()

    def shorten_norm_averages(self, steps: int) -> None:
        """Let batch norms that are trained average over a tenth of a fit's steps, where Keras' average is longer.

        Keras' networks average over the last 100 to 3,000 steps. What is trained for fewer would still answer by the
        statistics that it began with.

        Args:
            steps: of a fit, at least 1.
        """
        if self.backbone.mode == "scratch":
            for layer in self._norms():
                layer.momentum = min(layer.momentum, max(0.0, 1 - 1 / (_NORM_SHARE * steps)))

    def _norms(self) -> list[keras.layers.BatchNormalization]:
        return [layer for layer in self.base.layers if isinstance(layer, keras.layers.BatchNormalization)]

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


def features(model: keras.Model, tensors: Iterable[npt.NDArray[np.uint8]], shape: tuple[int, int]) -> FeatureStore:
    """Run pictures through a model and keep its output, as float16 to halve it.

    Args:
        model: the frozen body.
        tensors: pictures (copies, size, size, 3) uint8 RGB, one array a sample.
        shape: (samples, copies).
    """
    unchanged = all(isinstance(layer, (keras.layers.InputLayer, keras.layers.Identity)) for layer in model.layers)
    kept = FeatureStore((*shape, *model.output.shape[1:]), np.uint8 if unchanged else np.float16)
    for batch in _batches(tensors):
        kept.append(batch if unchanged else compiled(model)(scale(batch)).numpy())
    return kept


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
