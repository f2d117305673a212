"""Several hosts: TF_CONFIG is understood, every fit is made once whoever goes, and the run is that of one host."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.doubles.drawn_trainings import BITTERN, LONG, TASK, World
from tests.doubles.progress import Reports
from tests.doubles.repetitions import times
from tests.doubles.waiting import until

from bittern.errors import BitternError, ConfigurationError
from bittern_train import checkpoints, retrain_session, session, workers
from bittern_train.checkpoints import Checkpoints
from bittern_train.network import Floats
from bittern_train.workers import Chief, Greeting, Hosts, Worker

DOCS = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
CONDITIONS = {"task": "1", "pictures": "2", "processor": "x", "threads": "2"}
NAMES = [f"candidate-0-fold-{k}" for k in range(6)]


class Fit(NamedTuple):
    """What stands for a fit."""

    name: str
    values: Floats


def fit(name: str) -> Fit:
    return Fit(name, np.full(3, NAMES.index(name), np.float32))


def two(index: int = 0) -> Hosts:
    """Two hosts at a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Hosts([f"worker 0 (127.0.0.1:{port})", "worker 1 (127.0.0.1:1)"], ("127.0.0.1", port), index)


class Shared:
    """A chief that has fits to share out, and a thread for its worker."""

    def __init__(self, folder: Path) -> None:
        self.hosts, self.reports, self.kept = two(), Reports(), Checkpoints(folder)
        self.chief = Chief(self.hosts, self.reports)
        self.pool = ThreadPoolExecutor(4)

    def open(self, names: list[str] = NAMES) -> None:
        self.chief.open(CONDITIONS, names, self.kept, Fit)

    def own(self, before: Callable[[], object] = lambda: None) -> list[str]:
        """Makes the chief's own fits; `before` is called in each."""
        made = []
        for name in self.chief.own():
            before()
            self.kept.save(name, fit(name))
            made.append(name)
        return made

    def works(self, conditions: dict[str, str] = CONDITIONS) -> Future[int]:
        """A worker that makes whatever it is given; how many."""

        def work() -> int:
            with Worker(self.hosts._replace(number=1), Reports()) as worker:
                if not worker.greet(conditions):
                    return -1
                count = 0
                for name in worker.names():
                    worker.send(checkpoints.encode(fit(name)))
                    count += 1
                return count

        return self.pool.submit(work)

    def peer(self, *messages: object) -> workers._Peer:
        """A connection on which these messages were sent."""
        peer = workers._Peer(socket.create_connection(self.hosts.address))
        for message in messages:
            peer.send(message)
        return peer

    def takes_one(self) -> workers._Peer:
        """A worker that has been given a fit."""
        peer = self.peer(Greeting(1, CONDITIONS), True)
        assert peer.expect(list[str]) == []
        assert peer.expect(str) in NAMES
        return peer

    def all_are_kept(self) -> None:
        for name in NAMES:
            kept = self.kept.load(name, Fit)
            assert repr(kept) == repr(fit(name))


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    made = Shared(tmp_path)
    with made.chief, made.pool:
        yield made


def once_worked(shared: Shared, fits: int = 1) -> Callable[[], object]:
    """Waits until others have made so many fits."""
    return lambda: until(lambda: shared.chief.finished - shared.chief._shares.makers[0] >= fits)


def test_every_fit_is_made_once(shared: Shared) -> None:
    by_worker = shared.works()
    shared.open()
    here = shared.own(once_worked(shared))
    assert by_worker.result() + len(here) == len(NAMES) == len(set(here)) + by_worker.result()
    assert by_worker.result() > 0
    shared.all_are_kept()
    first, second = shared.hosts.names
    assert shared.reports.lines == [f"fits of the k-fold: {len(here)} by {first}, {by_worker.result()} by {second}"]


def test_without_any_worker_the_chief_makes_all(shared: Shared) -> None:
    shared.open()
    assert shared.own() == NAMES
    assert shared.reports.lines[-1].endswith("(127.0.0.1:1)")
    assert " 0 by worker 1 " in shared.reports.lines[-1]


def test_a_worker_that_comes_late_has_nothing_to_do(tmp_path: Path) -> None:
    shared = Shared(tmp_path)
    with shared.pool:
        with shared.chief:
            shared.open()
            shared.own()
            assert shared.works().result() == 0
            until(lambda: not shared.chief._peers)
            loading = Worker(shared.hosts._replace(number=1), Reports())
            until(lambda: shared.chief._peers)
        with loading:
            assert not loading.greet(CONDITIONS), "the run was finished while it read its pictures"


