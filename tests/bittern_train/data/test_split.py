"""`bittern data split`: seeded, stratified, no group divided, what was held back stays held back."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.command import bittern, one_line

from bittern.errors import ConfigurationError
from bittern.evaluation import dataset, index, metrics
from bittern.evaluation.dataset import Item
from bittern_train.data import splitting

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def item(name: str, label: str | None, split: str = "", group: str = "") -> Item:
    return Item(Path(name), name, label, split, group, {})


def many(each: int, *labels: str) -> list[Item]:
    return [item(f"{label}/{i}.jpg", label) for label in labels for i in range(each)]


ITEMS = st.lists(
    st.tuples(st.sampled_from(["cat", "dog", ""]), st.sampled_from(["", "", "", "a", "b", "c", "d", "e"])),
    min_size=1,
    max_size=60,
).map(lambda rows: [item(f"{i}.jpg", label, "", group) for i, (label, group) in enumerate(rows)])


@given(ITEMS.filter(lambda items: any(i.label for i in items)), st.integers(0, 9))
def test_no_group_is_divided(items: list[Item], seed: int) -> None:
    done = splitting.assign(items, SHARES, seed)
    assert [i._replace(split="") for i in done] == items
    of_group: dict[str, set[str]] = {}
    for i in done:
        assert bool(i.split) == bool(i.label)
        if i.label:
            of_group.setdefault(i.group or i.name, set()).add(i.split)
    assert all(len(splits) == 1 for splits in of_group.values())
    # Again with the same seed, in another order, and on top of itself: the same.
    assert {i.name: i.split for i in splitting.assign(items[::-1], SHARES, seed)} == {i.name: i.split for i in done}
    assert splitting.assign(done, SHARES, seed + 1) == done


@pytest.mark.parametrize("seed", range(3))
def test_each_label_is_divided_in_the_same_shares(seed: int) -> None:
    items = many(50, "cat") + many(10, "dog") + [item(f"t{i}.jpg", "cat", "", f"track{i // 5}") for i in range(50)]
    done = splitting.assign(items, SHARES, seed)
    assert {label: {s: c.pictures for s, c in row.items()} for label, row in splitting.table(done).items()} == {
        "cat": {"train": 60, "val": 20, "test": 20},
        "dog": {"train": 6, "val": 2, "test": 2},
    }
    other = splitting.assign(items, SHARES, seed + 10)
    assert [i.split for i in done] != [i.split for i in other]


def test_what_was_held_back_stays_held_back() -> None:
    first = splitting.assign(many(20, "cat", "dog"), SHARES, 1)
    more = [item(f"new/{i}.jpg", "cat") for i in range(80)] + [
        item("x.jpg", "dog", "extra"),
        item("y.jpg", "cat", "", "cat/0.jpg"),
    ]
    second = splitting.assign([*first, *more], SHARES, 2)
    assert second[:40] == first
    assert second[-2].split == "extra"
    assert second[-1].split == first[0].split, "a near-duplicate of a picture that is there"
    counts = collections.Counter(i.split for i in second if i.label == "cat")
    assert {split: counts[split] - share for split, share in (("train", 60), ("val", 20), ("test", 20))} in (
        {"train": 1, "val": 0, "test": 0},
        {"train": 0, "val": 1, "test": 0},
        {"train": 0, "val": 0, "test": 1},
    )
    again = splitting.assign(second, SHARES, 3, again=True)
    assert [i.split for i in again] != [i.split for i in second]
    assert again[-2].split == "extra"
    with pytest.raises(ConfigurationError, match="group 'g' is in test and train already"):
        splitting.assign([item("a", "cat", "train", "g"), item("b", "cat", "test", "g")], SHARES, 1)


def test_the_width_of_an_interval() -> None:
    """As Wilson's interval will have it, where the share is a whole number of pictures."""
    for successes, n in ((38, 40), (190, 200), (50, 100)):
        low, high = metrics.wilson(successes, n)
        assert metrics.expected_half_width(successes / n, n) == pytest.approx((high - low) / 2)
    for half_width in (0.01, 0.03, 0.2, 0.49):
        n = metrics.pictures_for(0.95, half_width)
        assert metrics.expected_half_width(0.95, n) <= half_width
        assert n == 1 or metrics.expected_half_width(0.95, n - 1) > half_width


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    index.write(file, [*many(100, "cat", "dog\n, \U0001f436"), item("none.jpg", "")])
    done = bittern("data", "split", tmp_path, "--seed", "3")
    assert done.code == 0
    assert "no picture has a group: run `bittern data dedupe` first" in done.err
    assert done.out.splitlines() == [
        "label      train    test",
        "cat           80      20",
        "dog\\n, \U0001f436      80      20",
        f"without a label, and so without a split: 1 (bittern data label {tmp_path})",
        "40 test pictures: an accuracy of 95% will be known to +- 7.6 points; for +- 3 you need 215",
    ]
    items = dataset.read(tmp_path)
    assert collections.Counter(i.split for i in items) == {"train": 160, "test": 40, "": 1}
    (result,) = bittern("data", "split", tmp_path, "--json").lines
    assert (result["test"]["n"], result["needed"]["groups"], result["without_label"]) == (40, 215, 1)
    assert result["labels"]["cat"] == {"train": 80, "test": 20}
    assert dataset.read(tmp_path) == items
    assert bittern("data", "split", tmp_path, "--again", "--val", "0.3").code == 0
    assert bittern("data", "undo", tmp_path).code == 0
    assert dataset.read(tmp_path) == items


def test_what_cannot_be_split(tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    index.write(file, [item("a.jpg", "")])
    one_line(bittern("data", "split", tmp_path), 2, "no picture has a label")
    done = bittern("data", "split", tmp_path, "--test", "0.6", "--val", "0.4")
    assert done.code == 2
    assert "leave nothing for training" in done.err
    one_line(bittern("data", "split", tmp_path / "absent"), 2, "no such folder")
    index.write(file, [item("a.jpg", "cat"), *many(5, "dog")])
    done = bittern("data", "split", tmp_path)
    assert done.code == 0
    assert "label 'cat' has no picture in test: add pictures of it" in done.err
