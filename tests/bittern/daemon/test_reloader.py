"""The reloader: all models that the file names, or a reason, while the loop goes on; nothing is left behind."""

from __future__ import annotations

import gc
import os
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.camera_process import children, descriptors
from tests.doubles.model_files import altered
from tests.doubles.tflite_files import model_folder_of_means
from tests.doubles.waiting import until, within

from bittern import Classifier
from bittern.config.schema import WatchConfig
from bittern.daemon.reloader import Exchange, Reloader
from bittern.decision.pipeline import Pipeline


class Models:
    """A configuration file that names models, a reloader that owns it, and the pipeline that runs them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "watch.toml"
        self.pipeline = Pipeline([Classifier(self.made("old"))], WatchConfig())
        self.reloader = Reloader(WatchConfig(), self._file)

    def made(self, name: str, version: str = "7") -> Path:
        return model_folder_of_means(self._folder / name, name=name, version=version)

    def start(self, *models: Path) -> None:
        self._file.write_text(f"models = {[str(model) for model in models]}\n")
        self.reloader.start(self.pipeline.classifiers)

    def finish(self, within_s: float = 60.0) -> Exchange:
        end = time.monotonic() + within_s
        while (exchange := self.reloader.finish(self.pipeline)) is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert self.reloader.finish(self.pipeline) is None
        assert not self.reloader.busy
        return exchange

    def versions(self) -> list[str]:
        return [f"{c.name} {c.version}" for c in self.pipeline.classifiers]


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Models]:
    made = Models(tmp_path)
    yield made
    made.reloader.close()
    assert "reload" not in [thread.name for thread in threading.enumerate()]


def test_all_models_are_exchanged_or_none(models: Models) -> None:
    assert models.reloader.finish(models.pipeline) is None
    newer = altered(models.made("newer"), lambda manifest: manifest.update(name="old", version="8"))
    other = models.made("other")
    models.start(newer, other)
    assert models.reloader.busy
    assert models.reloader.finish(models.pipeline) is None, "the check runs beside the loop"
    exchange = models.finish()
    assert exchange.done
    assert exchange.state == ("models_loaded", "old 8 on xnnpack, other 7 on xnnpack")
    assert models.versions() == ["old 8", "other 7"]
    altered(other, lambda manifest: manifest.update(sha256="0" * 64))
    models.start(newer, other)
    exchange = models.finish()
    assert not exchange.done
    assert exchange.state.name == "models_refused"
    assert "the old ones stay in use: " in exchange.state.detail
    assert "sha256 is" in exchange.state.detail
    assert models.versions() == ["old 8", "other 7"]
    models.start(newer)
    assert models.finish().done
    assert models.versions() == ["old 8"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models = [", "watch.toml:1"),
        ('models = ["olt"]', "unknown model 'olt'"),
        ("modls = []", "did you mean 'models'"),
    ],
)
def test_a_file_that_is_wrong_changes_nothing(models: Models, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "watch.toml").write_text(text)
    models.reloader.start(models.pipeline.classifiers)
    exchange = models.finish()
    assert not exchange.done
    assert says in exchange.state.detail
    assert "\n" not in exchange.state.detail
    assert models.versions() == ["old 7"]


def test_close_ends_a_check_that_runs(models: Models) -> None:
    models.start(*[models.made("new", version="8")] * 100)
    until(children)
    with within():
        models.reloader.close()
    assert children() == set()


def test_many_reloads_leave_nothing_behind(models: Models) -> None:
    folder = models.made("new", version="8")
    models.start(folder)
    assert models.finish().done
    gc.collect()
    before = descriptors()
    for _ in range(4):
        models.start(folder)
        assert models.finish().done
    gc.collect()
    # What tests before this one left behind may open and close a descriptor at any time.
    until(lambda: descriptors() <= before)
    assert children() == set()


def test_without_file_descriptors_it_is_refused(models: Models) -> None:
    folder = models.made("new", version="8")
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)

    # Without a file to read, so that the check is the first that needs a descriptor.
    models.reloader = Reloader(WatchConfig(models=(str(folder),)))
    # The lowest one that is free: other tests may have left higher ones open.
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, allowed[1]))
    try:
        models.reloader.start(models.pipeline.classifiers)
        exchange = models.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    assert not exchange.done
    assert "Too many open files" in exchange.state.detail
    assert "internal error" not in exchange.state.detail
    models.reloader.start(models.pipeline.classifiers)
    assert models.finish().done
