"""A task: labels, alarms, data, augmentation and recipe; as a task file states it, and as a run keeps it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from bittern.config.schema import Rectangle, Views, check_views
from bittern.errors import ConfigurationError
from bittern.model.manifest import Name, Strict, Text
from bittern.model.preprocess import CENTER, Region, View
from bittern_convert.chin_mask import Face

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
NotNegative = Annotated[float, Meta(ge=0.0)]
PositiveInt = Annotated[int, Meta(ge=1)]
Mode = Literal["head", "finetune", "scratch"]


class Erratum(Strict, frozen=True, kw_only=True):
    """What a task says of one picture of a data set, whose index stays as it is.

    Attributes:
        path: of the picture, as in the index.
        why: what is to be seen on it.
        label: the right one; without it the picture is left out.
    """

    path: str
    why: Text
    label: str | None = None


class Data(Strict, frozen=True, kw_only=True):
    """One data set of a task.

    Attributes:
        path: below the folder given by --data; empty for that folder itself.
        label: of all its pictures: of an index without labels, or with those of another task.
        where: columns of the index, its label among them, and the value that each must have.
        extra: its pictures are trained on (where it has splits, those of train, val and extra); nothing is chosen with
            them or reported on them.
        report: splits that conversion reports figures on; no choice is made on them.
        without_note: pictures whose column `note` has this text are neither trained on nor chosen with.
        most: of an extra set, train on at most so many pictures: first one of every group, chosen by a hash of the
            names, so that the choice stays when pictures are added or go.
        errata: wrong labels, and pictures that cannot be answered; only of what is trained on or chosen with.
        faces: where a face without a mask is on a picture, by its path: x, y, size (`chin_mask.Face`).
    """

    path: str = ""
    label: str | None = None
    where: dict[str, str] = msgspec.field(default_factory=dict)
    extra: bool = False
    report: tuple[str, ...] = ("test",)
    without_note: str | None = None
    most: PositiveInt | None = None
    errata: tuple[Erratum, ...] = ()
    faces: dict[str, Face] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.most is not None and not self.extra:
            raise ValueError("most: only a set with extra = true can be cut")


class Drawn(Strict, frozen=True, kw_only=True):
    """Pictures that `bittern.scene` draws, for training only.

    Attributes:
        with_sign: the label of pictures with a stop sign.
        without_sign: the label of pictures without.
        streets: how many street pictures, half of them with a stop sign.
        pasted: how many photographs of label `without_sign` get a drawn stop sign.
    """

    with_sign: Text
    without_sign: Text
    streets: Annotated[int, Meta(ge=0)] = 0
    pasted: Annotated[int, Meta(ge=0)] = 0


class Augment(Strict, frozen=True, kw_only=True):
    """How copies of a picture are altered, see `bittern_convert.augment`.

    Attributes:
        copies: of every picture; copy 0 is the picture itself.
        mirror: whether half of the copies are mirrored.
        zoom: part of a square that is seen.
        aside: how far copies may look beside the centred square: 0 not at all, 1 to the edges of the picture.
        turn_degrees: at most, either way.
        brightness: gain.
        contrast: gain around the middle grey.
        colour: gain of each channel, 1 plus or minus.
        side: of the altered picture in pixels, from which the preprocessing makes the network's input; less is faster
            for a network with a small one.
        noise: standard deviation of 255, at most.
        blur: sigma in pixels of a picture of 224, at most.
        other_signs: share of copies without a stop sign that get a drawn sign of another kind.
        decoys: share of copies without a stop sign that get something else that is drawn, red, round or eight-sided, or
            another sign: at any size, also very large and cut by the edge.
        close_ups: share of copies of pictures of nothing (`Task.nothing`) that show a small part, from anywhere.
        far: share of copies that show the picture small in other surroundings.
        far_size: side of the picture in those, of that of the square.
        conditions: share of copies at night, in rain, against the light, out of focus or blurred by motion.
        poles: share of copies with a pole in front.
        hands: share of copies of pictures of nothing with fingers or a hand near the lens.
        chin_masks: share of copies of pictures with a face (`Data.faces`) that get a drawn mask at or below the chin.
    """

    copies: PositiveInt = 8
    mirror: bool = True
    zoom: tuple[Positive, Positive] = (0.8, 1.0)
    aside: Share = 0.0
    turn_degrees: NotNegative = 8.0
    brightness: tuple[Positive, Positive] = (0.6, 1.3)
    contrast: tuple[Positive, Positive] = (0.8, 1.2)
    colour: Share = 0.06
    side: Annotated[int, Meta(ge=16, le=1024)] = 288
    noise: NotNegative = 8.0
    blur: NotNegative = 1.2
    other_signs: Share = 0.0
    decoys: Share = 0.0
    close_ups: Share = 0.0
    far: Share = 0.0
    far_size: tuple[Positive, Positive] = (1 / 6, 1.0)
    conditions: Share = 0.0
    poles: Share = 0.0
    hands: Share = 0.0
    chin_masks: Share = 0.0

    def __post_init__(self) -> None:
        for key in ("zoom", "far_size", "brightness", "contrast"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"{key}: {low:g} is above {high:g}; the smaller one comes first")
            if high > 1 and key in ("zoom", "far_size"):
                raise ValueError(f"{key}: {high:g} is above 1; it is a part of the square")


class Recipe(Strict, frozen=True, kw_only=True):
    """How a network is fine-tuned; a list holds candidates, and grouped k-fold chooses.

    Attributes:
        folds: of the grouped k-fold over train + val; 1 trains on train, validates on val, as the
            index has them, and keeps that fit.
        cut: name of MobileNetV2's last layer that stays as it is; its output is computed once for every copy of a
            picture. Other networks are cut in the middle.
        epochs: at most; early stopping finds how many.
        batch: pictures a step.
        rate: learning rates of the fine-tuning; 0 trains the head only.
        cost: of an error on a label, where it is not 1; on top of weights that balance the labels.
        head_rate: learning rate of the head on cached features.
        dropout: before the head.
        noise: standard deviation of noise after every linear bottleneck while fine-tuning, against the steps of int8.
        label_smoothing: of the cross-entropy.
        patience: epochs without a better validation loss before a fold stops.
        soup: how many final fits, in other orders, are averaged; each takes as long as the one of 1.
        stream_s: seconds of a stream for every picture that chooses and has no alarm label, on which false alarms are
            counted (`bittern_convert.streams`); 0 judges by pictures alone.
        quick: conversion draws no more copies than the parity check needs, and its report takes fewer streams of each
            picture.
    """

    folds: PositiveInt = 4
    cut: str = "block_6_project_BN"
    epochs: PositiveInt = 12
    batch: PositiveInt = 32
    rate: Annotated[tuple[Annotated[float, Meta(ge=0.0)], ...], Meta(min_length=1)] = (0.0, 3e-4)
    head_rate: Positive = 3e-3
    cost: dict[str, Positive] = msgspec.field(default_factory=dict)
    dropout: Share = 0.2
    noise: NotNegative = 0.1
    label_smoothing: Share = 0.05
    patience: PositiveInt = 4
    soup: PositiveInt = 1
    stream_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 4.0
    quick: bool = False


class Backbone(Strict, frozen=True, kw_only=True):
    """The network, by its name in `bittern_train.backbones`.

    Attributes:
        name: see there.
        size: side of its input in pixels.
        width: of MobileNetV2: the number of channels, of the full one's.
        mode: "head" trains the last layer alone, on features of the whole network; "finetune" from `recipe.cut` on;
            "scratch" everything, batch norms too.
    """

    name: Text = "mobilenet_v2"
    size: Annotated[int, Meta(ge=16, le=1024)] = 224
    width: Positive = 1.0
    mode: Mode = "finetune"

    @property
    def title(self) -> str:
        """As a model card names it."""
        return f"MobileNetV2 {self.width:.3g}".replace(" 1", " 1.0") if self.name == "mobilenet_v2" else self.name


class FieldOfView(NamedTuple):
    """What a task looks at of a photograph: a region of it (None for all of it), and squares of that."""

    region: Region | None
    views: tuple[View, ...]

    def keys(self) -> dict[str, list[Any]]:
        """The keys of a task or a configuration that say something else than the default."""
        views = {"views": list(self.views)} if self.views != CENTER else {}
        return ({"region": list(self.region)} if self.region else {}) | views

    def text(self) -> str:
        """In words, empty for the default."""
        views = f"the deciding one of the views {', '.join(self.views)}" if self.views != CENTER else ""
        region = f"the region {', '.join(map(str, self.region))}" if self.region else ""
        return " of ".join(part for part in (views, region) if part)


class Task(Strict, frozen=True, kw_only=True):
    """A task file, see `train/tasks/stop_sign.toml` for one with every key explained.

    Attributes:
        sources: where the pictures are from, for the model card.
        limits: what is known to go wrong, for the model card.
        licence: of the model, for the metadata of its file; empty says nothing.
        region: left, top, width, height in pixels of every photograph: what is looked at instead of the whole of it.
        views: which squares of it the k-fold is judged on, and thresholds are chosen for: those that the daemon will
            look at. The fit is on the centred square and, with `augment.aside`, beside it: where in a photograph its
            label is to be seen is not known. "moving" is refused, because nothing moves in a photograph.
    """

    name: Name
    question: Text
    labels: Annotated[tuple[Text, ...], Meta(min_length=2)]
    alarm: tuple[Text, ...] = ()
    nothing: tuple[Text, ...] = ()
    sources: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    licence: str = ""
    region: Rectangle | None = None
    views: Views = ("center",)
    data: tuple[Data, ...] = (Data(),)
    drawn: Drawn | None = None
    augment: Augment = Augment()
    recipe: Recipe = Recipe()
    backbone: Backbone = Backbone()

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels {list(self.labels)} are not distinct")
        check_views(self.views)
        if "moving" in self.views:
            raise ValueError('views: "moving" is of streams only: nothing moves in a photograph')
        named = [*self.alarm, *self.nothing, *self.recipe.cost, *(d.label for d in self.data if d.label is not None)]
        named += [e.label for d in self.data for e in d.errata if e.label is not None]
        if self.drawn:
            named += [self.drawn.with_sign, self.drawn.without_sign]
        for label in named:
            if label not in self.labels:
                raise ValueError(f"label {label!r} is not among the labels {list(self.labels)}")
        if set(self.alarm) >= set(self.labels):
            raise ValueError("every label raises an alarm: at least one label must not raise an alarm")
        if not self.rates:
            raise ValueError('recipe.rate: mode "scratch" needs a rate above 0')

    @property
    def rates(self) -> tuple[float, ...]:
        """Those of the recipe that the backbone's mode can have: the head alone has no other than 0."""
        if self.backbone.mode == "head":
            return (0.0,)
        if self.backbone.mode == "scratch":
            return tuple(rate for rate in self.recipe.rate if rate > 0)
        return self.recipe.rate

    @property
    def field_of_view(self) -> FieldOfView:
        """What is looked at of a photograph."""
        return FieldOfView(Region(*self.region) if self.region else None, self.views)


def of_run(values: object) -> Task:
    """The task of a run, which an earlier version may have written: keys that are not known any more are left out.

    Raises:
        ConfigurationError: a value that does not fit; the message names the key.
    """
    known = _known(values, Task)
    if isinstance(known, dict):
        for key, kind in (("drawn", Drawn), ("augment", Augment), ("recipe", Recipe), ("backbone", Backbone)):
            if key in known:
                known[key] = _known(known[key], kind)
        if isinstance(known.get("data"), list):
            known["data"] = [_known(data, Data) for data in known["data"]]
    try:
        return msgspec.convert(known, Task)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigurationError(f"task: {error}") from None


def _known(values: object, kind: type[Strict]) -> Any:
    if not isinstance(values, dict):
        return values  # which is refused with the whole
    return {key: value for key, value in values.items() if key in kind.__struct_fields__}
