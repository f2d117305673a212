"""Every backbone of the table trains, converts to int8 through the parity check, and runs as a device would run it."""

from __future__ import annotations

from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from tests.doubles import drawn_pictures
from tests.doubles.progress import Reports

from bittern import Classifier
from bittern.cli.main import main
from bittern.errors import ConfigurationError
from bittern.evaluation import dataset
from bittern.model import pictures
from bittern_convert import package
from bittern_convert.task import Augment, Backbone, Recipe, Task
from bittern_train import architectures, backbones, session, training
from bittern_train.checkpoints import Diverged
from bittern_train.network import FeatureStore, Network

# Quick enough for every `make test`; the others at the smallest size that they take.
QUICK = "lenet"
# All that never start from weights, and one with batch norms that mostly does. Xception has a test of its own.
FROM_SCRATCH = (*(n for n, entry in backbones.TABLE.items() if not entry.starts and n != QUICK), "efficientnet_b0")
# With random weights, and only the last layer trained.
TELL_COLOURS_APART = ("resnet18", "resnet50", "inception_v3")


def discs(backbone: Backbone) -> Task:
    return Task(
        name="discs",
        question="Is there a red disc?",
        labels=("blue", "red"),
        alarm=("red",),
        nothing=("blue",),
        augment=Augment(copies=2, turn_degrees=0, brightness=(0.9, 1.1), contrast=(0.95, 1.05)),
        recipe=Recipe(folds=2, epochs=24, batch=4, patience=24, rate=(1e-3,), stream_s=0.4),
        backbone=backbone,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_pictures.discs(tmp_path_factory.mktemp("data") / "pictures", 11)


def the_whole_way(task: Task, data: Path, folder: Path) -> Reports:
    reports, backbone = Reports(), task.backbone
    session.train(task, data, folder / "run", weights="none", seed=1, replace=False, progress=reports)
    described, outcome = package.convert(
        folder / "run", folder / "model", data=None, name="discs", version="1", replace=False, progress=reports
    )
    assert outcome.passed
    assert outcome.float_accuracy > 0.9, "it learned what any network can"
    assert described.input.shape == (1, backbone.size, backbone.size, 3)
    assert described.provenance["recipe"]["backbone"]["name"] == backbone.name
    card = (folder / "model" / "MODEL_CARD.md").read_text()
    assert f"{backbone.title} at {backbone.size} x {backbone.size}" in card
    # The device: golden vectors are replayed when it is opened; then photographs of any size.
    device = Classifier(folder / "model")
    answers = [device.classify(pictures.decode(item.path))[0].label == item.label for item in dataset.read(data)]
    assert np.mean(answers) > 0.85
    return reports


def test_it_trains_converts_and_runs(data: Path, tmp_path: Path) -> None:
    the_whole_way(discs(Backbone(name=QUICK, size=32, mode="scratch")), data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_the_others_from_scratch_too(name: str, data: Path, tmp_path: Path) -> None:
    smallest, _ = backbones.TABLE[name].sizes
    size = smallest if backbones.TABLE[name].starts else max(smallest, 48)
    reports = the_whole_way(discs(Backbone(name=name, size=size, mode="scratch")), data, tmp_path)
    large = (tmp_path / "model" / "model.tflite").stat().st_size > package.MAX_MODEL_BYTES
    assert large == any("those that come with Bittern have at most 3.0 MB" in line for line in reports.lines)


@pytest.mark.slow
def test_xception_too(tmp_path: Path) -> None:
    """Of one fit, which needs pictures to validate by: it takes long."""
    data = drawn_pictures.discs(tmp_path / "pictures", 18)
    with (data / "index.csv").open("w") as index:
        index.write("path,label,split\n")
        for file in sorted(data.glob("*/*.jpg")):
            number = int(file.stem)
            split = "test" if number < 2 else "val" if number < 6 else "train"
            index.write(f"{file.relative_to(data)},{file.parent.name},{split}\n")
    task = discs(Backbone(name="xception", size=96, mode="scratch"))
    once = msgspec.structs.replace(task, recipe=msgspec.structs.replace(task.recipe, folds=1))
    the_whole_way(once, data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TELL_COLOURS_APART)
def test_a_head_on_random_features(name: str, data: Path, tmp_path: Path) -> None:
    size = backbones.TABLE[name].sizes[0]
    the_whole_way(discs(Backbone(name=name, size=size, mode="head")), data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in backbones.TABLE.items() if entry.starts])
def test_body_and_tail_are_the_whole(name: str) -> None:
    size = backbones.TABLE[name].sizes[0]
    network = Network("none", "block_13_project_BN", 0.1, Backbone(name=name, size=size))
    picture = np.random.default_rng(1).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    np.testing.assert_allclose(network.tail(network.body(picture)), network.base(picture), atol=1e-4)


def test_batch_norms_average_over_a_tenth_of_a_short_training() -> None:
    """Keras' average over 100 steps and more: after 50 they would still answer by what they began with."""
    network = Network("none", "", 0, Backbone(name="small_cnn", size=24, mode="scratch"))
    network.shorten_norm_averages(10_000)
    assert momentums(network) == {0.99}
    network.shorten_norm_averages(50)
    assert momentums(network) == {0.8}
    frozen = Network("none", "block_13_project_BN", 0, Backbone(size=96, width=0.35))
    before = momentums(frozen)
    frozen.shorten_norm_averages(50)
    assert momentums(frozen) == before


def momentums(network: Network) -> set[float]:
    return {layer.momentum for layer in network.base.layers if isinstance(layer, keras.layers.BatchNormalization)}


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (Backbone(name="mobilnet_v2"), "unknown backbone 'mobilnet_v2': expected mobilenet_v2, resnet18, "),
        (Backbone(size=64), "backbone mobilenet_v2: size 64 px, it takes 96 to 224"),
        (Backbone(name="nasnet_mobile", size=160), "backbone nasnet_mobile: size 160 px, it takes 224 only"),
        (Backbone(width=0.6), r"backbone mobilenet_v2: width 0.6, it has 0.35, 0.5, 0.75, 1"),
        (Backbone(name="lenet", size=32), "there are no weights to start from, so mode 'finetune' is impossible"),
    ],
)
def test_what_a_backbone_cannot_be(backbone: Backbone, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        architectures.build(backbone, "none")


def test_the_help_names_every_backbone() -> None:
    words = CliRunner().invoke(main, ["train", "--help"]).output.replace(",", " ").replace(".", " ").split()
    assert set(backbones.TABLE) <= set(words)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--weights imagenet: Keras has none for resnet18"):
        architectures.build(Backbone(name="resnet18", size=64), "imagenet")
    file = tmp_path / "other.weights.h5"
    architectures.build(Backbone(name="lenet", size=32, mode="scratch"), "none").save_weights(file)
    for backbone, name in ((Backbone(size=96), "MobileNetV2 1.0"), (Backbone(name="resnet18", size=64), "resnet18")):
        with pytest.raises(ConfigurationError, match=f"not weights of {name} without the top"):
            architectures.build(backbone, str(file))


def test_a_network_that_starts_from_nothing_starts_the_same_whatever_the_weights(data: Path, tmp_path: Path) -> None:
    """`imagenet` is the default: what is resumed, and other hosts, must draw the weights that the seed draws."""
    file = tmp_path / "other.h5"
    file.write_bytes(b"of no account")
    task, starts = discs(Backbone(name=QUICK, size=32, mode="scratch")), []
    for weights in ("none", "imagenet", str(file)):
        loaded = session.load(task, data, weights=weights, seed=1, progress=Reports())
        starts.append([values.tobytes() for values in loaded.network.base.get_weights()])
        assert session.weights_sha256(weights, task.backbone) == "none"
    assert starts[0] == starts[1] == starts[2]


def test_weights_for_bgr_are_turned_round(tmp_path: Path) -> None:
    """Keras' ResNet50 has weights for blue, green, red, less a mean: the model must give the same on RGB in [-1, 1]."""
    keras.utils.set_random_seed(1)
    original = keras.applications.ResNet50(input_shape=(64, 64, 3), include_top=False, weights=None, pooling="avg")
    file = tmp_path / "resnet50.weights.h5"
    original.save_weights(file)
    own = architectures.build(Backbone(name="resnet50", size=64), str(file))
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    expected = original(keras.applications.resnet50.preprocess_input(pixels.copy())).numpy()
    np.testing.assert_allclose(own(pixels / 127.5 - 1).numpy(), expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_a_file_for_efficientnet_is_scaled_as_keras_own_download(tmp_path: Path) -> None:
    """Keras adds a scaling where it fetches the weights itself, and leaves it out where it is given the same file."""
    original = keras.applications.EfficientNetB0(input_shape=(64, 64, 3), include_top=False, weights=None)
    layer = _normalization(original)
    values = {"mean": np.array([0.485, 0.456, 0.406]), "variance": np.array([0.229, 0.224, 0.225])}
    for variable in layer.non_trainable_variables:
        if variable.name in values:
            variable.assign(values[variable.name].reshape(variable.shape))
    layer.finalize_state()
    file = tmp_path / "efficientnet.weights.h5"
    original.save_weights(file)
    own = architectures.build(Backbone(name="efficientnet_b0", size=64), str(file))
    normalized = keras.Model(own.input, _normalization(own).output)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    published = (pixels / 255 - values["mean"]) / values["variance"]
    np.testing.assert_allclose(normalized(pixels / 127.5 - 1).numpy(), published, atol=1e-3)


def _normalization(model: keras.Model) -> keras.layers.Layer:
    return next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))


