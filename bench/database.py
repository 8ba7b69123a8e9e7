"""The database: the rehearsal's substitute (Debian's InfluxDB 1.6 engine), or a real influxd 2.

A real one is taken where the environment variable POWER_INFLUXD names its program.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vendor import servers

ORG = "Parks Ranch"
_OPERATOR = "operatortoken"
_ADMINISTRATOR = servers.token(_OPERATOR)

Key = tuple[str, tuple[tuple[str, str], ...], int]
"""Measurement, tags in their order, time in seconds."""


def kind() -> str:
    """Return which database is used."""
    given = os.environ.get("POWER_INFLUXD")
    if not given:
        return "substitute: Debian's InfluxDB 1.6 engine behind the adapter of tests/vendor"
    version = subprocess.run([given, "version"], check=True, capture_output=True, text=True, timeout=20)
    return "a real one: " + " ".join(version.stdout.split()[:2])


@dataclass
class Database:
    """One that can be started again on the same data and port; set up when it is made."""

    folder: Path
    port: int
    token_file: Path

    @classmethod
    def make(cls, folder: Path) -> Database:
        """Set up organisation, bucket and a token that writes it, and stop the database again."""
        folder.mkdir()
        database = cls(folder, servers.free_port(), folder / "token")
        with database.running() as server:
            ids = servers.set_up(server, operator=_OPERATOR)
        database.token_file.write_text(ids["write token"])
        return database

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[servers.Server]:
        """Run it until the block ends; it is ready when the block begins."""
        given = os.environ.get("POWER_INFLUXD")
        if not given:
            with servers.influxdb2(self.folder, self.port) as server:
                yield server
            return
        command = [given, "--http-bind-address", f"127.0.0.1:{self.port}", "--reporting-disabled"]
        command += ["--log-level", "error", "--bolt-path", str(self.folder / "influxd.bolt")]
        command += ["--engine-path", str(self.folder / "engine")]
        command += ["--sqlite-path", str(self.folder / "influxd.sqlite")]
        server = servers.Server(self.port, self.folder, subprocess.Popen(command))
        try:
            if not servers.wait_for(server, lambda: server.ask("GET", "/health").status == 200, 60):
                raise RuntimeError(f"{given} does not start; its log is above")
            yield server
        finally:
            server.stop()


def points(server: servers.Server, measurement: str, begin: int, end: int) -> dict[Key, dict[str, float]]:
    """Return the fields of each point of a measurement with a time from `begin` to `end` (s, inclusive)."""
    query = f'SELECT * FROM "{measurement}" WHERE time >= {begin}s AND time <= {end}s GROUP BY *'
    answer = server.ask(
        "GET", "/query", {"db": "power", "epoch": "s", "q": query}, headers=_ADMINISTRATOR
    ).json()
    result: dict[str, Any] = answer["results"][0]  # type: ignore[index]
    if "error" in result:
        raise RuntimeError(f"{query}: {result['error']}")
    found: dict[Key, dict[str, float]] = {}
    for series in result.get("series", []):
        tags = tuple(sorted(series.get("tags", {}).items()))
        names = series["columns"][1:]
        for time, *values in series["values"]:
            fields = {n: v for n, v in zip(names, values, strict=True) if v is not None}
            found[measurement, tags, time] = fields
    return found
