"""A real Home Assistant in the root file system of root.sh: started, onboarded, connected to a broker, asked."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.doubles.mosquitto import free_port
from tests.doubles.waiting import until

HERE = Path(__file__).parent
# An automation counts how often each alarm goes on, and a device trigger and an event how often they fire.
CONFIGURATION = """
http:
  server_host: 127.0.0.1
  server_port: {port}
config:
history:
recorder:
system_log:
api:
websocket_api:
image:
mqtt:
logger:
  default: warning
  logs:
    homeassistant.components.mqtt: info
counter:
  alarms:
  triggers:
automation: !include automations.yaml
"""


class Home:
    """Home Assistant in a process of its own.

    Attributes:
        address: of its REST API.
        password: of its first user, "owner".
        log: its log file.
    """

    def __init__(self, cache: Path, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """Nothing is started yet.

        Args:
            cache: where root.sh has made its root file system.
            folder: for configuration and state; bound into the root file system under the same path.
            environment: further variables of its environment.
        """
        self._cache, self._folder, self._environment = cache, folder, dict(environment or {})
        self._port = free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self.log = folder / "home-assistant.log"
        self.password = secrets.token_hex(8)
        self._token = ""
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "configuration.yaml").write_text(CONFIGURATION.format(port=self._port))
        self.automations([])

    def automations(self, automations: list[dict[str, Any]]) -> None:
        """Set all automations; JSON is YAML, too."""
        (self._folder / "automations.yaml").write_text(json.dumps(automations))

    def start(self) -> Self:
        with (self._folder / "output").open("ab") as output:
            hass = ("/opt/ha/bin/hass", "--skip-pip", "-c", str(self._folder))
            self._process = subprocess.Popen(
                [str(HERE / "root.sh"), str(self._cache), "run", *hass],
                stdout=output, stderr=output, start_new_session=True,
                env=os.environ | {"SHARE": str(self._folder)} | self._environment,
            )  # fmt: skip
        until(self._answers, 180)
        return self

    def stop(self) -> None:
        if self._process is not None:
            group = self._process.pid  # of root.sh and of what it has started
            os.killpg(group, signal.SIGTERM)
            try:
                self._process.wait(60)
                until(lambda: not _lives(group))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "output").read_text()[-2000:]
        try:
            urllib.request.urlopen(f"{self.address}/manifest.json", timeout=2).close()
        except OSError:
            time.sleep(0.3)
            return False
        return True

    def onboard(self) -> None:
        """Create the first user, as the pages of the first start do; see Home Assistant's `onboarding` component."""
        client = f"{self.address}/"
        user = {"client_id": client, "name": "owner", "username": "owner", "password": self.password, "language": "en"}
        code = self.call("POST", "/api/onboarding/users", user)["auth_code"]
        grant = {"client_id": client, "grant_type": "authorization_code", "code": code}
        form = urllib.parse.urlencode(grant).encode()
        with urllib.request.urlopen(f"{self.address}/auth/token", form, timeout=20) as answer:
            self._token = json.load(answer)["access_token"]
        for step in ("core_config", "analytics"):
            self.call("POST", f"/api/onboarding/{step}", {})
        self.call("POST", "/api/onboarding/integration", {"client_id": client, "redirect_uri": client})
        # A token that survives restarts; the first one is good for half an hour.
        message = {"type": "auth/long_lived_access_token", "client_name": "tests", "lifespan": 1}
        self._token = self.ask(message)

    def add_mqtt(self, port: int) -> None:
        """Add the MQTT integration by its configuration flow."""
        flows = "/api/config/config_entries/flow"
        flow = self.call("POST", flows, {"handler": "mqtt", "show_advanced_options": False})
        if flow["type"] == "menu":
            flow = self.call("POST", f"{flows}/{flow['flow_id']}", {"next_step_id": "broker"})
        flow = self.call("POST", f"{flows}/{flow['flow_id']}", {"broker": "127.0.0.1", "port": port})
        assert flow["type"] == "create_entry", flow

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """A request of the REST API; what it answers, decoded if it is JSON."""
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            content = answer.read()
        return json.loads(content) if answer.headers.get_content_type() == "application/json" else content

    def ask(self, message: Mapping[str, Any]) -> Any:
        """One message of the websocket API and its result. It is asked in the root, whose Python has a client."""
        request = json.dumps({"address": self.address, "token": self._token, "message": message})
        done = subprocess.run(
            [str(HERE / "root.sh"), str(self._cache), "run", "/opt/ha/bin/python", "-I", "-c", _ASK],
            input=request.encode(), capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        assert answer.get("success"), answer
        return answer["result"]

    def act(self, domain: str, service: str, entity: str, **data: Any) -> None:
        """Call a service on an entity."""
        self.call("POST", f"/api/services/{domain}/{service}", {"entity_id": entity, **data})

    def states(self) -> dict[str, dict[str, Any]]:
        """All states, by the id of the entity."""
        return {state["entity_id"]: state for state in self.call("GET", "/api/states")}

    def state(self, entity: str) -> str:
        """The state of one entity; "" if there is none."""
        try:
            return str(self.call("GET", f"/api/states/{entity}")["state"])
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return ""
            raise

    def devices(self) -> dict[str, dict[str, Any]]:
        """The devices that Bittern announced, by their names."""
        devices = self.ask({"type": "config/device_registry/list"})
        return {device["name"]: device for device in devices if device["manufacturer"] == "Bittern"}

    def entities(self, device: str) -> dict[str, dict[str, Any]]:
        """What the registry knows of a device's entities, by id."""
        number = self.devices()[device]["id"]
        every = self.ask({"type": "config/entity_registry/list"})
        return {entity["entity_id"]: entity for entity in every if entity["device_id"] == number}

    def complaints(self) -> list[str]:
        """Lines of its log that complain of us."""
        lines = (self._folder / "output").read_text(errors="replace").splitlines()
        return [line for line in lines if ("WARNING" in line or "ERROR" in line) and "mqtt" in line]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def _lives(group: int) -> bool:
    """Whether there is a process of a group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# Home Assistant brings aiohttp, and the tests' own Python has no client for websockets.
_ASK = """
import asyncio, json, sys, aiohttp
async def main():
    given = json.load(sys.stdin)
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(given["address"] + "/api/websocket", max_msg_size=0) as socket:
            await socket.receive_json()
            await socket.send_json({"type": "auth", "access_token": given["token"]})
            await socket.receive_json()
            await socket.send_json({"id": 1, **given["message"]})
            print(json.dumps(await socket.receive_json()))
asyncio.run(main())
"""


@contextmanager
def supervisor(folder: Path, addons: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Start the stand-in for the Supervisor, supervisor.py; what `Home` needs in its environment to be under it.

    Args:
        folder: for its log.
        addons: by name, see supervisor.py.
    """
    port = free_port()
    settings = json.dumps({"port": port, "addons": addons})
    program = (HERE / "supervisor.py").read_text()
    with (folder / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            [str(HERE / "root.sh"), str(cache()), "run", "/opt/ha/bin/python", "-I", "-c", program, settings],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield {"SUPERVISOR": f"127.0.0.1:{port}", "SUPERVISOR_TOKEN": secrets.token_hex(8)}
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def cache() -> Path:
    """Where root.sh keeps its root file system."""
    return Path(os.environ.get("CACHE") or Path.home() / ".cache/bittern")
