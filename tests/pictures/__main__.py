"""`python -m tests.pictures GRAFANA_HOME [--out DIR] [--only PART]`: photograph, check, measure."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from power_collector.contract import Point
from tests.grafana.influxql import Database
from tests.grafana.provisioned import RANCH, Provisioned
from tests.grafana.room import Room, of_device, with_values, without_backup
from tests.vendor.servers import Server

from . import alarms, month
from .browser import Browser, BrowserError, chromium
from .measure import measure
from .servers import StartError, database, grafana, version

OUT = Path(__file__).parents[2] / "docs/images"
SIZES = ((800, 480), (1024, 600), (390, 844), (1440, 900))
KIOSK_SIZES = SIZES[:2]
HOME = "power_room"


@dataclass(frozen=True)
class Situation:
    """What is photographed: which dashboards at which sizes. `told` must stand on the home page."""

    name: str
    room: Callable[[], Room]
    told: str
    dashboards: tuple[str, ...] = (HOME,)
    sizes: tuple[tuple[int, int], ...] = ((800, 480),)
    stops_s: int = 0
    """Seconds before now at which the data end; negative: there are none at all."""
    days: int = 0


def room(**values: Any) -> Room:
    """Make the ranch's room; the seed is one of a day with sun and clouds."""
    return Room(RANCH["power_room_devices"], RANCH["power_room_inverters"], **{"seed": 3, **values})


SITUATIONS = (
    Situation("noon", lambda: room(hour=12.5), "All is well", dashboards=(), sizes=SIZES, days=30),
    Situation("night", lambda: room(hour=22.5), "All is well", sizes=((800, 480), (390, 844))),
    Situation(
        "charger_silent",
        lambda: room(hour=12.5, silent=frozenset({"sc3"})),
        "sc3 does not answer",
        dashboards=(HOME, "power_devices"),
    ),
    Situation(
        "charger_quiet",
        lambda: room(hour=12.5, silent=frozenset({"sc3"}), silent_s=200),
        "sc3 does not answer at the moment: wait ten minutes",
    ),
    Situation("no_backup", lambda: room(hour=12.5, change=without_backup), "none yet"),
    Situation(
        "battery_low",
        lambda: room(hour=5.5, change=with_values("power_room_totals", battery_voltage=47.4)),
        "Battery low: use less",
        sizes=((800, 480), (390, 844)),
    ),
    Situation(
        "charger_fault",
        lambda: room(hour=12.5, change=of_device("sc2", faults=0b100_000_100, alarms=1 << 17)),
        "sc2 has a fault",
        dashboards=(HOME, "power_devices"),
    ),
    Situation("stale", lambda: room(hour=12.5), "No readings for 2 minutes", stops_s=600),
    Situation("empty", lambda: room(hour=12.5), "No readings for 2 minutes", dashboards=(), stops_s=-1),
)

# What a page holds that should not be there; panels below the screen are not drawn before they are scrolled to.
READY = """(() => {
  const panels = [...document.querySelectorAll('.react-grid-item')];
  const seen = panels.filter(p => p.getBoundingClientRect().top < innerHeight && p.getBoundingClientRect().height > 0);
  return seen.length > 1 && !document.querySelector('.panel-loading, [aria-label="Panel loading bar"]')
    && seen.every(p => p.querySelector('.panel-content')?.childElementCount > 0)
    && !document.body.innerText.includes('Loading');
})()"""
ERRORS = """[...document.querySelectorAll('.panel-info-corner--error, [data-testid="data-testid Panel status error"], .alert-error')]
  .map(e => e.closest('.react-grid-item')?.innerText || e.innerText)"""
SCROLL = "(() => { const v = document.querySelector('.scrollbar-view'); return v ? v.scrollHeight - v.clientHeight : 0; })()"
HEIGHT = "(() => { const v = document.querySelector('.scrollbar-view'); return v ? v.scrollHeight : innerHeight; })()"
TEXT = "document.body.innerText"


