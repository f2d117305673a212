"""Reads a TOML file into a struct: every error has its line, what was expected, what came, and perhaps a suggestion."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import date, time
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

from bittern.errors import did_you_mean, redacted
from bittern.system import fileio

T = TypeVar("T", bound=msgspec.Struct)
# The path of a value: keys of tables and indices of array elements, from 0.
KeyPath = tuple[str | int, ...]

MAX_BYTES = 64 * 1024
TOO_DEEP = "nested too deeply"
# Begins only where a part of a key does, so that the search takes time in proportion to the text.
_DEEP_KEY = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){100}""", re.ASCII)
# Finding the end of a statement parses all of it once per line.
_MAX_STATEMENT_LINES = 64
_MAX_VALUE_LENGTH = 60


class Problem(msgspec.Struct, frozen=True):
    """An error, or something suspicious, in a file.

    Attributes:
        line: line number from 1; None if unknown, or for the file as a whole.
        key: such as "decision.votes" or "alarm[0].label"; "" for the file as a whole.
        message: one line: what was expected and what came.
        warning: the file is valid nevertheless.
    """

    line: int | None
    key: str
    message: str
    warning: bool = False

    def text(self, file: Path) -> str:
        """One line: FILE:LINE: KEY: MESSAGE."""
        location = f"{file}" if self.line is None else f"{file}:{self.line}"
        return ": ".join(part for part in (location, self.key, self.message) if part)


class Parsed(NamedTuple, Generic[T]):
    """The result of parsing a file.

    Attributes:
        value: the struct; None if there are problems.
        problems: in the order of the file.
        lines: the line on which each key, table and array element begins.
        wrong: the paths of the problems.
        rest: the struct without the wrong values, for further checks; None if the rest is not valid either.
    """

    value: T | None
    problems: list[Problem]
    lines: dict[KeyPath, int]
    wrong: tuple[KeyPath, ...] = ()
    rest: T | None = None

    def problem(self, path: KeyPath, message: str, *, warning: bool = False) -> Problem:
        """A problem with the value at `path`, with the line of the innermost part of it that is in the file."""
        return _problem(self.lines, path, message, warning)


def read(file: Path, kind: type[T]) -> Parsed[T]:
    """Read a file. Never raises, whatever the file contains: errors are among the problems.

    Args:
        file: at most `MAX_BYTES`.
        kind: the struct of the whole file, with unknown fields forbidden. Tables are structs among its fields.
    """
    try:
        return parse(fileio.read_regular(file, MAX_BYTES), kind)
    except OSError as error:
        return _broken(None, error.strerror or type(error).__name__)


def parse(data: bytes, kind: type[T]) -> Parsed[T]:
    """`read`, for the bytes of a file."""
    try:
        return _parse(data, kind)
    except RecursionError:
        return _broken(None, TOO_DEEP)


def _parse(data: bytes, kind: type[T]) -> Parsed[T]:
    if len(data) > MAX_BYTES:
        return _broken(None, f"larger than {MAX_BYTES >> 10} KiB: not a configuration")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _broken(data.count(b"\n", 0, error.start) + 1, "not UTF-8")
    if is_too_deep(text):
        return _broken(None, TOO_DEEP)
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number with more digits than Python reads
        line, message = _syntax_error(text, str(error))
        return _broken(line, message)
    errors = sorted(_check(kind, table, ()), key=lambda item: _order(table, item[0]))
    if not errors:
        return Parsed(msgspec.convert(table, kind), [], _key_lines(text))
    lines = _key_lines(text)
    keys = dict(_keys_of_tables(kind))
    problems = [_problem(lines, path, _with_hint(message, path, keys)) for path, message in errors]
    wrong = tuple(path for path, _ in errors)
    return Parsed(None, problems, lines, wrong, _rest(kind, table, wrong))


def is_too_deep(text: str) -> bool:
    """Whether a key has a hundred parts or more, `a.a.a ...`: tomllib takes time with the square of their number."""
    return _DEEP_KEY.search(text) is not None


def describe(kind: Any) -> str:
    """Describe a type in words, such as "a whole number from 1 to 64"."""
    return _describe(inspect.type_info(kind))


