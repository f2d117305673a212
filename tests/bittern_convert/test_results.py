"""`docs/results.md` is what the command makes of the shipped manifests and result files, and says what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bittern.errors import ConfigurationError, ModelRefused
from bittern_convert import results
from bittern_convert.cli import results as command

REPO = Path(__file__).parents[2]
MODELS = sorted(f.parent for f in (REPO / "models").glob("*/manifest.json"))
RESULTS = REPO / "docs" / "results"


def test_the_page_is_made_by_the_command(tmp_path: Path) -> None:
    out = tmp_path / "results.md"
    done = CliRunner().invoke(command, [*map(str, MODELS), "--results", str(RESULTS), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert out.read_text(encoding="utf-8") == (REPO / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_every_reported_split_is_on_the_page(model: Path) -> None:
    page = (REPO / "docs" / "results.md").read_text(encoding="utf-8")
    reports = json.loads((model / "manifest.json").read_text())["provenance"]["reports"]
    assert reports
    for split, figures in reports.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {model.name} | {split} | ")][:1]
        assert f"| {figures['n']} | {figures['correct']} |" in row


def test_a_result_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    for text in ("{", "[]", "3"):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(ConfigurationError, match=r"broken\.json"):
            results.render(MODELS, tmp_path)
    with pytest.raises(ModelRefused, match="No such file"):
        results.render([tmp_path], tmp_path)


def test_a_model_without_figures_is_one_line(tmp_path: Path) -> None:
    manifest = json.loads((MODELS[0] / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"provenance": {}}))
    with pytest.raises(ModelRefused, match="provenance has no figures"):
        results.render([tmp_path], tmp_path / "none")


def test_figures_of_streams_are_on_the_page(tmp_path: Path) -> None:
    manifest = json.loads((MODELS[0] / "manifest.json").read_text())
    false = {"alarms": 3, "minutes": 61.2, "an_hour": 2.94, "an_hour_ci95": [0.61, 8.6]}
    streams = {"passings": {"n": 88, "found": 80, "found_ci95": [0.83, 0.95]}, "false": false}
    (tmp_path / "manifest.json").write_text(
        json.dumps(manifest | {"provenance": manifest["provenance"] | {"streams": streams}})
    )
    page = results.render([tmp_path], tmp_path / "none")
    row = f"| {manifest['name']} | 80 of 88 | 90.9% (83.1% to 95.3%) | 3 in 61 min | 2.9 (0.6 to 8.6) |"
    assert row in page.splitlines()


def test_compared_networks_stand_beside_those_of_the_project_it_grew_out_of(tmp_path: Path) -> None:
    (tmp_path / "compare-car_damage.md").write_text(
        "# car_damage: backbones compared\n\n| network |\n| --- |\n| lenet |\n"
    )
    (tmp_path / "compare-car_damage.png").write_bytes(b"")
    (tmp_path / "seeds.json").write_bytes((RESULTS / "seeds.json").read_bytes())
    page = results.render(MODELS, tmp_path)
    _, _, part = page.partition("## car_damage: backbones compared\n")
    assert "| lenet |" in part
    assert f"]({tmp_path.name}/compare-car_damage.png)" in part
    assert "| xception | 81.2% (75.9% to 85.6%) | 0.460 | 0.812 | 0.784 | 0.894 |" in part.splitlines()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n"])
def test_a_page_of_compared_networks_that_is_none_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "compare-stop_sign.md").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"compare-stop_sign\.md: expected a page of `bittern compare`"):
        results.render(MODELS, tmp_path)