@pytest.mark.parametrize("key", ["task", "pictures", "numpy"])
def test_a_worker_with_something_else_is_refused_and_the_chief_goes_on(shared: Shared, key: str) -> None:
    shared.open()
    with pytest.raises(
        ConfigurationError, match=rf"^worker 0 \(.*\) trains something else, this host differs in {key}"
    ):
        shared.works(CONDITIONS | {key: "other"}).result()
    until(lambda: shared.reports.lines)  # the worker knows first
    assert shared.own() == NAMES
    who = shared.hosts.names[1]
    assert shared.reports.lines[0] == f"{who} is refused, because it differs in {key}: going on without it"


def test_another_processor_is_no_obstacle_but_said(shared: Shared) -> None:
    by_worker = shared.works(CONDITIONS | {"processor": "y", "threads": "4"})
    shared.open()
    shared.own(once_worked(shared))
    assert by_worker.result() > 0
    expected = f"{shared.hosts.names[1]} differs in processor, threads: its fits are the same but for rounding"
    assert shared.reports.lines[0] == expected


def test_the_fit_of_a_worker_that_dies_is_made_again(shared: Shared) -> None:
    shared.open()
    peer = shared.takes_one()
    here: list[str] = []

    def die() -> None:
        if not here:
            here.append("")
            peer.close()
            until(lambda: shared.reports.lines)

    assert sorted(shared.own(die)) == NAMES
    shared.all_are_kept()
    who = shared.hosts.names[1]
    assert f"{who} is gone: the connection was closed; its fit is made again" in shared.reports.lines


def test_a_worker_that_is_silent_is_not_waited_for(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SILENCE_S", 0.2)
    shared.open()
    monkeypatch.setattr(workers, "BEAT_S", 100.0)
    peer = shared.takes_one()
    assert sorted(shared.own()) == NAMES
    until(lambda: any(line.endswith("is gone: silent for 0 s; its fit is made again") for line in shared.reports.lines))
    peer.close()


def test_signs_of_life_are_sent_and_are_no_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BEAT_S", 0.01)
    ours, theirs = socket.socketpair()
    peer = workers._Peer(ours)
    with theirs:
        sign = workers._LENGTH.pack(0)
        assert theirs.recv(2 * len(sign), socket.MSG_WAITALL) == 2 * sign
        theirs.sendall(2 * sign + workers._LENGTH.pack(3) + b"fit")
        assert peer.receive(3) == b"fit"
        peer.close()


@pytest.mark.parametrize(
    "made", [b"\xc1", checkpoints.encode([1, 2]), checkpoints.encode(("x", ("|O", (1,), b"12345678")))]
)
def test_what_is_no_fit_is_not_kept(shared: Shared, made: bytes) -> None:
    shared.open()
    peer = shared.takes_one()
    peer.send(made)
    assert sorted(shared.own()) == NAMES
    shared.all_are_kept()
    until(lambda: any("is gone: what it sends is no fit (" in line for line in shared.reports.lines))
    peer.close()


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(times(200, 5)))
def test_whoever_else_knocks_does_no_harm(shared: Shared, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shared.open()
    greeting = bytearray(checkpoints.encode(Greeting(1, CONDITIONS)))
    for _ in range(int(rng.integers(1, 4))):
        greeting[rng.integers(len(greeting))] = rng.integers(256)
    knocks(shared, b"GET / HTTP/1.0\r\n\r\n", b"", rng.bytes(int(rng.integers(100))), message(bytes(greeting)))


def knocks(shared: Shared, *data: bytes) -> None:
    """Somebody sends each of these and goes; the chief makes all of its fits all the same."""
    for each in data:
        with socket.create_connection(shared.hosts.address) as knocking:
            knocking.sendall(each)
    assert sorted(shared.own()) == NAMES
    until(lambda: not shared.chief._peers)
    assert shared.chief._shares._error is None


def test_who_knocks_while_the_chief_ends_is_hung_up_on(shared: Shared) -> None:
    """It was accepted after all connections had been closed."""
    shared.chief.__exit__(None, None, None)
    ours, theirs = socket.socketpair()
    theirs.close()
    shared.chief._serve(workers._Peer(ours))
    assert ours.fileno() == -1


def message(data: bytes) -> bytes:
    return workers._LENGTH.pack(len(data)) + data


@pytest.mark.parametrize(
    "greeting",
    [
        checkpoints.encode(Greeting(1, {"task": "?"})).replace(b"?", b"\xff"),
        checkpoints.encode({"number": 1, "conditions": {}, "more": ""})[:-1] + b"\x91" * 100_000,
        checkpoints.encode(Greeting(0, CONDITIONS)),
        checkpoints.encode(Greeting(-1, CONDITIONS)),
        checkpoints.encode(Greeting(1, {"\x1b[31m": "1"})),
    ],
    ids=["no UTF-8", "nested", "the chief itself", "nobody", "keys of its own"],
)
def test_a_greeting_that_is_none_does_no_harm(shared: Shared, greeting: bytes) -> None:
    shared.open()
    knocks(shared, message(greeting))
    assert not any("\x1b" in line for line in shared.reports.lines)


def test_a_chief_takes_no_more_connections_than_its_workers_may_need(shared: Shared) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(shared.hosts.address))
        until(lambda: len(shared.chief._peers) == 4 * len(shared.hosts.names))
    until(lambda: not shared.chief._peers)
    by_worker = shared.works()
    shared.open()
    shared.own(once_worked(shared))
    assert by_worker.result() > 0


