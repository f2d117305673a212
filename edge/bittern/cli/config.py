"""`bittern config`: an example of a configuration with every key explained, and a check of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import print_json, printable

if TYPE_CHECKING:
    from bittern.config.schema import WatchConfig
    from bittern.config.toml_file import Parsed, Problem
    from bittern.daemon.preflight import Instance


@click.command(epilog="Example: bittern config --example > gate.toml; bittern config --check gate.toml")
@click.option("--example", is_flag=True, help="Print a configuration with every key, its default and why to change it.")
@click.option("--check", is_flag=True, help="Check FILES, and whether what they name is there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file: file, ok, problems.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.pass_context
def config(ctx: click.Context, example: bool, check: bool, as_json: bool, files: tuple[Path, ...]) -> None:
    """Explain or check the configuration of `bittern watch`.

    --check says for each mistake: file, line, key, what was expected, what came. Nothing is started, and no camera is
    opened. Several files are checked against each other too: cameras must not share a name, an outbox, a port or a
    pin. Exit code 2 if there is a mistake; warnings are allowed.
    """
    if example == check:
        raise click.UsageError("say either --example or --check FILE...")
    if example:
        if files or as_json:
            raise click.UsageError("--example takes neither files nor --json")
        from bittern.config.example import example as text

        click.echo(text(), nl=False)
        return
    if not files:
        raise click.UsageError("--check needs a file")
    from bittern.config import toml_file
    from bittern.config.schema import WatchConfig
    from bittern.daemon import preflight

    problems: dict[Path, list[Problem]] = {}
    instances: list[Instance] = []
    for file in dict.fromkeys(files):
        parsed = toml_file.read(file, WatchConfig)
        problems[file] = parsed.problems
        # What is wrong in one place does not hide what is wrong in another one.
        settings = parsed.rest if parsed.value is None else parsed.value
        if settings is not None:
            name, found = _camera(parsed, settings)
            found += [
                parsed.problem(path, message, warning=warning)
                for path, message, warning in preflight.check(settings, name, parsed.wrong)
            ]
            problems[file] = parsed.problems + found
        if parsed.value is not None:
            instances.append(preflight.Instance(file, parsed, name))
    for one, problem in preflight.across(instances):
        problems[one.file].append(problem)
    wrong = False
    for file, found in problems.items():
        found.sort(key=lambda problem: problem.line or 0)
        ok = all(problem.warning for problem in found)
        wrong = wrong or not ok
        if as_json:
            print_json({"file": printable(str(file)), "ok": ok, "problems": found})
            continue
        for problem in found:
            click.echo(printable(f"{problem.text(file)}{' (warning)' if problem.warning else ''}"))
        if ok:
            click.echo(printable(f"{file}: ok"))
    if wrong:
        ctx.exit(2)


def _camera(parsed: Parsed[WatchConfig], config: WatchConfig) -> tuple[str, list[Problem]]:
    """What events will call the camera, and what is wrong with its URI and options."""
    from bittern.errors import BitternError
    from bittern.sources.registry import check_source

    wrong = {path[0] for path in parsed.wrong if path}
    if "source" in wrong:
        return config.name or config.source, []
    try:
        return config.name or check_source(config.source, config.camera).name, []
    except BitternError as error:
        whole = parsed.problem(("source",), str(error))
    # It stops at the first option that is wrong. Each by itself has its own line, if the address alone is right.
    alone = []
    try:
        check_source(config.source)
        for key, value in config.camera.items():
            try:
                check_source(config.source, {key: value})
            except BitternError as error:
                alone.append(parsed.problem(("camera", key), str(error)))
    except BitternError:
        alone.clear()
    return config.name or config.source, alone or ([] if "camera" in wrong else [whole])
