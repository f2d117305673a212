"""Reads a TOML file into a struct: every error with its line, what was expected, what came, and what was meant."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import date, time
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_args, get_origin

import msgspec
from msgspec import inspect

from bittern.errors import did_you_mean

T = TypeVar("T", bound=msgspec.Struct)
# Where a value stands: keys of tables, and numbers of the elements of arrays, which count from 0.
KeyPath = tuple[str | int, ...]

MAX_BYTES = 64 * 1024
# To find the end of a statement each of its lines costs one more look at all of it.
_MAX_STATEMENT_LINES = 64
_MAX_SHOWN = 60


class Problem(msgspec.Struct, frozen=True):
    """Something that is wrong, or suspicious, in a file.

    Attributes:
        line: counts from 1; None where it is not known, or for the file as a whole.
        key: such as "decision.votes" or "alarm[0].label"; "" for the file as a whole.
        message: one line: what was expected, and what came.
        warning: it would run all the same.
    """

    line: int | None
    key: str
    message: str
    warning: bool = False

    def text(self, file: Path) -> str:
        """One line: FILE:LINE: KEY: what."""
        where = f"{file}" if self.line is None else f"{file}:{self.line}"
        return ": ".join(part for part in (where, self.key, self.message) if part)


class Parsed(NamedTuple, Generic[T]):
    """What a file came to.

    Attributes:
        value: None if there are problems.
        problems: in the order of the file.
        lines: on which line each key, table and element of an array begins.
        wrong: where the problems are.
        rest: the file without what is wrong, to be looked at further; None if nothing whole is left.
    """

    value: T | None
    problems: list[Problem]
    lines: dict[KeyPath, int]
    wrong: tuple[KeyPath, ...] = ()
    rest: T | None = None

    def problem(self, path: KeyPath, message: str, *, warning: bool = False) -> Problem:
        """A problem with the value at `path`, with the line of the nearest thing around it that is in the file."""
        return _problem(self.lines, path, message, warning)


def read(file: Path, kind: type[T]) -> Parsed[T]:
    """Read a file. Whatever is in it, this never raises: what is wrong is among the problems.

    Args:
        file: at most `MAX_BYTES`.
        kind: the struct of the whole file, with unknown fields forbidden. Tables are structs among its fields.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return _broken(None, getattr(error, "strerror", None) or str(error))
    return parse(data, kind)


def parse(data: bytes, kind: type[T]) -> Parsed[T]:
    """`read`, for the bytes of a file."""
    if len(data) > MAX_BYTES:
        return _broken(None, f"larger than {MAX_BYTES >> 10} KiB: expected a configuration")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _broken(data.count(b"\n", 0, error.start) + 1, "not UTF-8")
    try:
        table = tomllib.loads(text)
    except RecursionError:
        return _broken(None, "nested too deeply")
    except ValueError as error:  # TOMLDecodeError, and a number of more digits than Python reads
        return _broken(*_syntax_error(text, str(error)))
    found = sorted(_check(kind, table, ()), key=lambda item: _order(table, item[0]))
    if not found:
        return Parsed(msgspec.convert(table, kind), [], _key_lines(text))
    lines = _key_lines(text)
    elsewhere = dict(_places(kind))
    problems = [_problem(lines, path, _hinted(message, path, elsewhere)) for path, message in found]
    wrong = tuple(path for path, _ in found)
    return Parsed(None, problems, lines, wrong, _rest(kind, table, wrong))


def describe(kind: Any) -> str:
    """A type in words, such as "a whole number from 1 to 64"."""
    return _describe(inspect.type_info(kind))


def shown(value: Any) -> str:
    """A value as TOML writes it, shortened."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(shown(item) for item in value[:5])}{', ...' if len(value) > 5 else ''}]"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, date | time):
        text = value.isoformat()
    elif isinstance(value, str):
        text = json.dumps(value, ensure_ascii=not value.isprintable())
    else:
        # Python refuses to write out a number of thousands of digits.
        text = "a huge number" if isinstance(value, int) and abs(value) >= 10**_MAX_SHOWN else repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def struct_of(kind: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """The struct in a field's type `S`, `S | None` or `tuple[S, ...]`, and whether it is the last of these."""
    origin = get_origin(kind)
    if origin is Annotated:
        return struct_of(get_args(kind)[0])
    inner = get_args(kind) if origin in (UnionType, tuple) else (kind,)
    for item in inner:
        if isinstance(item, type) and issubclass(item, msgspec.Struct):
            return item, origin is tuple
    return None, False


