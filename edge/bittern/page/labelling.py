"""A session of labelling: decisions, each on the disk at once, and the index that they become.

A decision is appended to a journal beside the index and synced. The journal goes into the index when nobody decides
anything for a moment, and at the end; what a killed session leaves in it, the next one takes up. Rejected pictures
leave the index for `rejected.csv` beside it; the kept part of a picture becomes a file below `regions/`.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from bittern.errors import BitternError, ConfigurationError
from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item
from bittern.model import pictures
from bittern.system import fileio

_log = logging.getLogger("bittern")

REJECTED = "rejected.csv"
REGIONS = "regions"
_MAX_JOURNAL_BYTES = 256 * 2**20
_MOST_UNDONE = 1000

DecidedState = Literal["", "labelled", "rejected", "skipped"]
# Left, top, right, bottom, in pixels of the upright picture.
PixelBox = tuple[int, int, int, int]


class Decided(NamedTuple):
    """What is decided about a picture: nothing yet, a label (of a part of it), that it is rejected, or skipped."""

    state: DecidedState = ""
    label: str = ""
    box: PixelBox | None = None


class LatestDecision(NamedTuple):
    """What is decided about a picture by its position, and the number of the change that did it (0: none)."""

    position: int
    state: DecidedState
    label: str
    box: PixelBox | None
    number: int


class _Entry(msgspec.Struct, array_like=True):
    """A picture's line in the journal."""

    name: str
    state: DecidedState
    label: str
    box: PixelBox | None


