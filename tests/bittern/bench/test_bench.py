"""The bench: every row can be measured, `--check` applies limits, files are compared; no time is asserted."""

from __future__ import annotations

import json
import math
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from click.testing import Result as Ran
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.foreign_models import Kind, red_or_blue
from tests.doubles.tflite_files import model_folder_of_means

from bittern import Classifier
from bittern.bench import processes, result, rows, suite, sustained, timing
from bittern.cli.bench import bench
from bittern.errors import BitternError, ConfigurationError
from bittern.model.bare import Bare, Unstated
from bittern.system import machine

PEERS = {"mediapipe": "mediapipe", "tutorial": "PIL"}
# Rows that start processes: their own tests below.
PAGES = ("page_viewer", "page_idle", "page_memory", "serve_load")
STARTING = ("invoke", "classify_cold", "help_cold", "memory", "memory_both", "idle_cpu", "stop", *PAGES)
FIELDS = {"name", "what", "against", "ratio", "at_most", "median_ms", "reference_ms", "n"}


def run(*words: str | Path) -> Ran:
    return CliRunner().invoke(bench, [str(word) for word in words], catch_exceptions=False)


# --- timing ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=300))
def test_the_ratio_lies_in_its_interval(times: list[tuple[float, float]]) -> None:
    a, b = [t[0] for t in times], [t[1] for t in times]
    value, low, high = timing.ratio(timing.Pairs(a, b, len(a)))
    assert min(x / y for x, y in times) <= low <= value <= high <= max(x / y for x, y in times)


def test_the_interval_is_that_of_order_statistics() -> None:
    """For n = 100 the 95 % interval of a median is from the 40th to the 61st value (tables of the sign test)."""
    pairs = timing.Pairs([float(i) for i in range(1, 101)], [1.0] * 100, 100)
    assert timing.ratio(pairs) == (50.5, 40.0, 61.0)
    few = timing.Pairs([1.0, 2.0, 3.0], [1.0] * 3, 3)
    assert timing.ratio(few) == (2.0, 1.0, 3.0)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(400):
        measured = timing.ratio(timing.Pairs(rng.exponential(1.0, 60).tolist(), [1.0] * 60, 60))
        hits += measured.low <= math.log(2) <= measured.high
    assert hits >= 370


def test_calls_take_turns_and_neither_is_always_first() -> None:
    order: list[str] = []
    pairs = timing.interleave(lambda: order.append("a"), lambda: order.append("b"), 4, warm_up=1)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab" + "ba"
    assert (len(pairs.ours), len(pairs.reference), pairs.n) == (4, 4, 4)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_percentiles_are_nearest_rank(share: float, value: float) -> None:
    assert timing.percentile([float(i) for i in range(100, 0, -1)], share) == value


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subject(model_folder: Path) -> Iterator[rows.Subject]:
    with rows.open_subject(str(model_folder)) as opened:
        yield opened


@pytest.mark.parametrize("size", [(224, 224), (640, 480), (1920, 1080), (200, 300)])
def test_every_frame_is_an_event_in_the_sinks_buffer(subject: rows.Subject, size: tuple[int, int]) -> None:
    step = rows.FrameToEvent(subject.classifier, subject.folder, size)
    assert step.pixels.shape == (size[1], size[0], 3)
    for _ in range(6):
        step.deliver()
        step()
    lines = [json.loads(line) for line in step.sink.getvalue().splitlines()]
    assert [line["type"] for line in lines] == ["alarm.on", "alarm.off"] * 3
    assert {line["model"] for line in lines} == {"stop_sign"}


def test_a_frame_that_was_not_delivered_is_not_timed(subject: rows.Subject) -> None:
    step = rows.FrameToEvent(subject.classifier, subject.folder, (224, 224))
    step.deliver()
    step()
    with pytest.raises(BitternError, match="not delivered"):
        step()


def test_a_model_without_alarms_cannot_be_timed(tmp_path: Path) -> None:
    folder = model_folder_of_means(tmp_path / "m")
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"alarm": ["red"]', '"alarm": []'))
    with pytest.raises(ConfigurationError, match="alarm"):
        rows.FrameToEvent(Classifier(folder), folder, (30, 20))


