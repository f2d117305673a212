"""What pictures of others are labelled with: folders, tables, boxes of COCO, YOLO and VOC, and exports of programs."""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from bittern.errors import ConfigurationError, one_line
from bittern_train.data.tree import ANNOTATIONS, MAX_ANNOTATION_BYTES, Omission, Tree, is_picture


class Box(NamedTuple):
    """A labelled rectangle: edges in pixels of the upright picture, or in parts of its size."""

    label: str
    left: float
    top: float
    right: float
    bottom: float


class AnnotatedPicture(NamedTuple):
    """What a format says of a picture.

    Attributes:
        name: its path in the tree.
        label: of the whole picture; empty if it has none.
        split: "train", "val", "test", another one, or empty.
        group: what it belongs together with, or empty.
        boxes: in it; None where the format has no boxes.
        relative: whether the boxes are in parts of the picture's size.
        size: (width, height) in pixels, if the boxes are for such a picture only.
        columns: further ones for the index.
    """

    name: str
    label: str
    split: str = ""
    group: str = ""
    boxes: tuple[Box, ...] | None = None
    relative: bool = False
    size: tuple[int, int] | None = None
    columns: dict[str, str] = {}  # noqa: RUF012  # never changed


class Contents(NamedTuple):
    """What was found in a tree.

    Attributes:
        format: a key of FORMATS.
        pictures: sorted by name.
        left_out: what is named by the format but cannot be used, and pictures that it does not name.
        also: other formats that are there too.
    """

    format: str
    pictures: list[AnnotatedPicture]
    left_out: list[Omission]
    also: list[str] = []  # noqa: RUF012  # never changed


_SPLITS = {
    "train": "train", "training": "train", "valid": "val", "validation": "val", "val": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_PATH_KEYS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_name", "img",
    "img_path", "picture", "image_id", "id", "name",
)  # fmt: skip
_LABEL_KEYS = (
    "label", "class", "category", "class_name", "label_name", "category_name", "target", "classid", "class_id",
    "species", "breed", "tag", "labels", "y",
)  # fmt: skip
_EDGE_KEYS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
_MISSING = "named in {}, but not there"
_NO_LABEL = "no label in {}"


class _Files:
    """The pictures of a tree, found by how an annotation calls them."""

    def __init__(self, tree: Tree) -> None:
        self.names = [name for name in tree.sizes if is_picture(name)]
        self._all = set(self.names)
        self._by_base: dict[str, list[str]] = {}
        for name in self.names:
            base = posixpath.basename(name)
            for key in {base, posixpath.splitext(base)[0]}:
                self._by_base.setdefault(key, []).append(name)

    def find(self, called: str, folder: str) -> str | None:
        """A picture by its path from `folder` or the top, or by its file name if only one has it.

        The suffix may be missing. A path that leads outside is only looked up by its file name.
        """
        path = called.strip().replace("\\", "/")
        for candidate in (posixpath.normpath(posixpath.join(folder, path)), posixpath.normpath(path)):
            if candidate in self._all:
                return candidate
        same_name = self._by_base.get(posixpath.basename(path), [])
        if len(same_name) > 1:  # one of them may end in the whole path
            same_name = [name for name in same_name if name.endswith("/" + path.lstrip("./"))]
        return same_name[0] if len(same_name) == 1 else None