class Labelling:
    """The pictures of a folder, and what is decided about each.

    Attributes:
        items: the pictures, in the order in which they are listed; a picture's position never changes.
        decided: what is decided about each.
        numbers: for each the number of the change that decided it; 0 if it was before this session.
        number: of the last change.
    """

    def __init__(self, file: Path, root: Path, items: Sequence[Item], decided: Sequence[Decided]) -> None:
        self.items = list(items)
        self.decided = list(decided)
        self.numbers = [0] * len(items)
        self.number = 0
        self._owners = [""] * len(items)
        self._file = file
        self._root = root
        self._positions = {item.name: i for i, item in enumerate(items)}
        self._log: list[int] = []
        self._undo: list[tuple[str, list[tuple[int, Decided]]]] = []
        self._keep = True
        self._made: set[Path] = set()
        self.unsaved = False
        self._journal = _journal_of(file)
        try:
            self._take_up()
            self._stream = self._journal.open("ab")
        except OSError as error:
            raise BitternError(f"{self._journal}: cannot be written ({error.strerror})") from None

    # --- what is decided ---

    def labels(self) -> dict[str, int]:
        """Every label in use and how many pictures have it, in the order of their names."""
        return dict(sorted(collections.Counter(one.label for one in self.decided if one.label).items()))

    def change(self, position: int) -> LatestDecision:
        """The present state of a picture."""
        return LatestDecision(position, *self.decided[position], self.numbers[position])

    def since(self, number: int) -> list[LatestDecision]:
        """The pictures that were decided after a change, as they are now."""
        return [self.change(position) for position in dict.fromkeys(self._log[number:])]

    def decide(self, tab: str, seen: Iterable[tuple[int, int]], decision: Decided) -> list[int]:
        """Decide about pictures; it is on the disk when this returns.

        Args:
            tab: who decides: `undo` takes back what the same one has done.
            seen: the position of each picture, and the number of the change that was seen of it.
            decision: for all of them; skipping a picture with a label leaves its label.

        Returns:
            Positions of those about which somebody else has decided in between; they stay as they are.

        Raises:
            OSError: it cannot be written; nothing is decided.
        """
        chosen: list[int] = []
        conflicts: list[int] = []
        for position, number in seen:
            (chosen if self.numbers[position] == number else conflicts).append(position)
        if decision.state == "skipped":
            chosen = [position for position in chosen if self.decided[position].state in ("", "skipped")]
        before = [(position, self.decided[position]) for position in chosen]
        self._write(tab, [(position, decision) for position in chosen])
        if chosen:
            self._undo.append((tab, before))
            del self._undo[:-_MOST_UNDONE]
        return conflicts

    def undo(self, tab: str) -> list[int]:
        """Take back the last decision of a tab, but for pictures about which another has decided since; positions.

        Raises:
            OSError: it cannot be written; nothing is taken back.
        """
        for i in reversed(range(len(self._undo))):
            owner, before = self._undo[i]
            if owner == tab:
                own = [(position, one) for position, one in before if self._owners[position] == tab]
                self._write(tab, own)
                del self._undo[i]
                if own:
                    return [position for position, _ in own]
        return []

    def _write(self, tab: str, decided: Sequence[tuple[int, Decided]]) -> None:
        if not decided:
            return
        begin = self._stream.tell()
        entries = [_Entry(self.items[position].name, *one) for position, one in decided]
        try:
            self._stream.write(msgspec.json.encode(entries) + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._stream.fileno(), begin)
            raise
        for position, one in decided:
            self._set(position, one)
            self._owners[position] = tab
        self.unsaved = True

    def _set(self, position: int, one: Decided) -> None:
        self.number += 1
        self.decided[position] = one
        self.numbers[position] = self.number
        self._log.append(position)

    def _take_up(self) -> None:
        """Decisions that a killed session did not get into the index, and what was skipped."""
        if not self._journal.exists():
            return
        for line in fileio.read_regular(self._journal, _MAX_JOURNAL_BYTES).splitlines():
            try:
                entries = msgspec.json.decode(line, type=list[_Entry])
            except msgspec.MsgspecError:  # the last line, cut off by a power cut
                continue
            for entry in entries:
                position = self._positions.get(entry.name)
                if position is not None:
                    self._set(position, Decided(entry.state, entry.label, entry.box))
                    self.unsaved |= entry.state != "skipped"

    # --- the index ---

    def region_file(self, position: int, box: PixelBox) -> Path:
        """Where the kept part of a picture goes."""
        name = f"{self.items[position].name}.{'-'.join(map(str, box))}.png"
        path = self._root / REGIONS / name
        self._made.add(path)
        return path

    def save(self) -> None:
        """Put the decisions into the index; the journal keeps what was skipped.

        Raises:
            BitternError: the index cannot be written; the journal has everything.
        """
        rows = [self._row(i) for i in range(len(self.items)) if self._has_row(i)]
        rejected = [self.items[i] for i, one in enumerate(self.decided) if one.state == "rejected"]
        if rows:
            index.write(self._file, rows, keep=self._keep)
        elif self._file.exists():  # an index has at least one picture
            number = max(index.versions(self._file), default=0) + 1
            self._file.replace(self._file.with_name(f"{self._file.name}.{number}"))
        self._keep = False
        beside = self._file.with_name(REJECTED)
        if rejected:
            index.write(beside, rejected, keep=False)
        else:
            beside.unlink(missing_ok=True)
        skipped = [_Entry(self.items[i].name, *one) for i, one in enumerate(self.decided) if one.state == "skipped"]
        self._stream.close()
        fileio.write(self._journal, msgspec.json.encode(skipped) + b"\n" if skipped else b"")
        self._stream = self._journal.open("ab")
        self.unsaved = False

    def _has_row(self, position: int) -> bool:
        """Whether a picture is in the index: with a label, or because it was there without one."""
        state = self.decided[position].state
        return state == "labelled" or (state != "rejected" and self.items[position].label is not None)

    def _row(self, position: int) -> Item:
        item, one = self.items[position], self.decided[position]
        columns = {key: value for key, value in item.columns.items() if key not in ("original", "box") or not one.box}
        if one.box is None:
            return item._replace(label=one.label, columns=columns)
        path = self.region_file(position, one.box)
        columns |= {"original": item.name, "box": " ".join(map(str, one.box))}
        return item._replace(path=path, name=path.relative_to(self._root).as_posix(), label=one.label, columns=columns)

    def close(self) -> None:
        """Save what is not in the index yet, and delete regions that no row needs: none can be taken back now."""
        try:
            if self.unsaved:
                self.save()
            used = {self._row(i).path for i in range(len(self.items)) if self._has_row(i)}
            for path in self._made - used:
                path.unlink(missing_ok=True)
        finally:
            self._stream.close()
        if self._journal.exists() and self._journal.stat().st_size == 0:
            self._journal.unlink()


