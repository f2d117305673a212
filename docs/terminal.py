"""Records a command as an animated terminal: `python docs/terminal.py docs/watch.svg COMMAND...`.

Lines appear at the times at which the command printed them, in a loop; a viewer without animation shows all of them.
Output on stderr is grey.
"""

from __future__ import annotations

import selectors
import shlex
import subprocess
import sys
import textwrap
import time
from html import escape
from pathlib import Path

COLUMNS, LINE, CHARACTER, REST_S = 108, 18, 7.83, 4.0
OUT, ERR, PROMPT, GROUND = "#e6e6e6", "#8a949e", "#7ec699", "#16191d"


def record(command: list[str]) -> list[tuple[float, str, str]]:
    """The lines that a command printed: seconds since its start, colour, text."""
    start = time.monotonic()
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        selector = selectors.DefaultSelector()
        for stream, colour in ((process.stdout, OUT), (process.stderr, ERR)):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, colour)
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline()  # type: ignore[union-attr]
                if line:
                    lines.append((time.monotonic() - start, key.data, line.rstrip("\n")))
                else:
                    selector.unregister(key.fileobj)
    assert process.returncode == 0, process.returncode
    return lines


def draw(command: list[str], lines: list[tuple[float, str, str]]) -> str:
    """The terminal as SVG."""
    shown = [(0.0, PROMPT, f"$ {shlex.join(command)}"), *lines]
    rows = [
        (time_s, colour, part)
        for time_s, colour, line in shown
        for part in textwrap.wrap(line, COLUMNS, break_on_hyphens=False, subsequent_indent="  ") or [""]
    ]
    total = shown[-1][0] + REST_S
    width, height = COLUMNS * CHARACTER + 32, len(rows) * LINE + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}">',
        f'<rect width="{width:.0f}" height="{height}" rx="8" fill="{GROUND}"/>',
        '<g font-family="ui-monospace, DejaVu Sans Mono, monospace" font-size="13" xml:space="preserve">',
    ]
    for i, (time_s, colour, text) in enumerate(rows):
        begin = time_s / total
        appear = (
            f'<animate attributeName="opacity" values="0;1" keyTimes="0;{begin:.4f}" calcMode="discrete" '
            f'dur="{total:.1f}s" repeatCount="indefinite"/>'
            if time_s
            else ""
        )
        parts.append(f'<text x="16" y="{24 + i * LINE}" fill="{colour}">{escape(text)}{appear}</text>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


if __name__ == "__main__":
    file, *command = sys.argv[1:]
    Path(file).write_text(draw(command, record(command)), encoding="utf-8")
