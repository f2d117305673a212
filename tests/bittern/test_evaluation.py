"""Figures against known values and plain counting."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.drawn_pictures import folders
from tests.tflite_files import model_folder_of_means

from bittern import Classifier, dataset, evaluation, pictures
from bittern.dataset import Item
from bittern.errors import ConfigurationError
from bittern.evaluation import auc, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # The mirror of the third.
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_against_a_published_table(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0) == (0, 1)


@given(st.integers(1, 10_000), st.data())
def test_wilson_holds_the_share_and_mirrors(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low))
    # The ends solve |p - k/n| = z * sqrt(p (1 - p) / n).
    for p in (low, high):
        if 0 < p < 1:
            assert abs(p - k / n) == pytest.approx(evaluation.Z95 * math.sqrt(p * (1 - p) / n), rel=1e-6, abs=1e-12)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]), st.booleans()), max_size=40))
def test_auc_counts_pairs(scored: list[tuple[float, bool]]) -> None:
    high = [s for s, positive in scored if positive]
    low = [s for s, positive in scored if not positive]
    found = auc([s for s, _ in scored], [p for _, p in scored])
    if not high or not low:
        assert found is None
    else:
        wins = sum((h > x) + (h == x) / 2 for h in high for x in low)
        assert found == pytest.approx(wins / (len(high) * len(low)))


def test_auc_of_extremes() -> None:
    assert auc([0.9, 0.8, 0.1], [True, True, False]) == 1
    assert auc([0.1, 0.2, 0.9], [True, True, False]) == 0
    assert auc([0.5] * 7, [True] * 3 + [False] * 4) == 0.5


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    return dataset.read(folders(tmp_path_factory.mktemp("drawn"), 6))


def test_a_report_counts_what_the_classifier_answered(model_folder: Path, drawn: list[Item], tmp_path: Path) -> None:
    classifier = Classifier(model_folder)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    items = [*drawn, drawn[0]._replace(path=broken)]
    seen: list[int] = []
    answers, skipped = evaluation.answer(classifier, items, None, seen.append)
    assert seen == list(range(1, 14))
    assert [line.split(": ")[0] for line in skipped] == [str(broken)]
    head = classifier.heads[0]
    report = evaluation.report(classifier, head, "test", answers[0], skipped)

    told = [(item.label, classifier.classify(pictures.decode(item.path))[0]) for item in drawn]
    right = sum(label == result.label for label, result in told)
    assert (report.n, report.correct, report.accuracy) == (12, right, right / 12)
    assert report.accuracy_ci95 == wilson(right, 12)
    for truth in head.labels:
        for said in head.labels:
            assert report.confusion[truth][said] == sum(a == truth and r.label == said for a, r in told)
    alarms = sum(result.alarm for _, result in told)
    assert (report.alarms, report.alarm_rate, report.alarm_rate_ci95) == (alarms, alarms / 12, wilson(alarms, 12))
    alarm = head.alarm[0]
    assert report.auc == auc([r.scores[alarm] for _, r in told], [label == alarm for label, _ in told])
    assert (report.model, report.task, report.split) == (classifier.name, head.task, "test")
    assert report.skipped == skipped


def test_true_labels(model_folder: Path, drawn: list[Item]) -> None:
    head = Classifier(model_folder).heads[0]
    unlabelled = [drawn[0]._replace(label=None)]
    assert evaluation.true_labels(head, unlabelled, None) == [head.nothing[0]]
    assert evaluation.true_labels(head, unlabelled, head.alarm[0]) == [head.alarm[0]]
    assert evaluation.true_labels(head, drawn, "ignored") == [item.label for item in drawn]
    for item, label in ((drawn[0]._replace(label="cat"), None), (unlabelled[0], "cat")):
        with pytest.raises(ConfigurationError, match="label 'cat' is not one of the model's: "):
            evaluation.true_labels(head, [item], label)


def test_a_head_without_a_word_for_nothing_asks_for_labels(tmp_path: Path, drawn: list[Item]) -> None:
    head = Classifier(model_folder_of_means(tmp_path / "m")).heads[0]
    with pytest.raises(ConfigurationError, match="has no label; say which with --label"):
        evaluation.true_labels(head, [drawn[0]._replace(label=None)], None)


def test_a_report_on_nothing(tmp_path: Path) -> None:
    classifier = Classifier(model_folder_of_means(tmp_path / "m"))
    report = evaluation.report(classifier, classifier.heads[0], "test", [], ["one line"])
    assert report.n == 0
    assert np.isnan(report.accuracy)
    assert report.accuracy_ci95 == (0, 1)
    assert report.auc is None