def _journal_of(file: Path) -> Path:
    return file.with_name(f".{file.name}.decisions")


@contextlib.contextmanager
def opened(data: Path, *, with_folders: bool = True) -> Iterator[Labelling]:
    """The pictures of a folder for labelling; no other command may change the index meanwhile.

    Args:
        data: a folder, or its index. Pictures below it that the index lacks are without a label. Without an index,
            those in a folder below it have that folder's name as their label.
        with_folders: False takes no labels from folders' names.

    Raises:
        ConfigurationError: there is no such folder, no picture, or another command is changing the index.
        BitternError: something cannot be written.
    """
    if not data.exists():
        raise ConfigurationError(f"{data}: no such folder")
    file = index.file_of(data)
    root = file.parent
    with index.locked(file):
        items, decided = _read(file, root, with_folders)
        if not items:
            raise ConfigurationError(f"{data}: no pictures to label below this folder")
        labelling = Labelling(file, root, items, decided)
        try:
            yield labelling
        finally:
            labelling.close()


def _read(file: Path, root: Path, with_folders: bool) -> tuple[list[Item], list[Decided]]:
    items: dict[str, Item] = {}
    decided: dict[str, Decided] = {}
    for item in dataset.read(file) if file.exists() else []:
        original, box = _original(root, item)
        items[original.name] = original._replace(label=item.label or "")
        decided[original.name] = Decided("labelled", item.label, box) if item.label else Decided()
    beside = file.with_name(REJECTED)
    for item in dataset.read(beside) if beside.exists() else []:
        if item.name not in items:
            items[item.name] = item
            decided[item.name] = Decided("rejected")
    listing = pictures.find(root)
    odd = 0
    for path in listing.paths:
        name = path.relative_to(root).as_posix()
        if name in items or name.startswith(f"{REGIONS}/"):
            continue
        if not _is_unicode(name):  # an index cannot hold it
            odd += 1
            continue
        folder = name.partition("/")[0] if "/" in name else ""
        items[name] = Item(path, name, None, "", name, {})
        known = bool(folder) and with_folders and not file.exists()
        decided[name] = Decided("labelled", folder) if known else Decided()
    left_out = collections.Counter(listing.left_out)
    left_out.subtract(path.suffix.lower() for path in root.glob("[!.]*") if path.name.startswith((file.name, REJECTED)))
    note = pictures.Listing([], dict(+left_out)).note
    notes = [note] if note else []
    if odd:
        notes.append(f"{odd} pictures whose names are not Unicode: rename them")
    if notes:
        _log.warning("%s: %s", root, "; ".join(notes))
    names = sorted(items)
    return [items[name] for name in names], [decided[name] for name in names]


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _original(root: Path, item: Item) -> tuple[Item, PixelBox | None]:
    """The whole picture of a row that stands for a part of it."""
    name = item.columns.get("original", "")
    if not item.name.startswith(f"{REGIONS}/{name}.") or not (root / name).is_file():
        return item, None
    left, top, right, bottom = map(int, item.columns["box"].split())
    columns = {key: value for key, value in item.columns.items() if key not in ("original", "box")}
    return item._replace(path=root / name, name=name, columns=columns), (left, top, right, bottom)