def test_a_chief_at_an_address_of_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6 on this machine")
    hosts = Hosts(["worker 0", "worker 1"], ("::1", port), 0)
    with Chief(hosts, Reports()) as chief:
        chief.open(CONDITIONS, [], checkpoints.NOTHING_KEPT, Fit)
        with Worker(hosts._replace(number=1), Reports()) as worker:
            assert worker.greet(CONDITIONS)
            assert list(worker.names()) == []


def test_a_full_disk_at_a_workers_fit_ends_the_chief(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shared.open()
    peer = shared.takes_one()
    monkeypatch.setattr(shared.kept, "save_encoded", full)
    peer.send(checkpoints.encode(fit(NAMES[0])))
    until(lambda: shared.chief._shares._error)
    with pytest.raises(OSError, match="No space left on device"):
        shared.own()
    peer.close()


def test_a_worker_says_that_the_chief_is_gone(tmp_path: Path) -> None:
    shared = Shared(tmp_path)
    with shared.pool:
        with contextlib.suppress(KeyboardInterrupt), shared.chief:
            by_worker = shared.works()
            shared.open()
            own = shared.chief.own()
            next(own)
            until(lambda: shared.chief.finished)
            raise KeyboardInterrupt
        with pytest.raises(
            BitternError, match=r"^worker 0 \(.*\) is gone \(.*\): when it is started again with --resume"
        ):
            by_worker.result()


def test_a_chief_that_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "START_S", 0.0)
    with pytest.raises(
        BitternError, match=r"^worker 0 \(.*\) has not answered for 0 min \(.*refused.*\): start it too"
    ):
        Worker(two(1), Reports())


def test_a_worker_waits_for_its_chief(tmp_path: Path) -> None:
    hosts, reports = two(), Reports()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Worker, hosts._replace(number=1), reports)
        until(lambda: reports.lines)
        with Chief(hosts, Reports()), waiting.result():
            assert [line.split(" (")[0] for line in reports.lines] == ["waiting for worker 0"]


def test_a_port_that_is_taken() -> None:
    hosts = two()
    with (
        socket.create_server(hosts.address),
        pytest.raises(ConfigurationError, match=r"^TF_CONFIG: cannot listen at 127\.0\.0\.1:\d+: .*in use"),
    ):
        Chief(hosts, Reports())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", None),
        ("{}", None),
        ({"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}, None),
        (
            {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}},
            Hosts(["worker 0 (a:1)", "worker 1 (b:2)"], ("a", 1), 1),
        ),
        (
            {"cluster": {"worker": ["b:2"], "chief": ["[::1]:65535"]}, "task": {"type": "worker", "index": 0}},
            Hosts(["chief 0 ([::1]:65535)", "worker 0 (b:2)"], ("::1", 65535), 1),
        ),
    ],
)
def test_tf_config(config: object, expected: Hosts | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    assert workers.hosts() == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cluster": "a:1"}, r"TF_CONFIG cannot be read \(.*\): mend it, or unset it to train alone"),
        ({"cluster": {"worker": ["a:1", "b:1"]}}, "TF_CONFIG says no task: expected which one this host is, one of wo"),
        (
            {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}},
            "TF_CONFIG says task worker 2: expected which one this host is, one of worker 0, worker 1",
        ),
        ({"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}, "TF_CONFIG has tasks of type 'ps': expected workers, and at"),
        ({"cluster": {"chief": ["a:1", "b:1"]}}, "TF_CONFIG has tasks that are several chiefs"),
        (
            {"cluster": {"worker": ["a", "b:1"]}, "task": {"type": "worker", "index": 0}},
            "TF_CONFIG: the address 'a' is not HOST:PORT",
        ),
    ],
)
def test_tf_config_that_says_too_little(config: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ConfigurationError, match=message):
        workers.hosts()


