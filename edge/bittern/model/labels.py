"""Reads the labels that come with a model: a text file with a label a line, numbered or not, CSV, or JSON.

The rules:

- UTF-8 with or without a byte-order mark, or UTF-16; lines end as on Unix, Windows or an old Mac. Blank lines are left
  out, and so are quotes around every line, and the header of a CSV file ("label", "name", "class").
- Numbers before (or, in CSV, beside) all names are obeyed and taken off if they are 0 to n - 1 or 1 to n, each once.
  Numbers that begin with 0 or 1 and leave gaps are refused. Any others, as in "30 km/h" and "50 km/h", belong to the
  names.
- JSON is a list of names, an object of names by number or numbers by name, a list of objects with a name and maybe a
  number, or an object that has one of these as "labels", "classes", "class_names", "names", "categories" or "id2label".
- A name that comes twice gets the numbers of its outputs: "crane (134)" and "crane (517)".
"""

from __future__ import annotations

import collections
import csv
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import msgspec

# "0 cat", "0  cat", "0: cat", "0, cat", "0. cat", "0) cat", "0 - cat", "0=cat", "0\tcat"
_NUMBERED = re.compile(r"\s*(\d{1,6})\s*(?:[:,;.)=\t-]|\s)\s*(\S.*)")
_QUOTED = re.compile(r"""("[^"]+"|'[^']+'),?""")
# Not a first label such as "[unknown]".
_JSON = re.compile(r"""\s*(?:\{\s*["}]|\[\s*["\[{\]\d])""")
_KEYS_OF_LABELS = ("labels", "classes", "class_names", "names", "categories", "id2label", "Label")
_KEYS_OF_NAME = ("name", "label", "class", "class_name", "display_name", "labels", "names", "title", "category")
_KEYS_OF_NUMBER = ("id", "index", "number", "class_id", "label_id", "class_index")
_LONGEST = 200


def read(data: bytes) -> list[str]:
    """The labels in the order of the model's outputs, all different.

    Raises:
        ValueError: they cannot be read; the message is short and on one line.
    """
    text = _text(data)
    if _JSON.match(text):
        labels = _from_json(text)
    else:
        lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
        labels = _from_table(lines) or _from_lines(lines)
    for number, label in enumerate(labels):
        odd = next((c for c in label if unicodedata.category(c) in ("Cc", "Zl", "Zp")), None)
        if odd is not None:
            raise ValueError(f"label {number} has the control character U+{ord(odd):04X}: take it out")
        if not label.strip():
            raise ValueError(f"label {number} is empty")
        if len(label) > _LONGEST:
            raise ValueError(f"label {number} has {len(label)} characters, at most {_LONGEST} are allowed")
    return _numbered_twins([label.strip() for label in labels])


def _text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif data[1::2].count(0) > len(data) // 4:
        encoding = "utf-16-le"
    elif data[::2].count(0) > len(data) // 4:
        encoding = "utf-16-be"
    else:
        encoding = "utf-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise ValueError("is broken UTF-16: save it as UTF-8") from None
        line = len(re.split(rb"\r\n|\n|\r", data[: error.start]))
        raise ValueError(f"line {line} is not UTF-8: save the file as UTF-8") from None


def _ordered(numbers: Sequence[int], names: Sequence[str]) -> list[str] | None:
    """The names in the order of their numbers; None if these are none of ours.

    Raises:
        ValueError: the numbers have gaps.
    """
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) > 1:
        return None
    first, last = min(numbers), max(numbers)
    if last - first + 1 != len(numbers):
        missing = min(set(range(first, last)) - set(numbers))
        raise ValueError(
            f"numbers its labels {first} to {last}, but has no number {missing}: number them without gaps, or give a "
            "list in JSON"
        )
    return [name for _, name in sorted(zip(numbers, names, strict=True))]


def _ordered_or_refused(numbers: Sequence[int], names: Sequence[str]) -> list[str]:
    ordered = _ordered(numbers, names)
    if ordered is None:
        raise ValueError(f"expected numbers from 0 to {len(names) - 1}, each once, beside the labels")
    return ordered


def _from_lines(lines: list[str]) -> list[str]:
    quoted = [_QUOTED.fullmatch(line) for line in lines]
    lines = [match[1][1:-1].strip() for match in quoted if match] if all(quoted) else lines
    if len(lines) > 1 and lines[0].lower() in _KEYS_OF_NAME:
        lines = lines[1:]
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    numbered = [(int(match[1]), match[2]) for match in matches if match]
    if len(numbered) < len(lines):
        return lines
    return _ordered([number for number, _ in numbered], [name for _, name in numbered]) or lines


def _from_table(lines: list[str]) -> list[str] | None:
    """The labels of a CSV file with a column of numbers, or with a header; None if it is none."""
    for delimiter in ",;\t":
        try:
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter, strict=True)]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width < 2 or any(len(row) != width for row in rows):
            continue
        header = [cell.lower() for cell in rows[0]]
        names = next((header.index(key) for key in _KEYS_OF_NAME if key in header), None)
        body = rows if names is None else rows[1:]
        for column in range(width):
            if body and column != names and all(re.fullmatch(r"\d{1,6}", row[column]) for row in body):
                others = [i for i in range(width) if i != column]
                chosen = others[0] if names is None else names
                ordered = _ordered([int(row[column]) for row in body], [row[chosen] for row in body])
                if ordered is not None:
                    return ordered
        if names is not None:
            return [row[names] for row in body]
    return None


def _from_json(text: str) -> list[str]:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise ValueError(f"looks like JSON, but is none ({reason})") from None
    labels = _from_value(value)
    if labels is None:
        raise ValueError('is JSON without labels: expected ["stop", "go"] or {"0": "stop", "1": "go"}')
    return labels


def _from_value(value: Any) -> list[str] | None:
    """The labels in a value of JSON, or in what it has under a name that says so; None if there are none."""
    if isinstance(value, list) and value:
        if all(isinstance(entry, str) for entry in value):
            return value
        if all(isinstance(entry, dict) for entry in value):
            return _from_objects(value)
    if not isinstance(value, dict) or not value:
        return None
    if all(re.fullmatch(r"\d{1,6}", key) for key in value):
        names = [entry[-1] if isinstance(entry, list) and entry else entry for entry in value.values()]
        if all(isinstance(name, str) for name in names):
            return _ordered_or_refused([int(key) for key in value], names)
    if all(type(entry) is int for entry in value.values()):
        return _ordered_or_refused(list(value.values()), list(value))
    for key in _KEYS_OF_LABELS:
        if key in value and (labels := _from_value(value[key])) is not None:
            return labels
    return None


def _from_objects(rows: list[dict[str, Any]]) -> list[str] | None:
    for key in _KEYS_OF_NAME:
        if all(isinstance(row.get(key), str) for row in rows):
            names = [str(row[key]) for row in rows]
            for number in _KEYS_OF_NUMBER:
                if all(type(row.get(number)) is int for row in rows):
                    return _ordered_or_refused([row[number] for row in rows], names)
            return names
    return None


def _numbered_twins(labels: list[str]) -> list[str]:
    counts = collections.Counter(labels)
    taken = {label for label, count in counts.items() if count == 1}
    out = []
    for number, label in enumerate(labels):
        name = label
        if counts[label] > 1:
            name = f"{label} ({number})"
            while name in taken:
                name += "'"
        taken.add(name)
        out.append(name)
    return out
