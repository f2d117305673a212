"""The study of memory and time: which pictures it takes, what it measures, and what it draws."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles import drawn_pictures

from bittern.evaluation.dataset import Item
from bittern_convert import results
from bittern_train import memory_study

BITTERN = Path(sys.executable).with_name("bittern")
RESULT: dict[str, Any] = {
    "study": "memory", "task": "discs", "network": "lenet", "size": 32, "copies": 2, "epochs": 2, "folds": 2, "seed": 1,
    "machine": {"processor": "some", "threads": "2"},
    "trainings": [
        {"n": 1000, "seconds": 60.0, "cpu_seconds": 50.0, "peak_mb": 900, "peak_drawing_mb": 120},
        {"n": 10000, "seconds": 500.0, "cpu_seconds": 450.0, "peak_mb": 1100, "peak_drawing_mb": 130},
    ],
}  # fmt: skip


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=6), share=st.floats(0.01, 1))
def test_every_label_and_split_has_its_share(sizes: list[int], share: float) -> None:
    items = [
        Item(Path(), f"{label}/{i}", f"{label}", split, "", {})
        for label, size in enumerate(sizes)
        for split in ("train", "val")
        for i in range(size)
    ]
    count = max(1, int(share * len(items)))
    chosen = memory_study._some(items, count)
    counts = Counter((item.label, item.split) for item in chosen)
    assert len(counts) == 2 * len(sizes)
    assert len(chosen) <= count + len(counts)
    assert len(memory_study._some(items, len(items))) == len(items)


def test_the_result_is_drawn_and_told() -> None:
    words = " ".join(element.text or "" for element in ET.fromstring(memory_study.draw(RESULT)).iter())
    assert "peak resident memory, MB" in words
    assert "10,000" in words
    assert "| 10,000 | 1,100 MB | 450 s | 45.0 ms |" in results._memory(RESULT)


@pytest.mark.slow  # two trainings
def test_the_study_trains_on_some_pictures_and_on_all(tmp_path: Path) -> None:
    drawn_pictures.folders(tmp_path / "data" / "discs", 12)
    (tmp_path / "discs.toml").write_text(
        'name = "discs"\nquestion = "?"\nlabels = ["not_stop", "stop"]\nalarm = ["stop"]\n[[data]]\npath = "discs"\n'
        '[augment]\ncopies = 2\n[backbone]\nname = "lenet"\nsize = 32\nmode = "scratch"\n'
        "[recipe]\nfolds = 2\nrate = [1e-3]\nstream_s = 0\n"
    )
    options = ["--data", "data", "--weights", "none", "--count", "14", "--out", "."]
    done = subprocess.run(
        [BITTERN, "study", "memory", "discs.toml", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "memory-discs.json").read_text())
    some, everything = made["trainings"]
    assert some["n"] < everything["n"]
    assert all(t["peak_mb"] > 100 and t["cpu_seconds"] > 0 for t in (some, everything))
    assert (tmp_path / "memory-discs.svg").read_text().startswith("<svg")
