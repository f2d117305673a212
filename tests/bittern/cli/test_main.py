"""The list of commands, and those of other packages: which of them run without TensorFlow."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from tests.doubles.command import bittern, one_line

from bittern.cli import main
from bittern.cli.main import COMMANDS
from bittern.errors import BitternError

REPO = Path(__file__).parents[3]
TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
WITHOUT = ("data", "diff", "report", "results", "study")
WITH = ("compare", "convert", "retrain", "train")


def test_help_lists_what_can_run_and_says_how_to_get_the_others() -> None:
    out = bittern("--help").out
    listed = set(re.findall(r"^  ([a-z]+) ", out.partition("Commands:")[2].partition("More")[0], re.M))
    assert listed == {*COMMANDS, *WITHOUT, *(WITH if TENSORFLOW else ())}
    assert "..." not in out.partition("Commands:")[2], "no summary is cut"
    assert (
        "More commands (compare, convert, retrain, train) need TensorFlow: pip install" in " ".join(out.split())
    ) is not TENSORFLOW


@pytest.mark.skipif(TENSORFLOW, reason="TensorFlow is installed")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["stop_sign", "--data", "set", "--out", "run"]),
        ("convert", ["run"]),
        ("study none", ["car_damage", "--data", "set", "--out", "run"]),
    ],
)
def test_a_command_that_needs_tensorflow_is_one_line_without_it(tmp_path: Path, command: str, words: list[str]) -> None:
    done = bittern(*command.split(), *words, cwd=tmp_path)
    one_line(done, 2, f"{command} needs TensorFlow: pip install 'bittern[train]'")
    assert list(tmp_path.iterdir()) == []


def test_of_the_studies_those_that_can_run_are_listed() -> None:
    listed = set(re.findall(r"^  ([a-z]+) ", bittern("study", "--help").out.partition("Commands:")[2], re.M))
    assert listed == {"decision", *(["growth", "memory", "none", "soup", "twins"] if TENSORFLOW else [])}
    one_line(bittern("study", "twin"), 2, "No such command 'twin'")


def test_diff_needs_no_tensorflow() -> None:
    done = bittern("diff", "models/stop_sign", "models/face_mask", "--json", cwd=REPO)
    assert (done.code, done.err) == (0, "")
    assert done.lines[0]["same_file"] is False
    assert done.lines[0]["differing"]


def test_results_need_no_tensorflow(tmp_path: Path) -> None:
    models = sorted(path.parent for path in (REPO / "models").glob("*/manifest.json"))
    done = bittern("results", *models, "--results", REPO / "docs/results", "--out", tmp_path / "results.md")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "results.md").read_bytes() == (REPO / "docs/results.md").read_bytes()


def test_a_host_command_that_cannot_be_loaded_says_so_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip noted is older than the code, as after a `git pull`."""
    stale = EntryPoint("stale", "bittern_convert.cli:no_such_command", main.HOST_GROUP)
    monkeypatch.setattr(main, "_host_commands", lambda: {"stale": stale})
    group = main.Commands("bittern")
    context = click.Context(group)
    text = group.get_help(context)
    assert "classify" in text
    assert re.search(r"stale +Cannot be loaded: install Bittern again\.", text)
    command = group.get_command(context, "stale")
    assert command is not None
    with pytest.raises(BitternError, match=r"stale cannot be loaded .*no_such_command.*: install Bittern again"):
        command.main(["a", "--option"], standalone_mode=False)