def key(path: KeyPath) -> str:
    """A path as a person writes it: "alarm[0].label"."""
    words = [f"[{part}]" if isinstance(part, int) else f".{_bare(part)}" for part in path]
    return "".join(words).removeprefix(".")


def _bare(word: str) -> str:
    return word if re.fullmatch(r"[A-Za-z0-9_-]+", word) else shown(word)


def _broken(line: int | None, message: str) -> Parsed[Any]:
    return Parsed(None, [Problem(line, "", message)], {})


def _syntax_error(text: str, message: str) -> tuple[int | None, str]:
    """Line and message of what tomllib says: "Invalid value (at line 3, column 7)"."""
    message = " ".join(message.split())
    if place := re.search(r" \(at line ([0-9]+), column [0-9]+\)$", message):
        return int(place[1]), message[: place.start()]
    if message.endswith(" (at end of document)"):
        return text.rstrip("\n").count("\n") + 1, message.removesuffix(" (at end of document)") + ", the file ends"
    return None, message


def _problem(lines: dict[KeyPath, int], path: KeyPath, message: str, warning: bool = False) -> Problem:
    near = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in lines), ())
    return Problem(lines.get(near), key(path), message, warning)


# --- values -----------------------------------------------------------------------------------------------------------


def _check(kind: Any, value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Everything that is wrong with a value, each with its path."""
    struct, many = struct_of(kind)
    if struct is not None and many and isinstance(value, list) and all(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _check_table(struct, item, (*path, i))
    elif struct is not None and not many and isinstance(value, dict):
        yield from _check_table(struct, value, path)
    elif struct is not None:
        wanted = f"tables, each begun with [[{key(path)}]]" if many else f"a table [{key(path)}]"
        yield path, f"expected {wanted}, got {shown(value)}"
    elif get_origin(kind) is dict and isinstance(value, dict):
        for name, item in value.items():
            yield from _check(get_args(kind)[1], item, (*path, name))
    else:
        try:
            msgspec.convert(value, kind)
        except (msgspec.ValidationError, ValueError, OverflowError, RecursionError):
            yield path, f"expected {describe(kind)}, got {shown(value)}"


def _check_table(struct: type[msgspec.Struct], table: dict[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    wrong: set[str] = set()
    for name, value in table.items():
        if name not in fields:
            hint = did_you_mean(name, fields) or f": expected one of {', '.join(fields)}"
            found = [((*path, name), f"{_UNKNOWN}{hint}")]
        else:
            found = list(_check(fields[name].type, value, (*path, name)))
        if found:
            wrong.add(name)
        yield from found
    for name, field in fields.items():
        if field.required and name not in table:
            wrong.add(name)
            yield path, f"needs the key {name!r}: {describe(field.type)}"
    if not any(fields[name].required for name in wrong if name in fields):
        yield from _together(struct, {k: v for k, v in table.items() if k not in wrong}, path, wrong)


def _together(
    struct: type[msgspec.Struct], table: dict[str, Any], path: KeyPath, wrong: set[str]
) -> Iterator[tuple[KeyPath, str]]:
    """What the struct's own `__post_init__` says of values that are right each by itself.

    It stops at the first mistake, whose text begins with the key. What comes after it is found without that key. What
    says something of a key that is `wrong` is left out: it speaks of its default.
    """
    first = True
    while True:
        try:
            msgspec.convert(table, struct)
        except (msgspec.ValidationError, ValueError) as error:
            message = re.sub(r" - at `\$.*`$", "", str(error))
            words = re.findall(r"\w+", message)
            if wrong & set(words) or not (first or words[0] in table):
                return
            yield ((*path, words[0]) if words[0] in table else path), message
            if words[0] not in table:
                return
            first, table = False, {k: v for k, v in table.items() if k != words[0]}
        else:
            return


def _rest(kind: type[T], table: dict[str, Any], wrong: tuple[KeyPath, ...]) -> T | None:
    """The file without what is wrong in it. The table is changed."""
    for paths in (wrong, [path[:1] for path in wrong]):  # where the rest of a table does not fit together, it goes
        for path in paths:
            _take_out(table, path)
        with contextlib.suppress(msgspec.ValidationError, ValueError):
            return msgspec.convert(table, kind)
    return None


def _take_out(table: dict[str, Any], path: KeyPath) -> None:
    """Remove a value; an element of an array stays, empty, so that the others keep their numbers."""
    inner: Any = table
    for part in path[:-1]:
        inner = inner.get(part) if isinstance(inner, dict) else inner[int(part)] if isinstance(inner, list) else None
    if isinstance(inner, list):
        inner[int(path[-1])] = {}
    elif isinstance(inner, dict) and path:
        inner.pop(path[-1], None)


_UNKNOWN = "unknown key"


def _places(struct: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every table with its keys; "" is the top of the file."""
    yield path, struct.__struct_fields__
    for field in msgspec.structs.fields(struct):
        inner, many = struct_of(field.type)
        if inner is not None and not many:
            yield from _places(inner, f"{path}.{field.name}".removeprefix("."))


def _hinted(message: str, path: KeyPath, places: dict[str, tuple[str, ...]]) -> str:
    """For an unknown key that another table knows: where it belongs."""
    if not message.startswith(_UNKNOWN):
        return message
    name = path[-1]
    if name in places:
        return f"{_UNKNOWN} here: it is a table at the top, [{name}]"
    known = [f"under [{place}]" if place else "above every [table]" for place, keys in places.items() if name in keys]
    return f"{_UNKNOWN} here: it belongs {' or '.join(known)}" if known else message


def _describe(info: inspect.Type) -> str:
    match info:
        case inspect.UnionType(types=types):
            return " or ".join(dict.fromkeys(_describe(t) for t in types if not isinstance(t, inspect.NoneType)))
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"a whole number{_range(info)}"
        case inspect.FloatType():
            return f"a number{_range(info)}"
        case inspect.StrType(pattern=str() as pattern):
            return f"text that matches {pattern}"
        case inspect.StrType(min_length=1):
            return "text that is not empty"
        case inspect.StrType():
            return "text"
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(shown(value) for value in values)}"
        case inspect.VarTupleType(item_type=item, min_length=least, max_length=most):
            length = f" of {least or 0} to {most}" if most else f" of {least} or more" if least else ""
            return f"a list{length}, each {_describe(item)}"
        case inspect.TupleType(item_types=items):
            return f"a list of {len(items)}: {', '.join(_describe(item) for item in items)}"
        case inspect.DictType(value_type=value):
            return f"a table, each value {_describe(value)}"
        case inspect.StructType():
            return "a table"
    raise TypeError(f"no words for the type {info}")


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    if info.ge is not None and info.le is not None:
        return f" from {_number(info.ge)} to {_number(info.le)}"
    bounds = [
        f"{words} {_number(bound)}"
        for words, bound in (("above", info.gt), ("at least", info.ge), ("below", info.lt), ("at most", info.le))
        if bound is not None
    ]
    return f" {', '.join(bounds)}" if bounds else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


