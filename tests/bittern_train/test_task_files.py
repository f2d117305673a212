"""Task files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.errors import ConfigurationError
from bittern_train import task_files


def test_every_shipped_task_loads_under_its_own_name() -> None:
    names = [f.stem for f in task_files.folder().glob("*.toml")]
    assert "stop_sign" in names
    for name in names:
        assert task_files.load(name).name == name


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'stop_sign'"):
        task_files.load("stop_sing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('labels = ["a", "b"]\ncolour = 1', "colour"),
        ('labels = ["a"]', "labels"),
        ('labels = ["a", "b"]\nalarm = ["c"]', "'c'"),
        ('labels = ["a", "b"]\nalarm = ["b", "a"]', "every label raises an alarm"),
        ('labels = ["a", "b"]\n[recipe]\nfolds = 0', "recipe.folds"),
        ('labels = ["a", "b"]\n[recipe]\nrate = []', "recipe.rate"),
        ('labels = ["a", "b"]\n[augment]\nmirrored = true', "mirrored"),
        ('labels = ["a", "b"]\nviews = []', "views"),
        ('labels = ["a", "b"]\nviews = ["left", "left"]', 'views: "left" is listed twice'),
        ('labels = ["a", "b"]\nviews = ["top"]', "views"),
        ('labels = ["a", "b"]\nviews = ["center", "moving"]', 'views: "moving" is of streams only'),
        ('labels = ["a", "b"]\nregion = [0, 0, 640]', "region"),
        ('labels = ["a", "b"]\nregion = [0, -1, 640, 480]', "region"),
        ('labels = ["a", "b"]\nregion = [0, 0, 0, 480]', "region"),
        ("labels = [", "line"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_key(tmp_path: Path, change: str, message: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f'name = "mine"\nquestion = "which?"\n{change}\n')
    with pytest.raises(ConfigurationError) as caught:
        task_files.load(str(file))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_make_a_task_without_alarms() -> None:
    made = task_files.from_folders(["cat", "dog"], "pets")
    assert (made.labels, made.alarm) == (("cat", "dog"), ())
    for labels in ([], ["cat"]):
        with pytest.raises(ConfigurationError, match="two labels"):
            task_files.from_folders(labels, "pets")
    with pytest.raises(ConfigurationError, match="every label raises an alarm: at least one"):
        task_files.from_folders(["fire", "smoke"], "burning", ("fire", "smoke"))
