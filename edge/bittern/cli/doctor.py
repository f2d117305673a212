"""`bittern doctor`: checks board, system, camera and models, and names the command that fixes a problem."""

from __future__ import annotations

import click

from bittern.cli.common import print_json, source_option, warn


@click.command(
    short_help="Check this machine, and say how to fix what is wrong.",
    epilog="Example: bittern doctor --source usb:0 --red",
)
@source_option("The camera to check, as in `bittern watch`.  [default: picamera: on a Pi]")
@click.option("--red", is_flag=True, help="Check the colours: hold something red in front of the camera.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the machine and a list of checks.")
@click.option("--report", "as_report", is_flag=True, help="Markdown for a bug report, without names and addresses.")
@click.pass_context
def doctor(ctx: click.Context, source: str | None, red: bool, as_json: bool, as_report: bool) -> None:
    """Check everything that Bittern needs on this machine, and name the command that fixes a problem.

    It changes nothing, and no picture leaves the machine. Checks that may crash or hang run in a process of their own.
    Exit code 1 if a check failed; warnings are allowed.
    """
    if as_json and as_report:
        raise click.UsageError("expected either --json or --report, not both")
    from bittern.doctor import report
    from bittern.doctor.examine import examine

    result = examine(source, red=red, notice=warn)
    if as_json:
        print_json(result)
    elif as_report:
        click.echo(report.report(result))
    else:
        click.echo(report.table(result.checks))
    if not result.ok:
        ctx.exit(1)
