"""Occlusion: on a network that is plain arithmetic, on drawn streets whose sign is known, and as a command."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.drawn_pictures import discs
from tests.doubles.repetitions import examples
from tests.doubles.tflite_files import COLOURS, channel_means, model_folder_of_means, with_files

from bittern import Classifier
from bittern.cli.explain import explain as command
from bittern.errors import ConfigurationError
from bittern.evaluation import explain, occlusion
from bittern.evaluation.explain import PictureHeat
from bittern.evaluation.occlusion import GRID, PATCHES, ZONES, Fill
from bittern.frames import Pixels
from bittern.model.scores import step
from bittern.scene.street import Street

SIZE = 56
# A sheet shows small pictures larger.
SHOWN = 224
BOTH: tuple[Fill, ...] = ("mean", "blur")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare model whose scores are the means of the red, green and blue channel."""
    file = tmp_path_factory.mktemp("model") / "means.tflite"
    file.write_bytes(with_files(channel_means((1, SIZE, SIZE, 3)), labels_txt="\n".join(COLOURS).encode()))
    return file


@pytest.fixture(scope="module")
def means(model: Path) -> Classifier:
    return Classifier(model)


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_log_odds_end_at_half_a_step(model_folder: Path) -> None:
    (head,) = Classifier(model_folder).heads
    assert (head.scale, head.zero_point) == (1 / 256, 0)
    values = occlusion.log_odds(np.arange(256) / 256, step(head))
    assert np.all(np.diff(values) > 0)
    assert values[0] == pytest.approx(-math.log(511))
    assert values[128] == pytest.approx(0)
    assert values[255] == pytest.approx(math.log(255))


def test_a_score_of_one_has_finite_log_odds(means: Classifier) -> None:
    assert means.heads[0].scale == pytest.approx(1 / 255)
    assert occlusion.log_odds(1.0, 1 / 255) == pytest.approx(math.log(509))


