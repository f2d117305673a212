"""The cards of the shipped models are what their manifests and tasks give: no figure in them was typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.model import manifest
from bittern_convert import card
from bittern_train import task_files

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("name", sorted(file.parent.name for file in MODELS.glob("*/manifest.json")))
def test_the_card_is_made_from_manifest_and_task(name: str) -> None:
    text = (MODELS / name / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.render(manifest.read(MODELS / name), task_files.load(name)) == text
