"""`bittern models`: lists the models that can be called by name, and verifies each of them on this machine."""

from __future__ import annotations

import click

from bittern.cli.common import as_utf8, print_json, warn
from bittern.errors import printable


@click.command(short_help="Verify the models and list them.", epilog="Example: bittern models --json")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per model.")
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models, after opening each one and replaying its golden vectors on this machine.

    Models are searched in $BITTERN_MODELS, among those that ship with Bittern, and in ./models. "verified" are those
    that ship with Bittern, and those of a release that `make deploy` signed; any other one is "whole, not signed". Exit
    code 1 if a model is refused.
    """
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