def test_a_task_with_another_backbone() -> None:
    own = discs(Backbone())
    scratch = backbones.with_backbone(own, "lenet")
    assert scratch.backbone == Backbone(name="lenet", size=32, mode="scratch")
    assert (scratch.rates, scratch.recipe.epochs) == ((backbones.SCRATCH_RATE,), backbones.SCRATCH_EPOCHS)
    head = backbones.with_backbone(own, None, size=96, width=0.35, mode="head")
    assert head.backbone == Backbone(size=96, width=0.35, mode="head")
    assert head.rates == (0.0,)
    assert head.recipe == own.recipe
    with pytest.raises(ConfigurationError, match="mode 'head' is impossible"):
        backbones.with_backbone(own, "lenet", mode="head")


def test_multiply_accumulates_are_counted() -> None:
    """Of MobileNetV2 1.0 at 224 its authors state 300 million (Sandler et al. 2018, table 4), with the top."""
    assert architectures.macs(architectures.build(Backbone(), "none")) == pytest.approx(300e6, rel=0.02)
    lenet = architectures.build(Backbone(name="lenet", size=32, mode="scratch"), "none")
    assert architectures.macs(lenet) == 28**2 * 75 * 6 + 10**2 * 150 * 16 + 400 * 120 + 120 * 84


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    network = Network("none", "", 0, Backbone(name="lenet", size=32, mode="scratch"))
    features = np.random.default_rng(1).uniform(-1, 1, (8, 2, 32, 32, 3)).astype(np.float16)
    cache = training.Cache(FeatureStore.of(features), FeatureStore((0, 0, 1)), np.arange(8) % 2)
    examples = training.of_labels(cache, np.arange(8), discs(network.backbone))
    with pytest.raises(Diverged, match=r"rate 1e\+30: the loss is no number any more after epoch"):
        training.Trainer(network, Recipe(epochs=8, batch=4), 2).fit(training.Fit(1e30, 8, 1), examples)


def test_a_head_whose_loss_is_no_number_stops_the_training() -> None:
    features = np.random.default_rng(1).uniform(-1, 1, (8, 2, 1280)).astype(np.float16)
    cache = training.Cache(FeatureStore.of(features), FeatureStore((0, 0, 1)), np.arange(8) % 2)
    network = Network("none", "", 0, Backbone(size=96, width=0.35, mode="head"))
    examples = training.of_labels(cache, np.arange(8), discs(network.backbone))
    with pytest.raises(Diverged, match=r"the loss of the head at rate 1e\+38 is no number: take a lower"):
        training.Trainer(network, Recipe(head_rate=1e38), 2).fit(training.Fit(0.0, 1, 1), examples)
