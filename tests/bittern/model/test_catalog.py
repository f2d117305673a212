"""Models are found by name or path, and a wrong name lists what there is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bittern.errors import ConfigurationError
from bittern.model import catalog


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`first` and `second` on $BITTERN_MODELS, `models` in the working folder."""
    for name in ("first/alpha", "second/alpha", "second/beta", "work/models/beta", "work/models/gamma"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "first/no_model").mkdir()
    (tmp_path / "first/bare.tflite").write_bytes(b"")
    monkeypatch.setenv("BITTERN_MODELS", f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}{os.pathsep}/absent")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_the_first_folder_that_has_it_wins(folders: Path) -> None:
    assert catalog.find("alpha") == folders / "first/alpha"
    assert catalog.find("beta") == folders / "second/beta"
    assert catalog.find("gamma").resolve() == folders / "work/models/gamma"
    assert {"alpha", "beta", "gamma"} <= set(catalog.available())
    assert "no_model" not in catalog.available()


def test_paths(folders: Path) -> None:
    assert catalog.find(folders / "second/alpha") == folders / "second/alpha"
    assert catalog.find("../first/bare.tflite") == Path("../first/bare.tflite")
    assert catalog.find("models/gamma") == Path("models/gamma")
    assert catalog.find(folders / "first/no_model") == folders / "first/no_model", "why it is none is said later"


def test_a_name_wins_over_a_folder_that_is_no_model(folders: Path) -> None:
    Path("alpha").mkdir()
    assert catalog.find("alpha") == folders / "first/alpha"
    assert catalog.find("./alpha") == Path("alpha")


def test_two_models_of_one_name(folders: Path) -> None:
    """What lies in the current folder neither wins nor loses silently, unless it is the same model."""
    for other in ("models/beta", "alpha"):
        Path(other).mkdir(exist_ok=True)
        (Path(other) / "manifest.json").write_text('{"another": 1}')
    assert catalog.find("beta") == folders / "second/beta", "asked for by the variable"
    with pytest.raises(ConfigurationError, match=r"^\./alpha is another model than 'alpha' in .*first: write the path"):
        catalog.find("alpha")
    assert catalog.find("./alpha") == Path("alpha")
    (Path("alpha") / "manifest.json").write_text("{}")
    assert catalog.find("alpha") == folders / "first/alpha"


def test_what_is_not_there(folders: Path) -> None:
    for wrong, says in (
        ("alhpa", "unknown model 'alhpa': expected alpha, .*; did you mean 'alpha'"),
        ("zzzzz", "unknown model 'zzzzz': expected alpha, "),
        ("absent.tflite", "no model at absent.tflite: expected a model folder or a .tflite file"),
        ("absent/folder", "no model at absent/"),
        ("x" * 300, "unknown model|too long"),
    ):
        with pytest.raises(ConfigurationError, match=says) as caught:
            catalog.find(wrong)
        assert "\n" not in str(caught.value)


def test_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITTERN_MODELS", raising=False)
    path = catalog.search_path()
    assert path[0].is_absolute()
    assert path[-1] == Path("models"), "what lies in the current folder comes last"
    assert Path() not in path
