"""`bittern diff`: two model folders by what their manifests state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bittern_convert import diff as folders
from bittern_convert.cli import diff

SHIPPED = Path(__file__).parents[2] / "models" / "stop_sign"


def altered(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    shutil.copytree(SHIPPED, folder)
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    change(content["provenance"])
    file.write_text(json.dumps(content))
    return folder


def test_a_model_is_as_itself() -> None:
    comparison = folders.diff(SHIPPED, SHIPPED)
    assert comparison.same_file
    assert comparison.holds
    assert not comparison.differing
    assert len(comparison.figures) > 5
    assert all(f.before == f.after for f in comparison.figures)


def test_the_same_conditions_must_give_the_same_figures(tmp_path: Path) -> None:
    other = altered(tmp_path / "other", lambda p: p["reports"]["stop_sign/test"].update(correct=1))
    comparison = folders.diff(SHIPPED, other)
    assert not comparison.holds
    done = CliRunner().invoke(diff, [str(SHIPPED), str(other)])
    assert done.exit_code == 1
    assert "stop_sign/test: correct (n = 79)" in done.output


def test_other_conditions_promise_nothing(tmp_path: Path) -> None:
    def change(provenance: dict[str, Any]) -> None:
        provenance["seed"] = 77
        provenance["reports"]["stop_sign/test"]["auc"] = 0.5
        del provenance["reports"]["background/test"]

    done = CliRunner().invoke(diff, [str(SHIPPED), str(altered(tmp_path / "other", change)), "--json"])
    assert done.exit_code == 0, done.output
    comparison = json.loads(done.output)
    assert comparison["differing"] == ["seed"]
    assert comparison["holds"] is True
    figures = {f["name"]: f for f in comparison["figures"]}
    assert figures["stop_sign/test: auc (n = 79)"]["after"] == 0.5
    assert figures["background/test: alarms (n = 144)"]["after"] is None


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="expected a model folder"):
        folders.diff(SHIPPED, tmp_path)
