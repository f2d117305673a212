"""The rows of the bench for the data tools; no time is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.doubles.browser import needs_chromium
from tests.doubles.progress import Reports

from bittern.bench import processes, rows, suite
from bittern.errors import BitternError
from bittern_train.data import bench, measure, near_duplicates


def test_the_bench_of_the_device_knows_the_rows_without_naming_their_module() -> None:
    assert suite.host_rows() == dict(bench.ROWS)
    assert not suite.ROWS.keys() & bench.ROWS.keys()


def test_the_pictures_are_distinct_and_of_both_labels(tmp_path: Path) -> None:
    files = bench.write_pictures(tmp_path, 60)
    assert [len(list(folder.iterdir())) for folder in sorted(tmp_path.iterdir())] == [30, 30]
    measured = [measure.measure(file) for file in files]
    assert near_duplicates.find([one.likeness for one in measured], Reports()) == []
    assert {(one.width, one.height) for one in measured} == {(640, 480)}


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(BitternError, match=r"data check ended with exit code 2: .*no data at"):
        bench._run([*processes.bittern(), "data", "check", "/nowhere/at/all"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["import", "check", "dedupe", "dedupe_memory", pytest.param("label_key", marks=needs_chromium)]
)
def test_a_row_is_measured(model_folder: Path, name: str) -> None:
    with rows.open_subject(str(model_folder)) as subject:
        row = bench.ROWS[name](subject, 2)
    assert row.name == name
    assert row.ratio > 0
    assert row.n == {"import": 3, "check": 3, "label_key": 2}.get(name, 1)
