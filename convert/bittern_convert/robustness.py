"""Correct answers and alarms of an int8 model on corrupted pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from bittern.errors import PictureError
from bittern.evaluation import evaluate
from bittern.evaluation.dataset import Item
from bittern.frames import Pixels
from bittern.model import pictures, preprocess
from bittern.model.classifier import Classifier
from bittern.model.views import deciding_view
from bittern_convert.corruption import CORRUPTIONS, SIZE, Corruption, corrupt
from bittern_convert.task import FieldOfView

# Pictures of a split, at most: each is corrupted in 28 ways.
MOST = 1000


class Count(msgspec.Struct, frozen=True):
    """One corruption: the number of pictures answered correctly, and the number that raise an alarm."""

    kind: str
    strength: str
    correct: int
    alarms: int


class Robustness(msgspec.Struct, frozen=True):
    """Counts of a set of pictures under every corruption.

    Attributes:
        n: number of pictures.
        mean_accuracy: mean over all corruptions; None without pictures.
        mean_alarm_rate: the same for alarms at the threshold "default".
        counts: one per corruption.
    """

    n: int
    mean_accuracy: float | None
    mean_alarm_rate: float | None
    counts: list[Count]


def measure(
    classifier: Classifier,
    items: Sequence[Item],
    field: FieldOfView,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Robustness:
    """Corrupt every picture in every way, and count the answers of the first head.

    Args:
        classifier: the int8 model.
        items: labelled pictures; those that cannot be read are left out.
        field: what is looked at of each; of several views each is corrupted, and the one that decides gives the answer.
        seed: of what is random in the corruptions.
        progress: called with the number of pictures done.
    """
    head = classifier.heads[0]
    labels = evaluate.true_labels(head, items, None)
    correct = dict.fromkeys(CORRUPTIONS, 0)
    alarms = dict.fromkeys(CORRUPTIONS, 0)
    n = 0
    for i, corrupted in enumerate(_corrupted(items, field, seed)):
        for corruption, views in corrupted.items():
            results = [classifier.classify(view, "RGB")[0] for view in views]
            result = results[deciding_view(head, results)]
            correct[corruption] += result.label == labels[i]
            alarms[corruption] += result.alarm
        n += bool(corrupted)
        progress(i + 1)
    total = n * len(CORRUPTIONS)
    return Robustness(
        n=n,
        mean_accuracy=sum(correct.values()) / total if n else None,
        mean_alarm_rate=sum(alarms.values()) / total if n else None,
        counts=[
            Count(corruption.kind, corruption.strength, correct[corruption], alarms[corruption])
            for corruption in CORRUPTIONS
        ],
    )


def _corrupted(items: Sequence[Item], field: FieldOfView, seed: int) -> Iterator[dict[Corruption, list[Pixels]]]:
    def one(i: int) -> dict[Corruption, list[Pixels]]:
        try:
            frame = pictures.cut(pictures.decode(items[i].path), items[i].path, field.region)
        except PictureError:
            return {}  # the report on the unaltered pictures lists it
        views = preprocess.views_of(frame, None, field.views)
        plain = [preprocess.preprocess(frame, size=SIZE, view=view)[0] for view in views]
        return {corruption: [corrupt(p, corruption, seed + i) for p in plain] for corruption in CORRUPTIONS}

    with ThreadPoolExecutor() as threads:
        # A few at a time: all corrupted pictures of a set are gigabytes.
        for start in range(0, len(items), 16):
            yield from threads.map(one, range(start, min(start + 16, len(items))))