# --- lines ------------------------------------------------------------------------------------------------------------


def _key_lines(text: str) -> dict[KeyPath, int]:
    """On which line every key, table and element of an array of a file begins that tomllib has read.

    tomllib does not tell. So the file is cut into its statements: the fewest lines that are TOML by themselves.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}  # of the arrays of tables so far
    statement, begin = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += f"{line}\n"
        try:
            found = tomllib.loads(statement)
        except (ValueError, RecursionError):
            if number - begin >= _MAX_STATEMENT_LINES:
                return lines
            continue
        if statement.lstrip().startswith("["):
            table = _header(found, counts)
            for length in range(1, len(table) + 1):
                lines.setdefault(table[:length], begin)
        else:
            for path in _paths(found, table):
                lines.setdefault(path, begin)
        statement, begin = "", number + 1
    return lines


def _header(found: dict[str, Any], counts: dict[KeyPath, int]) -> KeyPath:
    """The path of `[a.b]` or `[[a.b]]`, read by itself."""
    path: KeyPath = ()
    inner: Any = found
    while inner:
        if isinstance(inner, list):
            counts[path] = counts.get(path, 0) + 1
            return (*path, counts[path] - 1)
        if path in counts:
            path = (*path, counts[path] - 1)
        ((name, inner),) = inner.items()
        path = (*path, name)
    return path


def _paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in pairs:
        yield from _paths(inner, (*path, part))


def _order(table: Any, path: KeyPath) -> list[int]:
    """Sorts paths as they stand in the file, which is the order of Python's dicts."""
    order = []
    for part in path:
        if isinstance(table, dict):
            order.append(list(table).index(part))
            table = table[part]
        elif isinstance(table, list) and isinstance(part, int):
            order.append(part)
            table = table[part]
    return order
