"""What all tests share: the shipped model, a web server, and hypothesis without a time limit for one example."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.doubles.http_peer import Peer

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


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A web server that takes every event."""
    with Peer() as peer:
        yield peer
