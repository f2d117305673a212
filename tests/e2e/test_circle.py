"""The whole circle over a real ssh connection: a wrong alarm, its frames, their labels, a new network, the daemon.

A model that has never been shown an advertising board takes red ones for stop signs. The frames of its alarms are
fetched, four of them are labelled, the network is trained again and sent to the daemon, which raises no alarm at boards
any more.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import msgspec
import numpy as np
import pytest
from tests.doubles import roadside
from tests.doubles.served import served
from tests.doubles.waiting import until

from bittern import Classifier
from bittern.evaluation import dataset
from bittern.frames import Pixels

if TYPE_CHECKING:
    from tests.e2e.conftest import Pi

REPO = Path(__file__).parents[2]
HOST = REPO / ".venv-host/bin/bittern"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HOST.exists(), reason="no .venv-host (make test-slow makes it)"),
]

TASK = """
name = "signs"
question = "Is there a stop sign?"
labels = ["not_stop", "stop"]
alarm = ["stop"]
nothing = ["not_stop"]
limits = ["Drawn, and never shown an advertising board."]
[augment]
copies = 2
turn_degrees = 0
brightness = [0.9, 1.1]
contrast = [0.95, 1.05]
[recipe]
folds = 2
epochs = 24
batch = 4
patience = 24
rate = [1e-3]
stream_s = 0.0
[backbone]
name = "lenet"
size = 32
mode = "scratch"
"""
# The gate and the rule are out of the way: what is asked here is what the network answers.
CONFIG = """
source = "bench:{film}?fps=5"
models = ["signs"]
fps = 5
[gate]
enabled = false
[decision]
threshold = 0.5
off = 0.45
evidence = 0.0
cooldown_s = 0.0
min_off_s = 0.0
[keep]
[snapshots]
folder = "{snapshots}"
[reload]
max_slowdown = 100.0
"""
# Of the pictures; no two ranges overlap.
BOARDS, STOP, EMPTY = range(300, 304), 400, range(500, 505)
# Each is shown for a second.
SHOWN = 5


@lru_cache
def film() -> list[tuple[str, Pixels]]:
    """What the camera sees, again and again: four boards and a stop sign, with nothing in between."""
    signs = [*((f"board {i}", roadside.board(seed)) for i, seed in enumerate(BOARDS)), ("stop", roadside.stop(STOP))]
    return [view for seed, sign in zip(EMPTY, signs, strict=True) for view in (("", roadside.empty(seed)), sign)]


def shown_in(file: Path) -> str:
    """Which view of the film a picture of the daemon shows."""
    picture = np.asarray(cv2.imread(str(file)), np.int16)
    name, _ = min(film(), key=lambda view: float(np.abs(view[1][:, :, ::-1] - picture).mean()))
    return name


def host(*words: str | Path) -> str:
    """A command of the host side; returns what it prints."""
    line = [str(HOST), *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stop_scores(model: Path, draw: Callable[[int], Pixels], seeds: range) -> list[float]:
    classifier = Classifier(model)
    return [classifier.classify(draw(seed), order="RGB")[0].scores["stop"] for seed in seeds]


def events(pi: Pi) -> list[dict[str, Any]]:
    lines = [line for line in pi.journal("default").splitlines() if line.startswith("{")]
    return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]


def alarms_of(pi: Pi, after: str = "") -> list[tuple[int, str]]:
    """The frames with which alarms began after the event with an id, and what was to be seen in them."""
    begun = [event for event in events(pi) if event["type"] == "alarm.on" and event["id"] > after]
    return [(event["frame"], shown_in(pi.root / "snapshots" / event["snapshot"])) for event in begun]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and with its model in models/signs."""
    folder = tmp_path_factory.mktemp("circle")
    roadside.write(folder / "set/stop", roadside.stop, range(16))
    roadside.write(folder / "set/not_stop", roadside.other, range(100, 108))
    roadside.write(folder / "set/not_stop", roadside.empty, range(200, 208))
    (folder / "signs.toml").write_text(TASK)
    host("train", folder / "signs.toml", "--data", folder / "set", "--weights", "none", "--out", folder / "runs/signs")
    host("convert", folder / "runs/signs", "--out", folder / "models/signs")
    return folder


