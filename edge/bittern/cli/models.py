"""`bittern models`: lists the models that can be called by name, and verifies each of them on this machine."""

from __future__ import annotations

import click

from bittern.cli.common import as_utf8, print_json, warn
from bittern.errors import printable


@click.command(short_help="Verify the models and list them.", epilog="Example: bittern models --json")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per model, or per line of the history.")
@click.option("--history", is_flag=True, help="List which models ran when on this machine, with their test figures.")
@click.pass_context
def models(ctx: click.Context, as_json: bool, history: bool) -> None:
    """List the models, after opening each one and replaying its golden vectors on this machine.

    Models are searched in $BITTERN_MODELS, among those that ship with Bittern, and in ./models. "verified" are those
    that ship with Bittern, and those of a release that `make deploy` signed; any other one is "whole, not signed". Exit
    code 1 if a model is refused.

    With --history, list what daemons with a configuration file have started with, loaded and refused, oldest first.
    Exit code 1 if a history cannot be read.
    """
    if history:
        if not _history(as_json):
            ctx.exit(1)
        return
    from bittern.errors import ConfigurationError, ModelRefused
    from bittern.model import catalog, origin
    from bittern.model.classifier import Classifier

    folders = catalog.available()
    if not folders:
        raise ConfigurationError(f"no models in {', '.join(str(p) for p in catalog.search_path())}")
    refused = False
    for name, folder in folders.items():
        row: dict[str, object] = {"name": as_utf8(name), "folder": as_utf8(str(folder))}
        if (other := catalog.rival(name, folder)) is not None:
            warn(f"{other} is another model than the {name} listed here: use it by its path")
        try:
            classifier = Classifier(folder)
        except ModelRefused as error:
            refused = True
            row |= {"verified": False, "reason": str(error)}
        else:
            manifest = classifier.manifest
            assert manifest is not None
            where = origin.of_folder(folder)
            row |= {
                "verified": where != "unsigned",
                "origin": where,
                "version": manifest.version,
                "path": classifier.path,
                "bytes": manifest.size,
                "sha256": manifest.sha256,
                "tasks": {head.task: list(head.labels) for head in manifest.heads},
                "alarm": [label for head in manifest.heads for label in head.alarm],
            }
        if as_json:
            print_json(row)
        elif "reason" not in row:
            proof = "whole, not signed, runs on" if where == "unsigned" else f"{where}, verified on"
            tasks = "; ".join(f"{head.task}: {', '.join(head.labels)}" for head in classifier.heads)
            size = f"{manifest.size / 1e6:.2f} MB" if manifest else ""
            shown = f"{name}  {classifier.version}  {size}  {proof} {classifier.path}  {tasks}  {folder}"
            click.echo(printable(shown))
        else:
            click.echo(printable(f"{name}  REFUSED  {row['reason']}"))
    if refused:
        ctx.exit(1)


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
