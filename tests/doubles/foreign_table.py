"""The table in docs/models.md: every kind of model, what has to be stated, and what is read from the file.

`python -m tests.doubles.foreign_table` writes it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.doubles.foreign_models import KINDS, LABELS, red_or_blue
from tests.doubles.tflite_files import with_files

from bittern import Classifier
from bittern.model.bare import Bare, Unstated
from bittern.model.input_maker import name_of
from bittern.model.scores import rule_of

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- kinds -->\n", "<!-- /kinds -->\n"


def table() -> str:
    """The lines of the table."""
    lines = [
        "| exported as | without anything stated | stated | pixels | scores |",
        "| --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, stated) in KINDS.items():
            file = Path(folder) / "m.tflite"
            file.write_bytes(with_files(red_or_blue(kind), labels_txt="\n".join(LABELS).encode()))
            opened = Classifier(file, bare=Bare(**stated), tried=True)
            options = ", ".join(f"`--{key.replace('_', '-')} {_text(value)}`" for key, value in stated.items())
            pixels = f"{name_of(opened.input)} ({opened.pixels_from})"
            scores = f"{rule_of(opened.heads[0])} ({opened.scores_from})"
            lines.append(f"| {name} | {_unstated(file)} | {options} | {pixels} | {scores} |")
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    return f"{value[1]}x{value[0]}" if isinstance(value, tuple) else str(value)


def _unstated(file: Path) -> str:
    try:
        Classifier(file, tried=True)
    except Unstated as error:
        return f"refused, asks for `--{error.key.replace('_', '-')}`"
    return "runs"


def page() -> str:
    """The page with the table as it is now."""
    text = PAGE.read_text(encoding="utf-8")
    return text[: text.index(BEGIN) + len(BEGIN)] + "\n" + table() + "\n" + text[text.index(END) :]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
