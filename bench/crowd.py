"""250 devices in one cycle: the service on its embedded store."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from power_collector.line_protocol import parse
from power_collector.store import Store

from . import site
from .promises import Promise

DEVICES = 250
_CYCLES = 15
_WARM_UP = 2


def measure(folder: Path, runtime: Path) -> Iterator[Promise]:
    """Measure; `runtime` is a folder in memory."""
    path = folder / "config.toml"
    store = folder / "store.sqlite"
    config = site.write_configuration(path, store=store, interval_s=1, chargers=DEVICES - 1)
    with site.room(config, path, log=False), site.service(path, runtime) as service:
        site.wait_until("the first cycle", lambda: service.latest() is not None, 20)
        time.sleep(_CYCLES)
    with Store(store, max_mb=config.store.max_mb, max_age_days=config.store.max_age_days) as opened:
        points = [parse(line) for batch in opened.batches() for line in batch.lines()]
    warm = sorted({p.time for p in points})[_WARM_UP:]
    steady = [p for p in points if p.time >= warm[0]]
    cycles = [p.fields["cycle_ms"] / 1000 for p in steady if p.measurement == "collector_status"]
    silent = sum(not p.fields["up"] for p in steady if p.measurement == "device_status")
    yield Promise(
        f"{DEVICES} devices in one cycle",
        statistics.median(cycles),
        0.5,
        "s",
        f"median of {len(cycles)} cycles, 20 ms an answer; from {min(cycles):.3f} to {max(cycles):.3f} s",
    )
    yield Promise(f"{DEVICES} devices: polls without an answer", silent, 0)
