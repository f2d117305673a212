"""A finished run as training leaves it, but for the network: drawn pictures, scores and features, made in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
from tests.doubles import drawn_pictures

from bittern.evaluation import dataset, index
from bittern_convert import run
from bittern_convert.run import Run
from bittern_convert.task import Data, Task
from bittern_train import out_of_fold
from bittern_train.out_of_fold import OutOfFold

LABELS = ("blue", "red")


def small_run(folder: Path, each: int = 30, *, seed: int = 1, labels: tuple[str, ...] = LABELS) -> Path:
    """A run on discs, most of whose answers are correct. Returns the folder of the run.

    Args:
        folder: gets the pictures and the run.
        each: pictures of each label.
        seed: of the answers.
        labels: blue and red first; no picture has another one.
    """
    rng = np.random.default_rng(seed)
    data = drawn_pictures.discs(folder / "pictures", each)
    items = dataset.read(data)
    items = [
        item._replace(
            split="train",
            group=f"group {i // 4}" if i % 12 < 4 else item.name,
            columns={"set": ("yard", "door")[i % 2]},
        )
        for i, item in enumerate(items)
    ]
    targets = np.array([LABELS.index(item.label or "") for item in items])
    features = rng.normal(0, 1, (len(items), 24))
    features[:, 0] += 2.0 * targets - 1
    logits = 2.0 * (2 * targets - 1) + rng.normal(0, 2, len(items))
    red = 1 / (1 + np.exp(-logits))
    scores = np.zeros((len(items), len(labels)), np.float32)
    scores[:, 0], scores[:, 1] = 1 - red, red
    folds = np.array([sum(map(ord, item.group)) % 4 for item in items])
    made = Run(
        id="small",
        task=Task(
            name="discs", question="Is there a red disc?", labels=labels, alarm=("red",), nothing=("blue",),
            data=(Data(path=""),), limits=("Drawn.",),
        ),
        data=str(data), data_sha256=dataset.digest(items), weights_sha256="none", seed=seed, thresholds={},
        metrics={}, choice={}, pictures={}, skipped=[], versions={"keras": "3"}, revision="", seconds=60.0,
    )  # fmt: skip
    target = folder / "run"
    target.mkdir()
    index.write(target / run.INDEX, items)
    kept = OutOfFold([i.name for i in items], folds, scores, np.arange(len(items)), features.astype(np.float16))
    out_of_fold.write(target, kept)
    fold = [{"epoch": e, "loss": 1 / (e + 1), "val_loss": 1 / (e + 1), "val_accuracy": 0.5 + e / 10} for e in range(4)]
    history = {"candidates": [{"rate": rate, "loss": 0.3, "folds": [fold] * 4} for rate in (1e-4, 0.0)], "final": []}
    (target / "history.json").write_text(json.dumps(history))
    (target / run.FILE).write_bytes(msgspec.json.encode(made))
    return target
