"""From a run to a model folder: calibrate, quantize, record golden vectors, check parity, report, write it whole."""

from __future__ import annotations

import hashlib
import platform
import zipfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

import bittern
from bittern.errors import BitternError, ConfigurationError, one_line
from bittern.evaluation import dataset, evaluate, sheet
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.model import golden, manifest, preprocess, runtime
from bittern.model.classifier import Classifier
from bittern.model.manifest import GoldenPath, Head, Input, Manifest, Threshold
from bittern.scene import street
from bittern.system import fileio
from bittern.system.progress import Counter, Progress, counted
from bittern_convert import (
    calibration,
    card,
    copies,
    correction,
    inputs,
    parity,
    robustness,
    run,
    stream_report,
    tflite,
    thresholds,
)
from bittern_convert.inputs import Picture
from bittern_convert.parity import Outcome, Pair
from bittern_convert.run import Run
from bittern_convert.task import Backbone, FieldOfView, Task

MODEL_FILE = "model.tflite"
# Pictures that the float parent answers at once.
PARENT_BATCH = 32
MAX_MODEL_BYTES = 3_000_000
# Keys of a task on which the weights and the thresholds depend, besides its data.
_RECIPE = ("recipe", "augment", "drawn", "labels", "alarm", "nothing")
# Golden frames: a size that is enlarged in one linear step, one that shrinks by area and then linear, one as it is.
GOLDEN_SIZES = ((200, 160), (600, 500), (224, 224))
# Each is chosen from this many drawn pictures.
GOLDEN_CANDIDATES = 16
# Output steps that a machine may be off: of the same architecture (XNNPACK was exact on x86-64 from Nehalem on, the
# plain kernels 2 off between CPUs with and without AVX2), and of another (at most 5 on XNNPACK, 40 on the plain ones).
ALLOWED_STEPS: dict[runtime.ExecutionPath, tuple[int, int]] = {"xnnpack": (0, 8), "builtin": (8, 64)}


class ParityFailed(BitternError):
    """The int8 model is not close enough to its float parent; nothing was packaged.

    Attributes:
        reason: without the file that shows the pictures that flipped.
    """

    def __init__(self, reason: str, flipped: Path | None = None) -> None:
        self.reason = reason
        which = f"; the pictures that flipped: {flipped}" if flipped is not None else ""
        super().__init__(f"the parity check failed: {reason}{which}")


