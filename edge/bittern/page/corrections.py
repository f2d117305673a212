"""Pictures that were labelled on the page: a data set with an index.csv, which training and `bittern data` read."""

from __future__ import annotations

from pathlib import Path

from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item
from bittern.system import fileio

PICTURES = "pictures"


def add(folder: Path, name: str, data: bytes, label: str, columns: dict[str, str], *, keep: bool = True) -> None:
    """Put a picture into a set with a label, or give it another label.

    Args:
        folder: the set; made if it is not there.
        name: of the picture's file, unique in the set.
        data: of the picture's file.
        label: the label.
        columns: further columns of the index.
        keep: see `index.write`.

    Raises:
        BitternError: another command is changing the index, or it cannot be written.
        OSError: the picture cannot be written.
    """
    file = folder / PICTURES / name
    if not file.exists():
        fileio.write(file, data)
    item = Item(file, f"{PICTURES}/{name}", label, "", name, columns)
    with index.locked(folder / index.FILE):
        items = _items(folder)
        if any(old.name == item.name for old in items):
            items = [
                item._replace(split=old.split, group=old.group, columns=old.columns | columns)
                if old.name == item.name
                else old
                for old in items
            ]
        else:
            items.append(item)
        index.write(folder / index.FILE, items, keep=keep)


def remove(folder: Path, name: str, *, keep: bool = True) -> None:
    """Take a picture out of the index of a set again; its file stays, for `bittern data undo` may bring the row back.

    Raises:
        BitternError: see `add`.
    """
    if not folder.is_dir():
        return
    with index.locked(folder / index.FILE):
        items = [item for item in _items(folder) if item.name != f"{PICTURES}/{name}"]
        if items:
            index.write(folder / index.FILE, items, keep=keep)
        else:  # an index has at least one picture
            (folder / index.FILE).unlink(missing_ok=True)


def _items(folder: Path) -> list[Item]:
    file = folder / index.FILE
    return dataset.read(file) if file.exists() else []
