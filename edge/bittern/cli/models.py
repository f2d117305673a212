"""`bittern models`: lists the models that can be called by name, and verifies each of them on this machine."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bittern.cli.bare_models import Statements, bare_options
from bittern.cli.common import as_utf8, print_json, warn
from bittern.errors import printable

# Labels of a model that its line names; --json has all.
_NAMED = 10


@click.command(short_help="Verify the models and list them.", epilog="Example: bittern models --json")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@bare_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object per model, or per line of the history.")
@click.option("--history", is_flag=True, help="List which models ran when on this machine, with their test figures.")
@click.pass_context
def models(ctx: click.Context, models: tuple[str, ...], stated: Statements, as_json: bool, history: bool) -> None:
    """List the models, or only each MODEL, after opening it and replaying its golden vectors on this machine.

    Every model states what it takes, and how its outputs become scores: they are scores (as-is), or softmax or sigmoid
    makes scores of them. MODEL may also be a bare .tflite file, which is not verified: then it is said where this comes
    from.

    Models are searched in $BITTERN_MODELS, among those that ship with Bittern, and in ./models. "verified" are those
    that ship with Bittern, and those of a release that `make deploy` signed; any other one is "whole, not signed". Exit
    code 1 if a model is refused.

    With --history, list what daemons with a configuration file have started with, loaded and refused, oldest first.
    Exit code 1 if a history cannot be read.
    """
    if history:
        if models:
            raise click.UsageError("--history lists what ran on this machine, of all models: leave MODEL out")
        if not _history(as_json):
            ctx.exit(1)
        return
    from bittern.errors import ConfigurationError, ModelRefused
    from bittern.model import answers, catalog
    from bittern.model.classifier import Classifier
    from bittern.model.scores import rule_of

    folders = {model: catalog.find(model) for model in models} if models else catalog.available()
    if not folders:
        raise ConfigurationError(f"no models in {', '.join(str(p) for p in catalog.search_path())}")
    files = [name for name, folder in folders.items() if folder.is_file()]
    refused = False
    for name, folder in folders.items():
        row: dict[str, object] = {"name": as_utf8(name), "folder": as_utf8(str(folder))}
        if not models and (other := catalog.rival(name, folder)) is not None:
            warn(f"{other} is another model than the {name} listed here: use it by its path")
        try:
            about = stated.of(files.index(name), len(files)) if name in files else None
            classifier = Classifier(folder, bare=about)
        except ModelRefused as error:
            refused = True
            row |= {"verified": False, "reason": str(error)}
        else:
            row |= answers.description(classifier, folder) | {"name": as_utf8(name)}
        if as_json:
            print_json(row)
        elif "reason" not in row:
            bare = classifier.manifest is None
            proof = f"{row['origin']}, verified on" if row["verified"] else "whole, not signed, runs on"
            proof = "not verified, runs on" if bare else proof
            tasks = "; ".join(f"{head.task}: {_some(head.labels)}" for head in classifier.heads)
            size = f"{len(classifier.data) / 1e6:.2f} MB"
            rules = "/".join(dict.fromkeys(map(rule_of, classifier.heads)))
            takes, scores = f"takes {row['input']}, pixels {row['pixels']}", f"scores {rules}"
            if bare:
                takes, scores = f"{takes} ({classifier.pixels_from})", f"{scores} ({classifier.scores_from})"
            shown = (
                f"{name}  {classifier.version}  {size}  {proof} {classifier.path}  {takes}  {scores}  {tasks}  {folder}"
            )
            click.echo(printable(shown))
        else:
            click.echo(printable(f"{name}  REFUSED  {row['reason']}"))
    if refused:
        ctx.exit(1)


def _some(labels: Sequence[str]) -> str:
    more = len(labels) - _NAMED
    return ", ".join(labels[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _history(as_json: bool) -> bool:
    """Print the histories of all daemons, in order; whether all of them could be read."""
    import msgspec

    from bittern.daemon import history

    entries, whole = [], True
    files = history.files()
    for file in files:
        try:
            entries += history.read(file)
        except OSError as error:
            warn(f"{file}: {error.strerror}")
            whole = False
    if not files:
        warn("no history: a daemon with a configuration file writes one in its state folder (sudo may be needed)")
    for entry in sorted(entries, key=lambda entry: entry.time):
        if as_json:
            print_json(msgspec.to_builtins(entry))
            continue
        state = entry.state.replace("_", " ")
        shown = "; ".join(f"{model.name} {model.version} {_figures(model.figures)}".rstrip() for model in entry.models)
        reason = f"  ({entry.reason})" if entry.reason else ""
        click.echo(printable(f"{entry.time}  {entry.source}  {state}  {shown}{reason}"))
    return whole


def _figures(figures: dict[str, dict[str, float]]) -> str:
    """The test figures of a model: correct answers, split by split."""
    parts = [f"{split} {f['correct']:g} of {f['n']:g}" for split, f in figures.items() if {"n", "correct"} <= f.keys()]
    return f"[{', '.join(parts)}]" if parts else ""
