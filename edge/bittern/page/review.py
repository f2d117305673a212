"""What is worth a person's look: snapshots of alarms and kept frames, with the labels that a person has given them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bittern.errors import ConfigurationError
from bittern.evaluation.dataset import Item
from bittern.events import UUID, uuid7_time_ms
from bittern.page import corrections
from bittern.page.http import folder_name

_ID = re.compile(UUID)
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

    def items(self, events: Iterable[Mapping[str, Any]], sets: Mapping[str, Sequence[Item]]) -> list[ReviewItem]:
        """All of them, newest first.

        Args:
            events: those that are known, as `bittern watch` prints them; a snapshot of another is shown without them.
            sets: as `sets` returns them.
        """
        known = {event["id"]: event for event in events}
        labels: dict[str, dict[str, str]] = {}
        for task, labelled in sets.items():
            for item in labelled:
                labels.setdefault(item.path.stem, {})[task] = item.label or ""
        items = []
        for name in ids_in(self._snapshots, ".jpg"):
            event = known.get(name, {})
            items.append(
                ReviewItem(
                    id=name,
                    kind="alarm",
                    time_ms=uuid7_time_ms(name),
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
                    time_ms=uuid7_time_ms(name),
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
        folder, keep = self.folder_of(task), task not in self._begun
        if label is None:
            corrections.remove(folder, [f"{name}.jpg" for name in names], keep=keep)
            self._begun.add(task)
            return []
        files = {name: self.file(name) for name in names}
        present = {f"{name}.jpg": file for name, file in files.items() if file is not None}
        columns = {"source": "page", "camera": source}
        gone = [name.removesuffix(".jpg") for name in corrections.add(folder, present, label, columns, keep=keep)]
        self._begun.add(task)
        return [name for name, file in files.items() if file is None] + gone

    def folder_of(self, task: str) -> Path:
        """Where the set of a task is."""
        return self._sets / folder_name(task)

    def sets(self, tasks: Iterable[str]) -> dict[str, list[Item]]:
        """The pictures with a label, of each task that has any; those of a broken index are not shown."""
        sets = {task: [item for item in _read(self.folder_of(task)) if item.label] for task in tasks}
        return {task: items for task, items in sets.items() if items}


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
    return {item.path.stem: item.columns for item in _read(folder)} if folder is not None else {}


def _read(folder: Path) -> list[Item]:
    with contextlib.suppress(ConfigurationError):
        return corrections.read(folder)
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
