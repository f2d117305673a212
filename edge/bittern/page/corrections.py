"""Pictures that were labelled on the page: a data set with an index.csv, which training and `bittern data` read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from bittern.evaluation import dataset, index
from bittern.evaluation.dataset import Item
from bittern.system import fileio

PICTURES = "pictures"
# As `bittern.model.pictures.MAX_BYTES`, whose module brings OpenCV.
MAX_BYTES = 64 * 2**20


def add(
    folder: Path, files: Mapping[str, Path], label: str, columns: Mapping[str, str], *, keep: bool = True
) -> list[str]:
    """Put pictures into a set with a label, or give them another label: one change of the index.

    Args:
        folder: the set; made if it is not there.
        files: a name, unique in the set, and the file of each picture; a file that is in the set already is not read.
        label: of all of them.
        columns: further columns of the index.
        keep: see `index.write`.

    Returns:
        The names of those whose files are gone.

    Raises:
        BitternError: another command is changing the index, or it cannot be written.
        OSError: a picture cannot be read or written.
    """
    names, gone = [], []
    for name, file in files.items():
        try:
            if not (folder / PICTURES / name).exists():
                fileio.write(folder / PICTURES / name, fileio.read_regular(file, MAX_BYTES))
            names.append(name)
        except FileNotFoundError:
            gone.append(name)
    if not names:
        return gone
    with index.locked(folder / index.FILE):
        items = {item.name: item for item in read(folder)}
        for name in names:
            item = Item(folder / PICTURES / name, f"{PICTURES}/{name}", label, "", name, dict(columns))
            old = items.get(item.name)
            items[item.name] = item if old is None else old._replace(label=label, columns=old.columns | item.columns)
        index.write(folder / index.FILE, list(items.values()), keep=keep)
    return gone


def remove(folder: Path, names: Collection[str], *, keep: bool = True) -> None:
    """Take pictures out of the index of a set again; the files stay, for `bittern data undo` may bring the rows back.

    Raises:
        BitternError: see `add`.
    """
    if not folder.is_dir():
        return
    removed = {f"{PICTURES}/{name}" for name in names}
    with index.locked(folder / index.FILE):
        items = [item for item in read(folder) if item.name not in removed]
        if items:
            index.write(folder / index.FILE, items, keep=keep)
        else:  # an index has at least one picture
            (folder / index.FILE).unlink(missing_ok=True)


def read(folder: Path) -> list[Item]:
    """The pictures of a set; none if there is no index yet.

    Raises:
        ConfigurationError: the index is broken.
    """
    file = folder / index.FILE
    return dataset.read(file) if file.exists() else []
