"""Files that users bring, mutated: each is read by the function that reads it, or refused in one line."""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tests.doubles.repetitions import times

from bittern.config import example, schema, secret_file
from bittern.errors import BitternError
from bittern.evaluation import dataset
from bittern.model import golden, labels, manifest
from bittern.model.preprocess import preprocess
from bittern.system import fileio
from bittern_train import task_files

Record = Callable[..., None]


class Kind(NamedTuple):
    """A kind of file: its name, whole ones, what reads it, and words that may turn up in it."""

    name: str
    whole: tuple[bytes, ...]
    read: Callable[[Path], object]
    words: tuple[bytes, ...]


def read_labels(file: Path) -> object:
    try:
        return labels.read(fileio.read_regular(file, 2**20))
    except (OSError, ValueError) as error:  # as `Classifier` does
        raise BitternError(str(error)) from None


def npz(folder: Path) -> bytes:
    frame = np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8)
    outputs = {path: [[np.arange(2, dtype=np.uint8)]] for path in ("xnnpack", "builtin")}
    golden.save(folder / "whole.npz", [frame], [preprocess(frame, size=16)], outputs)
    return (folder / "whole.npz").read_bytes()


def kinds(folder: Path, model_folder: Path) -> Iterator[Kind]:
    json_words = (b"[", b"]", b"{", b"}", b'"', b"\\", b",", b"null", b"1e999", b"9" * 400, b"\\ud800", b"[" * 3000)
    toml_words = (
        b"=",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"'''",
        b"\n",
        b".",
        b"a.",
        b"1979-05-27",
        b"[" * 3000,
        b"a." * 3000,
    )
    csv_words = (b",", b'"', b"\n", b"\r", b"../", b"/", b"0 ", b"\xef\xbb\xbf", b"x" * 3000)
    described = (model_folder / manifest.FILE).read_bytes()
    yield Kind(
        "manifest.json",
        (described[:6000] + described[-3000:], described),
        lambda f: manifest.read(f.parent),
        json_words,
    )
    yield Kind(
        "labels.txt",
        (
            b"stop\nnothing\n",
            b"0 cat\n1 dog\n",
            '["a", "b"]'.encode("utf-16"),
            b'{"labels": ["a", "b"]}',
            b"id,name\n0,a\n1,b\n",
        ),
        read_labels,
        json_words + csv_words,
    )
    task = (task_files.folder() / "stop_sign.toml").read_bytes()
    yield Kind("task.toml", (task,), lambda f: task_files.load(str(f)), toml_words)
    watch = b'source = "usb:0"\n[camera]\nfps = 5\n[mqtt]\nhost = "h"\n[[alarm]]\nlabel = "stop"\nthreshold = 0.5\n'
    yield Kind("watch.toml", (watch, watch, watch, example.example().encode()), schema.load, toml_words)
    yield Kind(
        "secret", (b"hunter2\n",), lambda f: secret_file.first_line(str(f), "key", "the key"), (b"\n", b"\r", b"\0")
    )
    index = b"path,label,split,group\nstop/1.jpg,stop,test,g1\nstop/2.jpg,stop,test,g2\n"
    yield Kind("index.csv", (index,), dataset.read, csv_words)
    yield Kind(
        "golden.npz", (npz(folder),), lambda f: golden.load(f, "xnnpack"), (b"PK\x01\x02", b"\x93NUMPY", b"\xff" * 4)
    )


def mutated(kind: Kind, choose: random.Random) -> bytes:
    """One of the whole files with some changes: bits, words, parts left out, moved or repeated."""
    data = bytearray(choose.choice(kind.whole))
    for _ in range(choose.randint(1, 5)):
        offset, length = choose.randrange(len(data) + 1), choose.choice((1, 1, 2, 8, 100))
        how = choose.randrange(6)
        if how == 0 and offset < len(data):
            data[offset] ^= 1 << choose.randrange(8)
        elif how == 1:
            data[offset:offset] = choose.choice(kind.words)
        elif how == 2:
            del data[offset : offset + length]
        elif how == 3:
            data[offset : offset + length] = choose.randbytes(length)
        elif how == 4:
            start = choose.randrange(len(data) + 1)
            data[offset:offset] = data[start : start + length] * choose.choice((1, 2, 50))
        elif choose.random() < 0.1:
            del data[offset:]
    return bytes(data)


def place(file: Path, data: bytes, choose: random.Random) -> None:
    """Mostly the mutated file; now and then something that is none."""
    if choose.random() > 0.01:
        file.write_bytes(data)
        return
    what = choose.randrange(4)
    if what == 0:
        os.mkfifo(file)
    elif what == 1:
        file.symlink_to("/dev/zero")
    elif what == 2:
        file.touch()
        os.truncate(file, 3 * 2**30)
    else:
        file.mkdir()


def refusal(kind: Kind, file: Path) -> str | None:
    """Why the file is refused; any other exception is what a user would see as a traceback."""
    try:
        kind.read(file)
    except BitternError as error:
        return str(error)
    return None


@pytest.mark.fuzz
def test_files_that_users_bring(tmp_path: Path, model_folder: Path, record: Record) -> None:
    n = times(10_000, 40)
    for kind in kinds(tmp_path, model_folder):
        choose = random.Random(kind.name)
        file = tmp_path / kind.name
        refused, longest = 0, 0.0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(n):
            place(file, mutated(kind, choose), choose)
            begun = time.process_time()  # many tests may run at the same time
            message = refusal(kind, file)
            refused += message is not None
            assert "\n" not in (message or ""), f"{kind.name} {i}: {message}"
            longest = max(longest, time.process_time() - begun)
            file.rmdir() if file.is_dir() else file.unlink()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert longest < 5.0
        assert grown < 500
        assert refused > n / 100
        if kind.name not in ("manifest.json", "golden.npz"):
            assert refused < n, "the changes reach both ways out"
        figure = f"{refused} refused; 0 crashes, 0 tracebacks, at most {longest:.1f} s and {grown:.0f} MB"
        record(33, f"fuzz: {kind.name}", n, figure, "no crash, no traceback, under 5 s and 500 MB")
