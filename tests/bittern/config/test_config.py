"""A configuration file is right, or every mistake of it is one line that says where it is and what was meant."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.doubles.repetitions import examples

from bittern.config import example, toml_file
from bittern.config.schema import DecisionConfig, WatchConfig, load
from bittern.daemon import preflight
from bittern.errors import ConfigurationError

WHOLE = """
source = "usb:0?size=640x480"
name = "gate"
models = ["stop_sign", "mask"]
fps = 2
threads = 2
timeout_s = 3.5

[decision]
threshold = "quiet"
off = 0.25
votes = 3
of = 5
cooldown_s = 30
min_off_s = 0.5
"""


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "gate.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def problems(folder: Path, text: str | bytes) -> list[str]:
    """Every problem of a text, without the name of the file."""
    file = written(folder, text)
    parsed = toml_file.read(file, WatchConfig)
    assert (parsed.value is None) == bool(parsed.problems)
    return [problem.text(file).removeprefix(f"{file}:") for problem in parsed.problems]


def test_every_key(tmp_path: Path) -> None:
    decision = DecisionConfig(threshold="quiet", off=0.25, votes=3, of=5, cooldown_s=30.0, min_off_s=0.5)
    assert load(written(tmp_path, WHOLE)) == WatchConfig(
        source="usb:0?size=640x480",
        name="gate",
        models=("stop_sign", "mask"),
        fps=2.0,
        threads=2,
        timeout_s=3.5,
        decision=decision,
    )


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")) == WatchConfig()
    assert load(written(tmp_path, "[decision]\nthreshold = 0.8")).decision == DecisionConfig(threshold=0.8)
    assert load(written(tmp_path, "[decision]\nthreshold = 1")).decision == DecisionConfig(threshold=1)


def test_line_ends_and_byte_order_mark_of_other_systems(tmp_path: Path) -> None:
    text = "fps = 1\r\n[gate]\r\nenabled = 0\r\n"
    assert problems(tmp_path, b"\xef\xbb\xbf" + text.encode()) == ["3: gate.enabled: expected true or false, got 0"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modles = ['a']", "1: modles: unknown key; did you mean 'models'?"),
        ("[decision]\ncooldwn_s = 3", "2: decision.cooldwn_s: unknown key; did you mean 'cooldown_s'?"),
        ("[decison]\nvotes = 1", "1: decison: unknown key; did you mean 'decision'?"),
        ("decision.votes = 1\ndecision.vote = 1", "2: decision.vote: unknown key; did you mean 'votes'?"),
        ("zzz = 1", "1: zzz: unknown key: expected one of source, source_file, camera, name,"),
        ("\nvotes = 1", "2: votes: unknown key here: it belongs under [decision]"),
        ("[decision]\nfps = 1", "2: decision.fps: unknown key here: it belongs above every [table]"),
        ("[mqtt]\nhost = 'a'\n[mqtt.gate]\nenabled = true", "3: mqtt.gate: unknown key here: it is a table of its own"),
        ("quality = 1", "1: quality: unknown key here: it belongs under [snapshots]"),
        ("'a b' = 1", '1: "a b": unknown key'),
        ("fps 3", "1: Expected '='"),
        ("fps = 3\n\nname = open\nthreads = 1\n", '3: Invalid value: text needs quotes, as in source = "demo:"'),
        ("fps = ?", "1: Invalid value"),
        ("fps = 3\nfps = 4\nthreads = 1", "2: Cannot overwrite a value"),
        ("fps = 3\nname = '''\n\n", "2: Expected \"'''\" before the file ends"),
        ("fps = 'fast'", '1: fps: expected a number from 0.1 to 240, got "fast"'),
        ("fps = true", "1: fps: expected a number from 0.1 to 240, got true"),
        ("fps = 0", "1: fps: expected a number from 0.1 to 240, got 0"),
        ("fps = nan", "1: fps: expected a number from 0.1 to 240, got nan"),
        ("fps = inf", "1: fps: expected a number from 0.1 to 240, got inf"),
        (f"fps = {'9' * 5000}", ""),
        (f"threads = {'9' * 400}", "threads: expected a whole number from 1 to 64, got a huge number"),
        ("threads = 1.5", "1: threads: expected a whole number from 1 to 64, got 1.5"),
        ("threads = 65", "1: threads: expected a whole number from 1 to 64, got 65"),
        ("timeout_s = 0", "1: timeout_s: expected a number above 0, at most 3600, got 0"),
        ("source = 0", "1: source: expected text, got a number"),
        ("name = 1979-05-27", "1: name: expected text, got 1979-05-27"),
        ("models = 'stop_sign'", '1: models: expected a list of 1 or more, each text, got "stop_sign"'),
        ("models = []", "1: models: expected a list of 1 or more, each text, got []"),
        ("fps = 1\nmodels = [\n  1,\n]\nnope = 1", "2: models: expected a list of 1 or more, each text, got [1]"),
        (
            "region = [0, 0, 9]",
            "1: region: expected four whole numbers: left, top, width, height (the last two at least 1), got",
        ),
        (
            "views = ['middle']",
            '1: views: expected a list of 1 to 4, each one of "center", "left", "moving", "right", got ["mid',
        ),
        ("decision = 3", "1: decision: expected a table [decision], got 3"),
        ("alarm = 3", "1: alarm: expected tables that each begin with [[alarm]], got 3"),
        ("[alarm]\nlabel = 'a'", "1: alarm: expected tables that each begin with [[alarm]], got a table"),
        ("[[decision]]\nvotes = 1", "1: decision: expected a table [decision], got [a table]"),
        (
            "[[alarm]]\nlabel = 'a'\n[[alarm]]\n\nvotes = 0",
            "5: alarm[1].votes: expected a whole number from 1 to 1000,",
        ),
        ("alarm = [{label = 'a'}, {votes = 0}]", "1: alarm[1].votes: expected a whole number from 1 to 1000, got 0"),
        ("gate = {enabled = 1}", "1: gate.enabled: expected true or false, got 1"),
        ("[camera]\nsize = [1]", "2: camera.size: expected text, a number, true or false"),
        ("fps = 1\n[mqtt]\nport = 1", "2: mqtt: needs the key 'host': non-empty text"),
        ("[webhook]\nurl = 'ftp://a'", "2: webhook.url: expected a URL that begins with http:// or https://, got"),
        ("[decision]\nvotes = 4", "2: decision.votes: votes (4) must not exceed of (3)"),
        ("[decision]\nthreshold = nan", "2: decision.threshold: expected text or a number from 0 to 1, got nan"),
        ("[decision]\nthreshold = true", "2: decision.threshold: expected text or a number from 0 to 1, got true"),
        ("[decision]\nthreshold = 0.4\noff = 0.5", "3: decision.off: off (0.5) must not exceed threshold (0.4)"),
        ("[decision]\ncooldown_s = -1", "2: decision.cooldown_s: expected a number from 0 to 86400, got -1"),
        (b"fps = 1\nname = '\xff'", "2: not UTF-8"),
        ("x = " + "[" * 20_000, "nested too deeply"),
        ("x = " + "{a = " * 10_000, "nested too deeply"),
        ("\0", "1: Invalid statement"),
        ("#" * 70_000, "larger than the limit of 64 KiB"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:")
    assert says in message
    assert "\n" not in message
    assert len(message) < len(str(file)) + 400


def test_all_mistakes_of_a_file_in_its_order(tmp_path: Path) -> None:
    text = """\
