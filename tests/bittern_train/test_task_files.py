"""Task files."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.test_startup import imported

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset
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


def test_the_quick_way_takes_less_of_everything_and_says_so() -> None:
    long = task_files.from_folders(["cat", "dog"], "pets", ("cat",))
    quick = task_files.quick(long)
    for key in ("folds", "epochs", "patience", "stream_s"):
        assert 0 < getattr(quick.recipe, key) < getattr(long.recipe, key)
    assert set(quick.rates) < set(long.rates)
    assert quick.augment.copies < long.augment.copies
    assert (quick.recipe.quick, long.recipe.quick) == (True, False)
    keys = ("rate", "folds", "epochs", "patience", "stream_s", "quick")
    same = msgspec.structs.replace(quick.recipe, **{key: getattr(long.recipe, key) for key in keys})
    assert msgspec.structs.replace(quick, recipe=same, augment=long.augment) == long
    assert task_files.effort(quick, long) == (
        "the quick way, for fewer than 500 pictures: 1 learning rate, 3 folds of at most 8 epochs, 6 copies of a "
        "picture, streams of 2 s; --thorough takes 2 learning rates, 4 folds of at most 12 epochs, 8 copies of a "
        "picture, streams of 4 s"
    )
    assert task_files.effort(long, long).startswith("the thorough way: 2 learning rates, 4 folds of ")
    plain = task_files.from_folders(["cat", "dog"], "pets")
    assert task_files.effort(plain, plain).endswith("copies of a picture"), "without an alarm there are no streams"


def test_a_training_that_cannot_be_is_refused_without_tensorflow(tmp_path: Path) -> None:
    """It takes seconds to load, on a small machine half a minute."""
    for label in ("blue", "red"):
        (tmp_path / label).mkdir()
        for i in range(4):
            (tmp_path / label / f"{i}.png").touch()
    (tmp_path / "folders.toml").write_text(
        'name = "d"\nquestion = "?"\nlabels = ["blue", "red"]\n[[data]]\npath = ""\n'
    )
    here = ("--data", str(tmp_path), "--out", str(tmp_path / "out"))
    commands = [
        ("train", "folders", *here, "--backbone", "lenett"),
        ("train", "folders", *here, "--backbone", "lenet", "--size", "20"),
        ("train", "folders", *here, "--backbone", "lenet", "--mode", "head"),
        ("train", "folders", *here, "--backbone", "resnet18"),
        ("train", "folders", *here, "--weights", "absent.h5"),
        ("compare", str(tmp_path / "folders.toml"), *here, "--backbones", "lenet,vgg_stile"),
        ("compare", str(tmp_path / "folders.toml"), *here, "--backbones", "lenet,resnet18"),
        ("retrain", str(tmp_path / "absent"), "--add", str(tmp_path), "--out", str(tmp_path / "out")),
        ("study", "soup", str(tmp_path / "folders.toml"), *here, "--weights", "absent.h5"),
    ]
    for label in ("blue", "red"):
        (tmp_path / "few" / label).mkdir(parents=True)
        (tmp_path / "few" / label / "0.png").touch()
    few = ("--data", str(tmp_path / "few"), "--out", str(tmp_path / "out"))
    commands += [
        ("train", "folders", *few, "--weights", "none"),
        ("study", "growth", str(tmp_path / "absent"), "--out", str(tmp_path / "out")),
    ]
    for words, names in zip(commands, imported(*commands), strict=True):
        assert "bittern_train" in names, words
        assert not names & {"tensorflow", "keras"}, words
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["blue", "few", "folders.toml", "red"], "nothing is written"


def test_a_label_with_fewer_pictures_than_folds_is_refused() -> None:
    task = task_files.quick(task_files.from_folders(["blue", "red"], "discs"))
    items = [dataset.Item(Path(f"{i}.png"), f"{i}.png", "red" if i else "blue", "", "", {}) for i in range(4)]
    with pytest.raises(ConfigurationError, match="label 'blue' has 1 picture, at least 3 are needed for 3 folds: add"):
        task_files.check_counts(task, items)
    task_files.check_counts(task, [item._replace(label=label) for item in items for label in task.labels])
