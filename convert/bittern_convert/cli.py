"""`bittern convert`, `compare` and `results`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import print_json, tensorflow_command

if TYPE_CHECKING:
    from bittern_convert.compare import FolderComparison


@tensorflow_command
@click.command(
    epilog="Example: bittern convert runs/stop_sign --out models/stop_sign",
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Model folder to make.  [default: models/TASK]")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the pictures, if it was moved since training.")
@click.option("--name", help="Name of the model.  [default: that of its folder]")
@click.option("--version", default="1", show_default=True, help="Version of the model.")
@click.option("--force", is_flag=True, help="Replace an existing model folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome of the parity check as JSON.")
def convert(
    run: Path, out: Path | None, data: Path | None, name: str | None, version: str, force: bool, as_json: bool
) -> None:
    """Turn a finished run into an int8 model folder.

    The parity check compares float and int8 on at least a thousand pictures; a model that loses too much is not
    packaged (exit code 1).
    """
    from bittern_convert.quiet import quiet
    from bittern_convert.run import load
    from bittern_convert.screen import bar

    task = load(run).task.name
    with quiet(run / "convert.log") as console, bar(console) as progress:
        from bittern_convert import package

        target = out or Path("models") / task
        manifest, outcome = package.convert(
            run, target, data=data, name=name or target.name, version=version, replace=force, progress=progress
        )
    if as_json:
        print_json({"model": str(target), **{f: getattr(outcome, f) for f in outcome.__struct_fields__}})
        return
    kinds = ", ".join(f"{n} {kind}" for kind, n in outcome.kinds.items())
    low, high = outcome.agreement_ci95
    click.echo(f"{target}: {manifest.size / 1e6:.2f} MB, sha256 {manifest.sha256[:12]}")
    click.echo(
        f"parity check passed: same answer on {outcome.same} of {outcome.n} ({outcome.agreement:.2%}, "
        f"95 % {low:.2%} to {high:.2%}): {kinds}"
    )
    click.echo(
        f"  paired accuracy loss {100 * outcome.loss:+.2f} points "
        f"(95 % {100 * outcome.loss_ci95[0]:+.2f} to {100 * outcome.loss_ci95[1]:+.2f}); "
        f"float {outcome.float_accuracy:.2%}, int8 {outcome.int8_accuracy:.2%}"
    )
    for split, figures in manifest.provenance["reports"].items():
        low, high = figures["accuracy_ci95"]
        click.echo(
            f"  {split}: {figures['correct']} of {figures['n']} correct (95 % {low:.1%} to {high:.1%}), "
            f"{figures['alarms']} alarms"
        )
    click.echo(f"next: bittern classify PICTURE --model {target}")


@click.command(
    short_help="Compare the figures of two model folders.",
    epilog="Example: bittern compare models/stop_sign build/reproduce/models/stop_sign",
)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def compare(ctx: click.Context, before: Path, after: Path, as_json: bool) -> None:
    """Compare the figures that the manifests of two model folders state.

    Exit code 1 if seed, data, start weights, recipe and versions (including the processor) are the same but a figure is
    not.
    """
    from bittern_convert import compare as comparing

    comparison = comparing.compare(before, after)
    if as_json:
        print_json({f: getattr(comparison, f) for f in comparison.__struct_fields__} | {"holds": comparison.holds})
    else:
        _show_comparison(comparison)
    if not comparison.holds:
        ctx.exit(1)


def _show_comparison(comparison: FolderComparison) -> None:
    differing = ", ".join(comparison.differing)
    conditions = f"differ in {differing}" if differing else "same seed, data, weights, recipe, versions"
    file = "the same bytes" if comparison.same_file else "other bytes"
    click.echo(f"{comparison.before} and {comparison.after}: {conditions}; model files: {file}")
    width = max((len(f.name) for f in comparison.figures), default=0)
    for f in comparison.figures:
        before, after = ("-" if x is None else f"{x:.4g}" for x in (f.before, f.after))
        change = "" if f.before is None or f.after is None else f"{f.after - f.before:+.4g}"
        click.echo(f"  {f.name:<{width}}  {before:>8}  {after:>8}  {change if change not in ('+0', '-0') else '='}")


@click.command(
    short_help="Write the figures of models and studies as one page.",
    epilog="Example: bittern results models/* --results docs/results --out docs/results.md",
)
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--results", "folder", required=True, type=click.Path(path_type=Path), help="Folder of result files.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Page to write (Markdown).")
def results(models: tuple[Path, ...], folder: Path, out: Path) -> None:
    """Write the figures of model folders and of result files as one Markdown page."""
    from bittern.system import fileio
    from bittern_convert import results as page

    fileio.write(out, page.render(models, folder).encode())
    click.echo(out)
