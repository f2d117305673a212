"""Reports and comparisons against plain counting, and what is done how often to a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.doubles.drawn_pictures import folders
from tests.doubles.tflite_files import COLOURS, channel_means, model_folder_of_means, with_files

from bittern import Classifier
from bittern.errors import ConfigurationError
from bittern.evaluation import dataset, evaluate, metrics
from bittern.evaluation.dataset import Item
from bittern.evaluation.evaluate import Answered
from bittern.evaluation.metrics import auc, wilson
from bittern.model import pictures, preprocess
from bittern.model.classifier import Result
from bittern.model.manifest import Head


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    return dataset.read(folders(tmp_path_factory.mktemp("drawn"), 6))


def test_a_report_counts_what_the_classifier_answered(model_folder: Path, drawn: list[Item], tmp_path: Path) -> None:
    classifier = Classifier(model_folder)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    items = [*drawn, drawn[0]._replace(path=broken)]
    progress: list[int] = []
    answers, skipped = evaluate.answer(classifier, items, None, progress.append)
    assert progress == list(range(1, 14))
    assert [line.split(": ")[0] for line in skipped] == [str(broken)]
    head = classifier.heads[0]
    report = evaluate.report(classifier, head, "test", answers[0], skipped)

    results = [(item.label, classifier.classify(pictures.decode(item.path))[0]) for item in drawn]
    correct = sum(label == result.label for label, result in results)
    assert (report.n, report.correct, report.accuracy) == (12, correct, correct / 12)
    assert report.accuracy_ci95 == wilson(correct, 12)
    for truth in head.labels:
        for predicted in head.labels:
            assert report.confusion[truth][predicted] == sum(a == truth and r.label == predicted for a, r in results)
    alarms = sum(result.alarm for _, result in results)
    assert (report.alarms, report.alarm_rate, report.alarm_rate_ci95) == (alarms, alarms / 12, wilson(alarms, 12))
    alarm = head.alarm[0]
    assert report.auc == auc([r.scores[alarm] for _, r in results], [label == alarm for label, _ in results])
    assert (report.model, report.task, report.split) == (classifier.name, head.task, "test")
    assert report.skipped == skipped


def test_true_labels(model_folder: Path, drawn: list[Item]) -> None:
    head = Classifier(model_folder).heads[0]
    unlabelled = [drawn[0]._replace(label=None)]
    assert evaluate.true_labels(head, unlabelled, None) == [head.nothing[0]]
    assert evaluate.true_labels(head, unlabelled, head.alarm[0]) == [head.alarm[0]]
    assert evaluate.true_labels(head, drawn, "ignored") == [item.label for item in drawn]
    for item, label in ((drawn[0]._replace(label="cat"), None), (unlabelled[0], "cat")):
        with pytest.raises(ConfigurationError, match="label 'cat' is not one of the model's: "):
            evaluate.true_labels(head, [item], label)


def test_a_head_without_a_word_for_nothing_asks_for_labels(tmp_path: Path, drawn: list[Item]) -> None:
    head = Classifier(model_folder_of_means(tmp_path / "m")).heads[0]
    with pytest.raises(ConfigurationError, match="has no label: give one with --label"):
        evaluate.true_labels(head, [drawn[0]._replace(label=None)], None)


def test_a_report_on_nothing(tmp_path: Path) -> None:
    classifier = Classifier(model_folder_of_means(tmp_path / "m"))
    report = evaluate.report(classifier, classifier.heads[0], "test", [], ["one line"])
    assert report.n == 0
    assert np.isnan(report.accuracy)
    assert report.accuracy_ci95 == (0, 1)
    assert report.auc is None
    content = msgspec.json.decode(msgspec.json.encode(report))
    for key in ("accuracy", "alarm_rate", "auc_macro", "nll", "brier", "calibration_error", "missed_alarm_rate"):
        assert content[key] is None, key
    assert content["per_label"]["red"]["recall"] is None


# --- three labels, one of them "none", answers made up ---------------------------------------------------------------

LABELS = ("damaged", "whole", "none")
SCALE = 1 / 256


def three(tmp_path: Path, alarm: tuple[str, ...] = ("damaged",)) -> tuple[Classifier, Head]:
    classifier = Classifier(model_folder_of_means(tmp_path / "m"))
    head = msgspec.structs.replace(classifier.heads[0], labels=LABELS, alarm=alarm, nothing=("none",), scale=SCALE)
    return classifier, head


def answered(*rows: tuple[str, int, int, int], groups: str = "", threshold: float = 0.5) -> list[Answered]:
    """Rows of a true label and the raw scores, named a, b, c, ...; `groups` has a letter a row."""
    answers = []
    for i, (label, *raw) in enumerate(rows):
        scores = dict(zip(LABELS, (q * SCALE for q in raw), strict=True))
        best = max(scores, key=scores.__getitem__)
        item = Item(Path("x"), f"{i:03}.jpg", label, "test", groups[i : i + 1], {})
        answers.append(Answered(item, label, Result("m", best, scores[best], scores["damaged"] >= threshold, scores)))
    return answers


ROWS = answered(
    ("damaged", 250, 6, 0),
    ("damaged", 100, 156, 0),
    ("damaged", 120, 6, 130),
    ("whole", 10, 240, 6),
    ("whole", 140, 110, 6),
    ("whole", 0, 0, 255),
    ("whole", 0, 255, 0),
)


def test_an_answer_of_none_on_a_target_is_a_mistake_and_the_figures_are_counted(tmp_path: Path) -> None:
    classifier, head = three(tmp_path)
    report = evaluate.report(classifier, head, "test", ROWS, [])
    assert (report.n, report.groups, report.correct) == (7, 7, 3)
    assert report.confusion["damaged"] == {"damaged": 1, "whole": 1, "none": 1}
    assert report.confusion["whole"] == {"damaged": 1, "whole": 2, "none": 1}

    damaged, whole, none = (report.per_label[label] for label in LABELS)
    assert (damaged.n, damaged.correct, damaged.recall, damaged.recall_ci95) == (3, 1, 1 / 3, wilson(1, 3))
    assert (damaged.answered, damaged.precision, damaged.precision_ci95) == (2, 1 / 2, wilson(1, 2))
    assert (whole.n, whole.correct, whole.recall, whole.answered, whole.precision) == (4, 2, 1 / 2, 3, 2 / 3)
    # There is no picture of "none": no recall and no area, but answers that were all wrong.
    assert (none.n, none.recall, none.recall_ci95, none.auc_one_vs_rest) == (0, None, None, None)
    assert (none.answered, none.precision, none.precision_ci95) == (2, 0, wilson(0, 2))

    # Alarms at 0.5: the first damaged one, and falsely the fifth picture.
    assert (report.alarm_labels, report.alarms, report.alarm_n) == (["damaged"], 2, 3)
    assert (report.false_alarms, report.false_alarm_rate, report.false_alarm_rate_ci95) == (1, 1 / 4, wilson(1, 4))
    assert (report.missed_alarms, report.missed_alarm_rate) == (2, 2 / 3)
    assert report.missed_alarm_rate_ci95 == wilson(2, 3)
    assert report.threshold == head.thresholds["default"].on


def test_which_area_is_which(tmp_path: Path) -> None:
    classifier, head = three(tmp_path)
    report = evaluate.report(classifier, head, "test", ROWS, [])
    areas = {
        label: auc([a.result.scores[label] for a in ROWS], [a.label == label for a in ROWS])
        for label in ("damaged", "whole")
    }
    assert areas["damaged"] is not None
    assert areas["whole"] is not None
    assert areas["damaged"] != areas["whole"]
    for label, area in areas.items():
        assert report.per_label[label].auc_one_vs_rest == pytest.approx(area)
    assert report.auc == pytest.approx(areas["damaged"])
    assert report.auc_macro == pytest.approx((areas["damaged"] + areas["whole"]) / 2)
    # Two labels that raise an alarm: the higher of their scores, against the third.
    rows = [*ROWS, *answered(("none", 90, 10, 150), ("none", 3, 250, 3))]
    head = msgspec.structs.replace(head, alarm=("damaged", "none"))
    report = evaluate.report(classifier, head, "test", rows, [])
    highest = [max(a.result.scores["damaged"], a.result.scores["none"]) for a in rows]
    assert report.auc == pytest.approx(auc(highest, [a.label != "whole" for a in rows]))
    assert report.alarm_n == 5
    assert report.per_label["none"].auc_one_vs_rest is not None
    # Without such a label there is none.
    report = evaluate.report(classifier, msgspec.structs.replace(head, alarm=()), "test", rows, [])
    assert (report.auc, report.auc_ci95) == (None, None)
    assert report.auc_macro is not None


def test_means_of_the_scores_have_intervals_that_hold_them(tmp_path: Path) -> None:
    classifier, head = three(tmp_path)
    report = evaluate.report(classifier, head, "test", ROWS, [])
    of_truth = [a.result.scores[a.label] for a in ROWS]
    # Of the sixth picture the true label's score is 0: half a step.
    assert of_truth[5] == 0
    assert report.nll == pytest.approx(-sum(math.log(s or SCALE / 2) for s in of_truth) / 7)
    squares = [sum((s - (x == a.label)) ** 2 for x, s in a.result.scores.items()) for a in ROWS]
    assert report.brier == pytest.approx(sum(squares) / 7)
    assert report.calibration_error == metrics.calibration_error(
        np.array([a.result.score for a in ROWS]), np.array([a.correct for a in ROWS])
    )
    pairs = (
        (report.nll, report.nll_ci95),
        (report.brier, report.brier_ci95),
        (report.auc, report.auc_ci95),
        (report.auc_macro, report.auc_macro_ci95),
    )
    for value, interval in pairs:
        assert value is not None
        assert interval is not None
        assert interval[0] < value < interval[1]


def test_groups_of_the_index_are_drawn_whole(tmp_path: Path) -> None:
    classifier, head = three(tmp_path)
    rng = np.random.default_rng(4)
    once = [(str(label), *map(int, rng.multinomial(255, (0.4, 0.4, 0.2)))) for label in ["damaged", "whole"] * 12]
    letters = "abcdefghijklmnopqrstuvwx"
    alone = evaluate.report(classifier, head, "t", answered(*once, groups=letters), [])  # type: ignore[arg-type]
    rows = [row for row in once for _ in range(3)]
    letters = "".join(x * 3 for x in letters)
    grouped = evaluate.report(classifier, head, "t", answered(*rows, groups=letters), [])  # type: ignore[arg-type]
    single = evaluate.report(classifier, head, "t", answered(*rows), [])  # type: ignore[arg-type]
    assert (alone.groups, grouped.groups, single.groups) == (24, 24, 72)
    assert grouped.auc_ci95 == pytest.approx(alone.auc_ci95)
    assert single.auc_ci95 is not None
    assert grouped.auc_ci95 is not None
    assert single.auc_ci95[1] - single.auc_ci95[0] < 0.8 * (grouped.auc_ci95[1] - grouped.auc_ci95[0])


def test_the_most_confident_mistakes_come_first() -> None:
    mistakes = evaluate.mistakes(ROWS)
    assert [(a.item.name, a.result.label) for a in mistakes] == [
        ("005.jpg", "none"),
        ("001.jpg", "whole"),
        ("004.jpg", "damaged"),
        ("002.jpg", "none"),
    ]


# --- two models ------------------------------------------------------------------------------------------------------


def test_a_comparison_counts_pictures_that_only_one_model_answers_correctly(tmp_path: Path) -> None:
    classifier, head = three(tmp_path)
    right, wrong = (250, 6, 0), (6, 250, 0)
    first = answered(*(("damaged", *(right if i < 8 else wrong)) for i in range(10)))
    second = answered(*(("damaged", *(right if i in (0, 1, 2, 8) else wrong)) for i in range(10)))
    comparison = evaluate.compare(classifier, head, first, second)
    assert comparison.only_first_correct == [f"{i:03}.jpg" for i in range(3, 8)]
    assert comparison.only_other_correct == ["008.jpg"]
    assert (comparison.n, comparison.correct, comparison.accuracy, comparison.accuracy_ci95) == (
        10,
        4,
        0.4,
        wilson(4, 10),
    )
    assert comparison.difference == pytest.approx(0.4)
    assert comparison.difference_ci95 == metrics.paired_loss_interval(5, 1, 10)
    assert comparison.mcnemar_p == metrics.mcnemar(5, 1) == pytest.approx(14 / 64)
    assert (comparison.model, comparison.version, comparison.task) == (classifier.name, classifier.version, head.task)


def test_heads_are_paired_by_their_task(tmp_path: Path) -> None:
    two = Classifier(model_folder_of_means(tmp_path / "two"))
    swapped = Classifier(model_folder_of_means(tmp_path / "swapped", swap=True))
    (tmp_path / "one.tflite").write_bytes(with_files(channel_means(), labels_txt="\n".join(COLOURS).encode()))
    one = Classifier(tmp_path / "one.tflite")
    assert evaluate.pair_heads(two, two) == [0, 1]
    assert evaluate.pair_heads(two, swapped) == [1, 0]
    assert evaluate.pair_heads(one, one) == [0]
    with pytest.raises(ConfigurationError, match="means: has no head 'bare' to compare with; it has colour_1"):
        evaluate.pair_heads(one, swapped)


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[int]:
    """Lets the real function run, and counts."""
    real: Callable[..., Any] = getattr(owner, name)
    calls: list[int] = []

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)
    return calls


def test_two_models_share_one_decoding_and_one_resize_a_size(
    model_folder: Path, drawn: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.tflite").write_bytes(with_files(channel_means(), labels_txt=b"stop\nnot_stop\nother"))
    large, again, small = Classifier(model_folder), Classifier(model_folder), Classifier(tmp_path / "small.tflite")
    alone = [evaluate.answer(c, drawn, None)[0] for c in (large, again, small)]
    for classifiers, resizes in (([large], 1), ([large, again], 1), ([large, small, again], 2)):
        with monkeypatch.context() as patch:
            decoded = counted(patch, pictures, "decode")
            prepared = counted(patch, preprocess, "preprocess")
            answers, skipped = evaluate.answer_all(classifiers, drawn, None)
        assert not skipped
        assert (len(decoded), len(prepared)) == (len(drawn), resizes * len(drawn))
        assert answers == [alone[(large, again, small).index(c)] for c in classifiers]
    assert alone[0] != alone[2]
