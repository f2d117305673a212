"""Frames that were fetched from a device: only new ones are added, and no decision is lost."""

from __future__ import annotations

from pathlib import Path

from tests.bittern_train.data import sets

from bittern.evaluation import dataset
from bittern.page import labelling
from bittern.page.labelling import Decided
from bittern_train.data import pulled


def test_a_second_pull_keeps_regions_and_what_was_rejected(tmp_path: Path) -> None:
    device = tmp_path / "device.csv"
    device.write_text("path,label,split,group,reason\na.png,,,g,unsure\nb.png,,,g,unsure\nc.png,,,g,unsure\n")
    kept = sets.write(tmp_path / "kept", {f"{name}.png": sets.encoded(i) for i, name in enumerate("abc")})
    assert pulled.merge(device, kept) == (3, 3)
    with labelling.opened(kept) as session:
        session.decide("tab", [(0, 0)], Decided("labelled", "car", (10, 10, 40, 40)))
        session.decide("tab", [(1, 0)], Decided("rejected"))
    before = [(item.name, item.label) for item in dataset.read(kept)]
    assert before[0][0].startswith("regions/")
    assert pulled.merge(device, kept) == (0, 2)
    assert [(item.name, item.label) for item in dataset.read(kept)] == before
    assert [item.name for item in dataset.read(kept / labelling.REJECTED)] == ["b.png"]