@pytest.fixture(scope="module")
def watching(pi: Pi, wheel: Path, first: Path) -> Pi:
    """A device whose camera sees the film, with the first model."""
    file = pi.root / "film.npy"
    np.save(file, np.repeat(np.stack([picture for _, picture in film()]), SHOWN, axis=0))
    file.chmod(0o644)
    config = first / "default.toml"
    config.write_text(CONFIG.format(film=file, snapshots=pi.root / "snapshots"))
    done = pi.deploy("--wheel", wheel, "--models", first / "models", "--config", config)
    assert done.returncode == 0, done.stderr + done.stdout
    return pi


def test_a_board_that_was_taken_for_a_stop_sign_is_not_any_more(watching: Pi, first: Path, tmp_path: Path) -> None:
    model, kept = first / "models/signs", tmp_path / "kept"
    assert min(stop_scores(model, roadside.board, BOARDS)) > 0.6
    assert min(stop_scores(model, roadside.stop, range(STOP, STOP + 4))) > 0.6
    assert max(stop_scores(model, roadside.empty, range(EMPTY[0], EMPTY[-1] + 1))) < 0.4

    # It raises alarms at boards, whose frames are kept; these are fetched.
    expected = {f"board {i}" for i in range(4)}
    until(lambda: expected <= {view for _, view in alarms_of(watching)}, 180)

    def pulled() -> dict[str, dataset.Item]:
        done = watching.script("pull.sh", kept)
        assert done.returncode in (0, 2), done.stderr
        if not (kept / "index.csv").exists():
            return {}
        return {shown_in(item.path): item for item in dataset.read(kept)}

    until(lambda: expected <= pulled().keys(), 180)
    boards = [item.name for view, item in pulled().items() if view in expected]
    assert len(boards) == 4

    # Four of them are labelled, as the page of `bittern data label` does; the others keep none.
    with served(
        kept, "--label", "not_stop", "--label", "stop", "--data", tmp_path / "page", command="data label"
    ) as site:
        names = site.ask("/api/labels").json["names"]
        body = {"state": "labelled", "label": "not_stop", "tab": "circle", "since": 0}
        decided = [[names.index(name), 0] for name in boards]  # number in the order of the page, and revision
        reply = site.ask("/api/labels/decide", json.dumps(body | {"seen": decided}).encode())
        assert reply.json["conflicts"] == []
    assert sorted(item.name for item in dataset.read(kept) if item.label) == sorted(boards)

    # A new network, which is not worse on the first one's test pictures.
    run = first / "runs/signs-2"
    verdict = json.loads(
        host("retrain", first / "runs/signs", "--add", kept, "--out", run, "--weights", "none", "--json")
    )
    assert verdict["keep"]
    better = first / "better/signs"
    host("convert", run, "--out", better, "--version", "2")
    assert max(stop_scores(better, roadside.board, BOARDS)) < 0.4
    assert min(stop_scores(better, roadside.stop, range(STOP, STOP + 4))) > 0.6

    # The daemon loads it while it runs.
    pid = watching.pid("default")
    done = watching.script("deploy_model.sh", better)
    assert done.returncode == 0, done.stderr
    assert "signs 2 runs in bittern@default.service" in done.stdout
    assert watching.pid("default") == pid
    loaded = [event["id"] for event in events(watching) if event.get("state") == "models_loaded"][-1]

    # Until it has seen the whole film: two stop signs with all of the boards between them.
    rounds = SHOWN * len(film())
    until(lambda: any(b - a <= rounds + SHOWN for (a, _), (b, _) in pairwise(alarms_of(watching, loaded))), 180)
    assert {view for _, view in alarms_of(watching, loaded)} == {"stop"}