def test_only_train_shares_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    task: Any = None
    with pytest.raises(
        ConfigurationError, match="TF_CONFIG names 2 hosts, but only `bittern train` shares out its wor"
    ):
        session.train(task, tmp_path, tmp_path / "run", weights="none", seed=1, progress=Reports())
    with pytest.raises(ConfigurationError, match="unset it for a study"):
        session.prepare(task, tmp_path, weights="none", seed=1, progress=Reports())
    with pytest.raises(ConfigurationError, match="unset it for training again"):
        retrain_session.retrain(tmp_path, tmp_path, tmp_path / "run", weights="none", root=None, progress=Reports())
    assert not list(tmp_path.iterdir())


def example(name: str) -> str:
    """What TF_CONFIG is in the page's example for a host."""
    (config,) = re.findall(rf"{name}\$ export TF_CONFIG='(.+)'", DOCS)
    return str(config)


def test_the_page_gives_every_host_the_same_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = []
    for name in ("first", "second"):
        monkeypatch.setenv("TF_CONFIG", example(name))
        hosts.append(workers.hosts())
    first, second = hosts
    assert first is not None
    assert first.number == 0
    assert second == first._replace(number=1)


class Processes:
    """Processes that train together as the page says, but on loopback."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.out = world, folder / "mine"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.chief = f"127.0.0.1:{free.getsockname()[1]}"

    def start(self, name: str, *options: str, data: Path | None = None) -> subprocess.Popen[str]:
        config = example(name)
        address = json.loads(config)["cluster"]["worker"][0]
        command = self.world.command(self.out, *options)
        command[command.index("--data") + 1] = str(data or self.world.data)
        return subprocess.Popen(
            [BITTERN, *command],
            env=os.environ | {"TF_CONFIG": config.replace(address, self.chief)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def both(self, *options: str, data: Path | None = None) -> list[subprocess.Popen[str]]:
        """The chief, started when its worker waits for it, and the worker."""
        worker = self.start("second", *options, data=data)
        assert worker.stderr is not None
        assert worker.stderr.readline().startswith("waiting for worker 0 (127.0.0.1:")
        return [self.start("first", *options), worker]

    def partial(self) -> set[str]:
        return {file.name for file in checkpoints.folder_of(self.out).glob("*.msgpack")}


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Exit code and lines of a process."""
    _, stderr = process.communicate(timeout=500)
    return process.returncode, stderr.splitlines()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("workers"), TASK)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("workers-long"), LONG)


@pytest.mark.slow
def test_two_hosts_come_to_the_bytes_of_one(long: World, tmp_path: Path) -> None:
    """Two rates, two folds, two final fits and streams; weights, scores, history and figures."""
    hosts = Processes(long, tmp_path)
    chief, worker = hosts.both()
    code, lines = ended(chief)
    assert code == 0, lines
    made = re.search(r"fits of the k-fold: (\d) by worker 0 .*, (\d) by worker 1 ", "\n".join(lines))
    assert made
    here, by_worker = (int(count) for count in made.groups())
    assert (here + by_worker, ended(worker)[0]) == (4, 0)
    long.is_the_same(hosts.out)
    assert {file.name for file in tmp_path.iterdir()} == {"mine", "mine.log"}
    assert by_worker > 0


@pytest.mark.slow
def test_a_killed_worker_or_chief_loses_nothing(long: World, tmp_path: Path) -> None:
    hosts = Processes(long, tmp_path)
    chief, worker = hosts.both()
    until(lambda: hosts.partial() or chief.poll() is not None, 300)
    chief.send_signal(signal.SIGKILL)
    assert ended(chief)[0] == -signal.SIGKILL
    code, lines = ended(worker)
    assert code == 1
    assert re.fullmatch(
        r"bittern: worker 0 \(.*\) is gone \(.*\): when it is started again with --resume, .*", lines[-1]
    )
    assert not hosts.out.exists()
    chief, worker = hosts.both("--resume")
    until(lambda: len(hosts.partial()) > 1 or chief.poll() is not None, 300)
    worker.send_signal(signal.SIGKILL)
    code, lines = ended(chief)
    assert (code, ended(worker)[0]) == (0, -signal.SIGKILL), lines
    long.is_the_same(hosts.out)


@pytest.mark.slow
def test_a_host_with_another_picture_is_refused(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(world.data, other)
    first, second = sorted(other.rglob("*.jpg"))[:2]
    first.write_bytes(second.read_bytes())
    hosts = Processes(world, tmp_path)
    chief, worker = hosts.both(data=other)
    code, lines = ended(worker)
    assert code == 2
    assert re.fullmatch(r"bittern: worker 0 \(.*\) trains something else, this host differs in pictures: .*", lines[-1])
    code, lines = ended(chief)
    assert code == 0, lines
    world.is_the_same(hosts.out)