@pytest.mark.parametrize("size", [8, 96, 224])
def test_patches_reach_every_pixel_and_are_as_wide_as_they_say(size: int) -> None:
    along = occlusion.windows(size)
    assert along.shape == (PATCHES, size)
    assert along.min() == 0
    assert along.max() <= 1
    assert along.sum(axis=0).min() > 0.5
    assert np.allclose(along, along[::-1, ::-1])
    if size == 224:
        assert along[PATCHES // 2].sum() == pytest.approx(48, abs=0.1)
        assert along[PATCHES // 2, 112 - 8] == 1


def test_zones_of_a_heat_that_is_known() -> None:
    areas = occlusion.areas((224, 224))
    assert tuple(areas) == ZONES
    assert sum(areas[zone] for zone in GRID) == pytest.approx(1)
    heat = np.full((224, 224), -1.0)
    assert occlusion.shares(heat) is None
    heat[200:210, 5:15] = 2
    assert occlusion.shares(heat) == dict.fromkeys(ZONES, 0.0) | {
        "bottom left": 1.0,
        "edge": 1.0,
        "bottom strip": 1.0,
    }
    heat[100:120, 100:105] = 2
    shares = occlusion.shares(heat)
    assert shares is not None
    assert (shares["bottom left"], shares["centre"], shares["edge"]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("fill", BOTH)
def test_every_patch_covers_as_it_says(means: Classifier, fill: Fill) -> None:
    picture = np.random.default_rng(1).integers(0, 150, (SIZE, SIZE, 3), np.uint8)
    picture[:20, 30:, 0] = 250
    before = picture.copy()
    (explanation,) = occlusion.cover(means, picture, fill)
    assert np.array_equal(picture, before)
    assert explanation.result == means.classify(picture, "RGB")[0]
    along, instead = occlusion.windows(SIZE), occlusion.filling(picture, fill)
    label = COLOURS.index(explanation.result.label)
    whole = occlusion.log_odds(explanation.result.score, 1 / 255)
    for row, column in ((0, 0), (3, 11), (14, 7)):
        strength = (along[row][:, None] * along[column])[:, :, None]
        covered = np.rint(picture * (1 - strength) + instead * strength).astype(np.uint8)
        raw = means.invoke(covered[None])[0][label]
        assert explanation.drops[row, column] == pytest.approx(whole - occlusion.log_odds(raw / 255, 1 / 255), abs=0.03)


@settings(max_examples=examples(15))
@given(st.tuples(*[st.integers(0, 255)] * 3), st.sampled_from(BOTH))
def test_a_plain_picture_has_no_heat(means: Classifier, colour: tuple[int, int, int], fill: Fill) -> None:
    (explanation,) = occlusion.cover(means, np.full((SIZE, SIZE, 3), colour, np.uint8), fill)
    assert not explanation.drops.any()
    assert not explanation.heat.any()
    assert explanation.faint
    assert (explanation.changed, occlusion.shares(explanation.heat)) == (0, None)


@settings(max_examples=examples(15))
@given(st.integers(0, 2**32 - 1), st.sampled_from(BOTH))
def test_what_the_score_does_not_depend_on_has_no_heat(means: Classifier, seed: int, fill: Fill) -> None:
    picture = np.random.default_rng(seed).integers(0, 150, (SIZE, SIZE, 3), np.uint8)
    picture[:, :, 0] = 200  # the score of "red" depends on this channel alone
    (explanation,) = occlusion.cover(means, picture, fill)
    assert explanation.result.label == "red"
    assert not explanation.heat.any()
    tiles = explain.tiles(picture, explanation, "a picture with a name that is much too long.jpg", "blue")
    assert [tile.lines[0] for tile in tiles] == ["red 0.784, is blue", "no patch lowers the score"]
    assert all(tile.alarm for tile in tiles)
    assert len(tiles[0].lines[1]) < 30


@settings(max_examples=examples(20))
@given(st.integers(0, 8), st.sampled_from(BOTH))
def test_the_heat_lies_where_the_answer_comes_from(means: Classifier, cell: int, fill: Fill) -> None:
    row, column = divmod(cell, 3)
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    top, left = 5 + 18 * row, 5 + 18 * column
    picture[top : top + 10, left : left + 10, 0] = 255
    (explanation,) = occlusion.cover(means, picture, fill)
    figures = explain.figures(explanation, "a.jpg", "means")
    assert figures.label == "red"
    assert top <= figures.peak[1] < top + 10
    assert left <= figures.peak[0] < left + 10
    assert figures.zones is not None
    assert max(GRID, key=figures.zones.__getitem__) == GRID[cell]
    assert not figures.at_ceiling


# --- the shipped model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "fill"), [(1, "mean"), (2, "blur"), (3, "mean")])
def test_on_a_street_the_heat_lies_on_the_stop_sign(model_folder: Path, seed: int, fill: Fill) -> None:
    classifier = Classifier(model_folder)
    street = Street(seed, (224, 224))
    view = next(v for v in (street.render(t / 4) for t in range(48)) if v.sign is not None and v.sign[3] >= 36)
    assert view.sign is not None
    x, y, width, height = view.sign
    (explanation,) = occlusion.cover(classifier, view.pixels, fill)
    figures = explain.figures(explanation, "street.png", "stop_sign")
    assert figures.label == "stop"
    assert x <= figures.peak[0] < x + width
    assert y <= figures.peak[1] < y + height
    assert not figures.faint
    near = np.zeros((224, 224), bool)
    near[max(0, y - 24) : y + height + 24, max(0, x - 24) : x + width + 24] = True
    heat = np.maximum(explanation.heat, 0)
    assert heat[near].sum() > 2 * near.mean() * heat.sum()


# --- figures of a split ----------------------------------------------------------------------------------------------


def heat_of(drop: float, **zones: float) -> PictureHeat:
    return PictureHeat(
        path="a.jpg",
        model="m",
        task="t",
        label="stop",
        score=0.9,
        drop=drop,
        peak=(0, 0),
        faint=drop < occlusion.FAINT,
        at_ceiling=False,
        changed=int(drop > 3),
        patches=225,
        zones=dict.fromkeys(ZONES, 0.0) | zones,
    )


def test_a_group_is_the_mean_of_the_pictures_that_tell_something() -> None:
    heats = [heat_of(0.1, edge=1.0), *(heat_of(2.0 + i, centre=0.5 + 0.1 * (i % 2), edge=0.2) for i in range(6))]
    group = explain.summarize("stop", True, [str(i) for i in range(7)], heats)
    assert (group.n, group.faint, group.changed, group.median_drop) == (7, 1, 4, 4.0)
    assert group.zones is not None
    assert [group.zones["centre"], group.zones["edge"]] == pytest.approx([0.55, 0.2])
    assert group.zones_ci95 is not None
    low, high = group.zones_ci95["centre"] or (0, 0)
    assert 0.5 <= low < 0.55 < high <= 0.6
    assert explain.summarize("stop", True, list("abc"), heats[:3]).zones_ci95 is None
    assert explain.summarize("stop", True, ["a"], heats[:1]).zones is None


# --- the command -----------------------------------------------------------------------------------------------------


def read(file: Path) -> Pixels:
    """(H, W, 3) uint8 BGR."""
    return np.asarray(cv2.imread(str(file)), np.uint8)


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(command, [*map(str, words)])


@pytest.fixture
def red(tmp_path: Path) -> Path:
    picture = np.zeros((80, 120, 3), np.uint8)
    picture[5:30, 25:45] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / "red.png"), picture)
    return tmp_path / "red.png"


def test_help_has_an_example_and_says_what_it_does_not_show() -> None:
    out = run("--help").stdout
    assert "Example: bittern explain" in out
    assert "not why" in " ".join(out.split())


def test_a_picture_as_json_and_as_a_sheet(model: Path, red: Path, tmp_path: Path) -> None:
    done = run(red, "--model", model, "--out", tmp_path / "heat.png", "--json")
    assert done.exit_code == 0
    assert "not verified" in done.stderr
    answer = json.loads(done.stdout)
    assert (answer["path"], answer["model"], answer["label"], answer["patches"]) == (str(red), "means", "red", 225)
    assert max(GRID, key=answer["zones"].__getitem__) == "top left"
    assert sum(answer["zones"][zone] for zone in GRID) == pytest.approx(1)
    sheet = read(tmp_path / "heat.png")
    square, heat = (
        sheet[6 : 6 + SHOWN : 4, 6 : 6 + SHOWN : 4],
        sheet[6 : 6 + SHOWN : 4, 12 + SHOWN : 12 + 2 * SHOWN : 4],
    )
    expected = Classifier(model).preprocess(read(red))[0][:, :, ::-1]
    assert np.array_equal(square, expected)
    reddest = np.unravel_index((heat[:, :, 2].astype(int) - heat[:, :, 0]).argmax(), heat.shape[:2])
    assert abs(reddest[1] - answer["peak"][0]) <= 6
    assert abs(reddest[0] - answer["peak"][1]) <= 6


def test_a_region_is_explained_as_the_cropped_picture(red: Path, tmp_path: Path) -> None:
    model = model_folder_of_means(tmp_path / "means")
    whole, small = tmp_path / "whole", tmp_path / "small"
    for folder, picture in ((whole, read(red)), (small, read(red)[4:64, 20:100])):
        (folder / "red").mkdir(parents=True)
        cv2.imwrite(str(folder / "red" / "0.png"), picture)

    def explained(folder: Path, *region: str) -> list[dict[str, object]]:
        answers = []
        for words in ([folder / "red" / "0.png"], ["--data", folder]):
            done = run(*words, *region, "--model", model, "--out", tmp_path / "heat.png", "--json")
            assert done.exit_code == 0, done.output
            answers += [{**json.loads(line), "path": ""} for line in done.stdout.splitlines()]
        return answers

    assert explained(whole, "--region", "20,4,80,60") == explained(small) != explained(whole)
    done = run(red, "--region", "0,0,121,80", "--model", model, "--out", tmp_path / "heat.png")
    assert done.exit_code == 1
    assert "red.png: region x=0 y=0 width=121 height=80 does not fit" in done.stderr


def test_folders_several_heads_and_text(red: Path, tmp_path: Path) -> None:
    folder = model_folder_of_means(tmp_path / "means")
    done = run(red.parent, "--model", folder, "--out", tmp_path / "heat.png")
    assert (done.exit_code, done.stderr) == (0, "")
    first, second, where = done.stdout.splitlines()
    assert first.startswith(f"{red}  red  0.")
    assert second.startswith(f"{red}  red  0.")
    assert "heat: top left " in first
    assert where.startswith(f"{tmp_path / 'heat.png'}: ")


def test_a_picture_that_cannot_be_read_is_one_line_and_exit_code_1(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "nothing").mkdir()
    for name, says in (("absent.jpg", "No such file"), ("text.jpg", "not a picture"), ("nothing", "no pictures")):
        done = run(tmp_path / name, "--model", model_folder, "--out", tmp_path / "heat.png")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith(f"bittern: {tmp_path / name}: ")
        assert done.stderr.count("\n") == 1
        assert says in done.stderr
        assert not (tmp_path / "heat.png").exists()


def test_one_bad_picture_does_not_stop_the_others(model: Path, red: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "absent.jpg", red, "--model", model, "--out", tmp_path / "heat.png", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["path"] == str(red)
    assert (tmp_path / "heat.png").is_file()


def test_names_that_are_no_utf8(model: Path, red: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set" / "red"
    folder.mkdir(parents=True)
    (folder / os.fsdecode(b"\xff.png")).write_bytes(red.read_bytes())
    (folder / os.fsdecode(b"\xfe.png")).write_bytes(b"no picture")
    for words in ((folder,), ("--data", folder.parent)):
        done = run(*words, "--model", model, "--out", tmp_path / "heat.png", "--json")
        assert done.exit_code == 1
        assert "fe.png: not a picture" in done.stderr
        content = json.loads(done.stdout)
        assert content.get("path", "").endswith(r"\xff.png") or r"\xfe.png" in content["skipped"][0]


def test_wrong_usage(model: Path, red: Path, tmp_path: Path) -> None:
    both = [str(red), "--data", str(tmp_path)]
    for words in ([], both):
        done = run(*words)
        assert done.exit_code == 2
        assert "either IMAGE... or --data" in done.stderr
    for words, says in (
        ([str(red), "--out", str(tmp_path / "absent" / "a.png")], "no folder"),
        (["--data", str(tmp_path / "absent")], "no data at"),
        ([str(red), "--model", "no_such"], "unknown model 'no_such'"),
    ):
        done = run(*words)
        assert isinstance(done.exception, ConfigurationError)
        assert says in str(done.exception)


def test_a_labelled_set_with_correct_answers_and_mistakes(model: Path, tmp_path: Path) -> None:
    data = discs(tmp_path / "set", 3)
    (data / "red/002.jpg").rename(data / "blue/x.jpg")  # a wrong label: the answer will be "red"
    (data / "blue/broken.jpg").write_text("no picture")
    done = run("--data", data, "--model", model, "--out", tmp_path / "heat.png", "--each", 2, "--json")
    assert done.exit_code == 1
    assert "broken.jpg" in done.stderr
    survey = json.loads(done.stdout)
    assert (survey["split"], survey["n"], len(survey["skipped"])) == ("all", 6, 1)
    counts = [(g["label"], g["right"], g["n"]) for g in survey["groups"]]
    assert counts == [("red", True, 2), ("blue", True, 3), ("blue", False, 1)]
    # 2 + 2 + 1 pictures of two tiles each, six in a row; only the wrong ones are framed in red.
    sheet = read(tmp_path / "heat.png")
    assert sheet.shape[:2] == (6 + 2 * (SHOWN + 40), 6 + 6 * (SHOWN + 6))
    framed = [
        tuple(sheet[6 + r * (SHOWN + 40), 6 + c * (SHOWN + 6)]) == (40, 40, 215) for r in (0, 1) for c in range(6)
    ]
    assert framed == [False] * 8 + [True] * 2 + [False] * 2

    refused = run("--data", data, "--model", model, "--out", tmp_path / "heat.png", "--split", "val").exception
    assert isinstance(refused, ConfigurationError)
    assert str(refused) == f"{data} has no index.csv, so there is no split 'val': leave out --split"
    text = run("--data", data, "--model", model, "--out", tmp_path / "heat.png").stdout.splitlines()
    assert text[0].startswith("means unverified, bare, split all: ")
    assert [line.split()[:3] for line in text[2:5]] == [
        ["red", "correct", "2"],
        ["blue", "correct", "3"],
        ["blue", "mistake", "1"],
    ]
    assert len({len(line) for line in text[1:6]}) == 1, "the columns stand below each other"
    assert text[5].split()[-2:] == ["49%", "14%"]  # of 56 px the margin is 8


def test_a_split_of_an_index(model: Path, tmp_path: Path) -> None:
    data = discs(tmp_path / "set", 2)
    rows = [f"{label}/{i:03d}.jpg,{label},{('val', 'test')[i]},{label}{i}" for label in ("red", "blue") for i in (0, 1)]
    (tmp_path / "index.csv").write_text("\n".join(["path,label,split,group", *rows]) + "\n")
    words = ("--data", tmp_path / "index.csv", "--root", data, "--model", model, "--out", tmp_path / "heat.png")
    survey = json.loads(run(*words, "--json", "--fill", "blur").stdout)
    assert (survey["split"], survey["fill"], survey["n"]) == ("val", "blur", 2)
    absent = run(*words, "--split", "vla")
    assert isinstance(absent.exception, ConfigurationError)
    assert str(absent.exception).endswith("no split 'vla'; it has test, val")
