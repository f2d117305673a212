"""What a disk may hold after a power cut: from strace's record of a process, whatever was not synced is in doubt.

A file's writes are safe up to its last fsync or fdatasync; of those after it any may be there, whole or in part (in
sectors of 512 bytes, which are written whole). A new or deleted name is safe when its folder was synced.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import NamedTuple

TRACE = ("openat", "pwrite64", "write", "fdatasync", "fsync", "ftruncate", "unlink", "rename")
STRACE = ("strace", "-f", "-qq", "-y", "-xx", "-s", "1000000", "-e", f"trace={','.join(TRACE)}", "-o")
SECTOR = 512
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (\d+)")


class Call(NamedTuple):
    """One system call on a file, in the order of the record: `data` for writes, `number` for offset or length."""

    name: str
    file: str
    data: bytes = b""
    number: int = 0


def read_record(record: Path, folder: Path) -> list[Call]:
    """The calls on files in a folder, on the folder itself, and writes to anything else (file "")."""
    calls = []
    for line in record.read_text().splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        name, arguments = call[1], call[2]
        texts = [
            bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'[<"]((?:\\x[0-9a-f]{2})*)[>"]', arguments)
        ]
        path = Path((texts[1] if name == "openat" and len(texts) > 1 else texts[0]).decode(errors="replace"))
        inside = path.parent == folder or path == folder
        numbers = [int(n) for n in re.findall(r", (\d+)(?=,|$)", arguments)]
        if name == "write" and not inside:
            calls.append(Call("write", "", texts[-1]))
        elif not inside:
            continue
        elif name == "openat":
            if "O_CREAT" in arguments:
                calls.append(Call("create", path.name))
        elif name == "pwrite64":
            calls.append(Call(name, path.name, texts[1], numbers[-1]))
        elif name == "ftruncate":
            calls.append(Call(name, path.name, number=numbers[-1]))
        elif name in ("fdatasync", "fsync"):
            calls.append(Call("sync", "." if path == folder else path.name))
        elif name == "unlink":
            calls.append(Call(name, path.name))
        else:
            raise ValueError(f"not expected here: {line[:200]}")
    return calls


def leave(calls: list[Call], folder: Path, choose: random.Random) -> None:
    """Write into a folder what a power cut after these calls may leave."""
    safe: dict[str, bytearray] = {}
    pending: dict[str, list[Call]] = {}
    created: set[str] = set()
    deleted: dict[str, bytearray] = {}
    for call in calls:
        if call.name == "create" and call.file not in safe:
            safe[call.file], pending[call.file] = bytearray(), []
            created.add(call.file)
            deleted.pop(call.file, None)
        elif call.name == "unlink":
            if call.file not in created:
                deleted[call.file] = _kept(safe[call.file], pending[call.file], choose)
            created.discard(call.file)
            safe.pop(call.file, None)
            pending.pop(call.file, None)
        elif call.name == "sync" and call.file == ".":
            created.clear()
            deleted.clear()
        elif call.name == "sync":
            for late in pending[call.file]:
                _apply(safe[call.file], late, late.data)
            pending[call.file] = []
        elif call.file:
            pending[call.file].append(call)
    for name, data in safe.items():
        if name not in created or choose.random() < 0.5:
            (folder / name).write_bytes(_kept(data, pending[name], choose))
    for name, data in deleted.items():
        if choose.random() < 0.5:
            (folder / name).write_bytes(data)


def _kept(safe: bytearray, pending: list[Call], choose: random.Random) -> bytearray:
    """Some of the writes, some of them in part; all of them and none of them are possible too."""
    data = bytearray(safe)
    how_many = choose.choice((0.0, 0.2, 0.5, 0.8, 1.0))
    for call in pending:
        if choose.random() >= how_many:
            continue
        whole = call.data
        if how_many == 1.0 or choose.random() < 0.5 or call.name == "ftruncate":
            _apply(data, call, whole)
            continue
        for start in range(0, len(whole), SECTOR):
            if choose.random() < 0.5:
                _apply(data, call._replace(number=call.number + start), whole[start : start + SECTOR])
    return data


def _apply(data: bytearray, call: Call, what: bytes) -> None:
    if call.name == "ftruncate":
        del data[call.number :]
        data.extend(bytes(call.number - len(data)))
    else:
        data.extend(bytes(max(0, call.number - len(data))))
        data[call.number : call.number + len(what)] = what