def read(tree: Tree, format_name: str | None = None, *, only: str | None = None, label_from: str = "first") -> Contents:
    """Find out what the pictures of a tree are labelled with, by what is in its files.

    Args:
        tree: the files.
        format_name: the only format to try, a key of FORMATS; None for the first of them that is there.
        only: the only annotation to read, a file of the tree; None for all.
        label_from: of folders: the "first" or "last" part of a picture's path is its label, or the whole "path".

    Raises:
        ConfigurationError: no pictures, or none of that format, or an annotation is broken.
    """
    files = _Files(tree)
    annotations = [n for n in tree.sizes if posixpath.splitext(n)[1].lower() in ANNOTATIONS]
    source = _Source(tree, files, [only] if only is not None else annotations, {})
    readable: list[Contents] = []
    for key, reader in _READERS.items():
        if format_name in (None, key) and (not readable or format_name is None):
            contents = reader(source)
            if contents is not None and (contents.pictures or contents.left_out):
                readable.append(contents)
    if readable:
        first = readable[0]
        named = {picture.name for picture in first.pictures} | {omission.name for omission in first.left_out}
        others = [Omission(name, "is not annotated", failed=False) for name in files.names if name not in named]
        also = [contents.format for contents in readable[1:]]
        return first._replace(left_out=[*first.left_out, *others], also=also)
    if format_name not in (None, "folders"):
        raise ConfigurationError(
            f"{tree.path}: there is nothing of the format {format_name!r}: leave out --format, or see --help"
        )
    if only is not None:
        raise ConfigurationError(
            f"{tree.path / only}: expected paths and labels, or COCO's or another format: see --help"
        )
    contents = _folders(tree, label_from)
    if not contents.pictures:
        raise ConfigurationError(f"{tree.path}: no pictures found in it")
    return contents


class _Source(NamedTuple):
    tree: Tree
    files: _Files
    annotations: list[str]
    parsed: dict[str, Any]

    def with_suffix(self, *suffixes: str) -> list[str]:
        return [n for n in self.annotations if posixpath.splitext(n)[1].lower() in suffixes]

    def text(self, name: str) -> str:
        try:
            data = self.tree.read(name, MAX_ANNOTATION_BYTES)
        except OSError as error:
            raise ConfigurationError(f"{self.tree.path / name}: cannot be read ({one_line(error)})") from None
        try:
            return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigurationError(f"{self.tree.path / name}:{line}: is not UTF-8: save it as UTF-8") from None

    def json(self, name: str) -> Any:
        """None if it is no JSON, or is too deep; read once for all formats."""
        if name not in self.parsed:
            self.parsed[name] = _parsed(self.text(name), posixpath.splitext(name)[1].lower() in (".jsonl", ".ndjson"))
        return self.parsed[name]


def _parsed(text: str, lines: bool) -> Any:
    try:
        if lines:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _tidy(label: object) -> str:
    """A label as text; composed characters as one (macOS stores "ä" in folder names as two)."""
    return unicodedata.normalize("NFC", str(label)).strip()


