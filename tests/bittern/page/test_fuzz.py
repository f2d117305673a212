"""Whatever is sent to the HTTP interface, it answers with a status of its own, and goes on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.repetitions import examples
from tests.doubles.served import Site, form

pytestmark = pytest.mark.fuzz

STATUSES = {200, 204, 400, 404, 405, 409, 413, 415, 422}
VALUES: tuple[Any, ...] = (
    None,
    0,
    -1,
    1e300,
    True,
    "",
    "x" * 200,
    "\u202e",
    "a\nb",
    [],
    [[]],
    {},
    {"a": 1},
    "stop",
    "../x",
)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Some bytes changed, a piece cut out or doubled, or the end cut off."""
    spoilt = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        begin = rng.randrange(len(spoilt) + 1)
        end = min(len(spoilt), begin + rng.randint(1, 40))
        match rng.randrange(4):
            case 0:
                spoilt[begin:end] = rng.randbytes(end - begin)
            case 1:
                del spoilt[begin:end]
            case 2:
                spoilt[begin:begin] = spoilt[begin:end]
            case _:
                del spoilt[max(begin, 1) :]
    return bytes(spoilt)


def test_forms_and_pictures(site: Site, pictures: Path) -> None:
    rng = random.Random(1)
    files = {file.name: file.read_bytes() for file in sorted(pictures.iterdir())}
    body, headers = form(files)
    for i in range(examples(2000)):
        if i % 2:
            reply = site.ask("/api/classify", mutated(rng, body), headers)
        else:
            reply = site.ask("/api/classify", mutated(rng, rng.choice(list(files.values()))))
        assert reply.status in STATUSES, (i, reply)
        assert isinstance(reply.json, list | dict), i


def test_labels_and_parameters(site: Site, pictures: Path) -> None:
    rng = random.Random(2)
    row = site.ask("/api/classify?keep=1", (pictures / "red.png").read_bytes()).json[0]
    here = f"/api/history/{row['id']}"
    good = json.dumps({"task": row["task"], "label": "red"}).encode()
    paths = ("/api/history", f"{here}/preview.jpg", f"{here}/square.png", f"{here}/heat.png", "/api/export.zip")
    names = ("q", "label", "state", "before", "most", "side", "model", "view", "task", "all", "keep", "name")
    texts = (
        "",
        "0",
        "1",
        "-1",
        "9" * 30,
        "%00",
        "%ff",
        "..%2f..",
        "stop",
        "center",
        "%F0%9F%98%80",
        "\\",
        "'",
        "%0d%0a",
    )
    for i in range(examples(1000)):
        value = rng.choice(VALUES)
        other = {"task": row["task"], "label": "red"} | {rng.choice(("task", "label")): value}
        body = rng.choice((mutated(rng, good), json.dumps(other).encode()))
        assert site.ask(f"{here}/label", body).status in STATUSES, body
        query = "&".join(f"{rng.choice(names)}={rng.choice(texts)}" for _ in range(rng.randint(1, 4)))
        reply = site.ask(f"{rng.choice(paths)}?{query}")
        assert reply.status in STATUSES, (i, query, reply)
    site.ask(f"{here}/label", json.dumps({"task": row["task"], "label": None}).encode())
    assert site.ask(here, method="DELETE").status == 204
    assert site.ask("/api/health").json["status"] == "ok"
