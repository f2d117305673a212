"""The findings of a check as one HTML page with the pictures in it, which asks nobody for anything."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path

import cv2

from bittern.errors import printable
from bittern.system import fileio
from bittern.system.progress import Progress, counted
from bittern_train.data import thumbnails
from bittern_train.data.check import KINDS, Checked, Concern

# Pictures that are shown of a finding, and their longer side.
SHOWN = 24
_SIDE = 160

_STYLE = """
:root { color-scheme: light dark; --line: #8a8a8a; --bar: #1f6feb; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; border-top: 1px solid var(--line); padding-top: .8rem; }
table { border-collapse: collapse; } caption { text-align: left; font-weight: bold; }
th, td { text-align: left; padding: .15rem .8rem .15rem 0; } .count { text-align: right; }
meter { width: 8rem; max-width: 25vw; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; padding: 0; list-style: none; }
.pictures li { width: 160px; font-size: .8rem; overflow-wrap: anywhere; }
.pictures img { display: block; max-width: 160px; max-height: 160px; }
"""
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
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
    fileio.write(file, "\n".join(_page(name, report, progress)).encode("utf-8", "replace"))


def _page(name: str, report: Checked, progress: Progress) -> Iterator[str]:
    title = f"Check of {_text(name)}"
    yield _HEAD.format(title=title, style=_STYLE)
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
            meter = f'<meter min="0.5" max="1" value="{shortcut.auc:.3f}" aria-label="{_text(shortcut.text)}"></meter>'
            yield f'<tr><th scope="row">{_text(what)}</th><td>{meter}</td><td>{_text(value)}</td></tr>'
        yield "</table>"
    if report.remarks:
        yield "<h2>Not checked</h2><ul>"
        yield from (f"<li>{_text(remark)}</li>" for remark in report.remarks)
        yield "</ul>"
    yield "</main>\n</body>\n</html>\n"


def _text(text: str) -> str:
    return escape(printable(text))


def _counts(what: str, counts: dict[str, int]) -> Iterator[str]:
    yield f"<table><caption>{what}</caption>"
    yield f'<tr><th scope="col">{what[:-1]}</th><th scope="col" class="count">Pictures</th></tr>'
    for key, count in counts.items():
        yield f'<tr><td>{_text(key) or "(none)"}</td><td class="count">{count}</td></tr>'
    yield "</table>"


def _finding(finding: Concern) -> Iterator[str]:
    yield f'<section id="{finding.kind}"><h2>{KINDS[finding.kind]}</h2><p>{_text(finding.text)}</p>'
    if finding.items:
        yield '<ul class="pictures">'
        for item, note in zip(finding.items[:SHOWN], finding.notes, strict=False):
            label = f"{_text(item.label or '')} {_text(item.split)}".strip()
            lines = "<br>".join(filter(None, (_text(item.name), label, _text(note))))
            yield f"<li>{_image(item.path, item.name)}{lines}</li>"
        yield "</ul>"
        if len(finding.items) > SHOWN:
            yield f"<p>{len(finding.items) - SHOWN} more are in the output of --json.</p>"
    yield "</section>"


def _image(file: Path, name: str) -> str:
    small = thumbnails.read(file, _SIDE)
    if small is None:
        return ""
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    data = base64.b64encode(jpeg).decode()
    size = f'width="{small.shape[1]}" height="{small.shape[0]}"'
    return f'<img alt="{_text(name)}" {size} src="data:image/jpeg;base64,{data}">'
