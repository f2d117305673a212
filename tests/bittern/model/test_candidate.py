"""A candidate is taken if it proves itself in a child, and refused in one line otherwise; what runs stays as it is."""

from __future__ import annotations

import gc
import os
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.model_files import altered, flat
from tests.doubles.tflite_files import model_folder_of_means
from tests.doubles.waiting import until, within

from bittern import Classifier
from bittern.errors import ConfigurationError, ModelRefused
from bittern.model import candidate
from bittern.model.candidate import Reload, check_candidate, is_older

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
    refused(folder, old, "calls itself version 7 too: a changed model needs a higher version")


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
    refused(folder, old, "the check took longer than 0.05 s (reload.timeout_s)", timeout_s=0.05)
    assert children() == []


def test_a_folder_that_changes_between_check_and_use_is_refused(
    tmp_path: Path, old: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder_of_means(tmp_path / "new", version="8")
    ask = candidate._ask_child

    def and_then_it_is_copied_over(*arguments: object) -> object:
        verdict = ask(*arguments)  # type: ignore[arg-type]
        altered(folder, lambda said: said.update(version="9"))
        return verdict

    monkeypatch.setattr(candidate, "_ask_child", and_then_it_is_copied_over)
    refused(folder, old, "was changed while it was checked")


def test_a_child_imports_nothing_from_the_working_folder(
    tmp_path: Path, old: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    folder = model_folder_of_means(tmp_path / "new", version="8")
    assert taken(folder, old).version == "8"


VERSIONS = ["1.0a1", "1.0a2", "1.0b1", "1rc1", "1.0", "1.0.1", "1.2", "1.10", "2", "10"]


@pytest.mark.parametrize("at", range(1, len(VERSIONS)))
def test_versions_in_order(at: int) -> None:
    for lower in VERSIONS[:at]:
        assert is_older(lower, VERSIONS[at])
        assert is_older(VERSIONS[at], lower) is False


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


# --- in the background -----------------------------------------------------------------------------------------------


def children() -> list[int]:
    """Processes that check a candidate of this one."""
    found = []
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


@pytest.fixture
def reload() -> Iterator[Reload]:
    made = Reload(threads=1, max_slowdown=3.0, timeout_s=60.0)
    yield made
    made.close()
    assert "reload" not in [thread.name for thread in threading.enumerate()]


def outcome(reload: Reload, within_s: float = 60.0) -> list[Classifier] | str:
    end = time.monotonic() + within_s
    while (found := reload.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert reload.poll() is None
    assert not reload.busy
    return found


def test_reload_gives_all_models_or_a_reason(tmp_path: Path, old: Classifier, reload: Reload) -> None:
    assert reload.poll() is None
    models = [str(model_folder_of_means(tmp_path / "b", version="8")), str(model_folder_of_means(tmp_path / "c"))]
    assert reload.start(models, [old])
    assert "reload" in [thread.name for thread in threading.enumerate()], "it goes on in a thread"
    assert reload.busy
    assert not reload.start(models, [old]), "one at a time"
    models_now = outcome(reload)
    assert isinstance(models_now, list)
    assert [c.version for c in models_now] == ["8", "7"]
    altered(tmp_path / "c", lambda said: said.update(sha256="0" * 64))
    assert reload.start(models, models_now)
    reason = outcome(reload)
    assert isinstance(reason, str)
    assert "sha256 is" in reason
    assert reload.start([models[0]], models_now)
    assert isinstance(outcome(reload), list)


def test_close_ends_a_check_that_runs(tmp_path: Path, old: Classifier, reload: Reload) -> None:
    reload.start([str(model_folder_of_means(tmp_path / "new", version="8"))] * 1000, [old])
    until(children)
    with within():
        reload.close()
    assert children() == []


def test_many_reloads_leave_nothing_behind(tmp_path: Path, old: Classifier, reload: Reload) -> None:
    folder = str(model_folder_of_means(tmp_path / "new", version="8"))
    descriptors = []
    for _ in range(4):
        reload.start([folder], [old])
        assert isinstance(outcome(reload), list)
        gc.collect()
        descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
    assert descriptors[1:] == descriptors[:-1]
    assert children() == []


def test_without_file_descriptors_it_is_refused(tmp_path: Path, old: Classifier, reload: Reload) -> None:
    folder = str(model_folder_of_means(tmp_path / "new", version="8"))
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), allowed[1]))  # noqa: PTH208
    try:
        reload.start([folder], [old])
        reason = outcome(reload)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    assert isinstance(reason, str)
    assert "Too many open files" in reason
    assert "internal error" not in reason
    reload.start([folder], [old])
    assert isinstance(outcome(reload), list)
