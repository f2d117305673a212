"""Conversion uses the pictures that training used, and draws the same copies of them again, or refuses."""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from tests.doubles import drawn_pictures
from tests.doubles.progress import Reports

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset
from bittern.evaluation.dataset import Item
from bittern_convert import copies, inputs, run
from bittern_convert.copies import UnseenCopies
from bittern_convert.run import Run
from bittern_convert.task import Augment, Drawn, Task

TASK = Task(
    name="signs",
    question="which?",
    labels=("not_stop", "stop"),
    alarm=("stop",),
    drawn=Drawn(with_sign="stop", without_sign="not_stop", streets=2, pasted=2),
    augment=Augment(copies=2, other_signs=0.5),
)
SEED = 3


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Streets, one of them large, and one that is broken."""
    root = drawn_pictures.folders(tmp_path / "signs", 3)
    large = cv2.resize(cv2.imread(str(root / "stop" / "000.jpg")), (1700, 1200))
    cv2.imwrite(str(root / "stop" / "large.jpg"), large)
    (root / "stop" / "broken.jpg").write_bytes((root / "stop" / "001.jpg").read_bytes()[:700])
    return root


def indexed(root: Path) -> list[Item]:
    """The items of a run's index."""
    return [
        item._replace(split="train", columns={"set": "signs", "sha256": copies.picture_digest(item.path)})
        for item in dataset.read(root)
    ]


def trained(root: Path) -> tuple[Run, list[Item], np.ndarray]:
    """A run on these pictures, its items, and the copies that training drew."""
    items = indexed(root)
    samples = copies.with_drawn(TASK, copies.photographs(TASK, items), SEED)
    positions = [i for i, s in enumerate(samples) if not s.item.name.endswith("broken.jpg")]
    chosen = [positions[i] for i in np.random.default_rng(SEED).permutation(len(positions))]
    drawn = copies.draw(
        TASK,
        [samples[i] for i in chosen],
        [copies.keep(TASK, samples[i], copies.read(samples[i])) for i in chosen],
        SEED,
        [2, 3],
    )
    tensors = np.concatenate(list(drawn))
    kept = UnseenCopies(samples=tuple(chosen), first=2, each=2, sha256=copies.digest(tensors))
    made = Run(
        id="signs", task=TASK, data=str(root), data_sha256=dataset.digest(items), weights_sha256="none", seed=SEED,
        thresholds={}, metrics={}, choice={}, pictures={}, skipped=[], versions=run.environment(), revision="",
        seconds=1.0, copies=kept,
    )  # fmt: skip
    return made, items, tensors


def test_copies_are_drawn_again_to_the_byte(pictures: Path) -> None:
    made, items, tensors = trained(pictures)
    redrawn = inputs.unseen_copies(pictures, made, items, Reports())
    np.testing.assert_array_equal(np.stack([p.tensor for p in redrawn]), tensors)
    assert {p.kind for p in redrawn} == set(inputs.KINDS.values())
    assert len(redrawn) == 2 * (7 + 2 + 2)
    # What is kept of them does not grow with their pixels.
    assert len(msgspec.json.encode(made)) < 3000


def test_copies_that_come_out_differently_are_refused(pictures: Path) -> None:
    made, items, _ = trained(pictures)
    assert made.copies is not None
    other = msgspec.structs.replace(made, copies=msgspec.structs.replace(made.copies, sha256="0" * 64))
    with pytest.raises(ConfigurationError, match=r"differently .*the libraries and the processor are the same"):
        inputs.unseen_copies(pictures, other, items, Reports())
    older = msgspec.structs.replace(other, versions=made.versions | {"opencv": "4.6.0", "numpy": np.__version__})
    with pytest.raises(ConfigurationError, match=rf"\(opencv 4\.6\.0, now {cv2.__version__}\): convert it where"):
        inputs.unseen_copies(pictures, older, items, Reports())


def test_a_run_of_an_earlier_version_brings_its_copies_as_a_file(pictures: Path, tmp_path: Path) -> None:
    made, items, tensors = trained(pictures)
    kinds, names, groups = (np.array([f"{key}{i}" for i in range(len(tensors))]) for key in ("kind", "name", "group"))
    file, targets = tmp_path / run.COPIES, np.arange(len(tensors))
    np.savez(file, tensors=tensors, targets=targets, kinds=kinds, names=names, groups=groups)
    earlier = msgspec.structs.replace(made, copies=None)
    read = inputs.unseen_copies(tmp_path, earlier, items, Reports())
    np.testing.assert_array_equal(np.stack([p.tensor for p in read]), tensors)
    assert read[1][1:] == (1, "kind1", "name1", "group1")
    file.write_bytes(b"PK")
    with pytest.raises(ConfigurationError, match=r"copies\.npz: cannot be read .*: train again"):
        inputs.unseen_copies(tmp_path, earlier, items, Reports())


def test_the_pictures_of_the_training_are_accepted(pictures: Path) -> None:
    made, items, _ = trained(pictures)
    inputs.verify(made, items, pictures, Reports())


def test_pictures_that_changed_are_refused(pictures: Path) -> None:
    made, items, _ = trained(pictures)
    (pictures / "stop" / "001.jpg").write_bytes((pictures / "stop" / "002.jpg").read_bytes())
    message = r"1 of 8 pictures were changed after the training of run 'signs' \(stop/001\.jpg, \.\.\.\)"
    with pytest.raises(ConfigurationError, match=message):
        inputs.verify(made, items, pictures, Reports())


def test_pictures_that_are_missing_are_refused(pictures: Path) -> None:
    made, items, _ = trained(pictures)
    (pictures / "stop" / "001.jpg").unlink()
    with pytest.raises(ConfigurationError, match=r"1 of 8 pictures .* \(stop/001\.jpg, .*: say with --data"):
        inputs.verify(made, items, pictures, Reports())


def test_a_picture_that_was_trained_on_has_a_digest(pictures: Path) -> None:
    """Only one that the training could not read has none, and runs of earlier versions, which brought their copies."""
    made, items, _ = trained(pictures)
    items = [i._replace(columns=i.columns | {"sha256": ""}) if i.name == "stop/001.jpg" else i for i in items]
    with pytest.raises(ConfigurationError, match=r"no sha256 for 1 pictures \(stop/001\.jpg, \.\.\.\).*: train again"):
        inputs.verify(made, items, pictures, Reports())
    skipped = [f"{pictures / 'stop' / '001.jpg'}: Permission denied"]
    inputs.verify(msgspec.structs.replace(made, skipped=skipped), items, pictures, Reports())
    inputs.verify(msgspec.structs.replace(made, copies=None), items, pictures, Reports())


def test_an_index_that_changed_is_refused(pictures: Path) -> None:
    made, items, _ = trained(pictures)
    with pytest.raises(ConfigurationError, match=r"index\.csv of run 'signs' was changed after the training"):
        inputs.verify(made, [items[0]._replace(label="stop"), *items[1:]], pictures, Reports())
