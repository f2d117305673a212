"""What this machine makes of pictures and models, as JSON on stdout; check_arm64.py runs it on both and compares.

python measure.py PICTURES.npz MODEL_FOLDER...
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
from tests.doubles import preprocess_vectors

from bittern.errors import BitternError
from bittern.frames import Pixels
from bittern.model import golden, manifest, preprocess, runtime
from bittern.model.classifier import Classifier
from bittern.model.runtime import PATHS, ExecutionPath

Outputs = list[list[list[int]]]  # by picture, by head: the raw output bytes


class OnPath(msgspec.Struct):
    """One model on one execution path.

    Attributes:
        refused: why the classifier does not open it; None when it does, its golden vectors replayed.
        golden: outputs for the golden tensors; empty when the path cannot be run at all.
        pictures: outputs for the pictures.
    """

    refused: str | None
    golden: Outputs
    pictures: Outputs


class Machine(msgspec.Struct):
    """One machine.

    Attributes:
        machine: `platform.machine()`.
        opencv: its version.
        runtime: name and version of the runtime.
        vectors: how many preprocessing vectors there are.
        differ: those that differ from the stored ones.
        tensors: sha256 of the tensor of every picture.
        models: by folder name and execution path.
    """

    machine: str
    opencv: str
    runtime: str
    vectors: int
    differ: list[str]
    tensors: list[str]
    models: dict[str, dict[ExecutionPath, OnPath]]


def outputs(folder: Path, path: ExecutionPath, tensors: Sequence[Pixels]) -> Outputs:
    """The raw outputs, without asking whether the golden vectors replay.

    Raises:
        ModelRefused: the path does not take the model on this machine.
    """
    shipped = manifest.load((folder / "manifest.json").read_bytes())
    opened = runtime.open_model((folder / shipped.file).read_bytes(), path, threads=1)
    handles = {output.name: output.handle for output in opened.outputs}
    answers: Outputs = []
    for tensor in tensors:
        opened.interpreter.set_tensor(opened.inputs[0].handle, tensor)
        opened.interpreter.invoke()
        answers.append([opened.interpreter.get_tensor(handles[head.output])[0].tolist() for head in shipped.heads])
    return answers


def on_path(folder: Path, path: ExecutionPath, tensors: Sequence[Pixels]) -> OnPath:
    """Open the model, then run it."""
    refused = None
    try:
        Classifier(folder, path=path)
    except BitternError as error:
        refused = str(error)
    try:
        recorded = [vector.tensor for vector in golden.load(folder / golden.FILE, path)]
        answers = outputs(folder, path, [*recorded, *tensors])
    except BitternError as error:
        return OnPath(refused or str(error), [], [])
    return OnPath(refused, answers[: len(recorded)], answers[len(recorded) :])


def main() -> None:
    """Measure and print."""
    with np.load(sys.argv[1]) as archive:
        tensors = [preprocess.preprocess(archive[name], "RGB") for name in archive.files]
    vectors = preprocess_vectors.measure()
    here = Machine(
        machine=platform.machine(),
        opencv=cv2.__version__,
        runtime=f"{runtime.DISTRIBUTION} {runtime.version()}",
        vectors=len(vectors["tensors"]),
        differ=preprocess_vectors.differences(vectors),
        tensors=[preprocess_vectors.sha256(tensor) for tensor in tensors],
        models={Path(m).name: {path: on_path(Path(m), path, tensors) for path in PATHS} for m in sys.argv[2:]},
    )
    print(msgspec.json.encode(here).decode())


if __name__ == "__main__":
    main()
