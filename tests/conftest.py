"""What all tests share: the shipped model, and hypothesis without a time limit for one example."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import settings

REPO = Path(__file__).parents[1]

# A busy machine is no failure; what may take how long is asserted where it matters.
settings.register_profile("bittern", deadline=None)
settings.load_profile("bittern")


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The shipped model folder; never written to."""
    return REPO / "models" / "stop_sign"


@pytest.fixture
def model_copy(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the shipped model folder, to be spoilt."""
    return Path(shutil.copytree(model_folder, tmp_path / "model_copy"))