class Live:
    """A room whose readings go on arriving while pictures are taken."""

    def __init__(self, of: Room, situation: Situation) -> None:
        self._cycles = of.cycles(days=situation.days)
        self._stops_s = situation.stops_s
        self._next: tuple[int, list[Point]] | None = None if situation.stops_s < 0 else next(self._cycles)

    def arrived(self) -> Iterator[Point]:
        """Yield what came since the last call."""
        while self._next is not None and self._next[0] <= time.time() - self._stops_s:
            yield from self._next[1]
            self._next = next(self._cycles)


@contextmanager
def running(home: Path, situation: Situation) -> Iterator[tuple[Server, Provisioned, Database, Live]]:
    """Run database and Grafana in a situation."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        now = situation.room()
        live = Live(now, situation)
        into, influxdb = stack.enter_context(database(folders[0], now.now, live.arrived()))
        server, made = stack.enter_context(
            grafana(
                home,
                folders[1],
                influxdb,
                power_room_timezone=now.timezone,
                grafana_address="http://power.local:3000",
            )
        )
        into.write(live.arrived())
        yield server, made, into, live


def look(browser: Browser, server: Server, uid: str, size: tuple[int, int]) -> tuple[float, list[str]]:
    """Open a dashboard; give the seconds to its first whole paint and what is wrong with it."""
    browser.resize(*size)
    browser.open("about:blank")
    began = time.monotonic()
    browser.open(f"http://127.0.0.1:{server.port}/d/{uid}?kiosk")
    whole = browser.wait(READY, 60)
    seconds = time.monotonic() - began
    faults = [] if whole else ["is not drawn whole within 60 s"]
    faults += [f"shows an error: {' '.join(str(text).split())}" for text in browser.run(ERRORS)]
    if uid == HOME and size in KIOSK_SIZES and (beyond := browser.run(SCROLL)) > 0:
        faults.append(f"scrolls by {beyond} pixels")
    return seconds, faults


def photograph(browser: Browser, home: Path, out: Path, situation: Situation) -> list[str]:
    """Take the pictures of a situation; give what is wrong."""
    faults = []
    with running(home, situation) as (server, made, into, live):
        for uid in situation.dashboards or tuple(made.dashboards):
            for size in situation.sizes:
                into.write(live.arrived())
                seconds, found = look(browser, server, uid, size)
                text = str(browser.run(TEXT))
                if uid == HOME and situation.told not in text:
                    found.append(f"does not say {situation.told!r}")
                if not situation.stops_s and "no data" in text.lower():
                    found.append("says no data with data there")
                if situation.stops_s and uid == HOME and text.count("no data") < 5:
                    found.append("shows values that are too old")
                name = f"{situation.name}-{uid.removeprefix('power_')}-{size[0]}x{size[1]}.png"
                browser.picture(out / name)
                print(f"{name:45} {seconds:5.2f} s  {'; '.join(found) or 'good'}", flush=True)
                faults += [f"{name}: {fault}" for fault in found]
        if situation.days:
            measure(server, made)
            first_paint(browser, server)
        print(f"Grafana {version(server)}, on {Path(os.environ.get('INFLUXD', 'the substitute')).name}")
    return faults


def first_paint(browser: Browser, server: Server) -> None:
    """Print how long the home page takes until all of it is drawn, warm."""
    paints = [look(browser, server, HOME, (1440, 900))[0] * 1000 for _ in range(7)]
    print(
        f"first paint of the home page, warm: median {statistics.median(paints):.0f} ms,"
        f" {min(paints):.0f} to {max(paints):.0f} ms"
    )


def main() -> int:
    """Run; 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("home", type=Path, help="folder of Grafana: bin/, conf/, public/")
    parser.add_argument("--out", type=Path, default=OUT, help="where the pictures go (docs/images)")
    parser.add_argument(
        "--only", choices=[*(s.name for s in SITUATIONS), "alarms", "month"], help="one part alone"
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    try:
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
            chromium(Path(profile)) as browser,
        ):
            for situation in SITUATIONS:
                if given.only in (None, situation.name):
                    faults += photograph(browser, given.home, given.out, situation)
        if given.only in (None, "alarms"):
            faults += alarms.run(given.home)
        if given.only == "month":
            month.run(given.home)
    except (BrowserError, StartError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(["", "wrong:", *faults] if faults else ["", "nothing is wrong"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
