"""Steady cycles against a simulated room: requests, time and CPU of each, beside what is promised.

Usage: python bench/cycle.py [--cycles N] [--answer-ms MS] [--json FILE]; exit 1 where a promise is not kept.
The room is a process of its own, so that the CPU time is the collector's alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from power_collector import demo, devices
from power_collector.backlog import Backlog
from power_collector.batch import Cycle
from power_collector.clock import SystemClock
from power_collector.collector import Collector
from power_collector.config import Config
from power_collector.line_protocol import parse
from power_collector.writer import Counters, Writer, WriterThread

WARM_UP = 3
PAUSE_S = 0.2


class Probe:
    """A sink that passes on to the writer and keeps what `collector_status` says of each cycle."""

    def __init__(self, writer: WriterThread) -> None:
        self.cycle_ms: list[float] = []
        self._writer = writer

    @property
    def counters(self) -> Counters:
        """Those of the writer."""
        return self._writer.counters

    def put(self, cycle: Cycle) -> None:
        """Pass the cycle on."""
        self.cycle_ms.append(float(parse(cycle.lines[-1]).fields["cycle_ms"]))
        self._writer.put(cycle)


def asked(answers: Path) -> Counter[str]:
    """Return how many requests each device has answered, by the room's own log."""
    return Counter(json.loads(line)["device"] for line in answers.read_text().splitlines())


async def measure(config: Config, cycles: int, answers: Path) -> dict[str, float]:
    """Run the cycles and return the numbers."""
    clock = SystemClock()
    writer = WriterThread(Writer(Backlog(config.store, clock), None, clock), clock)
    probe = Probe(writer)
    pairs = [(device, devices.make(device, clock.monotonic)) for device in config.devices]
    collector = Collector(config, pairs, probe, clock=clock)
    writer.start()
    for _ in range(WARM_UP):
        await collector.cycle(int(clock.wall()))
        await asyncio.sleep(PAUSE_S)
    before = asked(answers)
    cpu = time.process_time()
    for _ in range(cycles):
        await collector.cycle(int(clock.wall()))
        await asyncio.sleep(PAUSE_S)
    cpu_ms = (time.process_time() - cpu) * 1000 / cycles
    requests = asked(answers) - before
    if not writer.stop():
        raise RuntimeError("the writer did not end")
    steady = sorted(probe.cycle_ms[WARM_UP:])
    hub = requests.pop(config.devices[0].name, 0)
    return {
        "cycles": cycles,
        "requests_hub": hub / cycles,
        "requests_chargers": sum(requests.values()) / cycles,
        "median_ms": statistics.median(steady),
        "p95_ms": steady[int(len(steady) * 0.95)],
        "cpu_ms": cpu_ms,
    }


def _wait_for(port: int, room: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if room.poll() is not None:
            raise RuntimeError("the simulated room has ended")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the simulated room does not listen")


def write_toml(config: Config, path: Path) -> None:
    """Write the devices of a configuration for the room's process."""
    lines = []
    for device in config.devices:
        lines.append("[[devices]]")
        lines += [
            f"{key} = {json.dumps(value)}"
            for key, value in device.model_dump(exclude_defaults=True, exclude_none=True).items()
        ]
    path.write_text("\n".join(lines) + "\n")


def main() -> int:
    """Measure, print a table, and return 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--answer-ms", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="power-bench-")))
        config = demo.configuration(directory, demo.free_ports(7))
        write_toml(config, directory / "room.toml")
        control, answers = directory / "control.json", directory / "answers.jsonl"
        control.write_text(json.dumps({"*": {"latency_ms": options.answer_ms}}))
        command = [
            sys.executable,
            "-m",
            "power_collector",
            "simulate",
            "--config",
            str(directory / "room.toml"),
        ]
        command += ["--log-answers", str(answers), "--control", str(control)]
        room = stack.enter_context(subprocess.Popen(command))
        stack.callback(room.send_signal, signal.SIGTERM)
        for device in config.devices:
            _wait_for(device.port, room)
        result = asyncio.run(measure(config, options.cycles, answers))
    # The hub's four requests follow each other; the rest is connecting and our own work.
    limit_ms = 4 * options.answer_ms + 30
    rows = [
        ("requests to the hub a cycle", result["requests_hub"], 4.0),
        ("requests to the chargers a cycle", result["requests_chargers"], 6.0),
        ("median cycle, ms", result["median_ms"], limit_ms),
        ("95th percentile, ms", result["p95_ms"], None),
        ("CPU a cycle, ms", result["cpu_ms"], 8.0),
    ]
    kept = True
    for name, value, most in rows:
        ok = most is None or value <= most
        kept = kept and ok
        promise = "" if most is None else f"at most {most:g}{'' if ok else '  NOT KEPT'}"
        sys.stdout.write(f"{name:<34}{value:>8.2f}  {promise}\n")
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
