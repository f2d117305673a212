"""`bittern retrain`: a run again with newly labelled pictures, and a verdict on the same test pictures."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from tests.bittern_train.test_backbones import discs
from tests.doubles import drawn_pictures
from tests.doubles.progress import Interrupting, Reports

from bittern.cli.main import main
from bittern_convert import run
from bittern_convert.task import Backbone
from bittern_train import retrain_session, session


def test_new_pictures_are_trained_on_and_both_networks_answer_the_same_test(tmp_path: Path) -> None:
    task = discs(Backbone(name="lenet", size=32, mode="scratch"))
    quick = msgspec.structs.replace(task.recipe, epochs=12, patience=12, stream_s=0.0)
    data = drawn_pictures.discs(tmp_path / "pictures", 11)
    first = session.train(
        msgspec.structs.replace(task, recipe=quick),
        data,
        tmp_path / "mine",
        weights="none",
        seed=1,
        replace=False,
        progress=Reports(),
    )
    added = drawn_pictures.discs(tmp_path / "kept", 2, seed=2)
    for step, after, leaves in (
        ("features of 2 copies", 1, set()),
        ("cross-validation", 13, {"mine-2.data", "mine-2.partial"}),  # in the second fold
    ):
        with pytest.raises(KeyboardInterrupt):
            retrain_session.retrain(
                tmp_path / "mine",
                added,
                tmp_path / "mine-2",
                weights="none",
                root=None,
                progress=Interrupting(KeyboardInterrupt(), step, after),
            )
        assert {file.name for file in tmp_path.glob("mine-2*")} == leaves
    words = ["retrain", tmp_path / "mine", "--add", added, "--out", tmp_path / "mine-2", "--weights", "none", "--json"]
    done = CliRunner().invoke(main, [str(word) for word in words])
    verdict = json.loads(done.stdout)
    assert done.exit_code == (0 if verdict["keep"] else 1)
    assert verdict["keep"] == (verdict["new_correct"] >= verdict["old_correct"])
    assert verdict["n"] == 4, "the first run's test pictures, and no other"
    refused = CliRunner().invoke(main, [str(word) for word in words])
    assert (refused.exit_code, "exists already: give another --out\n" in refused.stderr) == (2, True)
    again = run.load(tmp_path / "mine-2")
    new = sum(sum(labels.values()) for labels in again.pictures["trained_on"].values())
    old = sum(sum(labels.values()) for labels in first.pictures["trained_on"].values())
    assert new >= old + 4, "each new picture, and mistakes more than once"
    assert (tmp_path / "mine-2" / "retrained.json").is_file()
    assert not (tmp_path / "mine-2.partial").exists()