def convert(
    folder: Path,
    out: Path,
    *,
    data: Path | None,
    name: str,
    version: str,
    replace: bool,
    progress: Progress,
    model: Any = None,
) -> tuple[Manifest, Outcome]:
    """Convert a finished run into a model folder.

    Args:
        folder: the run.
        out: the model folder to make.
        data: folder of the pictures; None for where the run says they are.
        name: of the model.
        version: of the model.
        replace: whether `out` may exist already.
        progress: called with what is being done, and how far.
        model: the Keras model, (1, size, size, 3) float32 in [-1, 1] to scores; None for the file of the run.

    Returns:
        The manifest and the outcome of the parity check.

    Raises:
        ConfigurationError: no finished run, no pictures or other ones than in the training, or `out` exists.
        ParityFailed: the parity check failed; the pictures that flipped are in `flipped.png` of the run.
        BitternError: the quantization or the size came out wrong.
    """
    check_target(out, name, version, replace)
    made = run.load(folder)
    task = made.task
    labels = task.labels
    root = data or Path(made.data)
    items = dataset.read(folder / run.INDEX, root)
    inputs.verify(made, items, root, progress)
    calibrating, rest = calibration.choose(items, labels, made.seed)
    field = task.field_of_view
    size = task.backbone.size
    tensors = [t for item in calibrating if (t := inputs.tensor(item, field, size)) is not None]
    if len(tensors) < len(calibrating) / 2:
        raise ConfigurationError(
            f"{root}: {len(calibrating) - len(tensors)} of {len(calibrating)} pictures to calibrate with cannot be "
            f"read there ({calibrating[0].name}, ...): say with --data where they are now"
        )
    drawn = inputs.unseen_copies(folder, made, items, progress)
    progress("quantize", 0, 1)
    model = load_model(folder) if model is None else model
    output = f"{task.name}_scores"
    groups = {item.group for item in calibrating}
    # Shifts are measured on the pictures of the calibration and their copies, which the parity check does not use.
    known = np.stack([*(t[0] for t in tensors), *(c.tensor for c in drawn if c.group in groups)])
    quantized = tflite.quantize(model, tensors)
    bias = correction.head_bias(float_scores(model, known), _int8_scores(quantized, known))
    corrected = tflite.with_bias(quantized, bias)
    if corrected is quantized:  # the last layer of somebody else's network may be of another kind
        bias = np.zeros_like(bias)
    packed = tflite.pack(
        corrected,
        name=name,
        version=version,
        question=task.question,
        output=output,
        labels=labels,
        licence=task.licence,
    )
    progress("quantize", 1, 1)
    if len(packed) > MAX_MODEL_BYTES:
        progress.say(
            f"the int8 model has {len(packed) / 1e6:.1f} MB; those that come with Bittern have at most "
            f"{MAX_MODEL_BYTES / 1e6:.1f} MB"
        )

    with fileio.atomic_folder(out, replace=replace) as new:
        described = _write_model(new, packed, made, items, name, version, output)
        device = Classifier(new)
        checked = inputs.photographs(dataset.sample(rest, parity.MOST, made.seed), labels, field, size)
        checked += [copy for copy in drawn if copy.group not in groups]
        outcome = _compare(model, device, checked, progress)
        if not outcome.passed:
            sheet_file = folder / "flipped.png"
            _show_flipped(sheet_file, checked, outcome, labels)
            raise ParityFailed(outcome.reason, sheet_file if outcome.flipped else None)
        reports = _reports(device, items, field, made.seed, progress)
        held_back = [item for subset in dataset.for_reporting(items) for item in subset[2]]
        on_streams = stream_report.measure(device, task, held_back, made.seed, progress)
        provenance = _provenance(made, outcome, reports)
        if on_streams is not None:
            provenance["streams"] = on_streams
        provenance["calibration"] = {
            "pictures": len(tensors),
            "plus": "one all-0 and one all-255 frame",
            "head_bias": {label: round(float(b), 4) for label, b in zip(labels, bias, strict=True)},
            "head_bias_pictures": len(known),
        }
        described = msgspec.structs.replace(described, provenance=provenance)
        (new / "MODEL_CARD.md").write_text(card.render(described, task), encoding="utf-8")
        described = manifest.write(new, described)
        Classifier(new)  # what will be shipped is opened once as a user would
    return described, outcome


def check_target(out: Path, name: str, version: str, replace: bool) -> None:
    """Raises ConfigurationError if a model folder must not be written there, or cannot have this name or version."""
    if out.exists() and not replace:
        raise ConfigurationError(f"{out} exists already: give another --out, or --force to replace it")
    if out.exists() and not (out / "manifest.json").is_file():
        raise ConfigurationError(f"{out} is not a model folder: it is not replaced")
    try:
        msgspec.convert(name, manifest.Name)
        msgspec.convert(version, manifest.Text)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"name {name!r}, version {version!r}: {error}: see --name and --version") from None


def load_model(folder: Path) -> Any:
    """The trained Keras model of a run.

    Raises:
        ConfigurationError: it cannot be loaded.
    """
    import keras

    file = folder / run.MODEL
    if not zipfile.is_zipfile(file):
        raise ConfigurationError(f"{file} is {'damaged' if file.is_file() else 'missing'}: train again")
    try:
        return keras.models.load_model(file, compile=False)
    except Exception as error:  # Keras, h5py and zipfile raise a dozen kinds
        raise ConfigurationError(
            f"{file}: cannot be loaded ({one_line(error)}): damaged, or of another version of Keras: train again"
        ) from None


