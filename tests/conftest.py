"""What all tests share: the shipped model, a web server, the table of faults, how many examples hypothesis draws."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.doubles.http_peer import Peer
from tests.doubles.repetitions import examples

REPO = Path(__file__).parents[1]

# A busy machine is no failure; how long something may take is a matter of `bittern bench`.
settings.register_profile("bittern", deadline=None, max_examples=examples(100))
settings.load_profile("bittern")

# A shell ignores Ctrl-C for what it starts in the background, and so would every child process of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The files that take longest begin first, so that no worker is left with one of them at the end.
FIRST = ("test_journey.py", "tests/e2e/", "tests/faults/", "test_bench.py", "cli/test_replay.py", "cli/test_watch.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((i for i, name in enumerate(FIRST) if name in item.nodeid), len(FIRST)))


@pytest.fixture(scope="module", autouse=True)
def decoder_ended() -> Iterator[None]:
    """The process that decodes pictures, if there was a use for it, ends with the file of tests that started it."""
    yield
    decoder = sys.modules.get("bittern.model.decoder")
    if decoder is not None:
        decoder._decoder.close()


@pytest.fixture(scope="module", autouse=True)
def working_directory_kept() -> Iterator[None]:
    """Processes that tests start find `tests` in the working directory: no file of tests leaves it changed."""
    before = Path.cwd()
    yield
    assert Path.cwd() == before


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


@pytest.fixture
def record() -> Callable[..., None]:
    """Adds a line to the table of `make test-faults`: fault, what was done, how many times, the figure, the mark."""

    def add(fault: int, what: str, n: int, figure: str, mark: str) -> None:
        table = os.environ.get("BITTERN_FAULTS_TABLE")
        if table:
            with Path(table).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"fault": fault, "what": what, "n": n, "figure": figure, "mark": mark}) + "\n")

    return add
