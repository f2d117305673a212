"""Options for models: how they run, and what a bare .tflite file does not say and its owner states."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bittern.cli.common import F, warn
from bittern.stated import PIXELS, SCORE_RULES, read_size

if TYPE_CHECKING:
    from bittern.model.bare import Bare
    from bittern.model.classifier import Classifier
    from bittern.model.runtime import ExecutionPath


def _sizes(_ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    try:
        return tuple(map(read_size, values))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class Statements(NamedTuple):
    """What the options of a command state about its bare files: of each nothing, one for all files, or one for each."""

    labels: tuple[Path, ...] = ()
    pixels: tuple[str, ...] = ()
    scores_by: tuple[str, ...] = ()
    score_of: tuple[str, ...] = ()
    size: tuple[tuple[int, int], ...] = ()
    alarm: tuple[str, ...] = ()

    def of(self, number: int, bare_files: int) -> Bare:
        """What is stated about one of the bare files.

        Raises:
            click.UsageError: an option is given neither once nor as often as there are such files.
        """
        from bittern.model.bare import Bare

        fields: dict[str, Any] = {}
        for key, values in self._asdict().items():
            if key == "alarm":
                fields[key] = values
            elif len(values) > 1 and len(values) != bare_files:
                raise click.UsageError(
                    f"--{key.replace('_', '-')} is given {len(values)} times for {bare_files} bare .tflite files: give "
                    "it once, or once for each of them in their order"
                )
            elif values:
                value = values[number] if len(values) > 1 else values[0]
                fields[key] = str(value) if key == "labels" else value
        return Bare(**fields)


def bare_options(function: F) -> F:
    """--labels, --pixels, --scores-by, --score-of, --size and --alarm, which give one `Statements` named `stated`."""

    @functools.wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        stated = Statements(**{key: kwargs.pop(key) for key in Statements._fields})
        return function(*args, stated=stated, **kwargs)

    made: Any = gathered
    for option in (
        click.option(
            "--alarm",
            multiple=True,
            metavar="LABEL",
            help="Label of a bare .tflite that raises an alarm; may be repeated.",
        ),
        click.option(
            "--size",
            multiple=True,
            callback=_sizes,
            metavar="SIDE|WxH",
            help="Pixels of the input, for a bare .tflite that takes any.",
        ),
        click.option(
            "--score-of",
            multiple=True,
            metavar="LABEL",
            help="Which of two labels has the score that a bare .tflite gives.",
        ),
        click.option(
            "--scores-by",
            type=click.Choice(SCORE_RULES),
            multiple=True,
            help="How outputs of a bare .tflite become scores.  [default: as the file says]",
        ),
        click.option(
            "--pixels",
            type=click.Choice(PIXELS),
            multiple=True,
            help="What a bare .tflite takes for the bytes of a picture.  [default: as the file says]",
        ),
        click.option(
            "--labels",
            type=click.Path(path_type=Path),
            multiple=True,
            help="File with the labels, for a bare .tflite without: one a line, numbered or not, or CSV, or JSON. With "
            "several such files, this option and the others for them are given once, or once for each.",
        ),
    ):
        made = option(made)
    return made  # type: ignore[no-any-return]


def models_option(function: F) -> F:
    """--model, once or more often, which gives a tuple named `models`."""
    return click.option(
        "--model",
        "models",
        multiple=True,
        default=("stop_sign",),
        show_default=True,
        help="Name, folder or .tflite; may be given more than once.",
    )(function)


def model_options(function: F) -> F:
    """--path, --threads, and those of `bare_options`."""
    for option in (
        click.option(
            "--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads per inference."
        ),
        click.option(
            "--path",
            type=click.Choice(["xnnpack", "builtin"]),
            help="Execution path.  [default: xnnpack if available]",
        ),
    ):
        function = option(function)
    return bare_options(function)


def about(models: Sequence[str], stated: Statements) -> list[Bare | None]:
    """What is stated about each model of a command line; None for one with a manifest.

    Raises:
        click.UsageError: see `Statements.of`; or something is stated, but every model has a manifest.
        ConfigurationError: no such model.
    """
    from bittern.model import catalog

    bare = [catalog.find(model).is_file() for model in models]
    bare_files = sum(bare)
    if not bare_files and any(stated):
        option = next(key for key, values in stated._asdict().items() if values)
        raise click.UsageError(
            f"--{option.replace('_', '-')} is for a bare .tflite file: {', '.join(models)} has it in its manifest"
        )
    if bare_files > 1 and stated.alarm:
        raise click.UsageError("--alarm is for one bare .tflite file: with several, give each its [[model]] table")
    return [stated.of(sum(bare[:i]), bare_files) if bare[i] else None for i in range(len(models))]


def configured(models: Sequence[str], stated: Statements) -> list[dict[str, Any]]:
    """The models of a command line as the tables `[[model]]` of a configuration.

    Raises:
        click.UsageError, ConfigurationError: see `about`.
    """
    import msgspec

    tables = []
    for model, bare in zip(models, about(models, stated), strict=True):
        fields = msgspec.to_builtins(bare) if bare is not None else {}
        if bare is not None and bare.size is not None:
            fields["size"] = f"{bare.size[1]}x{bare.size[0]}"
        tables.append({"path": model} | fields)
    return tables


def open_models(
    models: Sequence[str], stated: Statements, path: ExecutionPath | None = None, threads: int = 1
) -> list[Classifier]:
    """Open the models of a command line; what is stated is for those that are bare files.

    Raises:
        click.UsageError, ConfigurationError: see `about`.
        ModelRefused: see `Classifier`.
    """
    from bittern.model.classifier import Classifier

    return [
        Classifier(model, bare=bare, path=path, threads=threads)
        for model, bare in zip(models, about(models, stated), strict=True)
    ]


def warn_unverified(classifiers: Sequence[Classifier]) -> None:
    """A line for each model that nothing vouches for."""
    for classifier in classifiers:
        if classifier.manifest is None:
            warn(f"{classifier.name}: no manifest: not verified")
