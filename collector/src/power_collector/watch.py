"""Live table of the running collector, drawn from its `latest.json`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from power_collector import latest, summary
from power_collector.config import Config

DEFAULT_DIRECTORY = Path("/run/power-collector")


class NothingToWatchError(Exception):
    """There is no running collector to look at; the message says what to do."""


def load(directory: Path) -> dict[str, Any]:
    """Return the collector's last cycle.

    Raises:
        NothingToWatchError: there is no file, or it is none of ours.
    """
    path = directory / latest.NAME
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NothingToWatchError(
            f"{path} cannot be read ({error}): the collector has not made a cycle yet, or it does not run; "
            "see `systemctl status power`"
        ) from None
    if not isinstance(table, dict) or "points" not in table:
        raise NothingToWatchError(f"{path} was not written by a collector")
    return table


def check_devices(directory: Path, config: Config) -> None:
    """Make sure that the running collector has the devices of a configuration.

    Raises:
        NothingToWatchError: it has others, or see `load`.
    """
    running = {(device["name"], device["address"]) for device in load(directory)["devices"]}
    wanted = {(device.name, f"{device.host}:{device.port}") for device in config.devices}
    if running != wanted:
        differing = ", ".join(sorted({name for name, _ in running ^ wanted}))
        raise NothingToWatchError(
            f"the collector that writes {directory / latest.NAME} has another configuration: they differ"
            f" in {differing}; restart it (`systemctl restart power`), or watch it without --config"
        )


def view(table: Mapping[str, Any], now: float) -> Group:
    """Return what is drawn: a row a device, and a line on the collector. `now` in seconds since 1970."""
    drawn = Table(title="Power room", title_justify="left")
    for column in ("device", "state", "answered in", "values"):
        drawn.add_column(column)
    rows = summary.rows(table["devices"], table["points"])
    for device, row in zip(table["devices"], rows, strict=True):
        drawn.add_row(
            device["name"],
            Text("up", style="green") if device["up"] else Text(_down(device), style="red"),
            "" if device["response_ms"] is None else f"{device['response_ms']:.0f} ms",
            ", ".join(f"{label} {value}" for label, value in row.values)
            or Text(device["error"] or "", style="dim"),
        )
    # By the machine's clock, which need not be the one that the points' times come from.
    age_s = now - table["clock"]["system_time"]
    counters = table["counters"]
    line = Text(
        f"{len(table['points'])} points {age_s:.0f} s ago; {counters['stored_points']} wait or are stored, "
        f"{counters['dropped_points']} dropped, {counters['rejected_points']} rejected"
    )
    if age_s > 3 * table["interval_s"] + 5:
        line.stylize("bold red")
        line.append(": the collector does not run")
    return Group(drawn, line)


def _down(device: Mapping[str, Any]) -> str:
    return "down" if device["age_s"] is None else f"down for {device['age_s']:.0f} s"


def show_once(directory: Path, console: Console | None = None) -> None:
    """Print the table.

    Raises:
        NothingToWatchError: see `load`.
    """
    (console or Console()).print(view(load(directory), time.time()))


def show(directory: Path, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Draw the table until Ctrl-C; without a terminal print it once.

    Raises:
        NothingToWatchError: see `load`; at the beginning only, later the last table stays.
    """
    if not sys.stdout.isatty():
        show_once(directory)
        return
    table = load(directory)
    try:
        with Live(view(table, time.time()), auto_refresh=False) as live:
            while True:
                sleep(1)
                # While the service is restarted there is no file: the last table stays, its age is drawn.
                with contextlib.suppress(NothingToWatchError):
                    table = load(directory)
                live.update(view(table, time.time()), refresh=True)
    except KeyboardInterrupt:
        return