def format_value(value: Any) -> str:
    """Format a value as in TOML, shortened."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(format_value(item) for item in value[:5])}{', ...' if len(value) > 5 else ''}]"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, date | time):
        text = value.isoformat()
    elif isinstance(value, str):
        text = json.dumps(value, ensure_ascii=not value.isprintable())
    else:
        # Python refuses to format a number of thousands of digits.
        text = "a huge number" if isinstance(value, int) and abs(value) >= 10**_MAX_VALUE_LENGTH else repr(value)
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[: _MAX_VALUE_LENGTH - 3]}..."


def kind_of(value: Any) -> str:
    """What a value is, without showing it: it may be a password in the wrong place."""
    kinds = {dict: "a table", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return kinds.get(type(value), "a date")


def format_safely(value: Any) -> str:
    """`format_value`, with as much of every text as may be shown, should it be an address."""
    return format_value(_without_secrets(value))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return redacted(value) if isinstance(value, str) and re.search(r"[@=&?:/\\]", value) else value


def _got(kind: Any, value: Any) -> str:
    return kind_of(value) if _is_secret(kind) else format_safely(value)


def _is_secret(kind: Any) -> bool:
    """Whether a value of this type may be or hold a secret: it is marked so, or one in its table is."""
    if get_origin(kind) is Annotated:
        return any(isinstance(meta, msgspec.Meta) and (meta.extra or {}).get("secret") for meta in kind.__metadata__)
    struct, _ = struct_of(kind)
    if struct is None:
        return any(_is_secret(inner) for inner in get_args(kind))
    hints = get_type_hints(struct, include_extras=True)
    return any(_is_secret(hints[name]) for name in struct.__struct_fields__)


def struct_of(kind: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """The struct in a field's type `S`, `S | None` or `tuple[S, ...]`, and whether it is a tuple."""
    origin = get_origin(kind)
    if origin is Annotated:
        return struct_of(get_args(kind)[0])
    inner = get_args(kind) if origin in (UnionType, tuple) else (kind,)
    for item in inner:
        if isinstance(item, type) and issubclass(item, msgspec.Struct):
            return item, origin is tuple
    return None, False


def key(path: KeyPath) -> str:
    """Format a path: "alarm[0].label"."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{_quoted(part)}" for part in path]
    return "".join(parts).removeprefix(".")


def _quoted(name: str) -> str:
    """A key in quotes, if TOML needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else format_safely(name)


def _broken(line: int | None, message: str) -> Parsed[Any]:
    return Parsed(None, [Problem(line, "", message)], {})


def _syntax_error(text: str, message: str) -> tuple[int | None, str]:
    """Line and message of tomllib's error: "Invalid value (at line 3, column 7)"."""
    message = " ".join(message.split())
    if match := re.search(r" \(at line ([0-9]+), column ([0-9]+)\)$", message):
        number, column = int(match[1]), int(match[2])
        message = message[: match.start()]
        if message == "Invalid value" and re.match(r"[\w./~]", text.split("\n")[number - 1][column - 1 :]):
            message += ': text needs quotes, as in source = "demo:"'
        return number, message
    if message.endswith(" (at end of document)"):
        return text.rstrip("\n").count("\n") + 1, message.removesuffix(
            " (at end of document)"
        ) + " before the file ends"
    return None, message


def _problem(lines: dict[KeyPath, int], path: KeyPath, message: str, warning: bool = False) -> Problem:
    nearest = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in lines), ())
    return Problem(lines.get(nearest), key(path), message, warning)


# --- values -----------------------------------------------------------------------------------------------------------


