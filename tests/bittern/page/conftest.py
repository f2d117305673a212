"""What tests of the page share: a server with two small models, pictures of a drawn street."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doubles.served import Site, served
from tests.doubles.tflite_files import model_folder_of_means

from bittern.scene import street


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures: `red.png` and `blue.png` plain, `street.jpg` with a stop sign, wider than high."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, bgr in (("red", (0, 0, 255)), ("blue", (255, 0, 0))):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((60, 80, 3), bgr, np.uint8))
    lap = street.Street(seed=1, size=(640, 480))
    cv2.imwrite(str(folder / "street.jpg"), np.ascontiguousarray(lap.render(9.4).pixels[:, :, ::-1]))
    return folder


@pytest.fixture(scope="session")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that answers red, green or blue."""
    return model_folder_of_means(tmp_path_factory.mktemp("models") / "means")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder: history and sets."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def site(data: Path, means: Path) -> Iterator[Site]:
    """`bittern serve` with the model of means and the shipped one for stop signs."""
    with served("--data", data, "--model", means, "--model", "stop_sign") as site:
        yield site
