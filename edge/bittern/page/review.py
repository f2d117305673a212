"""What is worth a person's look: snapshots of alarms and kept frames, with the labels that a person has given them."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bittern.page.api import folder_name
from bittern.system import fileio

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_INDEX_BYTES = 16 * 2**20
_MAX_PICTURE_BYTES = 64 * 2**20
# Two names that begin with the same 48 bits are of the same millisecond, and so of the same frame.
_MILLISECOND = 13


class ReviewItem(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to look at.

    Attributes:
        id: of the event, or of the kept frame: a UUIDv7.
        kind: "alarm", or "unsure".
        time_ms: when the frame was taken, ms since 1970.
        answer: the label that raised the alarm, or the least sure one.
        score: of that label; None if it is not known any more.
        model: that gave it.
        task: of that label.
        labels: by task, what a person says.
    """

    id: str
    kind: str
    time_ms: int
    answer: str = ""
    score: float | None = None
    model: str = ""
    task: str = ""
    labels: dict[str, str] = {}


class Review:
    """Reads the folders of the daemon, and writes the sets; for one thread at a time.

    Args:
        snapshots: folder of the snapshots; None if there are none.
        kept: folder of the kept frames; None if there are none.
        sets: gets a data set for each task.
    """

    def __init__(self, snapshots: Path | None, kept: Path | None, sets: Path) -> None:
        self._snapshots, self._kept, self._sets = snapshots, kept, sets
        self._begun: set[str] = set()

    def items(self, events: Iterable[Mapping[str, Any]], tasks: Iterable[str]) -> list[ReviewItem]:
        """All of them, newest first.

        Args:
            events: those that are known, as `bittern watch` prints them; a snapshot of another is shown without them.
            tasks: whose labels are read.
        """
        known = {event["id"]: event for event in events}
        labels = self._labels(tasks)
        items = []
        for name in ids_in(self._snapshots, ".jpg"):
            event = known.get(name, {})
            items.append(
                ReviewItem(
                    id=name,
                    kind="alarm",
                    time_ms=time_ms_of(name),
                    answer=event.get("label", ""),
                    score=event.get("score"),
                    model=event.get("model", ""),
                    task=event.get("task", ""),
                    labels=labels.get(name, {}),
                )
            )
        moments = {item.id[:_MILLISECOND] for item in items}
        rows = _rows(self._kept)
        for name in ids_in(self._kept, ".jpg"):
            row = rows.get(name, {})
            if name[:_MILLISECOND] in moments:
                continue  # the frame of a snapshot
            kind = "alarm" if row.get("reason", "").startswith("alarm") else "unsure"
            model, task = _who(row)
            items.append(
                ReviewItem(
                    id=name,
                    kind=kind,
                    time_ms=time_ms_of(name),
                    answer=row.get("answer", ""),
                    score=_number(row.get("score", "")),
                    model=model,
                    task=task,
                    labels=labels.get(name, {}),
                )
            )
        return sorted(items, key=lambda item: item.id, reverse=True)

    def file(self, name: str) -> Path | None:
        """The picture of an item; None if it is gone."""
        if not is_id(name):
            return None
        for folder in (self._snapshots, self._kept):
            if folder is not None and (file := folder / f"{name}.jpg").is_file():
                return file
        return None

    def label(self, names: Iterable[str], task: str, label: str | None, source: str) -> list[str]:
        """Put pictures into the set of a task with a label, or take them out again (None).

        Returns:
            The names whose pictures are gone.

        Raises:
            BitternError: another command is changing the set.
            OSError: the disk.
        """
        from bittern.page import corrections  # imports OpenCV, which takes more memory than all the rest of the process

        folder = self._sets / folder_name(task)
        gone = []
        for name in names:
            keep = task not in self._begun
            if label is None:
                corrections.remove(folder, f"{name}.jpg", keep=keep)
            elif (file := self.file(name)) is None:
                gone.append(name)
                continue
            else:
                try:
                    data = fileio.read_regular(file, _MAX_PICTURE_BYTES)
                except FileNotFoundError:
                    gone.append(name)
                    continue
                columns = {"source": "page", "camera": source}
                corrections.add(folder, f"{name}.jpg", data, label, columns, keep=keep)
            self._begun.add(task)
        return gone

    def labelled(self, task: str) -> list[tuple[str, Path]]:
        """The label and file of every picture in the set of a task."""
        folder = self._sets / folder_name(task)
        rows = [(row.get("label") or "", Path(row.get("path") or "")) for row in _read(folder / "index.csv")]
        return [
            (label, folder / path)
            for label, path in rows
            if label and not path.is_absolute() and ".." not in path.parts
        ]

    def sets(self, tasks: Iterable[str]) -> dict[str, int]:
        """How many pictures have a label, for each task that has any."""
        counts = {task: len(self.labelled(task)) for task in tasks}
        return {task: count for task, count in counts.items() if count}

    def _labels(self, tasks: Iterable[str]) -> dict[str, dict[str, str]]:
        labels: dict[str, dict[str, str]] = {}
        for task in tasks:
            for label, file in self.labelled(task):
                labels.setdefault(file.stem, {})[task] = label
        return labels


def ids_in(folder: Path | None, suffix: str) -> list[str]:
    """The files in a folder that are named by a UUID, without their suffix; none if it cannot be read."""
    if folder is None:
        return []
    with contextlib.suppress(OSError):
        return [file.stem for file in folder.iterdir() if file.suffix == suffix and is_id(file.stem)]
    return []


def is_id(name: str) -> bool:
    """Whether this is a UUID, as events and kept frames have it."""
    return _ID.fullmatch(name) is not None


def _rows(folder: Path | None) -> dict[str, dict[str, str]]:
    """What is known of each kept frame."""
    if folder is None:
        return {}
    return {(row.get("path") or "").removesuffix(".jpg"): row for row in _read(folder / "index.csv")}


def _read(file: Path) -> list[dict[str, str]]:
    try:
        text = fileio.read_regular(file, _MAX_INDEX_BYTES).decode()
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _who(row: Mapping[str, str]) -> tuple[str, str]:
    """The model and task whose label is the least sure answer."""
    try:
        scores = msgspec.json.decode(row.get("scores") or "{}", type=dict[str, dict[str, dict[str, float]]])
    except msgspec.MsgspecError:
        return "", ""
    for model, tasks in scores.items():
        for task, by_label in tasks.items():
            score = by_label.get(row.get("answer", ""))
            if score is not None and f"{score:.4f}" == row.get("score"):
                return model, task
    return "", ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def time_ms_of(name: str) -> int:
    """When something was named by a UUIDv7, in ms since 1970: its first 48 bits."""
    return int(name[:8] + name[9:13], 16)
