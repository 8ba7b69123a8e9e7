"""Live table of the running collector, drawn from its `latest.json`."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from power_collector import latest, summary
from power_collector.config import Config

HISTORY = 60
"""So many cycles are drawn."""

_SVG_WIDTH = 110
_BARS = "▁▂▃▄▅▆▇█"
_CLOCK_SOURCES = ("none yet", "synchronised", "the MATE3s", "unverified")
# measurement, field, what people call it, unit, decimals
_CURVES = (
    ("solar_charger_partial", "power_kw", "chargers", "kW", 2),
    ("power_room_totals", "total_load_power_kw", "load", "kW", 1),
    ("power_room_totals", "battery_voltage", "battery", "V", 1),
)

Cycle = Mapping[str, Any]
"""What `latest.load` returns."""


class Screen:
    """The newest cycle and a short history of those that were seen before it."""

    def __init__(self, directory: Path) -> None:
        """Look at the `latest.json` in this directory."""
        self._directory = directory
        self._cycles: deque[Cycle] = deque(maxlen=HISTORY)

    def look(self) -> None:
        """Take the newest cycle.

        Raises:
            NoCycleError: see `latest.load`; what was seen before stays.
        """
        cycle = latest.load(self._directory)
        if self._cycles and self._cycles[-1]["time"] == cycle["time"]:
            self._cycles.pop()
        self._cycles.append(cycle)

    def view(self, now: float) -> Group:
        """Return what is drawn, after a look. `now` in seconds since 1970."""
        cycle = self._cycles[-1]
        return Group(_devices(cycle, now), _totals(cycle), *_curves(self._cycles), *_collector(cycle, now))


def check_devices(directory: Path, config: Config) -> None:
    """Make sure that the running collector has the devices of a configuration.

    Raises:
        NoCycleError: it has others, or see `latest.load`.
    """
    running = {(device["name"], device["address"]) for device in latest.load(directory)["devices"]}
    wanted = {(device.name, f"{device.host}:{device.port}") for device in config.devices}
    if running != wanted:
        differing = ", ".join(sorted({name for name, _ in running ^ wanted}))
        raise latest.NoCycleError(
            f"the collector that writes {directory / latest.NAME} has another configuration: they differ"
            f" in {differing}; restart it (`systemctl restart power`), or watch it without --config"
        )


def _devices(cycle: Cycle, now: float) -> Table:
    drawn = Table(title="Power room", title_justify="left")
    for column in ("device", "state", "last reading", "answered in", "values"):
        drawn.add_column(column)
    rows = summary.rows(cycle["devices"], cycle["points"])
    for device, row in zip(cycle["devices"], rows, strict=True):
        read_s = device["age_s"]
        drawn.add_row(
            device["name"],
            Text("up", style="green") if device["up"] else Text("down", style="red"),
            "never" if read_s is None else f"{max(read_s + latest.age_s(cycle, now), 0):.0f} s ago",
            "" if device["response_ms"] is None else f"{device['response_ms']:.0f} ms",
            ", ".join(f"{label} {value}" for label, value in row.values)
            or Text(device["error"] or "", style="dim"),
        )
    return drawn


def _fields(cycle: Cycle, measurement: str) -> Mapping[str, Any]:
    """Return the fields of a measurement that has one point a cycle, none where it has no point."""
    return next((point["fields"] for point in cycle["points"] if point["measurement"] == measurement), {})


def _totals(cycle: Cycle) -> Text:
    chargers, status = _fields(cycle, "solar_charger_partial"), _fields(cycle, "collector_status")
    up = [device["up"] for device in cycle["devices"]]
    line = Text()
    for name, read, expected in (
        ("devices", sum(up), len(up)),
        ("chargers", chargers.get("read"), chargers.get("expected")),
        ("inverters", status.get("inverters_read"), status.get("inverters_expected")),
    ):
        if expected:
            line.append(", " if line else "")
            line.append(f"{name} {read} of {expected}", style="" if read == expected else "bold red")
    return line


def _curves(cycles: Sequence[Cycle] | deque[Cycle]) -> Iterable[Text]:
    for measurement, field, name, unit, decimals in _CURVES:
        values = [_fields(cycle, measurement).get(field) for cycle in cycles]
        known = [value for value in values if value is not None]
        if known:
            now = "-" if values[-1] is None else f"{values[-1]:.{decimals}f}"
            span = f"{min(known):.{decimals}f} to {max(known):.{decimals}f} {unit}"
            yield Text(f"{name:<9} {now:>6} {unit:<3} {sparkline(values)}  {span}")


def sparkline(values: Sequence[float | None]) -> str:
    """Return a bar a value between the least and the greatest of them, a gap where there is none."""
    known = [value for value in values if value is not None]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
    return "".join(
        " " if value is None else _BARS[round((value - low) / span * (len(_BARS) - 1)) if span else 0]
        for value in values
    )


def _collector(cycle: Cycle, now: float) -> Iterable[Text]:
    counters = cycle["counters"]
    line = Text(
        f"{len(cycle['points'])} points {latest.age_s(cycle, now):.0f} s ago; "
        f"{counters['stored_points']} wait or are stored, {counters['dropped_points']} dropped, "
        f"{counters['rejected_points']} rejected"
    )
    if not latest.is_running(cycle, now):
        line.stylize("bold red")
        line.append(": the collector does not run")
    yield line
    clock = cycle["clock"]
    yield Text(_clock(clock["source"], clock["time"], clock["offset_s"]))


def _clock(source: int, at: float | None, offset_s: float | None) -> str:
    words = "clock: " + (_CLOCK_SOURCES[source] if source in range(len(_CLOCK_SOURCES)) else str(source))
    if at is not None:
        words += time.strftime(", %Y-%m-%d %H:%M:%S", time.localtime(at))
    if offset_s is not None:
        words += f", the MATE3s's is {abs(offset_s):.0f} s {'ahead' if offset_s > 0 else 'behind'}"
    return words


def show(directory: Path, *, svg: Path | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
    """Draw the table until Ctrl-C; without a terminal print it once. At the end draw it to `svg`, too.

    Raises:
        NoCycleError: see `latest.load`; at the beginning only, later the last table stays.
        OSError: the picture cannot be written.
    """
    screen = Screen(directory)
    screen.look()
    if sys.stdout.isatty():
        with contextlib.suppress(KeyboardInterrupt):
            _follow(screen, sleep)
    else:
        Console().print(screen.view(time.time()))
    if svg is not None:
        svg.write_text(picture(screen.view(time.time())), encoding="utf-8")


def _follow(screen: Screen, sleep: Callable[[float], None]) -> None:
    with Live(screen.view(time.time()), auto_refresh=False) as live:
        while True:
            sleep(1)
            # While the service is restarted there is no file: the last table stays, its age is drawn.
            with contextlib.suppress(latest.NoCycleError):
                screen.look()
            live.update(screen.view(time.time()), refresh=True)


def picture(view: Group) -> str:
    """Return a view as SVG that loads nothing from elsewhere: rich's own would fetch fonts."""
    console = Console(record=True, file=io.StringIO(), width=_SVG_WIDTH)
    console.print(view)
    drawn = console.export_svg(title="power-collector watch")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
