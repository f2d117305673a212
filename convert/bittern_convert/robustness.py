"""How often an int8 model is right, and how often it raises an alarm, on pictures that a camera has harmed."""

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
from bittern_convert.corruption import CORRUPTIONS, Corruption, corrupt
from bittern_convert.task import FieldOfView


class Count(msgspec.Struct, frozen=True):
    """One kind of harm: how many pictures were answered rightly, and how many raised an alarm."""

    kind: str
    strength: str
    correct: int
    alarms: int


class Robustness(msgspec.Struct, frozen=True):
    """Counts of a set of pictures under every corruption.

    Attributes:
        n: pictures.
        mean_accuracy: over all corruptions, every one counting alike; None without pictures.
        mean_alarm_rate: the same of alarms at the threshold "default".
        counts: one a corruption.
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
    """Harm every picture in every way, and count the answers of the first head.

    Args:
        classifier: the int8 model.
        items: labelled pictures; what cannot be read is left out.
        field: what is looked at of each; of several views each is harmed, and the one that decides gives the answer.
        seed: of the corruptions' randomness.
        progress: called with the number of pictures done.
    """
    head = classifier.heads[0]
    labels = evaluate.true_labels(head, items, None)
    correct = dict.fromkeys(CORRUPTIONS, 0)
    alarms = dict.fromkeys(CORRUPTIONS, 0)
    n = 0
    for at, harmed in enumerate(_harmed(items, field, seed)):
        for how, views in harmed.items():
            results = [classifier.classify(view, "RGB")[0] for view in views]
            result = results[deciding_view(head, results)]
            correct[how] += result.label == labels[at]
            alarms[how] += result.alarm
        n += bool(harmed)
        progress(at + 1)
    of = n * len(CORRUPTIONS)
    return Robustness(
        n=n,
        mean_accuracy=sum(correct.values()) / of if n else None,
        mean_alarm_rate=sum(alarms.values()) / of if n else None,
        counts=[Count(how.kind, how.strength, correct[how], alarms[how]) for how in CORRUPTIONS],
    )


def _harmed(items: Sequence[Item], field: FieldOfView, seed: int) -> Iterator[dict[Corruption, list[Pixels]]]:
    def one(at: int) -> dict[Corruption, list[Pixels]]:
        try:
            frame = pictures.cut(pictures.decode(items[at].path), items[at].path, field.region)
        except PictureError:
            return {}  # the report on the pictures as they are lists it
        views = preprocess.views_of(frame, None, field.views)
        plain = [preprocess.preprocess(frame, view=view)[0] for view in views]
        return {how: [corrupt(p, how, seed + at) for p in plain] for how in CORRUPTIONS}

    with ThreadPoolExecutor() as threads:
        # A few at a time: all harmed pictures of a set at once are gigabytes.
        for start in range(0, len(items), 16):
            yield from threads.map(one, range(start, min(start + 16, len(items))))
