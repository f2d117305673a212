"""Label files as other tools write them: what they mean is obeyed, or one short line says what to do."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.model_files import bare
from tests.doubles.picture_files import mutate
from tests.doubles.repetitions import times
from tests.doubles.tflite_files import channel_means, with_files

from bittern import Classifier
from bittern.errors import ModelRefused
from bittern.model import labels
from bittern.model.manifest import Head

NAMES = ["stop", "go", "slow"]

FORMS = {
    "plain": "stop\ngo\nslow\n",
    "no line end at the end": "stop\ngo\nslow",
    "Windows": "stop\r\ngo\r\nslow\r\n",
    "old Mac": "stop\rgo\rslow\r",
    "mark": "\ufeffstop\ngo\nslow\n",
    "blank lines": "\nstop\n\n  go  \nslow\n\n\n",
    "numbers": "0 stop\n1 go\n2 slow\n",
    "numbers from 1": "1 stop\n2 go\n3 slow\n",
    "numbers, out of order": "1 go\n2 slow\n0 stop\n",
    "numbers and two blanks": "0  stop\n1  go\n2  slow\n",
    "numbers and tabs": "0\tstop\n1\tgo\n2\tslow\n",
    "numbers and colons": "0: stop\n1: go\n2: slow\n",
    "numbers and brackets": "0) stop\n1) go\n2) slow\n",
    "numbers and dashes": "0 - stop\n1 - go\n2 - slow\n",
    "numbers with zeros": "00 stop\n01 go\n02 slow\n",
    "mark, Windows and numbers": "\ufeff2 slow\r\n0 stop\r\n1 go\r\n",
    "numbers and =": "0=stop\n2=slow\n1=go\n",
    "quotes": '"stop"\n"go"\n"slow"\n',
    "single quotes and commas": "'stop',\n'go',\n'slow'\n",
    "numbers in quotes": '"1 go"\n"0 stop"\n"2 slow"\n',
    "CSV of one column": "Label\nstop\ngo\nslow\n",
    "CSV of one column in quotes": '"name"\r\n"stop"\r\n"go"\r\n"slow"\r\n',
    "CSV": "stop,0\ngo,1\nslow,2\n",
    "CSV, out of order": "go,1\nstop,0\nslow,2\n",
    "CSV, numbers first": "0,stop\n1,go\n2,slow\n",
    "CSV with a header": "index,label\n0,stop\n2,slow\n1,go\n",
    "CSV with more columns": "id,name,colour\n1,stop,7\n2,go,7\n3,slow,7\n",
    "CSV with semicolons and quotes": '"name";"id"\n"slow";2\n"stop";0\n"go";1\n',
    "CSV without numbers": "label,comment\nstop,a\ngo,b\nslow,c\n",
    "JSON list": '["stop", "go", "slow"]',
    "JSON by number": '{"0": "stop", "2": "slow", "1": "go"}',
    "JSON by number from 1": '{"1": "stop", "2": "go", "3": "slow"}',
    "JSON by name": '{"stop": 0, "slow": 2, "go": 1}',
    "JSON of ImageNet": '{"0": ["n1", "stop"], "1": ["n2", "go"], "2": ["n3", "slow"]}',
    "JSON of Teachable Machine": '{"tfjsVersion": "1.3.1", "labels": ["stop", "go", "slow"], "imageSize": 224}',
    "JSON of Lobe": '{"doc_id": "a", "classes": {"Label": ["stop", "go", "slow"]}}',
    "JSON of transformers": '{"id2label": {"0": "stop", "1": "go", "2": "slow"}, "label2id": {"stop": 0}}',
    "JSON of COCO": '{"categories": [{"id": 3, "name": "slow"}, {"id": 1, "name": "stop"}, {"id": 2, "name": "go"}]}',
    "JSON with a mark": '\ufeff["stop", "go", "slow"]',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_obeyed(form: str, encoding: str) -> None:
    assert labels.read(FORMS[form].encode(encoding)) == NAMES


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("20 km/h\n30 km/h\n50 km/h", ["20 km/h", "30 km/h", "50 km/h"]),
        ("0\n1\n2", ["0", "1", "2"]),
        ("3d printer\n4 wheels", ["3d printer", "4 wheels"]),
        ("0 stop\ngo", ["0 stop", "go"]),
        ("5 euro\n5 dollars", ["5 euro", "5 dollars"]),
        ("tench, Tinca tinca\ngoldfish, Carassius", ["tench, Tinca tinca", "goldfish, Carassius"]),
        ("[unknown]\n[other]", ["[unknown]", "[other]"]),
        ("grün\n猫\nл", ["grün", "猫", "л"]),
        ("0 Class 1\n1 Class 2", ["Class 1", "Class 2"]),
        ('"stop"\ngo', ['"stop"', "go"]),
        ("label", ["label"]),
        ("stop\ngo\nstop", ["stop (0)", "go", "stop (2)"]),
        ("a\na (0)\na", ["a (0)'", "a (0)", "a (2)"]),
    ],
)
def test_what_numbers_and_commas_may_also_mean(text: str, names: list[str]) -> None:
    assert labels.read(text.encode()) == names


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("go\nsécurité".encode("latin-1"), "line 2 is not UTF-8: save the file as UTF-8"),
        (b"go\r\nstop\r\n\xff\xff", "line 3 is not UTF-8"),
        (b"\xff\xfea", "is broken UTF-16: save it as UTF-8"),
        (b"0 stop\n1 go\n3 slow", "numbers its labels 0 to 3, but has no number 2: number them without gaps"),
        ("stop\ngo\u0085x".encode(), "label 1 has the control character U+0085"),
        (b"stop\ngo\x07", "label 1 has the control character U+0007"),
        (b"stop\ngo\x1b[31m", "label 1 has the control character U+001B"),
        ("stop\ngo\u2028x".encode(), "label 1 has the control character U+2028"),
        (b'["stop", ""]', "label 1 is empty"),
        (b"a" * 999, "label 0 has 999 characters, at most 200"),
        (b'{"stop": "go"}', 'JSON without labels: expected ["stop", "go"]'),
        (b"[1, 2]", "JSON without labels"),
        (b'{"0": "stop",', "looks like JSON, but is none"),
        (b"[" * 100_000, "looks like JSON, but is none"),
        (b'{"5": "stop", "7": "go"}', "expected numbers from 0 to 1, each once"),
        (b'[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]', "expected numbers from 0 to 1, each once"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_in_a_short_line(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        labels.read(data)
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 200


@given(st.lists(st.text(st.characters(categories=["L", "Nd", "P"]), min_size=1, max_size=20), min_size=2, max_size=30))
def test_a_list_in_json_is_taken_as_it_is(names: list[str]) -> None:
    read = labels.read(json.dumps(names).encode())
    assert len(set(read)) == len(read) == len(names)
    if len(set(names)) == len(names):
        assert read == names


@pytest.mark.fuzz
def test_mutated_label_files_are_read_or_refused() -> None:
    seeds = [form.encode(encoding) for form in FORMS.values() for encoding in ("utf-8", "utf-16")]
    rng = random.Random(23)
    refused, messages = 0, []
    n = times(10_000, 500)
    for number in range(n):
        data = mutate(rng, seeds[number % len(seeds)], seeds)
        try:
            names = labels.read(data)
        except ValueError as error:
            refused += 1
            messages.append(str(error))
        else:
            assert len(set(names)) == len(names)
            assert all(name.strip() == name for name in names)
    assert not any("\n" in message or len(message) > 250 for message in messages)
    assert n / 20 < refused < n * 19 / 20


def test_a_model_takes_them_from_a_file_and_packed(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf2 blue\r\n0 red\r\n1 green\r\n"
    (tmp_path / "labels.txt").write_bytes(data)
    for model, file in (
        (channel_means(), tmp_path / "labels.txt"),
        (with_files(channel_means(), labels_txt=data), None),
    ):
        assert Classifier(bare(tmp_path, model), labels=file).heads[0].labels == ("red", "green", "blue")


def test_of_translations_the_file_without_a_language_is_taken(tmp_path: Path) -> None:
    model = with_files(channel_means(), **{"labels-de_txt": b"rot\ngruen\nblau", "labels_txt": b"red\ngreen\nblue"})
    assert Classifier(bare(tmp_path, model)).heads[0].labels == ("red", "green", "blue")
    model = with_files(channel_means(), **{"labels_txt": b"a\nb\nc", "others_txt": b"d\ne\nf"})
    with pytest.raises(ModelRefused, match=r"several packed label files \(labels.txt, others.txt\).*--labels"):
        Classifier(bare(tmp_path, model))


def test_no_message_about_labels_is_long(tmp_path: Path) -> None:
    names = [f"label {number} of very many" for number in range(1000)]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    with pytest.raises(ModelRefused) as caught:
        Classifier(bare(tmp_path, channel_means()), labels=tmp_path / "labels.txt")
    with pytest.raises(ValueError, match=r"not among the labels .* and 995 more") as of_manifest:
        Head(task="t", output="o", labels=tuple(names), alarm=("x",), scale=1.0, zero_point=0, thresholds={})
    assert len(str(of_manifest.value)) < 300
    assert str(caught.value) == f"{tmp_path}/labels.txt: has 1000 labels, but the model's output has 3 values"