def _write_model(
    new: Path, packed: bytes, made: Run, items: Sequence[Item], name: str, version: str, output: str
) -> Manifest:
    """Model, labels, golden vectors and a first manifest, all but the provenance."""
    task = made.task
    (new / MODEL_FILE).write_bytes(packed)
    (new / tflite.LABELS).write_text("".join(f"{x}\n" for x in task.labels), encoding="utf-8")
    frames = _golden_frames(packed, made.seed, task.backbone.size)
    tensors = [preprocess.preprocess(f, size=task.backbone.size) for f in frames]
    outputs: dict[str, list[list[Pixels]]] = {}
    paths: dict[runtime.ExecutionPath, GoldenPath] = {}
    for path in runtime.PATHS:
        opened = runtime.open_model(packed, path, 1)
        outputs[path] = []
        for tensor in tensors:
            opened.interpreter.set_tensor(opened.inputs[0].handle, tensor)
            opened.interpreter.invoke()
            outputs[path].append([opened.interpreter.get_tensor(o.handle)[0] for o in opened.outputs])
        paths[path] = GoldenPath(
            runtime=runtime.DISTRIBUTION,
            version=runtime.version(),
            machine=platform.machine(),
            same_machine_steps=ALLOWED_STEPS[path][0],
            other_machine_steps=ALLOWED_STEPS[path][1],
        )
    golden.save(new / golden.FILE, frames, tensors, outputs)
    picture, scores = opened.inputs[0], opened.outputs[0]
    chosen = _thresholds(made, items)
    kept = {threshold.on for threshold in chosen.values()}
    streams = made.streams and msgspec.structs.replace(
        made.streams, points=thresholds.compact(made.streams.points, kept)
    )
    described = Manifest(
        name=name,
        version=version,
        file=MODEL_FILE,
        sha256=hashlib.sha256(packed).hexdigest(),
        size=len(packed),
        input=Input(
            name=picture.name,
            shape=(1, picture.shape[1], picture.shape[2], 3),
            scale=picture.scale,
            zero_point=picture.zero_point,
        ),
        heads=(
            Head(
                task=task.name,
                output=output,
                labels=task.labels,
                alarm=task.alarm,
                nothing=task.nothing,
                scale=scores.scale,
                zero_point=scores.zero_point,
                thresholds=chosen,
                stills=thresholds.compact(made.stills, kept),
                streams=streams,
            ),
        ),
        golden=paths,
        provenance={},
    )
    return manifest.write(new, described)


def _thresholds(made: Run, items: Sequence[Item]) -> dict[str, Threshold]:
    """The thresholds of a run: chosen by its streams, or those that its training chose by pictures."""
    if made.streams is None:
        return made.thresholds
    task = made.task
    # Those that chose: of the others that could be read, none has a digest.
    choosing = [i for i in items if i.split in copies.choice_splits(task) and i.columns.get("sha256")]
    positive = sum(item.label in task.alarm for item in choosing)
    chosen = thresholds.choose_on_streams(
        made.stills, made.streams, positive=positive, negative=len(choosing) - positive
    )
    if field := task.field_of_view.text():
        return {name: msgspec.structs.replace(t, chosen_for=f"{t.chosen_for}, {field}") for name, t in chosen.items()}
    return chosen


