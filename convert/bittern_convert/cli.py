"""`bittern convert`."""

from __future__ import annotations

from pathlib import Path

import click

from bittern.cli.common import host_command, print_json


@host_command
@click.command(
    epilog="Example: bittern convert runs/stop_sign --out models/stop_sign",
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Model folder to make.  [default: models/TASK]")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the pictures, if it moved since training.")
@click.option("--name", help="Name of the model.  [default: that of its folder]")
@click.option("--version", default="1", show_default=True, help="Version of the model.")
@click.option("--force", is_flag=True, help="Replace a model folder that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the gate's outcome as JSON.")
def convert(
    run: Path, out: Path | None, data: Path | None, name: str | None, version: str, force: bool, as_json: bool
) -> None:
    """Turn a finished run into an int8 model folder.

    Float and int8 are compared on a thousand pictures or more; a model that lost too much is not packaged (exit 1).
    """
    from bittern_convert.quiet import quiet
    from bittern_convert.run import load
    from bittern_convert.screen import bar

    task = load(run).task["name"]
    with quiet(run / "convert.log") as console, bar(console) as progress:
        from bittern_convert import package

        target = out or Path("models") / task
        said, outcome = package.convert(
            run, target, data=data, name=name or target.name, version=version, replace=force, progress=progress
        )
    if as_json:
        print_json({"model": str(target), **{f: getattr(outcome, f) for f in outcome.__struct_fields__}})
        return
    kinds = ", ".join(f"{n} {kind}" for kind, n in outcome.kinds.items())
    low, high = outcome.agreement_ci95
    click.echo(f"{target}: {said.size / 1e6:.2f} MB, sha256 {said.sha256[:12]}")
    click.echo(
        f"gate passed: same answer on {outcome.same} of {outcome.n} ({outcome.agreement:.2%}, "
        f"95 % {low:.2%} to {high:.2%}): {kinds}"
    )
    click.echo(
        f"  paired accuracy loss {100 * outcome.loss:+.2f} points "
        f"(95 % {100 * outcome.loss_ci95[0]:+.2f} to {100 * outcome.loss_ci95[1]:+.2f}); "
        f"float {outcome.float_accuracy:.2%}, int8 {outcome.int8_accuracy:.2%}"
    )
    for split, figures in said.provenance["reports"].items():
        low, high = figures["accuracy_ci95"]
        click.echo(
            f"  {split}: {figures['correct']} of {figures['n']} right (95 % {low:.1%} to {high:.1%}), "
            f"{figures['alarms']} alarms"
        )