@pytest.mark.parametrize("name", [name for name in suite.ROWS if name not in STARTING])
def test_a_row_is_measured_or_its_peer_is_missing(
    subject: rows.Subject, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if name in PEERS and find_spec(PEERS[name]) is None:
        with pytest.raises(rows.PeerMissing, match=r"is not installed: pip install 'bittern\[bench\]'"):
            suite.ROWS[name](subject, 3)
        return
    row = suite.ROWS[name](subject, 3)
    assert row.name == name
    assert not caplog.records, "nothing for a user to wonder about"
    if row.megabytes is None:
        if name != "daemon_age":  # a percentile, not a median of pairs
            assert row.ratio_ci95 is not None
            assert 0 < row.ratio_ci95[0] <= row.ratio <= row.ratio_ci95[1]
        assert row.median_ms
        assert row.reference_ms
        assert row.n == (900 if name == "gate" else 3)
    else:
        assert row.megabytes == pytest.approx((subject.folder / "model.tflite").stat().st_size / 1e6, abs=0.001)
        assert row.ratio == pytest.approx(row.megabytes / 3.0, abs=1e-3)


def test_our_invoke_without_the_runtimes_tool(subject: rows.Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """tflite-runtime and older wheels bring no tool."""
    monkeypatch.setattr(processes, "_TOOL", "ai_edge_litert.absent")
    row = suite.ROWS["invoke"](subject, 3)
    assert (row.against, row.n) == ("bare interpreter", 3)


def test_our_invoke_against_the_runtimes_tool(subject: rows.Subject) -> None:
    if not processes.has_benchmark_tool():
        pytest.skip("this runtime brings no benchmark tool")
    row = suite.ROWS["invoke"](subject, 20)
    assert (row.against, row.n) == ("the runtime's benchmark tool", 20)
    with pytest.raises(BitternError, match="benchmark tool ended with exit code 1"):
        processes.benchmark_tool_ms(Path("absent.tflite"), 1)


@pytest.mark.parametrize("name", ["classify_cold", "help_cold"])
def test_cold_processes(subject: rows.Subject, name: str) -> None:
    row = suite.ROWS[name](subject, 2)
    assert row.n == 2
    assert row.median_ms is not None
    assert row.median_ms > 10, "a whole process"


def test_a_process_that_fails_is_no_measurement() -> None:
    import sys

    with pytest.raises(BitternError, match="ended with exit code 3: no such luck"):
        processes.cold([sys.executable, "-c", "import sys; print('no such luck', file=sys.stderr); sys.exit(3)"], [], 1)


def test_the_memory_of_a_watching_process(subject: rows.Subject) -> None:
    own, both = (suite.ROWS[name](subject, 5).megabytes for name in ("memory", "memory_both"))
    assert own is not None
    assert both is not None
    assert 40 < own < 1000
    assert 40 < both < own + 1000
    with pytest.raises(BitternError, match="bittern watch ended with exit code 2: bittern: "):
        processes.peak_of_watching([Path("absent/model")], 1)


def test_a_row_that_cannot_be_measured_leaves_the_others(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other rows are printed and written; exit code 1."""
    monkeypatch.setattr(processes, "TIMEOUT_S", 0.01)
    monkeypatch.setattr(processes, "FRAME_TIMEOUT_S", 0.0)
    words = ("--model", model_folder, "--n", "5", "--out", tmp_path)
    done = run(*words, "--row", "memory", "--row", "help_cold", "--row", "model_file")
    assert done.exit_code == 1
    assert "failed: memory: bittern watch did not read 5 frames in time" in done.stdout
    assert "failed: help_cold: bittern did not end within 0.01 s" in done.stdout
    written = result.read(tmp_path / "result.json")
    assert ([row.name for row in written.rows], [row.name for row in written.left_out]) == (
        ["model_file"],
        ["memory", "help_cold"],
    )


def test_the_processor_time_of_an_idle_daemon(subject: rows.Subject) -> None:
    row = suite.ROWS["idle_cpu"](subject, 20)
    assert 0 < row.ratio < 0.5
    assert row.n == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["page_viewer", "page_idle"])
def test_what_a_viewer_costs_the_daemon(subject: rows.Subject, name: str) -> None:
    row = suite.ROWS[name](subject, 30)
    assert row.n == 6
    assert 0 < row.ratio < 10


def test_the_memory_of_the_page(subject: rows.Subject) -> None:
    row = suite.ROWS["page_memory"](subject, 2)
    assert row.megabytes is not None
    assert 10 < row.megabytes <= 60


@pytest.mark.slow
def test_serve_under_load(subject: rows.Subject) -> None:
    row = suite.ROWS["serve_load"](subject, 30)
    assert row.n > 0
    assert "no error" in row.what


def test_the_time_in_which_the_daemon_ends(subject: rows.Subject) -> None:
    row = suite.ROWS["stop"](subject, 20)
    assert row.n == 2
    assert row.median_ms is not None
    assert row.ratio == pytest.approx(row.median_ms / 2000, abs=1e-3)
    with pytest.raises(BitternError, match="bittern watch ended with exit code 2: bittern: "):
        processes.stop_ms(Path("absent/model"), 1)


# --- the command -----------------------------------------------------------------------------------------------------


def test_json_rows_have_the_documented_names(model_folder: Path, tmp_path: Path) -> None:
    done = run("--model", model_folder, "--row", "event_224", "--row", "model_file", "--n", "2", "--json")
    rows_ = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["name"] for row in rows_] == ["event_224", "model_file"]
    assert all(set(row) >= FIELDS for row in rows_)
    assert set(rows_[0]) == FIELDS | {"ratio_ci95"}
    assert done.exit_code == 0


def test_the_result_file_and_its_picture(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/bench"
    done = run("--model", model_folder, "--row", "model_file", "--row", "event_224", "--n", "2", "--out", out)
    assert "model file of stop_sign" in done.stdout
    assert {file.name for file in out.iterdir()} == {"result.json", "result.svg"}
    written = result.read(out)
    assert written == result.read(out / "result.json")
    assert [row.name for row in written.rows] == ["model_file", "event_224"]
    assert result.differences(written.machine, machine.read()) == []
    texts = [element.text for element in ET.parse(out / "result.svg").iter() if element.tag.endswith("text")]
    assert any("frame to event, 224 x 224" in (text or "") for text in texts)


def test_only_check_applies_limits(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--model", model_folder, "--row", "model_file", "--row", "event_224", "--n", "2")
    event = row_of("event_224", ratio=1.5, ms=6.0)
    monkeypatch.setattr(suite, "ROWS", dict(suite.ROWS) | {"event_224": lambda subject, n: event})
    measured = run(*words)
    header, _, row, *_ = measured.stdout.splitlines()
    assert (measured.exit_code, header.split()[:2]) == (0, ["what", "ms"])
    assert " ".join(row.split()) == "event_224 & more 6.000 4.000 a <loop> 1.500 0.900 to 1.600 9"
    assert measured.stdout.splitlines()[-1] == result.RATIO_NOTE
    checked = run(*words, "--check")
    assert checked.exit_code == 1
    size, row = checked.stdout.splitlines()[1:3]
    assert (size.split()[-3:], row.split()[-2:]) == (["3.0", "MB", "ok"], ["1.20", "over"])
    assert run(*words[:4], "--check").exit_code == 0
    assert run(*words, "--check", "--json").exit_code == 1


def test_a_missing_peer_is_no_failure(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mediapipe", None)  # Python's own way to say: not installed
    done = run("--model", model_folder, "--row", "mediapipe", "--row", "model_file", "--n", "2", "--json")
    assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == ["model_file"]
    assert done.stderr.count("\n") == 1
    assert "left out: mediapipe: MediaPipe is not installed" in done.stderr


def test_wrong_options_are_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown row 'evnt': expected invoke, event_224"):
        run("--row", "evnt")
    with pytest.raises(ConfigurationError, match="No such file"):
        run("--compare", tmp_path / "a.json", tmp_path / "b.json")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="not a result of `bittern bench --out`"):
        run("--compare", tmp_path / "a.json", tmp_path / "a.json")
    assert run("--threads", "2").exit_code == 2
    assert "--sustained does not go with --check" in run("--sustained", "1", "--check").output
    both = run("--compare", tmp_path / "a.json", tmp_path / "b.json", "--row", "foo", "--json")
    assert (both.exit_code, "--compare does not go with --row, --json" in both.output) == (2, True)
    assert "--sustained does not go with --row" in run("--sustained", "1", "--row", "invoke").output
    assert run("--sustained", "nan").exit_code == 2
    assert "--labels is for a bare .tflite file" in run("--model", model_folder, "--labels", "labels.txt").output


# --- models of other tools -------------------------------------------------------------------------------------------

FOREIGN_ROWS = ("event_224", "tutorial", "xnnpack", "evaluate", "classify_cold", "model_file")


@pytest.mark.parametrize(
    ("kind", "options", "left_out"),
    [
        (Kind(), ("--pixels", "-1..1"), ["the shortest script is for RGB uint8, the model takes 16 x 16 RGB float32"]),
        (
            Kind("int8", "int8", shape=(1, 1, 16, 24), nchw=True),
            (),
            ["the loop is written for pictures (1, height, width, 3), the model takes (1, 1, 16, 24)", "grey int8"],
        ),
    ],
)
def test_a_bare_file_is_measured_with_what_is_stated(
    tmp_path: Path, kind: Kind, options: tuple[str, ...], left_out: list[str]
) -> None:
    file, labels = tmp_path / "Gate 1.tflite", tmp_path / "labels.txt"
    file.write_bytes(red_or_blue(kind))
    labels.write_text("warm\ncold\n")
    words = [word for name in FOREIGN_ROWS for word in ("--row", name)]
    done = run("--model", file, "--labels", labels, *options, *words, "--n", "2", "--json", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    measured = result.read(tmp_path / "out")
    assert measured.model == "gate_1 unverified"
    missing = " ".join(map(str, measured.left_out))
    assert all(says in missing for says in left_out)
    left = {row.name for row in measured.left_out}
    assert left <= {"tutorial", "classify_cold"}
    assert [row.name for row in measured.rows] == [name for name in FOREIGN_ROWS if name not in left]
    assert sorted(tmp_path.iterdir()) == [file, labels, tmp_path / "out"]


def test_of_a_free_size_the_stated_one_is_measured(tmp_path: Path) -> None:
    file, labels = tmp_path / "free.tflite", tmp_path / "labels.txt"
    file.write_bytes(red_or_blue(Kind("uint8", "uint8", free=(0, 1, 2))))
    labels.write_text("warm\ncold\n")
    with pytest.raises(Unstated, match="--size"):
        run("--model", file, "--labels", labels)
    with rows.open_subject(str(file), Bare(labels=str(labels), size=(24, 40))) as opened:
        row = suite.ROWS["invoke"](opened, 3)
        assert row.against == "bare interpreter"
        assert rows.BareInvoke(opened).interpreter.get_input_details()[0]["shape"].tolist() == [1, 24, 40, 3]


# --- two results -----------------------------------------------------------------------------------------------------


def row_of(name: str, *, ratio: float = 1.0, ms: float = 4.0) -> result.Row:
    limits = {"at_most": 1.2, "median_ms": ms, "reference_ms": ms / ratio, "n": 9, "ratio_ci95": (0.9, 1.6)}
    return result.Row(name=name, what=f"{name} & more", against="a <loop>", ratio=ratio, **limits)  # type: ignore[arg-type]


def result_of(rows_: Sequence[result.Row], **of_machine: object) -> result.BenchResult:
    here = machine.Machine(userland_bits=64, python="3.11", bittern="1", cpu="A72", temperature_c=50.0)
    return result.BenchResult(
        time="2026-01-01T00:00:00.000Z",
        machine=msgspec.structs.replace(here, **of_machine),
        model="m 1",
        path="xnnpack",
        rows=tuple(rows_),
        left_out=(),
        all_cores_ms=9.0,
        verdict=(),
    )


def write(file: Path, measured: result.BenchResult) -> Path:
    file.write_bytes(msgspec.json.encode(measured))
    return file


def test_results_of_one_machine_are_compared_in_milliseconds(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", result_of([row_of("one"), row_of("gone")]))
    b = write(tmp_path / "b.json", result_of([row_of("one", ratio=1.1, ms=6.0), row_of("new")], temperature_c=70.0))
    done = run("--compare", a, b)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[1].startswith("one & more / a <loop>  ")
    assert lines[1].split()[-5:] == ["4.000", "6.000", "1.500", "1.000", "1.100"]
    assert sorted(line.split()[-5] for line in lines[2:4]) == ["-", "4.000"]
    assert sorted(line.split()[-2:] for line in lines[2:4]) == [["-", "1.000"], ["1.000", "-"]]
    assert "the machines do not differ" in done.stdout


def test_results_of_different_machines_are_compared_in_ratios(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", result_of([row_of("one")]))
    b = write(tmp_path / "b.json", result_of([row_of("one", ratio=1.3, ms=99.0)], cpu="A76", governor="powersave"))
    done = run("--compare", a, b)
    assert (done.exit_code, "1.300 over" in done.stdout) == (0, False)
    assert "99" not in done.stdout
    assert "the machines differ: cpu A72 and A76; governor None and powersave" in done.stdout
    checked = run("--compare", a, b, "--check")
    assert (checked.exit_code, "1.300 over" in checked.stdout) == (1, True)


def test_the_chart_of_a_result() -> None:
    from bittern.bench.chart import bars

    root = ET.fromstring(bars(result_of([row_of("one"), row_of("two", ratio=3.0)])))
    one, two = (float(e.get("width", "")) for e in root.iter() if e.tag.endswith("rect") and e.get("x"))
    assert two == pytest.approx(3 * one, rel=0.01)
    assert "4.00 ms, ratio 3.00" in [e.text for e in root.iter() if e.tag.endswith("text")]


# --- over time -------------------------------------------------------------------------------------------------------


def test_sustained(model_folder: Path, tmp_path: Path) -> None:
    words = ("--model", model_folder, "--sustained", "0.01", "--threads", "1", "--threads", "2", "--out", tmp_path)
    done = run(*words)
    assert done.exit_code == 0
    assert "2 threads at" in done.stdout
    written = msgspec.json.decode((tmp_path / "sustained.json").read_bytes(), type=sustained.Sustained)
    assert {point.threads for point in written.points} == {1, 2}
    for point in written.points:
        assert point.n >= 1
        assert 0 < point.invoke.p50 <= point.invoke.p95 <= point.invoke.p99
        assert point.event.p50 > 0
    texts = [e.text for e in ET.parse(tmp_path / "sustained.svg").iter() if e.tag.endswith("text")]
    assert {"1 thread", "2 threads"} <= set(texts)
    lines = run(*words[:-2], "--json").stdout.splitlines()
    assert {json.loads(line)["threads"] for line in lines} == {1, 2}


def test_the_curves_show_heat_where_it_is_known() -> None:
    from bittern.bench.chart import curves

    spread = sustained.Spread(3.0, 4.0, 5.0)
    points = [
        sustained.Point(
            at_s=at_s,
            threads=1,
            n=5,
            invoke=spread,
            event=spread,
            temperature_c=50 + at_s,
            frequency_mhz=1500,
            throttled=("throttled",),
            governor="ondemand",
        )
        for at_s in (5.0, 10.0)
    ]
    assert "65 °C" in curves(points, "a & b")
    assert "°C" not in curves([msgspec.structs.replace(p, temperature_c=None) for p in points], "a")
    assert "60.0 °C, 1500 MHz, throttled" in sustained.table(points)
    assert statistics.median(p.event.p50 for p in points) == 3.0