fps = 0         # 1
models = [      # 2
    "a",
    2,
]
[gate]
enabled = 1     # 7
sensitivity = 3 # 8
[[alarm]]
label = 1       # 10
[decision]
votes = 9       # 12
[[alarm]]
off = 2         # 14
[webhook]       # 15
timeout_s = 0   # 16
"""
    lines = [int(line.partition(":")[0]) for line in problems(tmp_path, text)]
    assert sorted(lines) == [1, 2, 7, 8, 10, 12, 14, 15, 16]
    with pytest.raises(ConfigurationError, match=r"1: fps: .*; and 8 more, see: bittern config --check"):
        load(tmp_path / "gate.toml")


def test_a_line_is_found_for_every_kind_of_statement(tmp_path: Path) -> None:
    text = '''\
a.b = 1
"c d".e = [1, {f = 2},
  3]
g = """
h = 1
"""
# i = 1
[j . "k"]
l = 1
[[m]]
n = 1
[m.o]
p = 1
[[m]]
n = 2
[[m.q]]
r = 1
[[m.q]]
r = 2
'''
    file = written(tmp_path, text)
    lines = toml_file.read(file, WatchConfig).lines
    expected: dict[toml_file.KeyPath, int] = {
        ("a",): 1,
        ("a", "b"): 1,
        ("c d",): 2,
        ("c d", "e"): 2,
        ("c d", "e", 0): 2,
        ("c d", "e", 1): 2,
        ("c d", "e", 2): 2,
        ("c d", "e", 1, "f"): 2,
        ("g",): 4,
        ("j",): 8,
        ("j", "k"): 8,
        ("j", "k", "l"): 9,
        ("m",): 10,
        ("m", 0): 10,
        ("m", 0, "n"): 11,
        ("m", 0, "o"): 12,
        ("m", 0, "o", "p"): 13,
        ("m", 1): 14,
        ("m", 1, "n"): 15,
        ("m", 1, "q"): 16,
        ("m", 1, "q", 0): 16,
        ("m", 1, "q", 0, "r"): 17,
        ("m", 1, "q", 1): 18,
        ("m", 1, "q", 1, "r"): 19,
    }
    assert lines == expected


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "absent.toml", "No such file"),
        (tmp_path, "Is a directory"),
        ("\0", "not a file name"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            load(Path(path))


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_example_is_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, example.example())) == WatchConfig()


def test_the_example_with_every_setting_on_is_valid_and_has_every_key(tmp_path: Path) -> None:
    text = re.sub(r"^#(?=[a-z\[])", "", example.example(), flags=re.MULTILINE)
    file = written(tmp_path, text)
    load(file)
    lines = toml_file.read(file, WatchConfig).lines
    keys = {".".join(part for part in path if isinstance(part, str)) for path in lines}
    assert set(example.key_paths()) <= keys


def test_every_key_has_its_texts() -> None:
    keys = example.key_paths()
    assert len(keys) == len(set(keys)) > 50
    assert sorted(example.WHY) == sorted(keys)
    assert all(text and not text.endswith(".") for text in example.WHY.values())

    def look(struct: type[msgspec.Struct]) -> None:
        texts = example.attributes(struct)
        for field in msgspec.structs.fields(struct):
            inner, _ = toml_file.struct_of(field.type)
            if inner is not None:
                assert inner.__doc__
                assert ": " in inner.__doc__.partition("Attributes:")[0], "what the table is for"
                look(inner)
            else:
                assert texts.get(field.name), (struct, field.name)

    look(WatchConfig)


def test_every_number_says_what_it_counts(tmp_path: Path) -> None:
    """Or has a text from which it is clear: no unit is right for a port or a pin."""
    without = {"threads", "mqtt.port", "health.port", "page.port", "gpio.pin", "snapshots.quality", "keep.quality"}
    either = {"decision.threshold", "alarm.threshold", "model.threshold"}
    lines = example.example().splitlines()
    keys = set()
    table = ""
    for i, line in enumerate(lines):
        if header := re.fullmatch(r"#?\[+([a-z]+)\]+", line):
            table = f"{header[1]}."
        if (setting := re.match(r"#?([a-z_]+) = [\d.\[]*\d", line)) and table != "camera.":
            key = table + setting[1]
            keys.add(key)
            assert ";" in lines[i - 1], line
            about = " ".join(lines[max(0, i - 3) : i])
            units = (
                "seconds;",
                "frames;",
                "a score;",
                "log-odds;",
                "pixels;",
                "megabytes;",
                "times;",
                "events;",
                "frames per second;",
            )
            assert key in without | either or any(unit in about for unit in (*units, "grey levels;")), line
    assert len(keys) > 20


# --- anything ---------------------------------------------------------------------------------------------------------

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["1", "-1", "0.5", "nan", "true", '"text"', "''", "1979-05-27", "07:32:00", "[]", "{}", "1e400"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=2).map(
            lambda items: "{" + ", ".join(f"{k} = {v}" for k, v in items.items()) + "}"
        )
    ),
    max_leaves=5,
)
NAMES = st.sampled_from([key.rpartition(".")[2] for key in example.key_paths()] + ["sorce", "x"])
HEADERS = st.sampled_from([f"[{t}]" for t in ("decision", "gate", "mqtt", "camera", "alarm")] + ["[[alarm]]", "[x.y]"])
STATEMENTS = st.tuples(NAMES, VALUES).map(" = ".join) | HEADERS


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STATEMENTS, max_size=8))
def test_statements_of_any_kind_give_lines_that_are_in_the_file(tmp_path: Path, statements: list[str]) -> None:
    file = written(tmp_path, "\n".join(statements))
    parsed = toml_file.read(file, WatchConfig)
    assert (parsed.value is None) == bool(parsed.problems)
    if parsed.rest is not None:
        for more in preflight.check(parsed.rest, "door", parsed.wrong):
            assert "\n" not in parsed.problem(more.path, more.message).text(file)
    for problem in parsed.problems:
        assert "\n" not in problem.text(file)
        assert problem.message
        assert problem.line is None or 1 <= problem.line <= len(statements)
        if problem.line is not None and problem.message.startswith("unknown key;"):
            name = problem.key.rpartition(".")[2]
            assert name in statements[problem.line - 1]


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    assert all("\n" not in line for line in problems(tmp_path, data))


@pytest.mark.fuzz
def test_mutated_files_load_or_are_refused(tmp_path: Path) -> None:
    rng = random.Random(6)
    file = tmp_path / "gate.toml"
    all_on = example.example().replace("\n#", "\n")
    messages = []
    n = examples(10_000)
    for i in range(n):
        # The example, now and then: it takes fifty times as long.
        data = bytearray((all_on if i % 200 == 0 else WHOLE).encode())
        for _ in range(rng.randint(1, 6)):
            start = rng.randrange(len(data))
            inserted = bytes(rng.choices(b"=[]{}\"'\n .,0159abcs_\xff\0", k=rng.randint(0, 3)))
            data[start : start + rng.randint(0, 3)] = inserted
        parsed = toml_file.parse(bytes(data), WatchConfig)
        messages += [problem.text(file) for problem in parsed.problems[:1]]
    assert n * 0.01 < len(messages) < n * 0.99
    assert not any("\n" in line for line in messages)
