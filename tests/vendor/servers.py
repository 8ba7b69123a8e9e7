"""Starting a substitute on loopback, for the contract tests."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .engine import engine_files

HERE = Path(__file__).parent
Headers = Mapping[str, str]


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def basic(user: str, password: str) -> dict[str, str]:
    """Give the header of basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def token(word: str) -> dict[str, str]:
    """Give the header of a token."""
    return {"Authorization": f"Token {word}"}


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        """Give the body as JSON."""
        return json.loads(self.body)


@dataclass
class Server:
    """A running substitute."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    extra: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        path: str,
        args: Mapping[str, str] | None = None,
        body: bytes | str | object = None,
        headers: Headers | None = None,
    ) -> Answer:
        """Send one request; anything but bytes and text goes as JSON."""
        query = f"?{urllib.parse.urlencode(args)}" if args else ""
        data = body.encode() if isinstance(body, str) else body
        sent = dict(headers or {})
        if data is not None and not isinstance(data, bytes):
            data = json.dumps(data).encode()
            sent["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path + query, data, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; gives its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


def influxdb2_environment(folder: Path, port: int, settings: str = "") -> dict[str, str]:
    """Write a configuration and give the variables with which the adapter finds it and its engine."""
    config = folder / "config.toml"
    config.write_text(
        f'bolt-path = "{folder}/influxd.bolt"\nengine-path = "{folder}/engine"\n'
        f'http-bind-address = "127.0.0.1:{port}"\n{settings}',
        encoding="utf-8",
    )
    (folder / "run").mkdir(exist_ok=True)
    return {
        **os.environ,
        "INFLUXD_CONFIG_PATH": str(config),
        "INFLUXDB2_SUBSTITUTE_ENGINE": str(engine_files() / "usr/bin/influxd"),
        "RUNTIME_DIRECTORY": str(folder / "run"),
    }


@contextmanager
def influxdb2(folder: Path, port: int | None = None, settings: str = "") -> Iterator[Server]:
    """Run the influxdb2 substitute with its data in `folder` until the block ends."""
    port = port or free_port()
    environment = influxdb2_environment(folder, port, settings)
    adapter = [sys.executable, str(HERE / "influxdb2/adapter.py")]
    server = Server(port, folder, subprocess.Popen(adapter, env=environment))
    try:
        subprocess.run([*adapter, "wait-ready"], env=environment, timeout=60, check=True)
        yield server
    finally:
        server.stop()


def set_up(
    server: Server, operator: str = "operatortoken", password: str = "readonlypassword"
) -> dict[str, str]:
    """Set up as the role does; gives the ids of organisation and bucket, and a token that writes the bucket."""
    made = server.ask(
        "POST",
        "/api/v2/setup",
        body={
            "username": "admin",
            "password": "a-long-password",
            "org": "Parks Ranch",
            "bucket": "power",
            "token": operator,
        },
    )
    assert made.status == 201, made
    ids: dict[str, str] = {"org": made.json()["org"]["id"], "bucket": made.json()["bucket"]["id"]}  # type: ignore[index]
    resource = {"type": "buckets", "id": ids["bucket"], "orgID": ids["org"]}
    for path, action, extra in (
        ("/api/v2/authorizations", "write", {}),
        ("/private/legacy/authorizations", "read", {"token": "grafana"}),
    ):
        body = {"orgID": ids["org"], "permissions": [{"action": action, "resource": resource}], **extra}
        answer = server.ask("POST", path, body=body, headers=token(operator))
        assert answer.status == 201, answer
        ids[action] = answer.json()["id"]  # type: ignore[index]
        ids[f"{action} token"] = answer.json()["token"]  # type: ignore[index]
    path = f"/private/legacy/authorizations/{ids['read']}/password"
    assert server.ask("POST", path, body={"password": password}, headers=token(operator)).status == 204
    return ids


def grafana_process(folder: Path, ini: str, environment: Mapping[str, str] | None = None) -> Server:
    """Start the grafana substitute in `folder` (grafana.ini, data/, provisioning/) without waiting for it."""
    port = free_port()
    (folder / "data").mkdir(exist_ok=True)
    (folder / "grafana.ini").write_text(
        f"{ini}\n[server]\nhttp_addr = 127.0.0.1\nhttp_port = {port}\n", encoding="utf-8"
    )
    command = [sys.executable, "-B", str(HERE / "grafana/server.py"), f"--config={folder}/grafana.ini"]
    command += [f"--data={folder}/data", "--provisioning=provisioning"]
    variables = {**os.environ, **(environment or {})}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=variables, stderr=log)
    return Server(port, folder, process)


def wait_for(server: Server, reached: Callable[[], bool], seconds: float = 10) -> bool:
    """Ask again and again until something is so, the server has ended, or the time is up; says whether it is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if reached():
                return True
        except OSError:
            pass
        try:
            server.process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        return False
    return False
