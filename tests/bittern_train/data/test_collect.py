"""`bittern data collect`: against a server that speaks as the real ones do, and fails as they do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.bittern_train.data.test_dedupe import drawn
from tests.doubles.command import BITTERN, bittern, one_line
from tests.doubles.data_command import data as command
from tests.doubles.http_peer import Peer
from tests.doubles.picture_server import SECRET, PictureServer
from tests.doubles.waiting import until

from bittern.evaluation import dataset, index
from bittern.frames import Frame, Pixels
from bittern_train.data.fetch import Fetcher, FetchError
from bittern_train.data.frames import Chooser

QUICK = ("--pause", "0", "--timeout", "1")


def jpeg(seed: int) -> bytes:
    return bytes(cv2.imencode(".jpg", drawn(seed))[1])


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with Peer() as peer:
        yield PictureServer(peer)


def listed(server: PictureServer, folder: Path, *lines: str) -> Path:
    file = folder / "list.txt"
    file.write_text("# what to fetch\n\n" + "".join(f"{server.url}{line}\n" for line in lines), "utf-8")
    return file


def test_urls(server: PictureServer, tmp_path: Path) -> None:
    server.files = {"/a.jpg": jpeg(1), "/b": jpeg(2), "/same.jpg": jpeg(1)}
    file = listed(server, tmp_path, "/a.jpg?key=hidden", "/b open gate", "/same.jpg")
    done = command("collect", "urls", file, "--out", tmp_path / "set", "--label", "closed", *QUICK)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{tmp_path}/set: 2 pictures added (1 were there already)\n"
    items = dataset.read(tmp_path / "set")
    assert [(i.label, i.columns["source"]) for i in items] == [
        ("closed", f"{server.url}/a.jpg?key=hidden"),
        ("open gate", f"{server.url}/b"),
    ]
    assert items[0].path.read_bytes() == server.files["/a.jpg"], "unchanged"
    assert server.asked["/robots.txt"] == 1
    again = command("collect", "urls", file, "--out", tmp_path / "set", *QUICK)
    assert "0 pictures added" in again.out
    assert server.asked["/a.jpg"] == 1
    assert [f.name for f in (tmp_path / "set").glob("index.csv*")] == ["index.csv"], "nothing has changed"


def test_a_bad_server_costs_one_line_each_and_nothing_else(server: PictureServer, tmp_path: Path) -> None:
    server.files = {"/half": jpeg(1), "/text.jpg": b"<html>no picture</html>", "/later": jpeg(2), "/last.jpg": jpeg(3)}
    server.files["/large.jpg"] = b"\xff\xd8\xff" + bytes(3 << 20)
    names = ["/half", "/stall", "/text.jpg", "/absent.jpg", "/never", "/large.jpg", "/later", "/last.jpg"]
    file = listed(server, tmp_path, *(f"{name}?password={SECRET}" for name in names))
    done = command("collect", "urls", file, "--out", tmp_path / "set", "--max-mb", "2", *QUICK)
    assert done.code == 1
    assert SECRET not in done.out + done.err
    for name, says in {
        "/half": "broke off",
        "/stall": "no answer within 1 s",
        "/text.jpg": "not a picture",
        "/absent.jpg": "answers 404",
        "/never": "answers 503",
        "/large.jpg": "larger than the limit of 2 MiB",
    }.items():
        assert any(name in line and says in line for line in done.err.splitlines()), (name, done.err)
    assert "6 of 8 could not be fetched" in done.err
    assert len(dataset.read(tmp_path / "set")) == 2
    assert (server.asked["/later"], server.asked["/never"]) == (2, 3)
    assert sorted(f.suffix for f in (tmp_path / "set").iterdir() if f.name[0] != ".") == [".csv", ".jpg", ".jpg"]


def test_robots_are_obeyed(server: PictureServer, tmp_path: Path) -> None:
    server.files = {"/robots.txt": b"User-agent: *\nDisallow: /private\nCrawl-delay: 3\n", "/private.jpg": jpeg(1)}
    server.files["/open.jpg"] = jpeg(2)
    file = listed(server, tmp_path, "/private.jpg")
    done = command("collect", "urls", file, "--out", tmp_path / "set", *QUICK)
    assert done.code == 1
    assert "robots.txt of the server forbids it" in done.err
    assert server.asked["/private.jpg"] == 0
    assert command("collect", "urls", file, "--out", tmp_path / "set", "--ignore-robots", *QUICK).code == 0
    slept: list[float] = []
    fetcher = Fetcher(max_bytes=1 << 20, timeout_s=5, pause_s=0, sleep=slept.append, clock=lambda: 1000.0)
    for _ in range(2):
        assert fetcher.fetch(f"{server.url}/open.jpg") == jpeg(2)
    assert slept == [3.0, 3.0]


def test_a_server_whose_rules_cannot_be_read_is_left_alone(server: PictureServer) -> None:
    server.peer.answer = server.peer.never
    with pytest.raises(FetchError, match="robots"):
        Fetcher(max_bytes=1 << 20, timeout_s=1, pause_s=0).fetch(f"{server.url}/a.jpg")


@pytest.mark.parametrize("address", ["ftp://host/a.jpg", "file:///etc/passwd", "a.jpg", "http://[::1/x", "http:///x"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(FetchError):
        Fetcher(max_bytes=1, timeout_s=1, pause_s=0).fetch(address)


def test_bad_lists(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "latin.txt").write_bytes(b"http://h/\xe4.jpg\n")
    for name, says in {
        "empty.txt": "no address",
        "latin.txt": "UTF-8",
        "absent": "No such file",
        ".": "directory",
    }.items():
        one_line(command("collect", "urls", tmp_path / name, "--out", tmp_path / "set"), 2, says)
    (tmp_path / "file").write_text("")
    (tmp_path / "list.txt").write_text("http://127.0.0.1:1/x\n")
    one_line(command("collect", "urls", tmp_path / "list.txt", "--out", tmp_path / "file" / "x"), 2, "cannot be made")


def test_an_interrupted_collection_goes_on(server: PictureServer, tmp_path: Path) -> None:
    """Ctrl-C while a server is silent: what was fetched is in the index."""
    server.files = {"/a.jpg": jpeg(1), "/b.jpg": jpeg(2)}
    file = listed(server, tmp_path, "/a.jpg", "/stall", "/b.jpg")
    words = [
        BITTERN,
        "data",
        "collect",
        "urls",
        str(file),
        "--out",
        str(tmp_path / "set"),
        "--pause",
        "0",
        "--timeout",
        "30",
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        until(lambda: server.asked["/stall"] > 0, 30)
        process.send_signal(2)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert [i.columns["source"] for i in dataset.read(tmp_path / "set")] == [f"{server.url}/a.jpg"]
    file.write_text(file.read_text().replace(f"{server.url}/stall\n", ""))
    assert command("collect", "urls", file, "--out", tmp_path / "set", *QUICK).code == 0
    assert server.asked["/a.jpg"] == 1
    assert len(dataset.read(tmp_path / "set")) == 2


# --- Reddit -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def credentials(server: PictureServer, tmp_path: Path) -> Path:
    file = tmp_path / "reddit.ini"
    file.write_text(
        f"[reddit]\nclient_id = me\nclient_secret = {SECRET}\nreddit_url = {server.url}\noauth_url = {server.url}\n"
    )
    return file


def test_reddit(server: PictureServer, credentials: Path, tmp_path: Path) -> None:
    server.files = {"/1.jpg": jpeg(1), "/5.jpg": jpeg(2), "/6.jpg": jpeg(3)}
    server.post("one", f"{server.url}/1.jpg")
    server.post("two", f"{server.url}/2.jpg", over_18=True)
    server.post("three", f"{server.url}/3.jpg", removed_by_category="moderator")
    server.post("four", "https://v.redd.it/movie")
    server.post("five", f"{server.url}/5.jpg", author="é")
    server.post("gone", f"{server.url}/4.jpg", author="[deleted]")
    server.post("elsewhere", "https://192.0.2.1/router.jpg")
    server.post("six", f"{server.url}/6.jpg")
    words = ("collect", "reddit", "r/birds=bird", "--credentials", credentials, "--out", tmp_path / "set", *QUICK)
    done = command(*words)
    assert done.code == 0, done.err
    assert SECRET not in done.out + done.err
    assert "r/birds: 3 pictures; skipped: 2 removed, 1 for adults, 2 without a picture of Reddit's" in done.err
    items = dataset.read(tmp_path / "set")
    assert [(i.label, i.columns["author"], i.columns["permalink"]) for i in items] == [
        ("bird", "somebody", f"{server.url}/r/birds/comments/one/"),
        ("bird", "é", f"{server.url}/r/birds/comments/five/"),
        ("bird", "somebody", f"{server.url}/r/birds/comments/six/"),
    ]
    assert items[0].columns["title"] == "A bird, one"
    assert command(*words).out.endswith("0 pictures added\n")
    assert server.asked["/1.jpg"] == 1


def test_reddit_asks_for_patience(server: PictureServer, credentials: Path, tmp_path: Path) -> None:
    server.busy = 9
    words = ("collect", "reddit", "birds", "absent", "--credentials", credentials, "--out", tmp_path / "set", *QUICK)
    done = command(*words)
    assert done.code == 1
    assert "r/birds: Reddit asks to wait 7 s" in done.err
    assert "r/absent: there is no such subreddit" in done.err
    assert not (tmp_path / "set" / "index.csv").exists()


def test_credentials_that_are_missing_or_wrong(server: PictureServer, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "set")
    one_line(
        command(
            "collect", "reddit", "birds", *out, XDG_CONFIG_HOME=str(tmp_path), praw_client_id="", praw_client_secret=""
        ),
        2,
        "no credentials for Reddit",
        "https://www.reddit.com/prefs/apps",
    )
    for text, says in {
        "[reddit]\nclient_id = x\n": "client_secret is missing",
        f"[reddit]\nclient_id = x\nclient_secret = {SECRET}\nsecret = 1\n": "unknown key 'secret'",
        f"{SECRET}\n": "expected a section [reddit]",
        f"[other]\nclient_secret = {SECRET}\n": "expected a section [reddit]",
    }.items():
        (tmp_path / "bad.ini").write_text(text)
        line = one_line(command("collect", "reddit", "birds", "--credentials", tmp_path / "bad.ini", *out), 2, says)
        assert SECRET not in line
    server.peer.answer = lambda _: b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    (tmp_path / "wrong.ini").write_text(
        f"[reddit]\nclient_id = x\nclient_secret = {SECRET}\nreddit_url = {server.url}\noauth_url = {server.url}\n"
    )
    line = one_line(command("collect", "reddit", "birds", "--credentials", tmp_path / "wrong.ini", *out), 2, "refuses")
    assert SECRET not in line


# --- cameras and videos -----------------------------------------------------------------------------------------------


def film(folder: Path, pictures: list[Pixels]) -> Path:
    folder.mkdir()
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{i:02d}.png"), picture)
    return folder


def test_blurred_and_equal_frames_are_left_out(tmp_path: Path) -> None:
    blurred = np.asarray(cv2.GaussianBlur(drawn(2), (0, 0), 8), np.uint8)
    noisy = np.clip(drawn(1).astype(int) + np.random.default_rng(0).integers(-3, 4, drawn(1).shape), 0, 255).astype(
        np.uint8
    )
    source = film(tmp_path / "film", [drawn(1), noisy, blurred, drawn(2), drawn(1)])
    done = command("collect", "video", source, "--every", "0.001", "--out", tmp_path / "set", "--label", "gate")
    assert done.code == 0, done.err
    assert "3 pictures added" not in done.out, "the last is the first one again"
    assert "2 pictures added (1 were there already)" in done.out
    assert "left out: 1 frames blurred, 1 like the one before" in done.out
    items = dataset.read(tmp_path / "set")
    assert [i.columns["source"].rpartition("#")[2] for i in items] == ["0", "3"]
    assert {i.group for i in items} == {"film-0"}
    assert {i.label for i in items} == {"gate"}


def test_frames_of_either_order() -> None:
    rgb = np.ascontiguousarray(drawn(1)[:, :, ::-1])
    chooser = Chooser()
    assert chooser.keeps(Frame(drawn(1), "BGR", 0, 0, 0, "x"))
    assert not chooser.keeps(Frame(rgb, "RGB", 1, 0, 1, "x"))
    assert chooser.left.alike == 1


def test_camera_at_an_interval(tmp_path: Path) -> None:
    words = ("collect", "camera", "--source", "demo:?laps=1", "--every", "1", "--count", "2", "--out", tmp_path / "set")
    done = command(*words)
    assert done.code == 0, done.err
    assert "2 pictures added" in done.out
    assert len(dataset.read(tmp_path / "set")) == 2
    assert command(*words).code == 0
    assert index.versions(tmp_path / "set" / "index.csv") == [1]


def test_camera_on_a_key(tmp_path: Path) -> None:
    words = ("data", "collect", "camera", "--source", "demo:?laps=1", "--on-key", "--seconds", "2", "--out", tmp_path)
    done = bittern(*words, stdin=b"\n")
    assert done.code == 0, done.err
    assert "Enter takes a picture, Ctrl-C ends it" in done.err
    assert "1 pictures added" in done.out


def test_ways_to_take_pictures_exclude_each_other(tmp_path: Path) -> None:
    for options in ([], ["--on-key", "--on-motion"], ["--every", "1", "--on-key"]):
        done = command("collect", "camera", "--source", "demo:", "--out", tmp_path, *options)
        assert done.code == 2
        assert "expected one of --every SECONDS, --on-key and --on-motion" in done.err
    one_line(
        command("collect", "camera", "--source", "absent:", "--every", "1", "--out", tmp_path), 2, "unknown source"
    )


def test_a_video_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video")
    done = command("collect", "video", tmp_path / "x.mp4", tmp_path / "absent.mp4", "--out", tmp_path / "set")
    assert done.code == 1
    assert len(done.err.splitlines()) == 2
