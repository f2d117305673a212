"""Opens the models that a configuration names: model folders, and bare .tflite files with what it states about them."""

from __future__ import annotations

from collections.abc import Sequence

from bittern.config.schema import ModelConfig, WatchConfig
from bittern.errors import ModelRefused
from bittern.model.bare import Bare, Unstated
from bittern.model.classifier import Classifier
from bittern.stated import read_size


def stated(model: ModelConfig) -> Bare:
    """What the configuration states about a bare file."""
    return Bare(
        labels=model.labels,
        pixels=model.pixels,
        scores_by=model.scores_by,
        score_of=model.score_of,
        size=read_size(str(model.size)) if model.size is not None else None,
        alarm=model.alarm,
        nothing=model.nothing,
        threshold=model.threshold,
    )


def open_models(config: WatchConfig, *, by_options: bool = False) -> list[Classifier]:
    """Open the models of a configuration, each of which can raise an alarm.

    Args:
        config: the whole configuration.
        by_options: it was made from the options of a command, so that what is missing is one of these.

    Raises:
        ConfigurationError: no such model.
        ModelRefused: a model is refused, or something that it does not say has to be stated.
    """
    return [open_model(model, config.threads, by_options=by_options) for model in config.all_models]


def open_model(model: ModelConfig, threads: int, *, by_options: bool = False) -> Classifier:
    """Open one of them; see `open_models`."""
    try:
        classifier = Classifier(model.path, bare=stated(model), threads=threads)
        check_alarm(classifier)
    except Unstated as error:
        raise error if by_options else ModelRefused(error.in_configuration()) from None
    return classifier


def check_alarm(classifier: Classifier) -> None:
    """Refuse a bare file without a label that raises an alarm.

    Raises:
        Unstated: see above.
    """
    labels: Sequence[str] = classifier.heads[0].labels
    if classifier.manifest is None and not classifier.heads[0].alarm:
        problem = f"{classifier.name}: has no label that raises an alarm: state which does"
        raise Unstated(problem, "alarm", tuple(labels[:2]))