def _golden_frames(model: bytes, seed: int, side: int) -> list[Pixels]:
    """For each of GOLDEN_SIZES, of the drawn pictures the one (H, W, 3) uint8 BGR of which the model is least sure.

    A score at its end stays there whatever goes wrong on the way.
    """
    rng = np.random.default_rng(seed)
    frames = []
    for size in GOLDEN_SIZES:
        drawn = [street.random_picture(rng, stop=i % 2 == 0, size=size) for i in range(GOLDEN_CANDIDATES // 2)]
        drawn += [_clouds(rng, size) for _ in range(GOLDEN_CANDIDATES // 2)]
        candidates = [np.ascontiguousarray(picture[:, :, ::-1]) for picture in drawn]
        scores = _int8_scores(model, np.concatenate([preprocess.preprocess(c, size=side) for c in candidates]))
        frames.append(candidates[int(scores.max(1).argmin())])
    return frames


def _clouds(rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Soft patches of colour, (H, W, 3) uint8: what no photograph shows."""
    cells = int(rng.integers(3, 12))
    return np.asarray(
        cv2.resize(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8), size, interpolation=cv2.INTER_CUBIC)
    )


def float_scores(model: Any, tensors: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Scores (n, labels) of the float parent."""
    import tensorflow as tf

    pictures = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)

    # The model was built for one picture at a time, as conversion needs it; many at once take half as long.
    @tf.function(input_signature=[pictures])  # type: ignore[untyped-decorator]
    def parent(batch: Any) -> Any:
        return model(batch, training=False)

    left = iter(tensors)
    scores = []
    while batch := list(islice(left, PARENT_BATCH)):
        scores.append(parent(np.stack(batch).astype(np.float32) / np.float32(127.5) - np.float32(1)).numpy())
    return np.concatenate(scores)


def _int8_scores(model: bytes, tensors: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Scores (n, labels) of a model that is not yet a folder."""
    opened = runtime.open_model(model, None, 1)
    output = opened.outputs[0]
    scores = []
    for tensor in tensors:
        opened.interpreter.set_tensor(opened.inputs[0].handle, tensor[None])
        opened.interpreter.invoke()
        raw = opened.interpreter.get_tensor(output.handle)[0].astype(np.float32)
        scores.append(output.scale * (raw - output.zero_point))
    return np.array(scores, np.float32)


def _compare(model: Any, device: Classifier, checked: Sequence[Picture], progress: Progress) -> Outcome:
    tensors = [picture.tensor for picture in checked]
    parent = float_scores(model, counted(tensors, progress, "parity check, float", len(tensors)))
    again = counted(tensors, progress, "parity check, int8", len(tensors))
    int8 = [list(device.classify(tensor, "RGB")[0].scores.values()) for tensor in again]
    targets = np.array([picture.target for picture in checked], np.int64)
    return parity.judge(Pair(parent, np.array(int8, np.float32), targets), [picture.kind for picture in checked])


def _show_flipped(file: Path, checked: Sequence[Picture], outcome: Outcome, labels: Sequence[str]) -> None:
    tiles = [
        sheet.Tile(p.tensor, [p.name[-30:], f"is {labels[p.target]}, {p.kind}"], False)
        for p in (checked[i] for i in outcome.flipped[:60])
    ]
    file.unlink(missing_ok=True)  # an earlier conversion's
    if tiles:
        sheet.write(file, tiles)


def _reports(
    device: Classifier, items: Sequence[Item], field: FieldOfView, seed: int, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Figures of the int8 model on every split that neither training nor a choice has used, as it is and corrupted."""
    reports = {}
    for set_name, split, chosen in dataset.for_reporting(items):
        key = f"{set_name}/{split}"
        counter = Counter(progress, key, len(chosen))
        answers, skipped = evaluate.answer_all([device], chosen, None, counter.reach, field.views, field.region)
        if len(skipped) == len(chosen):
            raise ConfigurationError(f"{key}: none of the pictures can be used, for example {skipped[0]}")
        figures = evaluate.report(device, device.heads[0], key, answers[0][0], skipped)
        kept = msgspec.to_builtins(figures) | {"skipped": len(figures.skipped)}  # their paths are private
        for key_of_device in ("model", "version", "task", "split"):
            del kept[key_of_device]
        some = dataset.sample(chosen, robustness.MOST, seed)
        counter = Counter(progress, f"corrupted {key}", len(some))
        corrupted = robustness.measure(device, some, field, seed, counter.reach)
        reports[key] = kept | {"harmed": msgspec.to_builtins(corrupted)}
    return reports


def _backbone(task: Task) -> dict[str, Any]:
    """The backbone, where it is not that of the first models, whose manifests do not name it."""
    return {} if task.backbone == Backbone() else {"backbone": msgspec.to_builtins(task.backbone)}


def _provenance(made: Run, outcome: Outcome, reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kept, values = msgspec.to_builtins(outcome), msgspec.to_builtins(made.task)
    del kept["flipped"], kept["reason"]
    return {
        "run": made.id,
        "seed": made.seed,
        "data_sha256": made.data_sha256,
        "weights_sha256": made.weights_sha256,
        "recipe": {key: values[key] for key in _RECIPE} | made.task.field_of_view.keys() | _backbone(made.task),
        "revision": made.revision,
        "versions": {
            **made.versions,
            "bittern": bittern.__version__,
            runtime.DISTRIBUTION: runtime.version(),
            "conversion": "; ".join(f"{key} {value}" for key, value in run.environment().items()),
        },
        "pictures": made.pictures,
        "choice": made.choice,
        "cross_validation": made.metrics,
        "gate": kept,
        "reports": reports,
    }
