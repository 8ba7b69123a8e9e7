"""Measures the collector's promises in one run; prints a table, writes bench/results.json.

Usage: python -m bench, from the top of the checkout. Environment: BENCH_MINUTES (2: how long the service
runs steadily; promised are 10), BENCH_ONLY (one of running, crowd, kill), POWER_INFLUXD (a real influxd 2
instead of the substitute). Exit 1 where a promise is not kept.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import platform
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import crowd, database, kill, running
from .promises import Promise, table

RESULTS = Path(__file__).parent / "results.json"
_MEMORY = Path("/dev/shm")


def _machine() -> dict[str, object]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cores": os.cpu_count(),
        "cpu": model.group(1) if model else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def main() -> int:
    """Measure, print, and return 1 where a promise is not kept, else 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.getLogger("power_collector").setLevel(logging.ERROR)  # that the database is away is known
    minutes = float(os.environ.get("BENCH_MINUTES") or 2)
    groups: dict[str, Callable[[Path, Path], Iterator[Promise]]] = {
        "running": lambda folder, memory: running.measure(folder, memory, minutes),
        "crowd": crowd.measure,
        "kill": kill.measure,
    }
    chosen = os.environ.get("BENCH_ONLY")
    promises: list[Promise] = []
    about: dict[str, object] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "minutes": minutes,
        "database": database.kind(),
        "load_before": os.getloadavg(),
    }
    begin = time.monotonic()
    for name, measure in groups.items():
        if chosen in (None, "", name):
            sys.stderr.write(f"== measuring: {name} ...\n")
            memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
            with (
                tempfile.TemporaryDirectory(prefix="power-bench-") as folder,
                tempfile.TemporaryDirectory(prefix="power-bench-", dir=memory) as runtime,
            ):
                promises += measure(Path(folder), Path(runtime))
    about |= {"load_after": os.getloadavg(), "seconds": round(time.monotonic() - begin)}
    RESULTS.write_text(json.dumps({**about, "promises": [p.as_dict() for p in promises]}, indent=1) + "\n")
    sys.stdout.write("\n".join(f"{key}: {_said(value)}" for key, value in about.items()))
    sys.stdout.write(f"\n\n{table(promises)}\n")
    broken = [promise.name for promise in promises if promise.kept is False]
    if broken:
        sys.stdout.write(f"\nNot kept: {'; '.join(broken)}\n")
    return 1 if broken else 0


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    return " ".join(f"{v:.2f}" for v in value) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    sys.exit(main())
