"""Every backbone by its name: which sizes it takes, and what it expects of the pixels.

They are built in `bittern_train.architectures`. This table needs no Keras, so that what a backbone cannot be is refused
before TensorFlow is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from bittern.errors import ConfigurationError, did_you_mean
from bittern.model.input_maker import SCALINGS, Scaling
from bittern_convert.task import Backbone, Mode, Task

MOBILENET = "mobilenet_v2"
# Of Keras' MobileNetV2 with ImageNet weights, and below 1 of what fits a Raspberry Pi Zero.
WIDTHS = (0.35, 0.5, 0.75, 1.0)
# A network that starts from nothing learns faster and longer than one that is fine-tuned.
SCRATCH_RATE, SCRATCH_EPOCHS, SCRATCH_PATIENCE = 1e-3, 40, 10


class Architecture(NamedTuple):
    """One backbone of the table.

    Attributes:
        size: side of its input in pixels, where none is given.
        sizes: smallest and largest side.
        pixels: what its weights expect; those for BGR are turned round when they are read.
        pretrained: whether Keras has ImageNet weights for it.
        starts: whether it is ever started from weights; a network without is always trained from scratch.
    """

    size: int
    sizes: tuple[int, int]
    pixels: Scaling = SCALINGS["-1..1"]
    pretrained: bool = True
    starts: bool = True


def check(backbone: Backbone) -> Architecture:
    """The entry of a backbone in the table.

    Raises:
        ConfigurationError: there is none, or it cannot have this size, width or mode.
    """
    if backbone.name not in TABLE:
        hint = did_you_mean(backbone.name, list(TABLE))
        raise ConfigurationError(f"unknown backbone {backbone.name!r}: expected {', '.join(TABLE)}{hint}")
    architecture = TABLE[backbone.name]
    least, most = architecture.sizes
    if not least <= backbone.size <= most:
        sizes = f"{least} only" if least == most else f"{least} to {most}"
        raise ConfigurationError(f"backbone {backbone.name}: size {backbone.size} px, it takes {sizes}")
    if backbone.width != 1 and (backbone.name != MOBILENET or backbone.width not in WIDTHS):
        which = ", ".join(f"{w:g}" for w in WIDTHS) if backbone.name == MOBILENET else "1 only"
        raise ConfigurationError(f"backbone {backbone.name}: width {backbone.width:g}, it has {which}")
    if not architecture.starts and backbone.mode != "scratch":
        raise ConfigurationError(
            f"backbone {backbone.name}: there are no weights to start from, so mode {backbone.mode!r} is impossible: "
            "give --mode scratch"
        )
    return architecture


def check_weights(backbone: Backbone, weights: str) -> None:
    """Look for what a backbone is to start from, before TensorFlow takes its seconds to load.

    Args:
        backbone: which.
        weights: "imagenet", "none", or the path of a file.

    Raises:
        ConfigurationError: there is no such file, or Keras has no ImageNet weights of it; see also `check`.
    """
    if start_of(backbone, weights) == "imagenet" and not TABLE[backbone.name].pretrained:
        raise ConfigurationError(
            f"--weights imagenet: Keras has none for {backbone.name}: give a file of this network's weights, or "
            "--weights none --mode scratch"
        )
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise ConfigurationError(f"--weights: no file {weights}; expected a path, imagenet or none")


def start_of(backbone: Backbone, weights: str) -> str:
    """What a backbone starts from: "none" if it never starts from weights, whichever are given; raises as `check`."""
    return weights if check(backbone).starts else "none"


def with_backbone(
    task: Task, name: str | None, *, size: int | None = None, width: float | None = None, mode: Mode | None = None
) -> Task:
    """A task with another backbone, or another size, width or mode of its own.

    A task's recipe is for its own network: one that starts from nothing gets the rate, the epochs and the patience for
    that (SCRATCH_RATE and so on) unless the task's own network does too.

    Args:
        task: what is learned.
        name: of the backbone; None keeps the task's.
        size: side of the input in pixels; None is that of the backbone.
        width: of MobileNetV2; None is 1.
        mode: None is the task's own, of another backbone "finetune", or "scratch" where it has no weights.

    Raises:
        ConfigurationError: see `check`.
    """
    own = task.backbone
    if name is None or name == own.name:
        chosen = own
    else:
        entry = TABLE.get(name)
        default: Mode = "scratch" if entry is not None and not entry.starts else "finetune"
        chosen = Backbone(name=name, size=entry.size if entry is not None else own.size, mode=default)
    chosen = Backbone(
        name=chosen.name,
        size=chosen.size if size is None else size,
        width=chosen.width if width is None else width,
        mode=chosen.mode if mode is None else mode,
    )
    check(chosen)
    recipe = task.recipe
    if chosen.mode == "scratch" and own.mode != "scratch":
        recipe = msgspec.structs.replace(
            recipe, rate=(SCRATCH_RATE,), epochs=SCRATCH_EPOCHS, patience=SCRATCH_PATIENCE, soup=1
        )
    return msgspec.structs.replace(task, backbone=chosen, recipe=recipe)


# What weights of EfficientNet-Lite expect. Those of ResNet-18 are torchvision's; Keras' EfficientNet scales by itself.
_LITE = Scaling((127.0,), (128.0,))

TABLE: dict[str, Architecture] = {
    MOBILENET: Architecture(224, (96, 224)),
    "resnet18": Architecture(224, (64, 320), SCALINGS["imagenet"], pretrained=False),
    "resnet50": Architecture(224, (64, 320), SCALINGS["caffe"]),
    "inception_v3": Architecture(299, (96, 320)),
    "efficientnet_b0": Architecture(224, (64, 320), SCALINGS["raw"]),
    "efficientnet_b1": Architecture(240, (64, 320), SCALINGS["raw"]),
    "efficientnet_lite0": Architecture(224, (64, 320), _LITE, pretrained=False),
    "efficientnet_lite1": Architecture(240, (64, 320), _LITE, pretrained=False),
    "efficientnet_lite2": Architecture(260, (64, 320), _LITE, pretrained=False),
    "nasnet_mobile": Architecture(224, (224, 224)),
    "xception": Architecture(299, (96, 320)),
    "vgg_style": Architecture(96, (32, 224), pretrained=False, starts=False),
    "peetz_net": Architecture(96, (32, 224), pretrained=False, starts=False),
    "lenet": Architecture(32, (28, 96), pretrained=False, starts=False),
    "small_cnn": Architecture(48, (24, 224), pretrained=False, starts=False),
    "sign_cnn": Architecture(48, (24, 96), pretrained=False, starts=False),
}
