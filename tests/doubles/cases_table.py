"""The tables in docs/models.md of label files, pictures, models, clips and sources: what is right, and what happens.

`python -m tests.doubles.cases_table` writes them. Every answer is what the command printed.
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tests.doubles import hostile_pictures
from tests.doubles.command import bittern
from tests.doubles.foreign_models import Kind, red_or_blue
from tests.doubles.foreign_table import PAGE
from tests.doubles.picture_files import (
    avif_with_exif,
    encode,
    exif,
    gif,
    jpeg_with_exif,
    png_with_exif,
    tiff_with_orientation,
    webp_with_exif,
)
from tests.doubles.raw_h264 import film
from tests.doubles.tflite_files import channel_means, crashing, with_files

from bittern.errors import ConfigurationError
from bittern.frames import Pixels
from bittern.sources.registry import check_source

BEGIN, END = "<!-- cases -->\n", "<!-- /cases -->\n"
RED, BLUE = (40, 40, 220), (220, 40, 40)  # BGR


class Case(NamedTuple):
    """An input: what it is, what is right, and its file."""

    kind: str
    right: str
    data: bytes
    name: str = ""


def _flat(colour: tuple[int, int, int] = RED, height: int = 200, width: int = 200) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


# --- label files ------------------------------------------------------------------------------------------------------

OBEYED = "stop, go, slow"
LABEL_FILES = (
    Case("a label a line", OBEYED, b"stop\ngo\nslow\n"),
    Case("with a byte-order mark and CRLF", OBEYED, b"\xef\xbb\xbfstop\r\ngo\r\nslow\r\n"),
    Case("UTF-16", OBEYED, "stop\ngo\nslow\n".encode("utf-16")),
    Case("old Mac line ends", OBEYED, b"stop\rgo\rslow\r"),
    Case("latin-1", "read, or what to do", "stop\ngo\nl\xe4ngsam\n".encode("latin-1")),
    Case("blank lines", OBEYED, b"\n0 stop\n\n1 go\n2 slow\n\n\n"),
    Case("numbers, out of order", OBEYED, b"1 go\n2 slow\n0 stop\n"),
    Case("numbers from 1", OBEYED, b"1 stop\n2 go\n3 slow\n"),
    Case("Coral's, two blanks", OBEYED, b"0  stop\n1  go\n2  slow\n"),
    Case("numbers with a gap", "one line", b"0 stop\n1 go\n3 slow\n"),
    Case("numbers that belong to the names", "20 km/h, 30 km/h, 50 km/h", b"20 km/h\n30 km/h\n50 km/h\n"),
    Case("every line in quotes", OBEYED, b'"stop"\n"go"\n"slow"\n'),
    Case("numbers with =", OBEYED, b"0=stop\n2=slow\n1=go\n"),
    Case("CSV, name and number", OBEYED, b"go,1\nstop,0\nslow,2\n"),
    Case("CSV with a header", OBEYED, b"index,label\n2,slow\n0,stop\n1,go\n"),
    Case("CSV with semicolons, quotes, a header", OBEYED, b'"name";"id"\r\n"slow";2\r\n"stop";0\r\n"go";1\r\n'),
    Case("CSV, one column with a header", OBEYED, b"label\nstop\ngo\nslow\n"),
    Case("JSON, a list", OBEYED, b'["stop", "go", "slow"]'),
    Case("JSON, names by number", OBEYED, b'{"2": "slow", "0": "stop", "1": "go"}'),
    Case("JSON, numbers by name (Keras)", OBEYED, b'{"slow": 2, "stop": 0, "go": 1}'),
    Case("JSON, a list of objects", OBEYED, b'[{"id":2,"name":"slow"},{"id":0,"name":"stop"},{"id":1,"name":"go"}]'),
    Case("JSON of Teachable Machine", OBEYED, b'{"labels": ["stop", "go", "slow"], "imageSize": 224}'),
    Case("JSON of Lobe", OBEYED, b'{"doc_id": "a", "classes": {"Label": ["stop", "go", "slow"]}}'),
    Case("JSON of transformers", OBEYED, b'{"id2label": {"0": "stop", "1": "go", "2": "slow"}}'),
    Case("YAML of YOLO", "obeyed, or one line", b"nc: 3\nnames:\n  0: stop\n  1: go\n  2: slow\n"),
    Case("the same name twice", "told apart by number", b"crane\ngo\ncrane\n"),
    Case("one label too few", "one line", b"0 stop\n1 go\n"),
    Case("one label too many", "one line", b"0 background\n1 stop\n2 go\n3 slow\n"),
    Case("a control character (U+0085) in a name", "one line", "stop\ngo\nslow\x85x\n".encode()),
    Case("empty", "one line", b""),
)  # fmt: skip


def _labels(folder: Path) -> list[str]:
    """One command opens a copy of the model for each label file."""
    words: list[str] = []
    for number, case in enumerate(LABEL_FILES):
        (folder / f"{number:02}.tflite").write_bytes(channel_means((1, 16, 16, 3)))
        (folder / f"{number:02}.txt").write_bytes(case.data)
        words += [f"{number:02}.tflite", "--labels", f"{number:02}.txt"]
    done = bittern("models", *words, "--json", cwd=folder)
    rows = {row["name"]: row for row in done.lines}
    now = []
    for number in range(len(LABEL_FILES)):
        row = rows[f"{number:02}.tflite"]
        labels = ", ".join(*row["tasks"].values()) if "tasks" in row else ""
        now.append(labels or str(row["reason"]).replace(f"{number:02}.txt", "labels.txt"))
    return now


# --- pictures ---------------------------------------------------------------------------------------------------------


def _lying() -> Pixels:
    """Stored lying on its side: turned by orientation 6 it is 400 high, with blue at the bottom."""
    upright = np.concatenate([_flat(RED), _flat(BLUE)])
    return np.asarray(cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE), np.uint8)


TURNED = "blue: its bottom, upright"
ORIENTED = (
    Case("JPEG", TURNED, jpeg_with_exif(_lying(), exif(6)), "6.jpg"),
    Case("PNG", TURNED, png_with_exif(_lying(), exif(6)), "6.png"),
    Case("PNG, `Exif\\0\\0` before the block", TURNED, png_with_exif(_lying(), b"Exif\0\0" + exif(6)), "6p.png"),
    Case("WebP", TURNED, webp_with_exif(_lying(), exif(6)), "6.webp"),
    Case("WebP, `Exif\\0\\0` before the block", TURNED, webp_with_exif(_lying(), b"Exif\0\0" + exif(6)), "6p.webp"),
    Case("TIFF", TURNED, tiff_with_orientation(_lying(), 6), "6.tif"),
    Case("AVIF", TURNED, avif_with_exif(_lying(), exif(6)), "6.avif"),
)


def _large_jpeg() -> bytes:
    """A small JPEG whose header says 9000 x 9000."""
    data = encode(".jpg", _flat())
    height = data.index(b"\xff\xc0") + 5  # in the frame header, before the width
    return data[:height] + struct.pack(">HH", 9000, 9000) + data[height + 4 :]


def _heic() -> bytes:
    """What of a HEIC file is needed to recognize it."""
    return struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100)


PICTURES = (
    Case("JPEG that is called .jfif", "red", encode(".jpg", _flat()), "a.jfif"),
    Case("PNG that is called .jpg", "red", encode(".png", _flat()), "b.jpg"),
    Case("PNG, 16 bits and grey", "read", encode(".png", np.full((90, 90), 40000, np.uint16)), "c.png"),
    Case("AVIF", "red", encode(".avif", _flat()), "d.avif"),
    Case("GIF", "red", gif([np.full((40, 40, 3), (0, 0, 255), np.uint8)]), "e.gif"),
    Case("HEIC, also when it is called .jpg, without the extra", "is HEIC, and what to do", _heic(), "f.jpg"),
    Case("SVG", "one line", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "g.jpg"),
    Case("a video", "one line", struct.pack(">I", 24) + b"ftypisom" + bytes(4) + b"isommp42" + bytes(100), "h.jpg"),
    Case("cut off", "one line", encode(".jpg", _flat())[:-200], "i.jpg"),
    Case("empty", "one line", b"", "j.jpg"),
    Case("JPEG of 81 megapixels", "one line that names the option", _large_jpeg(), "k.jpg"),
    Case(
        "TIFF of 400 megapixels, sizes as LONG8",
        "refused by its header",
        hostile_pictures.tiff_of(
            [hostile_pictures.long8(256, 20_000), hostile_pictures.long8(257, 20_000)], hostile_pictures.zeros(10**6)
        ),
        "l.tif",
    ),
    Case("JPEG with 3000 scans", "refused at once", hostile_pictures.jpeg_of_scans(3000), "m.jpg"),
)


def _classified(folder: Path, cases: Sequence[Case], *words: str) -> list[str]:
    """The line of each picture, without its name and the time; and that of a folder, if there is one."""
    names = []
    for case in cases:
        (folder / case.name).write_bytes(case.data)
        names.append(case.name)
    if (folder / "set").is_dir():
        names.append("set")
    done = bittern("classify", *names, "--model", "colours.tflite", *words, cwd=folder)
    lines = (done.out + done.err).splitlines()
    return [_of(name, lines) for name in names]


def _of(name: str, lines: Sequence[str]) -> str:
    (line,) = [line for line in lines if re.match(rf"(bittern: )?{re.escape(name)}(:|  )", line)]
    return re.sub(r"  [0-9.]+ ms$", "", line.removeprefix("bittern: ").removeprefix(name).lstrip(": "))


def _write_set(folder: Path) -> None:
    """A folder with one picture, and files that are not taken."""
    (folder / "set").mkdir()
    for name, data in (("a.png", encode(".png", _flat())), ("b.heic", _heic()), ("c.jxl", b"\xff\x0a"), ("d.txt", b"")):
        (folder / "set" / name).write_bytes(data)


# --- models -----------------------------------------------------------------------------------------------------------

MODELS = (
    Case("an input of free size", "names the option", red_or_blue(Kind("uint8", "uint8", free=(0, 1, 2)))),
    Case("float32 that does not say what its pixels are", "names the option", red_or_blue(Kind())),
    Case("a single score of two labels", "names the option", red_or_blue(Kind("uint8", "uint8", ending="sigmoid"))),
    Case("crashes the runtime", "one line", crashing()),
)


def _models(folder: Path) -> list[str]:
    words = []
    for number, case in enumerate(MODELS):
        words.append(f"m{number}.tflite")
        (folder / words[-1]).write_bytes(with_files(case.data, labels_txt=b"red\nblue"))
    rows = bittern("models", *words, "--json", cwd=folder).lines
    return [str(row["reason"]).replace(word, "gate.tflite") for row, word in zip(rows, words, strict=True)]


# --- clips and sources ------------------------------------------------------------------------------------------------

CONFIG = """[[model]]
path = "colours.tflite"
alarm = ["red"]
[decision]
votes = 1
of = 1
cooldown_s = 0
min_off_s = 0
[gate]
enabled = false
"""
CLIPS = (
    ("raw H.264, red for 10 frames, then blue", "a rate that is said", "raw.h264"),
    ("the same at 10 frames a second", "red for 1 s", "raw.h264?fps=10"),
    ("raw JPEG pictures in a row (.mjpeg), the same", "a rate that is said", "door.mjpeg"),
)
SOURCES = (
    ("the number of a camera", "0"),
    ("a device", "/dev/null"),
    ("a stream that is not RTSP", "udp://10.0.0.5:5000"),
    ("an RTSP password with #", "rtsp://user:pa#ss@host/path"),
    ("a scheme without its colon", "demo"),
)


def _clips(folder: Path) -> list[str]:
    colours = [RED] * 10 + [BLUE] * 10
    (folder / "raw.h264").write_bytes(film(colours))
    frames = [np.concatenate([_flat(colour, 48, 44), _flat((128, 128, 128), 48, 20)], axis=1) for colour in colours]
    (folder / "door.mjpeg").write_bytes(b"".join(encode(".jpg", frame) for frame in frames))
    (folder / "clip.toml").write_text(CONFIG)
    now = []
    for _, _, uri in CLIPS:
        done = bittern("replay", uri, "--config", "clip.toml", "--every-frame", cwd=folder)
        on, off = (next(e["monotonic_ns"] for e in done.alarms if e["type"] == f"alarm.{way}") for way in ("on", "off"))
        notes = [line.removeprefix("bittern: ") for line in done.err.splitlines() if "raw stream" in line]
        now.append("; ".join([f"red for {(off - on) / 1e9:g} s", *notes]))
    return now


def _source(uri: str) -> str:
    """What `watch` and all others say of it; nothing is opened."""
    try:
        check_source(uri)
    except ConfigurationError as error:
        return str(error)
    return "taken"


# --- the page ---------------------------------------------------------------------------------------------------------


def tables() -> str:
    """The tables, as Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = red_or_blue(Kind("uint8", "uint8"))
        (folder / "colours.tflite").write_bytes(with_files(model, labels_txt=b"red\nblue"))
        oriented = _classified(folder, ORIENTED, "--region", "0,200,200,200")
        _write_set(folder)
        *pictures, left_out = _classified(folder, PICTURES)
        of_folder = ("a folder with other files", "what was left out", left_out)
        parts = [
            ("label file", _rows(LABEL_FILES, _labels(folder))),
            ("picture of EXIF orientation 6", _rows(ORIENTED, oriented)),
            ("picture", [*_rows(PICTURES, pictures), of_folder]),
            ("model", _rows(MODELS, _models(folder))),
            ("clip", [(kind, right, now) for (kind, right, _), now in zip(CLIPS, _clips(folder), strict=True)]),
            ("source", [(f"{kind}: `{uri}`", "one line with the right form", _source(uri)) for kind, uri in SOURCES]),
        ]
    lines = []
    for title, rows in parts:
        lines += ["", f"| {title} | what is right | what happens |", "| --- | --- | --- |"]
        lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines[1:]) + "\n"


def _rows(cases: Sequence[Case], now: Sequence[str]) -> list[tuple[str, str, str]]:
    return [(case.kind, case.right, answer) for case, answer in zip(cases, now, strict=True)]


def page() -> str:
    """The page with the tables as they are now."""
    text = PAGE.read_text(encoding="utf-8")
    return text[: text.index(BEGIN) + len(BEGIN)] + "\n" + tables() + "\n" + text[text.index(END) :]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