def _split_of(name: str) -> str:
    """The split that a folder or file name says: `train`, `valid/_annotations.coco.json`, `instances_val2017.json`."""
    for part in reversed(name.split("/")):
        for word in re.findall("[a-z]+", part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return ""


def _number(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]  # ValueError and TypeError are what the callers expect
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no number")
    return number


def _sized(width: object, height: object) -> tuple[int, int] | None:
    try:
        size = int(_number(width)), int(_number(height))
    except (ValueError, TypeError):
        return None
    return size if min(size) > 0 else None


# --- formats with boxes ---


def _coco(source: _Source) -> Contents | None:
    pictures: dict[str, AnnotatedPicture] = {}
    left_out: list[Omission] = []
    for file in source.with_suffix(".json"):
        data = source.json(file)
        if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
            continue
        try:
            names = {c["id"]: _tidy(c["name"]) for c in data.get("categories", [])}
            boxes: dict[object, list[Box]] = {}
            for number, a in enumerate(data["annotations"]):
                if not a.get("bbox"):
                    continue
                if a["category_id"] not in names:
                    raise ValueError(f"annotation {number}: no category {a['category_id']!r}")
                x, y, width, height = map(_number, a["bbox"])
                boxes.setdefault(a["image_id"], []).append(Box(names[a["category_id"]], x, y, x + width, y + height))
            for image in data["images"]:
                name = source.files.find(str(image["file_name"]), posixpath.dirname(file))
                if name is None:
                    left_out.append(Omission(str(image["file_name"]), _MISSING.format(file)))
                    continue
                size = _sized(image.get("width"), image.get("height"))
                # COCO itself has the boxes of a picture in several files, some of them twice.
                earlier = pictures[name].boxes or () if name in pictures else ()
                own = tuple(dict.fromkeys((*earlier, *boxes.get(image["id"], ()))))
                split = _split_of(posixpath.dirname(name)) or _split_of(file)
                pictures[name] = AnnotatedPicture(name, "", split, boxes=own, size=size)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(f"{source.tree.path / file}: broken COCO file ({_reason(error)})") from None
    return _contents("coco", pictures, left_out)


def _reason(error: Exception) -> str:
    return f"no {error.args[0]!r}" if isinstance(error, KeyError) else one_line(error)


def _voc(source: _Source) -> Contents | None:
    pictures: dict[str, AnnotatedPicture] = {}
    left_out: list[Omission] = []
    for file in source.with_suffix(".xml"):
        text = source.text(file)
        if "<annotation" not in text:
            continue
        if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities may be a bomb; no annotation needs them
            left_out.append(Omission(file, "has a document type, which no annotation needs"))
            continue
        try:
            root = ElementTree.fromstring(text)
            called = root.findtext("filename") or posixpath.splitext(posixpath.basename(file))[0]
            boxes = []
            for thing in root.iter("object"):
                edges = [_number(thing.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
                boxes.append(Box(_tidy(thing.findtext("name") or ""), *edges))
        except (ElementTree.ParseError, ValueError, TypeError) as error:
            left_out.append(Omission(file, f"broken annotation ({one_line(error)})"))
            continue
        # LabelImg writes the name that the picture had; the annotation's own name is more reliable if it was renamed.
        stem = posixpath.splitext(posixpath.basename(file))[0]
        name = source.files.find(called, posixpath.dirname(file)) or source.files.find(stem, posixpath.dirname(file))
        if name is None:
            left_out.append(Omission(called, _MISSING.format(file)))
            continue
        size = _sized(root.findtext("size/width"), root.findtext("size/height"))
        pictures[name] = AnnotatedPicture(name, "", _split_of(posixpath.dirname(name)), boxes=tuple(boxes), size=size)
    return _contents("voc", pictures, left_out)


_CLASS_FILES = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt", "labels.txt")


def _yolo(source: _Source) -> Contents | None:
    by_path = {posixpath.splitext(name)[0]: name for name in source.files.names}
    pairs: dict[str, str] = {}
    for file in source.with_suffix(".txt"):
        stem = posixpath.splitext(file)[0]
        # Beside the picture, or in labels/ beside images/.
        for path in (stem, re.sub(r"(^|/)labels(/|$)", r"\1images\2", stem, count=1)):
            if path in by_path:
                pairs[by_path[path]] = file
                break
    names: dict[str, str] | None = None
    pictures: dict[str, AnnotatedPicture] = {}
    left_out: list[Omission] = []
    for name, file in pairs.items():
        try:
            rows = [line.split() for line in source.text(file).splitlines() if line.strip()]
            boxes = [(int(row[0]), _edges([_number(value) for value in row[1:]])) for row in rows]
        except (ValueError, IndexError):
            if not pictures:
                return None  # texts beside the pictures, but no boxes
            left_out.append(Omission(name, f"expected a class and a box in each line of {file}"))
            continue
        if names is None:
            names = _class_names(source)
        labelled = tuple(Box(names.get(str(number), str(number)), *edges) for number, edges in boxes)
        pictures[name] = AnnotatedPicture(name, "", _split_of(posixpath.dirname(name)), boxes=labelled, relative=True)
    if not any(picture.boxes for picture in pictures.values()):
        return None
    return _contents("yolo", pictures, left_out)


def _edges(values: Sequence[float]) -> tuple[float, float, float, float]:
    """The edges of a box (centre and size), or of the box around a polygon (three points and more)."""
    if len(values) in (4, 5):  # with a score behind it
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) < 6 or len(values) % 2:
        raise ValueError
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def _class_names(source: _Source) -> dict[str, str]:
    for file in source.tree.sizes:
        if posixpath.basename(file) in _CLASS_FILES:
            return {str(i): _tidy(line) for i, line in enumerate(source.text(file).splitlines()) if line.strip()}
    for file in source.with_suffix(".yaml", ".yml"):
        names = _yaml_names(source.text(file))
        if names:
            return names
    return {}


def _yaml_names(text: str) -> dict[str, str]:
    """`names` of a data.yaml: a list in one line, or a list or a table in the lines below it."""
    match = re.search(r"^names:[ \t]*(.*)$((?:\n(?:[ \t]+|-).*)*)", text, re.MULTILINE)
    if match is None:
        return {}
    inline = match[1].partition(" #")[0].strip()
    if inline[:1] in "[{" and inline:
        body = inline + match[2].replace("\n", " ")
        entries = [
            part.strip() for part in re.split(r",(?=(?:[^'\"]*['\"][^'\"]*['\"])*[^'\"]*$)", body.strip("[]{} "))
        ]
    else:
        entries = [line.strip() for line in match[2].split("\n") if line.strip() and not line.strip().startswith("#")]
    names = {}
    for number, entry in enumerate(entries):
        key, value = re.match(r"(?:-\s*|(\d+)\s*:\s*)?(.*)", entry, re.DOTALL).groups()  # type: ignore[union-attr]
        names[key or str(number)] = _tidy(value.strip("'\""))
    return {key: value for key, value in names.items() if value}


_GTSRB = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2"


def _gtsrb(source: _Source) -> Contents | None:
    """Tables of the German Traffic Sign Recognition Benchmark: a track of frames of one physical sign is a group."""
    pictures: dict[str, AnnotatedPicture] = {}
    left_out: list[Omission] = []
    for file in source.with_suffix(".csv"):
        text = source.text(file)
        if not text.startswith(_GTSRB):
            continue
        for line, row in enumerate(csv.DictReader(io.StringIO(text), delimiter=";"), 2):
            called = row["Filename"] or ""
            name = source.files.find(called, posixpath.dirname(file)) or source.files.find(
                posixpath.splitext(called)[0], posixpath.dirname(file)
            )
            if name is None:
                left_out.append(Omission(posixpath.join(posixpath.dirname(file), called), _MISSING.format(file)))
                continue
            try:
                edges = [_number(row[f"Roi.{key}"]) for key in ("X1", "Y1", "X2", "Y2")]
                label = str(int(row["ClassId"])) if row.get("ClassId") else ""
            except (ValueError, TypeError):
                raise ConfigurationError(
                    f"{source.tree.path / file}:{line}: expected numbers, as in the lines of GTSRB"
                ) from None
            track = re.match(r"(\d+)_\d+\.", posixpath.basename(name))
            group = f"{label}/{track[1]}" if track else ""
            box = Box(label, edges[0], edges[1], edges[2] + 1, edges[3] + 1)  # the last row and column belong to it
            pictures[name] = AnnotatedPicture(name, label, "", group, (box,), size=_sized(row["Width"], row["Height"]))
    return _contents("gtsrb", pictures, left_out)


# --- exports of programs ---


def _edge_impulse(source: _Source) -> Contents | None:
    """`info.labels`, and `bounding_boxes.labels` of older exports."""
    pictures: dict[str, AnnotatedPicture] = {}
    left_out: list[Omission] = []
    for file in source.with_suffix(".labels"):
        data = source.json(file)
        if not isinstance(data, dict):
            continue
        folder = posixpath.dirname(file)
        try:
            entries = [
                (
                    f["path"],
                    _tidy(f.get("label", {}).get("label", "")),
                    f.get("category", ""),
                    f.get("boundingBoxes", []),
                )
                for f in data.get("files", [])
            ] + [(name, "", "", boxes) for name, boxes in data.get("boundingBoxes", {}).items()]
            for called, label, category, raw in entries:
                name = source.files.find(called, folder)
                if name is None:
                    left_out.append(Omission(called, _MISSING.format(file)))
                    continue
                boxes = tuple(
                    Box(_tidy(b["label"]), x, y, x + _number(b["width"]), y + _number(b["height"]))
                    for b in raw
                    for x, y in [(_number(b["x"]), _number(b["y"]))]
                )
                split = _SPLITS.get(category, "") or _split_of(posixpath.dirname(name))
                if name not in pictures or boxes or label:
                    pictures[name] = AnnotatedPicture(name, label, split, boxes=boxes if boxes or not label else None)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(f"{source.tree.path / file}: broken labels file ({_reason(error)})") from None
    return _contents("edge-impulse", pictures, left_out)


def _frigate(source: _Source) -> Contents | None:
    """Snapshots `CAMERA-ID.jpg`, with what Frigate's /api/events says of them in a JSON file.

    Where there is a clean copy (`CAMERA-ID-clean.png`, .webp), it is taken: boxes may be drawn into the other.
    """
    pictures: dict[str, AnnotatedPicture] = {}
    left_out: list[Omission] = []
    for file in source.with_suffix(".json"):
        data = source.json(file)
        if (
            not isinstance(data, list)
            or not data
            or not all(isinstance(e, dict) and {"id", "camera", "label"} <= e.keys() for e in data)
        ):
            continue
        folder = posixpath.dirname(file)
        for event in data:
            called = f"{event['camera']}-{event['id']}"
            name = source.files.find(f"{called}-clean", folder) or source.files.find(called, folder)
            if name is None:
                left_out.append(Omission(called, _MISSING.format(file)))
                continue
            box = event.get("data", {}).get("box") if isinstance(event.get("data"), dict) else None
            label = _tidy(event.get("sub_label") or event["label"])
            boxes: tuple[Box, ...] = ()
            try:
                if box:
                    x, y, width, height = map(_number, box)
                    boxes = (Box(label, x, y, x + width, y + height),)
            except (ValueError, TypeError):
                left_out.append(Omission(name, f"a box without four numbers in {file}"))
                continue
            columns = {"camera": str(event["camera"]), "time": str(event.get("start_time", ""))}
            pictures[name] = AnnotatedPicture(
                name, label, "", str(event["id"]), boxes or None, relative=True, columns=columns
            )
    return _contents("frigate", pictures, left_out)


# --- tables and folders ---


def _table(source: _Source) -> Contents | None:
    pictures: dict[str, AnnotatedPicture] = {}
    left_out: list[Omission] = []
    for file in source.with_suffix(".csv", ".tsv", ".json", ".jsonl", ".ndjson"):
        rows = _json_rows(source.json(file)) if "json" in posixpath.splitext(file)[1] else _csv_rows(source, file)
        if not rows:
            continue
        keys = {str(key).strip().lower(): key for key in rows[0] if key}
        path_key = next((keys[k] for k in _PATH_KEYS if k in keys), None)
        label_key = next((keys[k] for k in _LABEL_KEYS if k in keys), None)
        if path_key is None or label_key is None:
            continue
        edge_keys = next(([keys[k] for k in four] for four in _EDGE_KEYS if all(k in keys for k in four)), None)
        known = {path_key, label_key, *(edge_keys or []), *(keys.get(k) for k in ("split", "group"))}
        names: dict[str, AnnotatedPicture] = {}
        unusable: set[str] = set()
        for row in rows:
            called, label = str(row.get(path_key) or ""), _tidy(row.get(label_key) or "")
            name = source.files.find(called, posixpath.dirname(file)) if called else None
            if name is None:
                left_out.append(Omission(called, _MISSING.format(file)))
                continue
            split = str(row.get(keys.get("split", ""), "") or "")
            split = _SPLITS.get(split.lower(), split) or _split_of(posixpath.dirname(name))
            group = str(row.get(keys.get("group", ""), "") or "")
            boxes: tuple[Box, ...] | None = None
            if edge_keys:
                try:
                    boxes = (Box(label, *(_number(row[k]) for k in edge_keys)),)
                except (ValueError, TypeError, KeyError):
                    left_out.append(Omission(name, f"a box without four numbers in {file}"))
                    continue
            columns = {
                str(k): str(v) for k, v in row.items() if k and k not in known and isinstance(v, (str, int, float))
            }
            before = names.get(name)
            if before is not None and boxes is None and before.label != label:
                left_out.append(Omission(name, f"two labels in {file}: {before.label!r} and {label!r}"))
                unusable.add(name)
            elif before is not None and boxes is not None:
                names[name] = before._replace(boxes=(*(before.boxes or ()), *boxes))
            else:
                names[name] = AnnotatedPicture(name, "" if edge_keys else label, split, group, boxes, columns=columns)
        pictures.update({name: picture for name, picture in names.items() if name not in unusable})
    # A table of something else names no picture that is there.
    return _contents("table", pictures, left_out) if pictures else None


def _csv_rows(source: _Source, file: str) -> list[dict[str, Any]]:
    text = source.text(file)
    if text.startswith(_GTSRB):
        return []
    first = text.partition("\n")[0]
    delimiter = max(",;\t|", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        if first.count(delimiter) == 0:
            return []
        raise ConfigurationError(f"{source.tree.path / file}: broken CSV ({error})") from None
    rows = [row for row in rows if any(row)]
    if not rows:
        return []
    header = rows[0]
    if len(header) == 2 and not {h.strip().lower() for h in header} & {*_PATH_KEYS, *_LABEL_KEYS}:
        header, rows = ["path", "label"], [[], *rows]  # without names in the first line
    return [dict(zip(header, row, strict=False)) for row in rows[1:]]


def _json_rows(data: Any) -> list[dict[str, Any]]:
    if isinstance(data, dict):
        if data and all(isinstance(value, (str, int)) for value in data.values()):
            return [{"path": key, "label": value} for key, value in data.items()]
        lists = [value for value in data.values() if isinstance(value, list)]
        data = lists[0] if len(lists) == 1 else None
    return data if isinstance(data, list) and data and all(isinstance(row, dict) for row in data) else []


def _folders(tree: Tree, label_from: str) -> Contents:
    names = [n for n in tree.sizes if is_picture(n) or "." not in posixpath.basename(n)]
    chosen = set(names)
    left_out = [
        Omission(n, f"{posixpath.splitext(n)[1].lower()} file", failed=False) for n in tree.sizes if n not in chosen
    ]
    pictures: dict[str, AnnotatedPicture] = {}
    prefix = _common_folder(names)
    top = {name[len(prefix) :].split("/")[0] for name in names if "/" in name[len(prefix) :]}
    splits = bool(top) and all(folder.lower() in _SPLITS for folder in top)
    for name in names:
        parts = name[len(prefix) :].split("/")[:-1]
        split = _SPLITS[parts[0].lower()] if splits and parts else ""
        parts = parts[1:] if splits else parts
        label = ""
        if parts:
            label = {"first": parts[0], "last": parts[-1], "path": "/".join(parts)}[label_from]
        pictures[name] = AnnotatedPicture(name, _tidy(label), split)
    contents = _contents("folders", pictures, left_out)
    return contents or Contents("folders", [], left_out)


def _common_folder(names: list[str]) -> str:
    """The folders that all pictures are in, but for the last if that is the only label: `dataset/images/`."""
    prefix = ""
    while True:
        inside = {name[len(prefix) :].partition("/")[0] for name in names if "/" in name[len(prefix) :]}
        loose = any("/" not in name[len(prefix) :] for name in names)
        if len(inside) != 1 or loose:
            return prefix
        deeper = f"{prefix}{inside.pop()}/"
        if all("/" not in name[len(deeper) :] for name in names):
            return prefix
        prefix = deeper


def _contents(key: str, pictures: dict[str, AnnotatedPicture], left_out: list[Omission]) -> Contents | None:
    if not pictures and not left_out:
        return None
    return Contents(key, [pictures[name] for name in sorted(pictures)], left_out)


# In the order in which they are tried.
_READERS: dict[str, Callable[[_Source], Contents | None]] = {
    "edge-impulse": _edge_impulse,
    "coco": _coco,
    "frigate": _frigate,
    "gtsrb": _gtsrb,
    "voc": _voc,
    "yolo": _yolo,
    "table": _table,
}
FORMATS: Iterable[str] = (*_READERS, "folders")
