"""Real reverse proxies in front of a page, set up by the examples of docs/page.md, with a certificate of their own."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.doubles.served import Reply, ask_over
from tests.doubles.waiting import until

NAME = "bittern.example.org"
_DOCS = Path(__file__).parents[2] / "docs/page.md"


class Front(NamedTuple):
    """A proxy: its port, and its certificate."""

    port: int
    certificate: Path

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}/"

    def connect(self, sender: str = "127.0.0.1") -> ssl.SSLSocket:
        """A connection from an address of this machine, to the proxy's name, whose certificate is checked."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30, source_address=(sender, 0))
        return context.wrap_socket(plain, server_hostname=NAME)

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
        sender: str = "127.0.0.1",
    ) -> Reply:
        """One request; POST if it has a body."""
        connection = http.client.HTTPSConnection(NAME, self.port, timeout=60)
        connection.sock = self.connect(sender)
        return ask_over(connection, path, body, headers, method)


def example(language: str) -> str:
    """The configuration in the documentation."""
    match = re.search(rf"```{language}\n(.*?)```", _DOCS.read_text(), re.DOTALL)
    assert match, language
    return match[1]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate, and its key."""
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-days", "2"]
    subprocess.run([*words, "-keyout", key, "-out", certificate, *subject], check=True, capture_output=True)
    return certificate, key


def _changed(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def _nginx(folder: Path, port: int, certificate: Path, key: Path, pages: Mapping[str, str]) -> list[str | Path]:
    file = folder / "nginx.conf"
    certificates = "/etc/letsencrypt/live/" + NAME
    changes = {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        f"{certificates}/fullchain.pem": str(certificate),
        f"{certificates}/privkey.pem": str(key),
    }
    temporary = "".join(
        f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.getuid() == 0 else ""
    file.write_text(
        f"daemon off;\n{user}worker_processes 1;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{_changed(example('nginx'), {**changes, **pages})}}}\n"
    )
    return ["nginx", "-p", folder, "-e", "stderr", "-c", file]


def _caddy(folder: Path, port: int, certificate: Path, key: Path, pages: Mapping[str, str]) -> list[str | Path]:
    file = folder / "Caddyfile"
    site = f"{NAME} {{\n"
    changes = {site: f"{NAME}:{port} {{\n    bind 127.0.0.1\n    tls {certificate} {key}\n"}
    file.write_text(f"{{\n    admin off\n    auto_https off\n}}\n{_changed(example('caddy'), {**changes, **pages})}")
    return ["caddy", "run", "--config", file, "--adapter", "caddyfile"]


PROXIES: Mapping[str, Callable[[Path, int, Path, Path, Mapping[str, str]], list[str | Path]]] = {
    "nginx": _nginx,
    "caddy": _caddy,
}


@contextmanager
def proxied(name: str, folder: Path, pages: Mapping[str, str]) -> Iterator[Front]:
    """Start nginx or caddy as the documentation sets it up, but with the given addresses in the place of its pages'."""
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    assert program is not None
    port = _free_port()
    certificate, key = _certificate(folder)
    _, *words = PROXIES[name](folder, port, certificate, key, pages)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, *words], stdout=log, stderr=log, env=os.environ | {"HOME": str(folder)})
    try:
        until(lambda: process.poll() is not None or _listens(port))
        assert process.poll() is None, (folder / "log").read_text()
        yield Front(port, certificate)
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def is_installed(name: str) -> bool:
    """Whether there is such a proxy, and openssl for its certificate."""
    return bool((shutil.which(name) or shutil.which(name, path="/usr/sbin")) and shutil.which("openssl"))
