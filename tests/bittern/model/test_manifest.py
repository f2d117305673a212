"""A manifest is read as it was written, or refused with the path of the key that is wrong."""

from __future__ import annotations

import inspect
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

from bittern.errors import ModelRefused
from bittern.model import classifier, manifest
from bittern.model.manifest import GoldenPath, Head, Input, Manifest, Threshold

NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9_.-]{0,20}\Z")
TEXTS = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=20)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FLOATS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def thresholds(draw: st.DrawFn) -> Threshold:
    off, on = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    return Threshold(on=on, off=off, chosen_for=draw(TEXTS))


@st.composite
def heads(draw: st.DrawFn) -> Head:
    labels = tuple(draw(st.lists(TEXTS, min_size=2, max_size=5, unique=True)))
    some = st.lists(st.sampled_from(labels), unique=True).map(tuple)
    return Head(
        task=draw(NAMES),
        output=draw(TEXTS),
        labels=labels,
        alarm=draw(some),
        nothing=draw(some),
        scale=draw(FLOATS),
        zero_point=draw(st.integers(0, 255)),
        thresholds={"default": draw(thresholds())} | draw(st.dictionaries(NAMES, thresholds(), max_size=2)),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    side = draw(st.integers(1, 999))
    steps = st.integers(0, 255)
    paths = st.builds(
        GoldenPath, runtime=TEXTS, version=TEXTS, machine=TEXTS, same_machine_steps=steps, other_machine_steps=steps
    )
    return Manifest(
        name=draw(NAMES),
        version=draw(TEXTS),
        file=draw(st.from_regex(r"\A[A-Za-z0-9_-]{1,20}\.tflite\Z")),
        sha256=draw(st.from_regex(r"\A[0-9a-f]{64}\Z")),
        size=draw(st.integers(1, 10**8)),
        input=Input(
            name=draw(TEXTS), shape=(1, side, side, 3), scale=draw(FLOATS), zero_point=draw(st.integers(0, 255))
        ),
        heads=tuple(draw(st.lists(heads(), min_size=1, max_size=3))),
        golden=draw(st.dictionaries(st.sampled_from(["xnnpack", "builtin"]), paths)),
        provenance=draw(st.dictionaries(st.text(max_size=8), JSON, max_size=3)),
    )


@given(manifests())
def test_what_is_written_is_read(written: Manifest) -> None:
    data = manifest.dump(written)
    assert manifest.load(data) == written
    assert data.endswith(b"}\n")
    assert next(iter(json.loads(data))) == "schema"


# --- every key -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def right(model_folder: Path) -> dict[str, Any]:
    return json.loads((model_folder / "manifest.json").read_bytes())  # type: ignore[no-any-return]


def objects(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every object of a manifest, without what is inside `provenance`, which is free."""
    paths = [path] if isinstance(node, dict) else []
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return paths + [p for key, inner in pairs if key != "provenance" for p in objects(inner, (*path, key))]


def node_at(node: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        node = node[key]
    return node


def as_msgspec_says(path: tuple[str | int, ...]) -> str:
    """`$.heads[0].thresholds[...].on`: keys of a dictionary are shown as [...]."""
    text, free = "$", False
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else "[...]" if free else f".{key}"
        free = key in ("thresholds", "golden", "files") and not free
    return text


def copy(fields: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(fields))  # type: ignore[no-any-return]


def refused(fields: Any, *says: str) -> None:
    with pytest.raises(ValueError) as caught:
        manifest.load(fields if isinstance(fields, bytes) else json.dumps(fields).encode())
    for words in says:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


FREE = {("heads", 0, "thresholds"), ("golden",), ("files",)}
DEFAULTS = {
    "schema", "same_machine_steps", "dtype", "colour", "crop", "resize", "nothing", "stills", "streams", "tail",
    "files",
}  # fmt: skip


def test_a_missing_key_is_refused_with_its_path(right: dict[str, Any]) -> None:
    tried = 0
    for path in objects(right):
        for key in [] if path in FREE else list(node_at(right, path)):
            fields = copy(right)
            del node_at(fields, path)[key]
            if key in DEFAULTS and (path, key) != ((), "schema"):
                assert manifest.load(json.dumps(fields).encode()).name == right["name"]
            else:
                refused(fields, f"missing required field `{key}`", as_msgspec_says(path) if path else "")
                tried += 1
    assert tried > 20


def test_an_unknown_key_is_refused_with_its_path(right: dict[str, Any]) -> None:
    for path in objects(right):
        if path in FREE:
            continue
        fields = copy(right)
        node_at(fields, path)["colour_space"] = "sRGB"
        refused(fields, "unknown field `colour_space`", as_msgspec_says(path) if path else "")


def test_a_value_of_the_wrong_kind_is_refused_with_its_path(right: dict[str, Any]) -> None:
    for path in objects(right):
        for key, value in node_at(right, path).items():
            wrong = {"a": {"b": 1}} if not isinstance(value, dict) else "text"
            fields = copy(right)
            node_at(fields, path)[key] = wrong
            refused(fields, as_msgspec_says((*path, key)))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("schema",), 2, "schema 2, but this Bittern reads schema 1: update one of the two"),
        (("schema",), 0, "schema 0"),
        (("schema",), "1", "$.schema"),
        (("schema",), True, "$.schema"),
        (("name",), "Stop Sign", "$.name"),
        (("name",), "../up", "$.name"),
        (("name",), "a" * 65, "$.name"),
        (("name",), "line\n", "$.name"),
        (("version",), "", "$.version"),
        (("file",), "../model.tflite", "$.file"),
        (("file",), "/etc/passwd", "$.file"),
        (("file",), "", "$.file"),
        (("file",), "model.tflite\n", "$.file"),
        (("sha256",), "0" * 63, "$.sha256"),
        (("sha256",), "G" * 64, "$.sha256"),
        (("sha256",), "0" * 64 + "\n", "$.sha256"),
        (("size",), 0, "$.size"),
        (("size",), 1.5, "$.size"),
        (("input", "shape"), [1, 224, 224], "$.input.shape"),
        (("input", "shape"), [0, 224, 224, 3], "$.input.shape[0]"),
        (("input", "shape"), [1, 224, 224, 4], "does not fit the colour RGB"),
        (("input", "shape"), [1, 224, 200, 3], "crop center-square does not fit"),
        (("input", "layout"), "NCHW", "does not fit the colour RGB and the layout"),
        (("input", "mean"), [127.5], "mean and std"),
        (("input", "std"), [0.0], "$.input.std[0]"),
        (("input", "dtype"), "float32", "needs mean and std"),
        (("input", "dtype"), "int16", "$.input.dtype"),
        (("input", "resize"), "bilinear", "$.input.resize"),
        (("heads",), [], "$.heads"),
        (("heads", 0, "labels"), ["one"], "$.heads[0].labels"),
        (("heads", 0, "labels"), ["stop", ""], "$.heads[0].labels[1]"),
        (("heads", 0, "labels"), ["stop", "stop"], "labels ['stop', 'stop'] are not distinct - at `$.heads[0]`"),
        (("heads", 0, "labels"), ["stop", "not\nstop"], "$.heads[0].labels[1]"),
        (("heads", 0, "alarm"), ["halt"], "alarm label 'halt' is not among the labels"),
        (("heads", 0, "nothing"), ["none"], "nothing label 'none' is not among the labels"),
        (("heads", 0, "thresholds"), {}, "thresholds have no 'default' - at `$.heads[0]`"),
        (("heads", 0, "thresholds", "default", "on"), 1.01, "$.heads[0].thresholds[...].on"),
        (("heads", 0, "thresholds", "default", "off"), 1.0, "off (1.0) must not exceed on "),
        (("heads", 0, "thresholds", "default", "chosen_for"), "", "chosen_for"),
        (("golden", "xnnpack", "other_machine_steps"), 256, "other_machine_steps"),
        (("golden", "xnnpack", "other_machine_steps"), -1, "other_machine_steps"),
        (("golden", "gpu"), {}, "$.golden"),
    ],
    ids=str,
)
def test_values_out_of_range(right: dict[str, Any], path: tuple[str | int, ...], value: Any, says: str) -> None:
    fields = copy(right)
    node_at(fields, path[:-1])[path[-1]] = value
    refused(fields, says)


def test_a_newer_schema_is_named_even_if_nothing_else_is_known() -> None:
    refused({"schema": 7, "all": {"is": "new"}}, "schema 7")
    refused({}, "missing required field `schema`")
    refused([], "Expected `object`")


# --- fuzz ------------------------------------------------------------------------------------------------------------


@pytest.mark.fuzz
def test_mutated_manifests_load_or_are_refused(model_folder: Path) -> None:
    """What comes out is what `manifest.read` turns into one line: read from its source, so that the two cannot part."""
    caught = inspect.getsource(manifest.read)
    assert "except (msgspec.MsgspecError, ValueError" in caught
    assert issubclass(msgspec.MsgspecError, Exception)
    whole = (model_folder / "manifest.json").read_bytes()
    small = json.loads(whole)
    small["provenance"] = {"data": [1, {"a": None}]}
    whole = json.dumps(small).encode()
    rng = random.Random(12)
    loaded = 0
    n = examples(10_000)
    for _ in range(n):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            where = rng.randrange(len(data))
            kind = rng.randrange(5)
            if kind == 0:
                data[where] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del data[where : where + rng.randint(1, 9)]
            elif kind == 2:
                data[where:where] = rng.choice((b"[", b"]", b"{", b"}", b'"', b"\\", b",", b"\xff", b"\0", b"\\ud800"))
            elif kind == 3:
                data[where:where] = data[rng.randrange(len(data)) :][: rng.randint(1, 40)]
            else:
                data[where : where + 1] = rng.choice((b"9" * 30, b"1e999", b"-0", b"null", b"true", b"1.5"))
        try:
            manifest.load(bytes(data))
        except (msgspec.MsgspecError, ValueError):
            continue
        loaded += 1
    assert n * 0.005 < loaded < n * 0.995


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe{\0}\0",
        b'{"schema": 1, "name": "\xff"}',
        b"[" * 50_000,
        b'{"schema": 1, "provenance": ' + b"[" * 50_000,
        b'{"schema": 1, "provenance": ' + b'{"a":' * 50_000,
        b'{"schema": 1' + b"0" * 5000 + b"}",
        b'{"schema": 1e400}',
    ],
    ids=lambda d: repr(d[:30]),
)
def test_hostile_manifests_reach_the_user_as_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(ModelRefused) as caught:
        classifier.Classifier(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'manifest.json'}: ")
    assert "\n" not in str(caught.value)
