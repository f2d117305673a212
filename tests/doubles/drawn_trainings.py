"""Trainings of a small network on drawn pictures, whose runs are compared byte by byte."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
from click.testing import CliRunner, Result
from tests.doubles import drawn_pictures
from tests.doubles.progress import Reports

from bittern.cli.main import main
from bittern_convert import run as runs
from bittern_train import session, task_files

BITTERN = Path(sys.executable).with_name("bittern")

# Two folds and a final fit of a small network; in `LONG` of two rates, with two final fits and streams.
TASK = (
    drawn_pictures.DISCS_TASK
    + """
backbone = { name = "lenet", size = 32, mode = "scratch" }
[augment]
copies = 2
[recipe]
folds = 2
epochs = 2
batch = 4
rate = [1e-3]
stream_s = 0
"""
)
LONG = TASK.replace("rate = [1e-3]", "rate = [1e-3, 3e-4]").replace("stream_s = 0", "stream_s = 0.4\nsoup = 2")


class World:
    """Pictures, a task file, and an uninterrupted run."""

    def __init__(self, root: Path, text: str) -> None:
        self.data = drawn_pictures.discs(root / "pictures", 6)
        self.file = root / "discs.toml"
        self.file.write_text(text)
        self.task = task_files.load(str(self.file))
        self.whole = root / "whole"
        self.train(self.whole)

    def train(self, out: Path, reports: Reports | None = None, **options: Any) -> Reports:
        reports = reports or Reports()
        words: dict[str, Any] = {"task": self.task, "seed": 1} | options
        session.train(root=self.data, out=out, weights="none", progress=reports, **words)
        return reports

    def command(self, out: Path, *options: str) -> list[str]:
        return ["train", str(self.file), "--data", str(self.data), "--weights", "none", "--out", str(out), *options]

    def call(self, out: Path, *options: str) -> Result:
        return CliRunner().invoke(main, self.command(out, *options))

    def is_the_same(self, out: Path) -> None:
        """Every byte but name, duration, and the code's revision, which changes when somebody commits meanwhile."""
        before, after = (keras.models.load_model(folder / runs.MODEL).get_weights() for folder in (self.whole, out))
        assert [w.tobytes() for w in before] == [w.tobytes() for w in after]
        for name in ("history.json", "index.csv", "out_of_fold.npz", "curves.png", "confusion.png"):
            assert (self.whole / name).read_bytes() == (out / name).read_bytes(), name
        values = [json.loads((folder / runs.FILE).read_bytes()) for folder in (self.whole, out)]
        for value in values:
            del value["id"], value["seconds"], value["revision"]
        assert values[0] == values[1]
