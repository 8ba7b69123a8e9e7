"""The three that live and die in the fault run, as processes on loopback: room, database, collector."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..vendor.servers import HERE as VENDOR
from ..vendor.servers import Server, influxdb2_environment, wait_for

COMMAND = str(Path(sys.executable).with_name("power-collector"))
NOON_S = 12 * 3600


class FaultRunError(Exception):
    """A process did something that it must not do, such as ending by itself."""


def stable_port() -> int:
    """Give a free port below those that the kernel hands out: nobody takes it while its server is down."""
    for _ in range(100):
        port = random.randrange(20000, 30000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise FaultRunError("no free port between 20000 and 30000")


def zone_at_noon(now: float) -> str:
    """Give a TZ in which it is about noon, so that the chargers have something to say (POSIX: west is positive)."""
    hours = round((now % 86400 - NOON_S) / 3600)
    return f"NOON{hours:+d}"


@contextmanager
def _child(
    command: list[str], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait(30)


class Room:
    """The simulated room. Its log of answers is what the database is judged by."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self._log, self._control = folder / "answers.jsonl", folder / "control.json"
        self._faults: dict[str, Mapping[str, Any]] = {}

    @classmethod
    @contextmanager
    def open(cls, folder: Path, config: Path) -> Iterator[Room]:
        """Serve the devices of a configuration until the block ends."""
        command = [COMMAND, "simulate", "--config", str(config)]
        command += ["--log-answers", str(folder / "answers.jsonl"), "--control", str(folder / "control.json")]
        zone = {"TZ": zone_at_noon(time.time())}
        with _child(command, folder / "room.log", zone) as process:
            yield cls(process, folder)

    def fault(self, device: str, settings: Mapping[str, Any] | None) -> None:
        """Give a device a fault; None heals it."""
        if settings is None:
            self._faults.pop(device, None)
        else:
            self._faults[device] = settings
        temporary = self._control.with_suffix(".new")
        temporary.write_text(json.dumps(self._faults), encoding="utf-8")
        temporary.replace(self._control)

    def answers(self) -> list[dict[str, Any]]:
        """Give what was asked and answered, in its order."""
        return [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()]

    def end(self) -> int:
        """End it; gives its exit status."""
        self.process.terminate()
        return self.process.wait(20)


@dataclass
class Outage:
    """While the database was away: seconds since 1970, from its signal until it answered again."""

    begin: float
    how: str
    end: float = float("inf")


class Database:
    """The InfluxDB substitute with Debian's engine; its data outlive it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.outages: list[Outage] = []
        self._port = stable_port()
        self._environment = influxdb2_environment(folder, self._port)
        self._folder = folder
        self._hung = False
        self.server = self._launch()

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Database]:
        """Run it until the block ends."""
        database = cls(folder)
        try:
            database._wait()
            yield database
        finally:
            database._end(signal.SIGTERM)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def stop(self, how: str) -> None:
        """Let it end in order, kill it (-9), or let it hang: it accepts and never answers."""
        self.outages.append(Outage(time.time(), how))
        if how == "hang":
            self.server.process.send_signal(signal.SIGSTOP)
            self._hung = True
        else:
            self._end(signal.SIGTERM if how == "end" else signal.SIGKILL)

    def start(self) -> None:
        """Bring it back, and wait until it answers."""
        if self._hung:
            self._wake()
        else:
            self.server = self._launch()
        self._wait()
        self.outages[-1].end = time.time()

    def _launch(self) -> Server:
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(VENDOR / "influxdb2/adapter.py")], env=self._environment, stderr=log
            )
        return Server(self._port, self._folder, process)

    def _wait(self) -> None:
        if not wait_for(self.server, lambda: self.server.ask("GET", "/ready").status == 200, 60):
            log = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
            raise FaultRunError(f"the database does not come up: {log[-2000:]}")

    def _wake(self) -> None:
        self.server.process.send_signal(signal.SIGCONT)
        self._hung = False

    def _end(self, number: int) -> None:
        if self._hung:
            self._wake()
        if self.server.process.poll() is not None:
            return
        # The engine and its watchman: two engines on the same files would be another fault than the one meant.
        watched = [os.pidfd_open(pid) for pid in _children(self.server.process.pid)]
        try:
            self.server.stop(number)
            for descriptor in watched:
                if not select.select([descriptor], [], [], 30)[0]:
                    raise FaultRunError("the engine outlives its adapter")
        finally:
            for descriptor in watched:
                os.close(descriptor)


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


@dataclass
class Life:
    """One run of the collector, in seconds since 1970.

    `killed` is the moment before kill -9 was sent, None where it ended in order; `kept` are the times of the
    cycles that its store held then.
    """

    begin: float
    end: float = float("inf")
    killed: float | None = None
    kept: frozenset[int] = frozenset()


class Collector:
    """The real collector. Every run's beginning and end is noted."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.lives: list[Life] = []
        self.log = folder / "collector.log"
        self._config = config
        self._store = folder / "store.sqlite"
        self._copies = folder / "copies"
        self._runtime = folder / "run"
        self._runtime.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def open(cls, folder: Path, config: Path) -> Iterator[Collector]:
        """Make sure that none is left when the block ends."""
        collector = cls(folder, config)
        try:
            yield collector
        finally:
            if collector._process is not None:
                collector._process.kill()
                collector._process.wait(30)

    def start(self) -> None:
        """Start it."""
        assert self._process is None
        self.lives.append(Life(time.time()))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [COMMAND, "run", "--config", str(self._config)],
                stderr=log,
                env={**os.environ, "RUNTIME_DIRECTORY": str(self._runtime)},
            )

    def check(self) -> None:
        """Fail where it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise FaultRunError(f"the collector ended by itself, status {self._process.returncode}")

    def kill(self) -> None:
        """Kill it with -9, and look at what its store holds then."""
        assert self._process is not None
        self.check()
        life = self.lives[-1]
        life.killed = time.time()
        self._process.kill()
        self._process.wait(30)
        life.end = time.time()
        life.kept = self.kept()
        self._process = None

    def end(self) -> int:
        """End it by SIGTERM; gives its exit status."""
        assert self._process is not None
        self.check()
        self._process.terminate()
        status = self._process.wait(20)
        self.lives[-1].end = time.time()
        self._process = None
        return status

    @property
    def waiting(self) -> tuple[int, int]:
        """The time of its last cycle, and how many points waited then."""
        try:
            latest = json.loads((self._runtime / "latest.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0, -1
        return latest["time"], latest["counters"]["stored_points"]

    def kept(self) -> frozenset[int]:
        """Give the times of the cycles that the store holds, by a copy of it: opening it would change it."""
        shutil.rmtree(self._copies, ignore_errors=True)
        self._copies.mkdir()
        for suffix in ("", "-wal"):
            part = self._store.with_name(self._store.name + suffix)
            if part.exists():
                shutil.copy(part, self._copies)
        database = sqlite3.connect(self._copies / self._store.name)
        try:
            (made,) = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'batches'").fetchone()
            rows = database.execute("SELECT lines FROM batches").fetchall() if made else []
        finally:
            database.close()
        lines = (line for (data,) in rows for line in zlib.decompress(data).decode().splitlines())
        return frozenset(int(line.rpartition(" ")[2]) for line in lines)
