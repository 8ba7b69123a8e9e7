"""A real Grafana on the provisioned files, on a database with a simulated room in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from power_collector.contract import Point
from tests.grafana.influxql import PASSWORD, Database
from tests.grafana.provisioned import ADMIN_PASSWORD, Provisioned, provision
from tests.vendor.servers import Server, basic, free_port, influxdb2, set_up, wait_for


class StartError(Exception):
    """A server does not start."""


@contextmanager
def influxd(folder: Path) -> Iterator[Server]:
    """Run InfluxDB: the real one where INFLUXD names it, else the substitute."""
    command = os.environ.get("INFLUXD")
    if not command:
        with influxdb2(folder) as server:
            yield server
        return
    port = free_port()
    settings = {
        "INFLUXD_BOLT_PATH": f"{folder}/influxd.bolt",
        "INFLUXD_SQLITE_PATH": f"{folder}/influxd.sqlite",
        "INFLUXD_ENGINE_PATH": f"{folder}/engine",
        "INFLUXD_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}",
        "INFLUXD_REPORTING_DISABLED": "true",
        "INFLUXD_LOG_LEVEL": "warn",
    }
    with (folder / "influxd.log").open("wb") as log:
        process = subprocess.Popen([command], env={**os.environ, **settings}, stdout=log, stderr=log)
    server = Server(port, folder, process)
    try:
        if not wait_for(server, lambda: server.ask("GET", "/health").status == 200, 60):
            raise StartError((folder / "influxd.log").read_text())
        yield server
    finally:
        server.stop()


@contextmanager
def database(folder: Path, now: int, points: Iterable[Point]) -> Iterator[tuple[Database, Server]]:
    """Run InfluxDB with points in it."""
    with influxd(folder) as server:
        set_up(server, password=PASSWORD)
        made = Database(server, now)
        made.write(points)
        yield made, server


@contextmanager
def grafana(
    home: Path, folder: Path, influxdb: Server, **changed: Any
) -> Iterator[tuple[Server, Provisioned]]:
    """Run Grafana on what the role provisions; until all dashboards are served."""
    port = free_port()
    url = f"http://127.0.0.1:{influxdb.port}"
    made = provision(folder, grafana_http_port=port, grafana_influxdb_url=url, **changed)
    command = [home / "bin/grafana-server", "-homepath", home, "-config", folder / "grafana.ini"]
    command += [f"cfg:default.paths.data={folder}/data", f"cfg:default.paths.logs={folder}/log"]
    command += [
        f"cfg:default.paths.plugins={folder}/plugins",
        f"cfg:default.paths.provisioning={folder}/provisioning",
    ]
    with (folder / "grafana.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = Server(port, folder, process)
    try:
        served = [f"/api/dashboards/uid/{uid}" for uid in made.dashboards]
        if not wait_for(server, lambda: all(server.ask("GET", path).status == 200 for path in served), 60):
            raise StartError((folder / "grafana.log").read_text()[-3000:])
        yield server, made
    finally:
        server.stop()


def version(server: Server) -> str:
    """Grafana's own word for its version."""
    settings: Any = server.ask("GET", "/api/frontend/settings", headers=basic("admin", ADMIN_PASSWORD)).json()
    return str(settings["buildInfo"]["version"])
