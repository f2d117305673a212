"""The findings of a check as one HTML page with the pictures in it, which asks nobody for anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bittern.system import fileio
from bittern.system.progress import Progress, counted
from bittern_train import html_page
from bittern_train.data import thumbnails
from bittern_train.data.check import KINDS, Checked, Concern
from bittern_train.html_page import text

# Pictures that are shown of a finding, and their longer side.
SHOWN = 24
_SIDE = 160

_STYLE = """
:root { color-scheme: light dark; --line: #8a8a8a; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; border-top: 1px solid var(--line); padding-top: .8rem; }
table { border-collapse: collapse; } caption { text-align: left; font-weight: bold; }
th, td { text-align: left; padding: .15rem .8rem .15rem 0; } .count { text-align: right; }
meter { width: 8rem; max-width: 25vw; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; padding: 0; list-style: none; }
.pictures li { width: 160px; font-size: .8rem; overflow-wrap: anywhere; }
.pictures img { display: block; max-width: 160px; max-height: 160px; }
"""


def write(file: Path, name: str, report: Checked, progress: Progress) -> None:
    """Write the page.

    Args:
        file: its name.
        name: of the data set.
        report: what is shown.
        progress: where to report to.

    Raises:
        OSError: it cannot be written.
    """
    title = f"Check of {name}"
    body = f"<h1>{text(title)}</h1>\n" + "\n".join(_body(report, progress))
    fileio.write(file, html_page.document(title, _STYLE, body).encode("utf-8", "replace"))


def _body(report: Checked, progress: Progress) -> Iterator[str]:
    count = len(report.findings)
    yield f"<p>{report.pictures} pictures, {count or 'no'} finding{'' if count == 1 else 's'}.</p>"
    yield from _counts("Labels", report.labels)
    if report.splits:
        yield from _counts("Splits", report.splits)
    for finding in counted(report.findings, progress, "write the page", len(report.findings)):
        yield from _finding(finding)
    if report.shortcuts:
        yield "<h2>What alone tells the labels apart</h2>"
        yield "<p>AUC of out-of-fold scores: 0.5 and less is chance (an empty bar), 1 tells every picture.</p><table>"
        for shortcut in report.shortcuts:
            what, _, value = shortcut.text.partition(": ")
            meter = f'<meter min="0.5" max="1" value="{shortcut.auc:.3f}" aria-label="{text(shortcut.text)}"></meter>'
            yield f'<tr><th scope="row">{text(what)}</th><td>{meter}</td><td>{text(value)}</td></tr>'
        yield "</table>"
    if report.remarks:
        yield "<h2>Not checked</h2><ul>"
        yield from (f"<li>{text(remark)}</li>" for remark in report.remarks)
        yield "</ul>"


def _counts(what: str, counts: dict[str, int]) -> Iterator[str]:
    yield f"<table><caption>{what}</caption>"
    yield f'<tr><th scope="col">{what[:-1]}</th><th scope="col" class="count">Pictures</th></tr>'
    for key, count in counts.items():
        yield f'<tr><td>{text(key) or "(none)"}</td><td class="count">{count}</td></tr>'
    yield "</table>"


def _finding(finding: Concern) -> Iterator[str]:
    yield f'<section id="{finding.kind}"><h2>{KINDS[finding.kind]}</h2><p>{text(finding.text)}</p>'
    if finding.items:
        yield '<ul class="pictures">'
        for item, note in zip(finding.items[:SHOWN], finding.notes, strict=False):
            label = f"{text(item.label or '')} {text(item.split)}".strip()
            lines = "<br>".join(filter(None, (text(item.name), label, text(note))))
            yield f"<li>{_image(item.path, item.name)}{lines}</li>"
        yield "</ul>"
        if len(finding.items) > SHOWN:
            yield f"<p>{len(finding.items) - SHOWN} more are in the output of --json.</p>"
    yield "</section>"


def _image(file: Path, name: str) -> str:
    small = thumbnails.read(file, _SIDE)
    return "" if small is None else html_page.image(small, name)
