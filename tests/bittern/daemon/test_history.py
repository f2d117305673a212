"""Which models ran when: a line for each start, exchange and refusal; bounded, and never in the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from tests.doubles.model_files import altered
from tests.doubles.tflite_files import model_folder_of_means
from tests.doubles.waiting import until

from bittern import Classifier
from bittern.cli.main import main
from bittern.config.schema import WatchConfig, load
from bittern.daemon import history, run
from bittern.daemon.history import Entry, ModelHistory
from bittern.system.stop import Stop


def newer(fields: dict[str, Any]) -> None:
    fields["version"] = "8"
    fields["provenance"]["reports"] = {"yard/test": {"n": 40, "correct": 39, "auc": 0.99, "confusion": [[1]]}}


def older(fields: dict[str, Any]) -> None:
    fields["version"] = "2"


def watch(folder: Path, change: Any) -> list[Entry]:
    """Run a daemon whose model changes while it runs; what its history says then."""
    frames = folder / "frames.npy"
    np.save(frames, np.random.default_rng(1).integers(0, 256, (2, 48, 64, 3), np.uint8))
    model = folder / "means"
    if not model.exists():
        model_folder_of_means(model)
    file = folder / "door.toml"
    file.write_text(f'source = "bench:{frames}?fps=20"\nname = "door"\nmodels = ["{model}"]\n')
    stop = Stop()
    events: list[dict[str, Any]] = []

    def take(line: bytes) -> None:
        events.append(json.loads(line))
        if events[-1].get("state") in ("models_loaded", "models_refused"):
            stop.asked = True

    classifiers = [Classifier(model)]
    altered(model, change)
    stop.reload = True
    with run.opened(load(file), classifiers, take, stop, file=file, config_file=file) as daemon:
        for _ in daemon.steps():
            pass
    return history.read(folder / "door" / history.FILE)


def test_starts_exchanges_and_refusals_are_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "door"))
    entries = watch(tmp_path, newer)
    assert [(e.state, e.source, e.models[0].version) for e in entries] == [
        ("started", "door", "7"),
        ("models_loaded", "door", "8"),
    ]
    assert entries[1].models[0].figures == {"yard/test": {"n": 40, "correct": 39, "auc": 0.99}}
    entries = watch(tmp_path, older)
    assert [(e.state, e.models[0].version) for e in entries[2:]] == [("started", "8"), ("models_refused", "8")]
    assert "older" in entries[3].reason

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "none"))
    shown = CliRunner().invoke(main, ["models", "--history"])
    assert shown.exit_code == 0, shown.output
    assert "door  models loaded  means 8 [yard/test 39 of 40]" in shown.stdout
    assert CliRunner().invoke(main, ["models", "means", "--history"]).exit_code == 2, "it is of all models"
    lines = CliRunner().invoke(main, ["models", "--history", "--json"]).stdout.splitlines()
    assert [json.loads(line)["state"] for line in lines] == [entry.state for entry in entries]
    assert (
        json.loads(lines[0])["models"][0]["sha256"]
        == json.loads((tmp_path / "means/manifest.json").read_text())["sha256"]
    )


def test_without_a_configuration_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures/1.png"), np.zeros((48, 64, 3), np.uint8))
    model = model_folder_of_means(tmp_path / "means")
    config = WatchConfig(source=str(tmp_path / "pictures"), models=(str(model),))
    with run.opened(config, [Classifier(model)], lambda _: None, Stop()) as daemon:
        assert len(list(daemon.steps())) == 1
    assert not (tmp_path / "state").exists()


def test_it_is_bounded_and_bears_lines_of_others(tmp_path: Path) -> None:
    file = tmp_path / history.FILE
    file.write_bytes(b"nonsense\n{}\n" + b"x" * 300_000 + b"\n")
    past = ModelHistory(tmp_path, "door")
    past.note("started", [])
    past.close(20)
    assert [entry.state for entry in history.read(file)] == ["started"]
    entry = file.read_bytes().splitlines()[-1]
    file.write_bytes(b"".join(entry + b"\n" for _ in range(5000)))
    past.note("models_loaded", [])
    past.close(20)
    entries = history.read(file)
    assert len(entries) == 500
    assert entries[-1].state == "models_loaded"


def test_a_state_folder_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    past = ModelHistory(tmp_path / "file", "door")
    past.note("started", [])
    until(lambda: "which models ran is not written down" in caplog.text)
