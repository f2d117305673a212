"""`bittern doctor`: looks at board, system, camera and models, and names the command that mends what is wrong."""

from __future__ import annotations

import click

from bittern.cli.common import print_json, warn


@click.command(epilog="Example: bittern doctor --source usb:0 --red")
@click.option(
    "--source", metavar="URI", help="The camera to look at, as in `bittern watch`.  [default: picamera: on a Pi]"
)
@click.option("--red", is_flag=True, help="Look whether red is red: hold something red before the camera.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the machine, and a list of checks.")
@click.option("--report", "as_report", is_flag=True, help="Markdown for a bug report, without a name or an address.")
@click.pass_context
def doctor(ctx: click.Context, source: str | None, red: bool, as_json: bool, as_report: bool) -> None:
    """Look at everything that Bittern needs on this machine, and name the command that mends what is wrong.

    Nothing is changed, and no picture leaves the machine. What may crash or hang runs in a process of its own. Exit
    code 1 if a check failed; warnings are allowed.
    """
    if as_json and as_report:
        raise click.UsageError("--json and --report exclude each other")
    from bittern.doctor import examine as examination
    from bittern.doctor import report

    seen = examination.examine(source, red=red, notice=warn)
    if as_json:
        print_json(seen)
    elif as_report:
        click.echo(report.report(seen))
    else:
        click.echo(report.table(seen.checks))
    if not seen.ok:
        ctx.exit(1)
