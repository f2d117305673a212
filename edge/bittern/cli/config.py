"""`bittern config`: prints an example configuration that explains every key, and checks files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bittern.cli.common import as_utf8, print_json
from bittern.errors import printable

if TYPE_CHECKING:
    from bittern.config.schema import WatchConfig
    from bittern.config.toml_file import Parsed, Problem
    from bittern.daemon.preflight import Instance


@click.command(
    short_help="Explain or check the configuration of `bittern watch`.",
    epilog="Example: bittern config --example > garden.toml; bittern config --check garden.toml",
)
@click.option("--example", is_flag=True, help="Print a configuration with every key, its default and why to change it.")
@click.option("--check", is_flag=True, help="Check FILES, and that everything they refer to exists.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file: file, ok, problems.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.pass_context
def config(ctx: click.Context, example: bool, check: bool, as_json: bool, files: tuple[Path, ...]) -> None:
    """Explain or check the configuration of `bittern watch`.

    For every error, --check prints the file, the line, the key, what was expected and what came. It starts nothing and
    opens no camera. Several files are also checked against each other: cameras must not share a name, an outbox, a
    port or a pin. Exit code 2 if there is an error; warnings are allowed.
    """
    if example == check:
        raise click.UsageError("expected either --example or --check FILE...")
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
        # An error in one place must not hide an error in another.
        settings = parsed.rest if parsed.value is None else parsed.value
        if settings is not None:
            name, more = _camera(parsed, settings)
            more += [
                parsed.problem(path, message, warning=warning)
                for path, message, warning in preflight.check(settings, name, parsed.wrong)
            ]
            problems[file] = parsed.problems + more
        if parsed.value is not None:
            instances.append(preflight.Instance(file, parsed, name))
    for instance, problem in preflight.across(instances):
        problems[instance.file].append(problem)
    failed = False
    for file, of_file in problems.items():
        of_file.sort(key=lambda problem: problem.line or 0)
        ok = all(problem.warning for problem in of_file)
        failed = failed or not ok
        if as_json:
            print_json({"file": as_utf8(str(file)), "ok": ok, "problems": of_file})
            continue
        for problem in of_file:
            click.echo(printable(f"{problem.text(file)}{' (warning)' if problem.warning else ''}"))
        if ok:
            click.echo(printable(f"{file}: ok"))
    if failed:
        ctx.exit(2)


def _camera(parsed: Parsed[WatchConfig], config: WatchConfig) -> tuple[str, list[Problem]]:
    """The camera's name in events, and the errors in its URI and options."""
    from bittern.config import schema
    from bittern.errors import BitternError, redacted
    from bittern.sources.registry import check_source

    wrong = {path[0] for path in parsed.wrong if path}
    unnamed = config.name or redacted(config.source)
    if wrong & {"source", "source_file"}:
        return unnamed, []
    key = "source_file" if config.source_file else "source"
    try:
        config = schema.with_source(config)
    except BitternError:  # `preflight` says why
        return unnamed, []
    try:
        return config.name or check_source(config.source, config.camera).name, []
    except BitternError as error:
        first = parsed.problem((key,), str(error))
    # `check_source` stops at the first wrong option. If the address is valid, check each option by itself.
    by_option = []
    try:
        check_source(config.source)
        for key, value in config.camera.items():
            try:
                check_source(config.source, {key: value})
            except BitternError as error:
                by_option.append(parsed.problem(("camera", key), str(error)))
    except BitternError:
        by_option.clear()
    return unnamed, by_option or ([] if "camera" in wrong else [first])