def _check(kind: Any, value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """All errors in a value, each with its path."""
    struct, many = struct_of(kind)
    if struct is not None and many and isinstance(value, list) and all(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _check_table(struct, item, (*path, i))
    elif struct is not None and not many and isinstance(value, dict):
        yield from _check_table(struct, value, path)
    elif struct is not None:
        expected = f"tables that each begin with [[{key(path)}]]" if many else f"a table [{key(path)}]"
        yield path, f"expected {expected}, got {_got(kind, value)}"
    elif get_origin(kind) is dict and isinstance(value, dict):
        for name, item in value.items():
            yield from _check(get_args(kind)[1], item, (*path, name))
    else:
        try:
            msgspec.convert(value, kind)
        except (msgspec.ValidationError, ValueError, OverflowError, RecursionError):
            yield path, f"expected {describe(kind)}, got {_got(kind, value)}"


def _check_table(struct: type[msgspec.Struct], table: dict[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    wrong: set[str] = set()
    for name, value in table.items():
        if name not in fields:
            hint = did_you_mean(name, fields) or f": expected one of {', '.join(fields)}"
            errors = [((*path, name), f"{_UNKNOWN}{hint}")]
        else:
            errors = list(_check(fields[name].type, value, (*path, name)))
        if errors:
            wrong.add(name)
        yield from errors
    for name, field in fields.items():
        if field.required and name not in table:
            wrong.add(name)
            yield path, f"needs the key {name!r}: {describe(field.type)}"
    if not any(fields[name].required for name in wrong if name in fields):
        yield from _check_combination(struct, {k: v for k, v in table.items() if k not in wrong}, path, wrong)


def _check_combination(
    struct: type[msgspec.Struct], table: dict[str, Any], path: KeyPath, wrong: set[str]
) -> Iterator[tuple[KeyPath, str]]:
    """Errors of the struct's own `__post_init__`, for values that are valid one by one.

    It raises the first error, with a message that begins with the key; leaving out that key finds the next one. Errors
    that mention a key in `wrong` are skipped: they are about its default.
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
            yield ((*path, words[0]) if words[0] in table else path), message.removeprefix(f"{words[0]}: ")
            if words[0] not in table:
                return
            first, table = False, {k: v for k, v in table.items() if k != words[0]}
        else:
            return


def _rest(kind: type[T], table: dict[str, Any], wrong: tuple[KeyPath, ...]) -> T | None:
    """The struct without the wrong values. Changes the table."""
    for paths in (wrong, [path[:1] for path in wrong]):  # if the rest is not valid, leave out the whole tables
        for path in paths:
            _remove(table, path)
        with contextlib.suppress(msgspec.ValidationError, ValueError):
            return msgspec.convert(table, kind)
    return None


def _remove(table: dict[str, Any], path: KeyPath) -> None:
    """Remove a value; an array element is emptied instead, so that the others keep their indices."""
    inner: Any = table
    for part in path[:-1]:
        inner = inner.get(part) if isinstance(inner, dict) else inner[int(part)] if isinstance(inner, list) else None
    if isinstance(inner, list):
        inner[int(path[-1])] = {}
    elif isinstance(inner, dict) and path:
        inner.pop(path[-1], None)


_UNKNOWN = "unknown key"


def _keys_of_tables(struct: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every table with its keys; "" is the top of the file."""
    yield path, struct.__struct_fields__
    for field in msgspec.structs.fields(struct):
        inner, many = struct_of(field.type)
        if inner is not None and not many:
            yield from _keys_of_tables(inner, f"{path}.{field.name}".removeprefix("."))


def _with_hint(message: str, path: KeyPath, tables: dict[str, tuple[str, ...]]) -> str:
    """For an unknown key that another table has: where it belongs."""
    if not message.startswith(_UNKNOWN):
        return message
    name = path[-1]
    if name in tables:
        return f"{_UNKNOWN} here: it is a table of its own, [{name}]"
    known = [f"under [{table}]" if table else "above every [table]" for table, keys in tables.items() if name in keys]
    return f"{_UNKNOWN} here: it belongs {' or '.join(known)}" if known else message


def _describe(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata(extra_json_schema={"description": str() as text}):
            return text
        case inspect.Metadata(type=inner):
            return _describe(inner)
        case inspect.UnionType(types=types):
            return _describe_union(types)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"a whole number{_range(info)}"
        case inspect.FloatType():
            return f"a number{_range(info)}"
        case inspect.StrType(pattern=str() as pattern):
            return f"text that matches {pattern}"
        case inspect.StrType(min_length=1):
            return "non-empty text"
        case inspect.StrType():
            return "text"
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(format_value(value) for value in values)}"
        case inspect.VarTupleType(item_type=item, min_length=minimum, max_length=maximum):
            length = f" of {minimum or 0} to {maximum}" if maximum else f" of {minimum} or more" if minimum else ""
            return f"a list{length}, each {_describe(item)}"
        case inspect.TupleType(item_types=items):
            return f"a list of {len(items)}: {', '.join(_describe(item) for item in items)}"
        case inspect.DictType(value_type=value):
            return f"a table, each value {_describe(value)}"
        case inspect.StructType():
            return "a table"
    raise TypeError(f"no description for the type {info}")


def _describe_union(types: Sequence[inspect.Type]) -> str:
    """The alternatives in words. A whole number is a number too."""
    parts = list(dict.fromkeys(_describe(t) for t in types if not isinstance(t, inspect.NoneType)))
    if {"a number", "a whole number"} <= {*parts}:
        parts.remove("a whole number")
    return " or ".join(parts) if len(parts) < 3 else ", ".join(parts)


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
    """The line on which every key, table and array element begins, for a file that tomllib can read.

    tomllib does not report lines, so the file is split into statements: the fewest lines that are valid TOML together.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}  # lengths of the arrays of tables so far
    statement, begin = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += f"{line}\n"
        try:
            parsed = tomllib.loads(statement)
        except (ValueError, RecursionError):
            if number - begin >= _MAX_STATEMENT_LINES:
                return lines
            continue
        if statement.lstrip().startswith("["):
            table = _header(parsed, counts)
            for length in range(1, len(table) + 1):
                lines.setdefault(table[:length], begin)
        else:
            for path in _paths(parsed, table):
                lines.setdefault(path, begin)
        statement, begin = "", number + 1
    return lines


def _header(parsed: dict[str, Any], counts: dict[KeyPath, int]) -> KeyPath:
    """The path of `[a.b]` or `[[a.b]]`, parsed by itself."""
    path: KeyPath = ()
    inner: Any = parsed
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
    """A sort key that puts paths in the order of the file, which is that of Python's dicts."""
    order = []
    for part in path:
        if isinstance(table, dict):
            order.append(list(table).index(part))
            table = table[part]
        elif isinstance(table, list) and isinstance(part, int):
            order.append(part)
            table = table[part]
    return order
