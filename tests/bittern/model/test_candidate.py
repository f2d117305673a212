"""A candidate is taken if it proves itself in a child, and refused in one line otherwise; what runs stays as it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.camera_process import children
from tests.doubles.model_files import altered, flat
from tests.doubles.tflite_files import model_folder_of_means

from bittern import Classifier
from bittern.errors import ConfigurationError, ModelRefused
from bittern.model import candidate
from bittern.model.candidate import check_candidate, is_older

RED = flat((0, 0, 255))


@pytest.fixture
def old(tmp_path: Path) -> Classifier:
    return Classifier(model_folder_of_means(tmp_path / "old"))


def taken(folder: Path, old: Classifier) -> Classifier:
    return check_candidate(str(folder), [old], threads=1, max_slowdown=3.0, timeout_s=60.0)


def refused(folder: Path, old: Classifier, *says: str, max_slowdown: float = 3.0, timeout_s: float = 60.0) -> str:
    before = old.classify(RED)
    with pytest.raises(ModelRefused) as caught:
        check_candidate(str(folder), [old], threads=1, max_slowdown=max_slowdown, timeout_s=timeout_s)
    message = str(caught.value)
    assert "\n" not in message
    for words in (str(folder), *says):
        assert words in message
    assert old.classify(RED) == before
    return message


def test_a_newer_version_is_taken(tmp_path: Path, old: Classifier) -> None:
    new = taken(model_folder_of_means(tmp_path / "new", version="7.1"), old)
    assert (new.name, new.version) == ("means", "7.1")
    assert new.classify(RED)[0].label == "red"


def test_the_same_one_again_and_one_of_another_name_are_taken(tmp_path: Path, old: Classifier) -> None:
    assert taken(tmp_path / "old", old).version == "7"
    other = model_folder_of_means(tmp_path / "other", name="other", version="1", size=256)
    assert taken(other, old).name == "other"


def test_an_older_version_is_refused(tmp_path: Path, old: Classifier) -> None:
    refused(model_folder_of_means(tmp_path / "new", version="6.9"), old, "version 6.9 is older than the running 7")


def test_another_model_of_the_same_version_is_refused(tmp_path: Path, old: Classifier) -> None:
    folder = model_folder_of_means(tmp_path / "new", on=0.6)
    refused(folder, old, "has the same version 7: a changed model needs a higher version")


def test_a_version_that_cannot_be_compared_is_refused(tmp_path: Path, old: Classifier) -> None:
    folder = model_folder_of_means(tmp_path / "new", version="spring")
    refused(folder, old, "version 'spring' cannot be compared with the running '7'")


def test_labels_that_do_not_fit_the_manifest_are_refused(tmp_path: Path, old: Classifier) -> None:
    folder = model_folder_of_means(tmp_path / "new", version="8")
    (folder / "labels.txt").write_text("red\ngreen\nblue\nred\ngrass\nsea\n")
    refused(folder, old, "labels.txt: has other labels than the manifest")
    (folder / "labels.txt").write_text("red\ngreen\nblue\nred\ngrass\nsky\n")
    assert taken(folder, old).version == "8"


def test_no_such_model(tmp_path: Path, old: Classifier) -> None:
    with pytest.raises(ConfigurationError, match="unknown model 'meens'"):
        check_candidate("meens", [old], threads=1, max_slowdown=3.0, timeout_s=60.0)


def test_a_check_that_takes_too_long_is_ended(tmp_path: Path, old: Classifier) -> None:
    folder = model_folder_of_means(tmp_path / "new", version="8")
    refused(folder, old, "its check took longer than 0.05 s (reload.timeout_s)", timeout_s=0.05)
    assert children() == set()


def test_a_folder_that_changes_between_check_and_use_is_refused(
    tmp_path: Path, old: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder_of_means(tmp_path / "new", version="8")
    ask = candidate._ask_child

    def and_then_it_is_copied_over(*arguments: object) -> object:
        verdict = ask(*arguments)  # type: ignore[arg-type]
        altered(folder, lambda fields: fields.update(version="9"))
        return verdict

    monkeypatch.setattr(candidate, "_ask_child", and_then_it_is_copied_over)
    refused(folder, old, "changed during its check")


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The names of the files that this process opens."""
    names: list[str] = []
    on = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if on and event == "open":
            names.append(str(arguments[0]))

    sys.addaudithook(hook)  # it cannot be taken off
    yield names
    on = False


def test_a_pipe_is_refused_and_nothing_of_a_refused_candidate_is_opened_here(
    tmp_path: Path, old: Classifier, opened: list[str]
) -> None:
    folder = model_folder_of_means(tmp_path / "new", version="8")
    (folder / "manifest.json").rename(tmp_path / "manifest.json")
    os.mkfifo(folder / "manifest.json")
    opened.clear()
    refused(folder, old, "manifest.json: expected a regular file, got a pipe")
    assert not [file for file in opened if file.startswith(str(folder))]
    (tmp_path / "manifest.json").replace(folder / "manifest.json")
    assert taken(folder, old).version == "8", "and then it works"


def test_a_child_imports_nothing_from_the_working_folder(
    tmp_path: Path, old: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    folder = model_folder_of_means(tmp_path / "new", version="8")
    assert taken(folder, old).version == "8"


VERSIONS = ["1.0a1", "1.0a2", "1.0b1", "1rc1", "1.0", "1.0.1", "1.2", "1.10", "2", "10"]


@pytest.mark.parametrize("position", range(1, len(VERSIONS)))
def test_versions_in_order(position: int) -> None:
    for lower in VERSIONS[:position]:
        assert is_older(lower, VERSIONS[position])
        assert is_older(VERSIONS[position], lower) is False


def test_versions_that_are_equal_or_none() -> None:
    assert is_older("1", "1.0.0") is False
    assert is_older("1.0.0", "1") is False
    assert is_older("v2", "2") is False
    for strange in ("", "spring", "1.", ".1", "1..2", "1-2", "-1", "\N{ARABIC-INDIC DIGIT ONE}", "1" * 5000):
        assert is_older(strange, "1") is None
        assert is_older("1", strange) is None


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_two_texts_can_be_asked_for(one: str, other: str) -> None:
    if is_older(one, other):
        assert is_older(other, one) is False
