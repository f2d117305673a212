"""The HTTP interface of `bittern serve`, over real connections to a real server."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.doubles.served import BITTERN, Site, form, served

from bittern.evaluation import dataset, index
from bittern.model.classifier import Classifier
from bittern.model.pictures import decode, decode_bytes
from bittern.model.preprocess import View
from bittern.page import app, history
from bittern.page.api import Interface
from bittern.page.http import folder_name, is_label
from bittern.page.workers import WorkerPool

OPENAPI = json.loads((app.STATIC / "openapi.json").read_text())
VIEWS: tuple[View, ...] = ("left", "center", "right")
SCHEMAS = OPENAPI["components"]["schemas"]


def keeps_schema(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is as a schema of the file says: types, no key too many, none too few."""
    if "$ref" in schema:
        return keeps_schema(value, SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "oneOf" in schema:
        return sum(keeps_schema(value, one) for one in schema["oneOf"]) == 1
    if "const" in schema:
        return bool(value == schema["const"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    types: dict[str, Any] = {"string": str, "number": (int, float), "integer": int, "boolean": bool, "null": type(None)}
    if "array" in kinds:
        return isinstance(value, list) and all(keeps_schema(one, schema["items"]) for one in value)
    if "object" in kinds:
        known, rest = schema.get("properties", {}), schema.get("additionalProperties")
        return (
            isinstance(value, dict)
            and set(schema.get("required", ())) <= set(value)
            and (rest is not None or set(value) <= set(known))
            and all(keeps_schema(one, known.get(key, rest)) for key, one in value.items())
        )
    return any(isinstance(value, types[kind]) for kind in kinds)


def schema_of(path: str, method: str = "get", status: str = "200") -> dict[str, Any]:
    (content,) = OPENAPI["paths"][path][method]["responses"][status]["content"].values()
    schema: dict[str, Any] = content["schema"]
    return schema


def test_the_check_of_schemas_can_fail() -> None:
    health: dict[str, Any] = {"status": "ok", "version": "1", "models": [], "uptime_s": 1}
    assert keeps_schema(health, SCHEMAS["Health"])
    wrong: list[Any] = [health | {"models": [1]}, health | {"more": 1}, {"status": "ok"}, health | {"status": "bad"}, 1]
    for value in wrong:
        assert not keeps_schema(value, SCHEMAS["Health"])


def test_the_openapi_file_names_the_routes_and_no_others(tmp_path: Path) -> None:
    routes = {
        (route.path, method.lower())
        for route in Interface(WorkerPool({}, 1), tmp_path).routes()
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == {(path, method) for path, methods in OPENAPI["paths"].items() for method in methods}
    for path, methods in OPENAPI["paths"].items():
        for operation in methods.values():
            named = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))


def test_the_openapi_file_names_the_parameters_that_are_read() -> None:
    text = "".join((app.STATIC.parent / f"{module}.py").read_text() for module in ("api", "uploads"))
    read = set(re.findall(r'query(?:_params)?\.get\("(\w+)"|(?:flag|whole_number)\(request, "(\w+)"', text))
    named = {
        p["name"]
        for methods in OPENAPI["paths"].values()
        for operation in methods.values()
        for p in operation.get("parameters", ())
        if p["in"] == "query"
    }
    assert {one or other for one, other in read} == named


@pytest.mark.parametrize("as_form", [False, True])
def test_classify_answers_as_the_command_prints(site: Site, means: Path, pictures: Path, as_form: bool) -> None:
    command = [str(BITTERN), "classify", "street.jpg", "--json", "--model", str(means), "--model", "stop_sign"]
    printed = subprocess.run(command, cwd=pictures, capture_output=True, check=True).stdout
    data = (pictures / "street.jpg").read_bytes()
    if as_form:
        reply = site.ask("/api/classify", *form({"street.jpg": data}))
    else:
        reply = site.ask("/api/classify?name=street.jpg", data)
    assert reply.status == 200
    expected = b"[" + b",".join(printed.splitlines()) + b"]"
    times = re.compile(rb'"time_ms":[\d.]+')
    assert times.sub(b"", reply.body) == times.sub(b"", expected)
    assert keeps_schema(reply.json, schema_of("/api/classify", "post"))
    assert all(row["time_ms"] > 0 for row in reply.json)


def test_of_several_pictures_those_that_can_be_read_are_answered(site: Site, pictures: Path) -> None:
    files = {"red.png": (pictures / "red.png").read_bytes(), "notes.txt": b"no picture", "é ü.png": b""}
    files["blue.png"] = (pictures / "blue.png").read_bytes()
    reply = site.ask("/api/classify", *form(files))
    assert reply.status == 200
    assert keeps_schema(reply.json, schema_of("/api/classify", "post"))
    answers = {row["path"]: row.get("label", "error") for row in reply.json if row.get("task") in (None, "colour_0")}
    assert answers == {"red.png": "red", "notes.txt": "error", "é ü.png": "error", "blue.png": "blue"}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no picture"),
        (b"hello", 415, "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "SVG"),
        (b"%PDF-1.7 ...", 415, "PDF"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, 415, "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused(site: Site, body: bytes, status: int, words: str) -> None:
    reply = site.ask("/api/classify", body)
    assert reply.status == status
    assert words in reply.body.decode()


def test_a_parameter_that_is_unknown_is_refused(site: Site, pictures: Path) -> None:
    body = (pictures / "red.png").read_bytes()
    for query in ("model=means", "kepp=1"):
        reply = site.ask(f"/api/classify?{query}", body)
        assert reply.status == 400
        assert f"unknown parameter {query.partition('=')[0]}: expected keep or name" in reply.json["error"]
    assert site.ask("/api/export.zip").status == 400


def test_a_broken_form_is_refused(site: Site) -> None:
    for kind, body in (
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=a", b"--b\r\nx"),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="x"\r\n\r\ntext\r\n--a--\r\n',
        ),
    ):
        assert site.ask("/api/classify", body, {"content-type": kind}).status == 400


def test_models_and_health(site: Site) -> None:
    models = site.ask("/api/models").json
    assert keeps_schema(models, schema_of("/api/models"))
    assert [model["name"] for model in models] == ["means", "stop_sign"]
    printed = subprocess.run([str(BITTERN), "models", "--json"], capture_output=True, check=True, text=True).stdout
    (row,) = (json.loads(line) for line in printed.splitlines() if '"name":"stop_sign"' in line)
    assert {key: value for key, value in models[1].items() if key in row}.items() <= row.items()
    health = site.ask("/api/health").json
    assert keeps_schema(health, schema_of("/api/health"))


def test_a_kept_picture_is_corrected_and_exported(site: Site, data: Path, pictures: Path) -> None:
    red = (pictures / "red.png").read_bytes()
    row = site.ask("/api/classify?keep=1&name=%3Cb%3E%2F..%2Fred.png", red).json[0]
    assert keeps_schema([row], schema_of("/api/classify", "post"))
    task, here = row["task"], f"/api/history/{row['id']}"
    kept = site.ask("/api/history").json
    assert keeps_schema(kept, schema_of("/api/history"))
    assert kept["pictures"][0]["name"] == "<b>/../red.png"
    for label in ("dark red", "crimson, ü"):
        reply = site.ask(f"{here}/label", json.dumps({"task": task, "label": label}).encode())
        assert reply.json == {"corrected": {task: label}}
        assert keeps_schema(reply.json, schema_of("/api/history/{id}/label", "post"))
    items = dataset.read(data / "sets" / task)
    assert [(item.label, item.path.read_bytes()) for item in items] == [("crimson, ü", red)]
    assert items[0].columns["answer"] == "means: red"
    assert site.ask("/api/history?state=corrected").json["n"] == 1
    assert site.ask("/api/history?label=crimson,%20%C3%BC").json["n"] == 1
    archive = zipfile.ZipFile(io.BytesIO(site.ask(f"/api/export.zip?task={task}").body))
    assert [archive.read(name) for name in archive.namelist()] == [red]
    assert archive.namelist()[0].startswith("crimson, ü/")
    reply = site.ask(f"{here}/label", json.dumps({"task": task, "label": None}).encode())
    assert reply.json == {"corrected": {}}
    assert not (data / "sets" / task / "index.csv").exists()
    assert site.ask(f"/api/export.zip?task={task}").status == 404
    assert site.ask(f"/api/export.zip?task={task}&all=1").status == 200
    assert site.ask(here, method="DELETE").status == 204
    assert site.ask(here, method="DELETE").status == 404
    assert site.ask("/api/history").json["n"] == 0
    assert list((data / "history").iterdir()) == []


def test_a_set_that_another_command_changes_is_left_alone(site: Site, data: Path, pictures: Path) -> None:
    row = site.ask("/api/classify?keep=1&name=red.png", (pictures / "red.png").read_bytes()).json[0]
    folder = data / "sets" / row["task"]
    folder.mkdir(parents=True, exist_ok=True)
    with index.locked(folder / "index.csv"):
        reply = site.ask(f"/api/history/{row['id']}/label", json.dumps({"task": row["task"], "label": "x"}).encode())
    assert reply.status == 409
    assert "another command" in reply.json["error"]
    assert site.ask("/api/history").json["pictures"][0]["corrected"] == {}
    site.ask(f"/api/history/{row['id']}", method="DELETE")


def test_pictures_of_what_the_network_sees(site: Site, pictures: Path) -> None:
    row = site.ask("/api/classify?keep=1", (pictures / "street.jpg").read_bytes()).json[-1]
    here = f"/api/history/{row['id']}"
    classifier, frame = Classifier("stop_sign"), decode(pictures / "street.jpg")
    for view in VIEWS:
        reply = site.ask(f"{here}/square.png?model=stop_sign&view={view}")
        shown = decode_bytes(reply.body, view)[:, :, ::-1]
        assert np.array_equal(shown, classifier.preprocess(frame, view=view)[0]), "to the byte"
        about = json.loads(reply.headers["x-answer"])
        assert about["views"] == ["left", "center", "right"]
    reply = site.ask(f"{here}/heat.png?model=stop_sign&task=stop_sign")
    assert json.loads(reply.headers["x-answer"])["label"] == "stop"
    assert reply.body.startswith(b"\x89PNG")
    preview = decode_bytes(site.ask(f"{here}/preview.jpg?side=100").body, "preview")
    assert preview.shape == (75, 100, 3)
    for path in ("square.png?view=top", "preview.jpg?side=0", "preview.jpg?side=1e3", "heat.png?task=none"):
        assert site.ask(f"{here}/{path}").status in (400, 404), path
    site.ask(here, method="DELETE")


def test_the_history_outlives_the_server_and_ends_at_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST", 3)
    first = history.PictureHistory(tmp_path)
    made = [first.add(f"{i}.png", b"x" * 10, 1, 1, [{"task": "t", "label": "a", "alarm": False}]) for i in range(5)]
    first.correct(made[4], "t", "b")
    (tmp_path / "0123.json").write_text("{")
    again = history.PictureHistory(tmp_path)
    assert [picture.name for picture in again.all()] == ["4.png", "3.png", "2.png"]
    assert again.all()[0].corrected == {"t": "b"}
    monkeypatch.setattr(history, "MOST_BYTES", 15)
    again.add("5.png", b"x" * 10, 1, 1, [])
    assert [picture.name for picture in again.all()] == ["5.png"]


@pytest.mark.parametrize(
    ("label", "name"),
    [("stop", "stop"), ("../up", "_up"), ("a/b\\c", "a_b_c"), (" . ", "_"), ("x\n", "x_"), ("C:", "C_"), ("é", "é")],
)
def test_a_label_as_a_folder(label: str, name: str) -> None:
    assert folder_name(label) == name.lstrip(" .")


@pytest.mark.parametrize("wrong", ["", " a", "a\n", "x" * 101, "a\u202eb", 3, None])
def test_what_is_no_label(wrong: object) -> None:
    assert not is_label(wrong)
    assert is_label("a label, with 'quotes' and 😀")


def test_a_refused_model_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [str(BITTERN), "serve", "--data", str(tmp_path), "--port", "0", "--model", "stop_sgn"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "did you mean 'stop_sign'" in done.stderr


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    command = [str(BITTERN), "serve", "--data", str(tmp_path), "--port", "0", *("--model", "stop_sign") * 2]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "two models have the name 'stop_sign'" in done.stderr


def test_a_port_that_is_taken_is_one_line(site: Site, tmp_path: Path) -> None:
    command = [str(BITTERN), "serve", "--data", str(tmp_path), "--port", str(site.port)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "choose another --port" in done.stderr


def test_the_examples_of_the_docs(site: Site, pictures: Path, tmp_path: Path) -> None:
    """Each `curl` line of docs/page.md, one after the other, against the server of this test."""
    page = (Path(__file__).parents[3] / "docs/page.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    examples = [line for line in lines if line.startswith("curl") and ":8770/" not in line]  # those of a daemon
    assert len(examples) >= 5
    (tmp_path / "street.jpg").write_bytes((pictures / "street.jpg").read_bytes())
    (tmp_path / "garden.jpg").write_bytes((pictures / "street.jpg").read_bytes())
    identity = site.ask("/api/classify?keep=1", (pictures / "street.jpg").read_bytes()).json[0]["id"]
    for line in examples:
        line = re.sub(r"http://[\d.]+:8766/", site.url, line).replace("ID", identity)
        done = subprocess.run(line + " --fail-with-body -sS", shell=True, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    assert (tmp_path / "stop_sign.zip").stat().st_size > 1000
    site.ask(f"/api/history/{identity}", method="DELETE")


def test_rows_of_an_index_are_read_as_any_csv(site: Site, data: Path, pictures: Path) -> None:
    row = site.ask("/api/classify?keep=1&name=a%22b,c.png", (pictures / "red.png").read_bytes()).json[0]
    site.ask(f"/api/history/{row['id']}/label", msgspec.json.encode({"task": row["task"], "label": 'say "red", ok'}))
    with (data / "sets" / row["task"] / "index.csv").open(newline="") as file:
        (only,) = csv.DictReader(file)
    assert (only["label"], only["name"]) == ('say "red", ok', 'a"b,c.png')
    site.ask(f"/api/history/{row['id']}", method="DELETE")


def test_several_servers_can_share_a_machine(site: Site, tmp_path: Path, means: Path) -> None:
    with served("--data", tmp_path, "--model", means) as other:
        assert other.port != site.port
        assert [model["name"] for model in other.ask("/api/models").json] == ["means"]


def test_the_servers_own_process_decodes_nothing(site: Site, pictures: Path) -> None:
    """Neither OpenCV nor numpy nor the runtime is loaded into it, whatever it is asked for."""
    row = site.ask("/api/classify?keep=1", (pictures / "street.jpg").read_bytes()).json[0]
    site.ask(f"/api/history/{row['id']}/heat.png?task={row['task']}")
    site.ask(f"/api/history/{row['id']}", method="DELETE")
    loaded = Path(f"/proc/{site.process.pid}/maps").read_text()
    assert "libpython" in loaded or "/python" in loaded
    assert not re.search(r"/(cv2|numpy|ai_edge_litert)/", loaded)
