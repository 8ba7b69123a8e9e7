"""The power room that is measured: its configuration, the simulated room and the service, each a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from power_collector.config import Config, load
from power_collector.demo import free_ports

HUB = "mate3s"
CHARGERS = 6
ANSWER_MS = 20
"""How long the simulated devices take for each answer."""
TIMEOUT_S = 0.9
"""Of each device: below the interval of 1 s that is measured with."""


def write_configuration(
    path: Path, *, store: Path, interval_s: int, chargers: int = CHARGERS, influxdb: str = ""
) -> Config:
    """Write and load a configuration: an inverter hub and chargers on free ports of loopback."""
    hub, *ports = free_ports(1 + chargers)
    tables = [f'interval_s = {interval_s}\n{influxdb}\n[store]\npath = "{store}"']
    tables.append('[site]\nlatitude = 35.0\nlongitude = -119.0\ntimezone = "America/Los_Angeles"\n[host]')
    tables.append(f'[[devices]]\nname = "{HUB}"\ndriver = "outback"\nport = {hub}\ninverters = 3')
    tables += [
        f'[[devices]]\nname = "sc{number}"\ndriver = "tristar-mppt-600v"\nport = {port}\n'
        f'legacy_measurement = "solar_charger_{number}"'
        for number, port in enumerate(ports, start=1)
    ]
    text = "\n".join(tables).replace("\nport", f'\ntimeout_s = {TIMEOUT_S}\nhost = "127.0.0.1"\nport')
    path.write_text(text + "\n", encoding="utf-8")
    return load(path)


def influxdb_table(url: str, org: str, token_file: Path) -> str:
    """Return the configuration's table for a database."""
    return f'[influxdb]\nurl = "{url}"\norg = "{org}"\nbucket = "power"\ntoken_file = "{token_file}"\n'


def wait_until(what: str, reached: Callable[[], bool], seconds: float, step_s: float = 0.05) -> float:
    """Wait until something is so; return how long that took.

    Raises:
        RuntimeError: it is not so in time.
    """
    begin = time.monotonic()
    while not reached():
        if time.monotonic() - begin > seconds:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        time.sleep(step_s)
    return time.monotonic() - begin


def listens(port: int) -> bool:
    """Return whether somebody listens on the port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Room:
    """A running simulated room."""

    answers: Path
    control: Path
    answer_ms: float

    def behave(self, **devices: Mapping[str, object]) -> None:
        """Give the named devices faults, and heal the others; applied within 0.25 s."""
        every: Mapping[str, object] = {"latency_ms": self.answer_ms}
        new = self.control.with_suffix(".new")
        new.write_text(json.dumps({"*": every, **devices}))
        new.replace(self.control)


@contextmanager
def room(
    config: Config, config_path: Path, *, log: bool = True, answer_ms: float = ANSWER_MS
) -> Iterator[Room]:
    """Serve the configuration's devices, each answer after `answer_ms`."""
    answers, control = (config_path.with_suffix(end) for end in (".answers.jsonl", ".control.json"))
    running = Room(answers, control, answer_ms)
    running.behave()
    command = ["simulate", "--config", str(config_path), "--control", str(running.control)]
    with _power_collector(
        [*command, "--log-answers", str(running.answers)] if log else command, config_path.parent / "room.log"
    ):
        for device in config.devices:
            wait_until(f"the simulated {device.name} listens", partial(listens, device.port), 20)
        yield running


@dataclass(frozen=True, slots=True)
class Service:
    """A running `power-collector run`, and what the kernel says of it."""

    process: subprocess.Popen[bytes]
    runtime: Path

    def latest(self) -> dict[str, Any] | None:
        """Return its `latest.json`; None before the first cycle.

        Raises:
            RuntimeError: the service has ended.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"the service has ended with {self.process.returncode}; its log is above")
        try:
            return dict(json.loads((self.runtime / "latest.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def waiting_points(self) -> int | None:
        """Return how many points wait in its memory and store, as of its last cycle."""
        latest = self.latest()
        return None if latest is None else int(latest["counters"]["stored_points"])

    def cpu_s(self) -> float:
        """Return its CPU time, all threads, user and system, in seconds."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self) -> float:
        """Return its peak resident memory (VmHWM) in MiB."""
        (line,) = (line for line in self._proc("status").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024

    def written_bytes(self) -> int:
        """Return how many bytes it caused to be written to a disk so far."""
        return written_bytes(self.process.pid)

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self.process.pid}/{name}").read_text()


def written_bytes(pid: int) -> int:
    """Return `write_bytes` of /proc/PID/io: what a process sent towards a disk, memory disks not counted."""
    return int(Path(f"/proc/{pid}/io").read_text().split("\nwrite_bytes: ")[1].split()[0])


@contextmanager
def service(config_path: Path, runtime: Path) -> Iterator[Service]:
    """Run the service; `runtime` is its runtime directory, on a Pi in memory."""
    environment = {"RUNTIME_DIRECTORY": str(runtime)}
    with _power_collector(
        ["run", "--config", str(config_path)], config_path.parent / "service.log", environment
    ) as process:
        yield Service(process, runtime)


@contextmanager
def _power_collector(
    arguments: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command until the block ends; its log is shown where the block fails."""
    command = [sys.executable, "-m", "power_collector", *arguments]
    with log.open("ab") as stream:
        process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stderr=stream)
    try:
        yield process
    except BaseException:
        sys.stderr.write(log.read_text(errors="replace")[-4000:])
        raise
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)
